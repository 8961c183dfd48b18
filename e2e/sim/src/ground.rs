//! What does not change: the pipeline, compiled, and the partitions of its sources. And what the sources will hold.

use std::{collections::BTreeMap, fs, io};

use millrace::{
    configuration::Configuration,
    host::logs,
    log::LogPartition,
    pipeline::{Pipeline, PipelineError},
    source::partitions::{Partition, PartitionsError, Registry},
};
use millrace_e2e::rng::Rng;
use millrace_engine::{
    decode::{Decoded, Decoder, Place, record},
    event::Time,
    ingest::partition_of,
    plan::PlanError,
};

pub struct Ground {
    pub pipeline: Pipeline,
    pub configuration: Configuration,
    pub partitions: Vec<Vec<Partition>>,
}

#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    #[error("no place for the pipeline's file: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Partitions(#[from] PartitionsError),
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// A record that a source's topic will hold.
pub struct Coming {
    /// When it is there.
    pub tick: u64,
    pub partition: LogPartition,
    pub bytes: Vec<u8>,
}

/// Event time at tick 0.
const BEGIN_MS: u64 = 1_700_000_000_000;
/// Event time passes so much faster than ticks.
const MS_PER_TICK: u64 = 1_000;

/// What people's clocks say.
pub fn time_at(tick: u64) -> Time {
    Time(((BEGIN_MS + tick * MS_PER_TICK) * 1_000) as i64)
}

impl Ground {
    pub fn new() -> Result<Self, GroundError> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("pipeline.yaml");
        fs::write(&file, include_str!("pipeline.yaml"))?;
        fs::write(folder.path().join("keys.txt"), format!("k1: {}", "5a".repeat(16)))?;
        let pipeline = Pipeline::load(&file, &BTreeMap::new())?;
        let mut registry = Registry::default();
        let sources = pipeline.spec().sources.iter().zip(&pipeline.locations);
        let partitions = sources.map(|(s, at)| registry.resolve(&s.name, at)).collect::<Result<_, _>>()?;
        let configuration = Configuration::first_of(&pipeline);
        Ok(Self { pipeline, configuration, partitions })
    }

    /// What people do until `ticks`, and what becomes of it on the way: client retries, late and broken records, clocks
    /// that are ahead.
    pub fn tape(&self, rng: &mut Rng, ticks: u64, events: u64) -> Result<Vec<Coming>, PlanError> {
        let mut scribe = Scribe { ground: self, decoders: Vec::new(), tape: Vec::new() };
        let max_skew = self.pipeline.validated.max_skew();
        for source in 0..self.partitions.len() {
            let (_, decoder) =
                self.pipeline.plan.ingest(self.pipeline.spec(), source, max_skew, &self.pipeline.keys)?;
            scribe.decoders.push(decoder);
        }
        for n in 0..events {
            let tick = n * ticks / events;
            let made = Made::new(rng, n, tick);
            scribe.write(usize::from(rng.per_mille(300)), tick, &made.text(rng));
            if rng.per_mille(60) {
                let later = (tick + rng.below(40)).min(ticks);
                scribe.write(usize::from(rng.per_mille(300)), later, &made.text(rng));
            }
        }
        scribe.tape.sort_by_key(|coming| coming.tick);
        Ok(scribe.tape)
    }
}

/// Writes records as the HTTP source does.
struct Scribe<'g> {
    ground: &'g Ground,
    decoders: Vec<Decoder>,
    tape: Vec<Coming>,
}

impl Scribe<'_> {
    fn write(&mut self, source: usize, tick: u64, text: &str) {
        let mut decoded = Decoded::default();
        self.decoders[source].decode(text.as_bytes(), Place { partition: 0, row: 0 }, &mut decoded);
        let partitions = &self.ground.partitions[source];
        let user = decoded.events.first().map(|event| event.user);
        let partition = user.map_or(0, |user| partition_of(user, partitions.len() as u32));
        let received = time_at(tick);
        let mut bytes = Vec::new();
        record::write(&decoded, received, &mut bytes);
        let name = &self.ground.pipeline.spec().sources[source].name;
        self.tape.push(Coming { tick, partition: logs::http(name, partition as u32), bytes });
    }
}

/// Something that somebody did.
struct Made {
    kind: u64,
    n: u64,
    user: u64,
    item: u64,
    ts: u64,
}

impl Made {
    fn new(rng: &mut Rng, n: u64, tick: u64) -> Self {
        let behind = match rng.below(20) {
            0 => rng.below(180_000), // late
            1..=9 => rng.below(15_000),
            _ => 0,
        };
        let ahead = if rng.per_mille(10) { 3_600_000 } else { 0 };
        let ts = BEGIN_MS + tick * MS_PER_TICK + ahead - behind;
        Self { kind: rng.below(100), n, user: rng.below(9), item: rng.below(6), ts }
    }

    fn text(&self, rng: &mut Rng) -> String {
        let Self { kind, n, user, item, ts } = self;
        let body = match kind {
            0..12 => r#""type":"consent","ok":true"#.to_owned(),
            12..16 => r#""type":"consent","ok":false"#.to_owned(),
            16..55 => format!(r#""type":"shown","skus":["i{item}","i{}"],"decision":"d{}""#, (item + 1) % 6, n / 4),
            55..85 => format!(r#""type":"click","sku":"i{item}","cat":"c{}","decision":"d{}""#, item % 3, n / 4),
            85..95 => format!(r#""type":"order","sku":"i{item}","total":{}"#, 1 + n % 50),
            _ => return "{\"user\": ".to_owned() + &"[".repeat(rng.below(9) as usize),
        };
        format!(r#"{{"user":"u{user}","id":"e{n}","session":"s{}","ts":{ts},{body}}}"#, n / 50)
    }
}
