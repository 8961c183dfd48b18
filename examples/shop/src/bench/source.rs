//! A source of the pipeline as a worker reads it: decoded at receipt, spread over its partitions, ingested.

use millrace_crds::Validated;
use millrace_engine::{
    decode::{Decoded, Decoder, Place},
    event::{Seq, Time},
    frame::{
        Origin, OriginState,
        outbox::{Handle, Outbox},
    },
    ingest::{Ingest, Input, Position, partition_of},
    plan::Plan,
    privacy::Pseudonymizer,
};

use super::pipeline::{EPOCH, PipelineError};

pub struct Source {
    /// At receipt.
    decoder: Decoder,
    decoded: Decoded,
    partitions: Vec<Partition>,
}

struct Partition {
    origin: Origin,
    ingest: Ingest,
    out: Handle,
}

impl Source {
    /// `outbox`: the events partitions, then dead letters.
    pub fn open(
        name: &'static str,
        spec: &Validated,
        plan: &Plan,
        keys: &Pseudonymizer,
        outbox: &mut Outbox,
    ) -> Result<Self, PipelineError> {
        let sources = &spec.spec().sources;
        let number = sources.iter().position(|s| s.name == name).ok_or(PipelineError::Source(name))?;
        let http = sources[number].http.as_ref().ok_or(PipelineError::Source(name))?;
        let outputs: Vec<usize> = (0..=plan.partitions as usize).collect();
        let (_, decoder) = plan.ingest(spec.spec(), number, spec.max_skew(), keys)?;
        let partition = |partition| {
            let (ingest, decoder) = plan.ingest(spec.spec(), number, spec.max_skew(), keys)?;
            let origin = Origin::of_source(number, partition);
            let out = outbox.register(origin, EPOCH, Seq::START, &outputs);
            let mut ingest = Ingest::new(ingest, origin, decoder, Position::default());
            // As soon as a worker has read all there is of a table, it holds nothing up; there is nothing yet.
            if ingest.is_of_table() {
                ingest.at_end(OriginState::Idle, outbox, &out);
            }
            Ok(Partition { origin, ingest, out })
        };
        let partitions = (0..http.partitions).map(partition).collect::<Result<_, PipelineError>>()?;
        Ok(Self { decoder, decoded: Decoded::default(), partitions })
    }

    pub fn origins(&self) -> impl Iterator<Item = Origin> {
        self.partitions.iter().map(|partition| partition.origin)
    }

    /// A record as it was received at `now`. A user's records all go to the same partition.
    pub fn receive(&mut self, record: &str, now: Time, outbox: &mut Outbox) {
        self.decoder.decode(record.as_bytes(), Place { partition: 0, row: 0 }, &mut self.decoded);
        let user = self.decoded.events.first().map(|event| event.user);
        let at = user.map_or(0, |user| partition_of(user, self.partitions.len() as u32));
        let Partition { ingest, out, .. } = &mut self.partitions[at];
        let input = Input::Decoded { received: now, decoded: &self.decoded };
        // All partitions are read as fast as they are written: none waits for another.
        ingest.read(input, 0, Time::MAX, outbox, out);
    }
}
