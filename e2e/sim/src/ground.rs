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
    event::{Pseudonym, Time},
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
    /// Whose it is, if that can be read.
    pub user: Option<Pseudonym>,
    /// Its source and what was sent, as the oracle may read it: what is from the future by the clock of whoever receives it
    /// says so itself.
    pub source: String,
    pub line: String,
}

/// The pipeline of every world.
pub const PIPELINE: &str = include_str!("pipeline.yaml");
/// Beyond what any source believes.
const FAR_FUTURE_MS: u64 = 5_000_000_000_000;
/// Without `maxAhead` of its own, a source believes so much.
const MAX_AHEAD_MS: u64 = 300_000;
/// Event time at tick 0.
const BEGIN_MS: u64 = 1_700_000_000_000;
/// Event time passes so much faster than ticks.
const MS_PER_TICK: u64 = 1_000;
/// After so many ticks there may be a night in which nothing happens anywhere.
const NIGHT_AT_TICK: u64 = 700;

fn unix_ms(tick: u64, night_ms: u64) -> u64 {
    BEGIN_MS + tick * MS_PER_TICK + if tick < NIGHT_AT_TICK { 0 } else { night_ms }
}

/// What people's clocks say.
pub fn time(tick: u64, night_ms: u64) -> Time {
    Time((unix_ms(tick, night_ms) * 1_000) as i64)
}

/// How long a world's night is, if it has one.
pub fn night_ms(seed: u64) -> u64 {
    let mut rng = Rng::new(seed ^ 0x219);
    if rng.per_mille(500) { 1_800_000 + rng.below(43_200_000) } else { 0 }
}

impl Ground {
    pub fn new() -> Result<Self, GroundError> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("pipeline.yaml");
        fs::write(&file, PIPELINE)?;
        fs::write(folder.path().join("keys.txt"), format!("k1: {}", "5a".repeat(16)))?;
        let pipeline = Pipeline::load(&file, &BTreeMap::new())?;
        let mut registry = Registry::default();
        let sources = pipeline.spec().sources.iter().zip(&pipeline.locations);
        let partitions = sources.map(|(s, at)| registry.resolve(&s.name, at, 1)).collect::<Result<_, _>>()?;
        let configuration = Configuration::first_of(&pipeline);
        Ok(Self { pipeline, configuration, partitions })
    }

    /// What people do until `ticks`, and what becomes of it on the way: client retries, late and broken records, clocks
    /// that are ahead.
    pub fn tape(&self, seed: u64, ticks: u64, events: u64) -> Result<Vec<Coming>, PlanError> {
        let (rng, night_ms) = (&mut Rng::new(seed ^ 0x7a9e), night_ms(seed));
        let mut scribe = Scribe { ground: self, night_ms, decoders: Vec::new(), tape: Vec::new() };
        let max_skew = self.pipeline.validated.max_skew();
        for source in 0..self.partitions.len() {
            let (_, decoder) =
                self.pipeline.plan.ingest(self.pipeline.spec(), source, max_skew, &self.pipeline.keys)?;
            scribe.decoders.push(decoder);
        }
        for n in 0..events {
            let tick = n * ticks / events;
            let made = Made::new(rng, n, unix_ms(tick, night_ms));
            scribe.write(usize::from(rng.per_mille(300)), tick, &made, &made.text(rng));
            if rng.per_mille(60) {
                let later = (tick + rng.below(40)).min(ticks);
                scribe.write(usize::from(rng.per_mille(300)), later, &made, &made.text(rng));
            }
        }
        scribe.tape.sort_by_key(|coming| coming.tick);
        Ok(scribe.tape)
    }
}

/// Writes records as the HTTP source does.
struct Scribe<'g> {
    ground: &'g Ground,
    night_ms: u64,
    decoders: Vec<Decoder>,
    tape: Vec<Coming>,
}

impl Scribe<'_> {
    fn write(&mut self, source: usize, tick: u64, made: &Made, text: &str) {
        let mut decoded = Decoded::default();
        self.decoders[source].decode(text.as_bytes(), Place { partition: 0, row: 0 }, &mut decoded);
        let partitions = &self.ground.partitions[source];
        let user = decoded.events.first().map(|event| event.user);
        let partition = user.map_or(0, |user| partition_of(user, partitions.len() as u32));
        let received = time(tick, self.night_ms);
        let mut bytes = Vec::new();
        record::write(&decoded, received, &mut bytes);
        let is_future = made.ts > unix_ms(tick, self.night_ms) + MAX_AHEAD_MS;
        let line = match is_future {
            true => text.replace(&format!("\"ts\":{}", made.ts), &format!("\"ts\":{FAR_FUTURE_MS}")),
            false => text.to_owned(),
        };
        let source = self.ground.pipeline.spec().sources[source].name.clone();
        let partition = logs::http(&source, partition as u32);
        self.tape.push(Coming { tick, partition, bytes, user, source, line });
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
    /// `now`: in ms since 1970.
    fn new(rng: &mut Rng, n: u64, now: u64) -> Self {
        let behind = match rng.below(20) {
            0 => rng.below(180_000), // late
            1..=9 => rng.below(15_000),
            _ => 0,
        };
        let ahead = if rng.per_mille(10) { 3_600_000 } else { 0 };
        let ts = now + ahead - behind;
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
