//! What is posted: records are decoded and pseudonymised when they are received, and go to a topic of our own log, from
//! which ingest reads them like those of any source. No identity is kept in between.

mod appender;

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use millrace_engine::{
    decode::{Decoded, Decoder, Place, Reason, record},
    event::{ConsentChange, Pseudonym, Time},
    ingest::partition_of,
    plan::PlanError,
};

use self::appender::Appender;
pub use self::appender::NotAppended;
use crate::{
    host::logs,
    log::{Log, LogPartition},
    pipeline::Pipeline,
};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the thread that appends what is posted could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// The sources that are posted to. Cheap to clone; the appending thread ends with the last clone.
#[derive(Clone)]
pub struct Posted {
    sources: Arc<Vec<Source>>,
    appender: Appender,
}

struct Source {
    name: String,
    is_table: bool,
    /// Its partitions, in order.
    topic: Vec<LogPartition>,
    /// There is one: a record takes microseconds.
    decoder: Mutex<(Decoder, Decoded)>,
}

/// Records of one request, without identities: to be appended.
pub struct Batch {
    /// In the request's order.
    pub appends: Vec<(LogPartition, Vec<u8>)>,
    /// Records of which something could not be read, by their place in the request (from 0), with the first reason.
    /// They are appended all the same: what could be read of them counts, and the rest becomes dead letters.
    pub rejected: Vec<(usize, Reason)>,
    /// Who withdraws consent, and the time that the event states.
    pub withdrawn: Vec<(Pseudonym, Time)>,
}

impl Posted {
    /// `wake` is called when something has become durable; `failed` when the log takes no more.
    pub fn start(
        pipeline: &Pipeline,
        log: Arc<dyn Log>,
        wake: Arc<dyn Fn() + Send + Sync>,
        failed: impl Fn() + Send + 'static,
    ) -> Result<(Self, JoinHandle<()>), StartError> {
        let max_skew = pipeline.validated.max_skew();
        let posted = pipeline.spec().sources.iter().enumerate().filter_map(|(n, s)| Some((n, s, s.http.as_ref()?)));
        let source = |(n, source, http): (usize, &millrace_crds::spec::Source, &millrace_crds::spec::HttpSource)| {
            let (_, decoder) = pipeline.plan.ingest(pipeline.spec(), n, max_skew, &pipeline.keys)?;
            let topic = (0..http.partitions).map(|p| logs::http(&source.name, p)).collect();
            Ok(Source {
                name: source.name.clone(),
                is_table: source.table,
                topic,
                decoder: Mutex::new((decoder, Decoded::default())),
            })
        };
        let sources = posted.map(source).collect::<Result<_, PlanError>>()?;
        let (appender, thread) = Appender::start(log, wake, failed)?;
        Ok((Self { sources: Arc::new(sources), appender }, thread))
    }

    /// Names of the sources, in the spec's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.name.as_str())
    }

    /// The place of a source among [`Posted::names`]; without a name, of the only one that is not a table.
    pub fn find(&self, name: Option<&str>) -> Option<usize> {
        let is_meant = |source: &Source| name.map_or(!source.is_table, |name| source.name == name);
        let mut meant = self.sources.iter().enumerate().filter(|(_, source)| is_meant(source));
        let first = meant.next()?.0;
        meant.next().is_none().then_some(first)
    }

    /// Decodes the records of one request, received at `received`. A user's records all go to the same partition.
    pub fn decode<R: AsRef<[u8]>>(&self, source: usize, records: &[R], received: Time) -> Batch {
        let mut batch =
            Batch { appends: Vec::with_capacity(records.len()), rejected: Vec::new(), withdrawn: Vec::new() };
        let Some(source) = self.sources.get(source) else { return batch };
        // A record that made the decoder panic, if there is one, leaves nothing that the next would see.
        let mut decoder = source.decoder.lock().unwrap_or_else(PoisonError::into_inner);
        let (decoder, decoded) = &mut *decoder;
        for (n, bytes) in records.iter().enumerate() {
            // Its place in the topic is not known yet; ingest gives it that.
            decoder.decode(bytes.as_ref(), Place { partition: 0, row: 0 }, decoded);
            batch.rejected.extend(decoded.rejects.first().map(|reject| (n, reject.reason)));
            let withdrawals = decoded.events.iter().filter(|event| event.consent == ConsentChange::Withdraw);
            batch.withdrawn.extend(withdrawals.map(|event| (event.user, event.stated)));
            let user = decoded.events.first().map(|event| event.user);
            let partition = user.map_or(0, |user| partition_of(user, source.topic.len() as u32));
            let mut kept = Vec::new();
            record::write(decoded, received, &mut kept);
            batch.appends.push((source.topic[partition].clone(), kept));
        }
        batch
    }

    /// Appends a batch as a whole; it is durable when this resolves. Dropping the future does not take it back.
    pub async fn append(&self, batch: Batch) -> Result<(), NotAppended> {
        self.appender.append(batch.appends).await
    }
}

#[cfg(test)]
mod tests;
