//! What a world stands on: the pipeline in all its generations, compiled, and the partitions of its sources. And what the
//! sources will hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    path::Path,
};

use millrace::{
    configuration::Configuration,
    host::logs,
    log::LogPartition,
    pipeline::{Pipeline, PipelineError},
    source::partitions::{Location, Partition, PartitionsError, Registry},
};
use millrace_e2e::rng::Rng;
use millrace_engine::{
    decode::{Decoded, Decoder, Place, record},
    event::{Pseudonym, Time},
    ingest::partition_of,
    plan::{ConfigureError, FIRST_GENERATION, PlanError},
};

use crate::{changes, faults::Faults};

pub struct Ground {
    /// By generation.
    generations: Vec<Generation>,
    pub partitions: Vec<Vec<Partition>>,
    /// Where the file of a source is.
    _folder: tempfile::TempDir,
}

/// The pipeline as of one generation.
pub struct Generation {
    pub pipeline: Pipeline,
    pub configuration: Configuration,
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
    #[error(transparent)]
    Configure(#[from] ConfigureError),
}

/// A record that a source's topic or file will hold.
pub struct Coming {
    /// When it is there.
    pub tick: u64,
    pub partition: LogPartition,
    /// Of a topic; a file gets the line.
    pub bytes: Vec<u8>,
    /// Whose it is, if that can be read.
    pub user: Option<Pseudonym>,
    /// Its source and what was sent, as the oracle may read it: what is from the future by the clock of whoever receives it
    /// says so itself.
    pub source: String,
    pub line: String,
}

/// The pipeline of every world, to begin with.
pub const PIPELINE: &str = include_str!("pipeline.yaml");
const NEVER_IDLE: &str = "idleAfter: 1h";
const SOON_IDLE: &str = "idleAfter: 10ms";
/// The file of the source that is one, if any is.
pub const FILE: &str = "app.jsonl";
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

/// So many people do something.
const USERS: u64 = 9;
/// Of what they do, by its number: a click.
const A_CLICK: u64 = 84;

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
    /// Of worlds in which the pipeline stays as it is.
    pub fn new() -> Result<Self, GroundError> {
        Self::of(&[PIPELINE.to_owned()])
    }

    /// Of a world in which it changes, or in which sources become idle.
    pub fn changing(seed: u64, faults: &Faults) -> Result<Self, GroundError> {
        let texts = changes::pipelines(seed, faults.changes, faults.remapped > 0).into_iter();
        let soon_idle = |text: String| if faults.idle > 0 { text.replace(NEVER_IDLE, SOON_IDLE) } else { text };
        Self::of(&texts.map(soon_idle).collect::<Vec<_>>())
    }

    fn of(texts: &[String]) -> Result<Self, GroundError> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("pipeline.yaml");
        fs::write(folder.path().join("keys.txt"), format!("k1: {}", "5a".repeat(16)))?;
        fs::write(folder.path().join(FILE), "")?;
        let mut generations: Vec<Generation> = Vec::new();
        for text in texts {
            fs::write(&file, text)?;
            let pipeline = Pipeline::load(&file, &BTreeMap::new())?;
            let spec_of = |generation: &Generation| generation.configuration.spec.clone();
            let earlier: Vec<String> = generations.iter().map(spec_of).collect();
            let earlier: Vec<&str> = earlier.iter().map(String::as_str).collect();
            let last = pipeline.validated.result_digest_text();
            let configuration = Configuration::new(last, &earlier, &pipeline.plan)?;
            generations.push(Generation { pipeline, configuration });
        }
        let mut ground = Self { generations, partitions: Vec::new(), _folder: folder };
        let (mut registry, pipeline) = (Registry::default(), ground.pipeline());
        let sources = pipeline.spec().sources.iter().zip(&pipeline.locations);
        ground.partitions = sources.map(|(s, at)| registry.resolve(&s.name, at, 1)).collect::<Result<_, _>>()?;
        Ok(ground)
    }

    /// As of a generation.
    pub fn at(&self, generation: u32) -> &Generation {
        &self.generations[(generation - FIRST_GENERATION) as usize]
    }

    /// Of the first generation.
    pub fn pipeline(&self) -> &Pipeline {
        &self.generations[0].pipeline
    }

    pub fn newest(&self) -> u32 {
        FIRST_GENERATION + self.generations.len() as u32 - 1
    }

    /// Names of the models of each generation.
    pub fn models(&self) -> Vec<BTreeSet<String>> {
        let names = |g: &Generation| g.pipeline.plan.models.iter().map(|model| model.name.clone()).collect();
        self.generations.iter().map(names).collect()
    }

    /// The source whose only partition is a file, and that file.
    pub fn file(&self) -> Option<(usize, &Path)> {
        self.partitions.iter().enumerate().find_map(|(source, partitions)| match &partitions.first()?.location {
            Location::File(path) => Some((source, path.as_path())),
            _ => None,
        })
    }

    /// The file grows by a line.
    pub fn write_to_file(&self, line: &str) {
        let file = self.file().and_then(|(_, path)| fs::OpenOptions::new().append(true).open(path).ok());
        // A file that cannot be written lacks what is looked for in the end.
        let _ = file.map(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }

    /// What people do until `ticks`, and what becomes of it on the way: client retries, late and broken records, clocks
    /// that are ahead.
    pub fn tape(&self, seed: u64, ticks: u64, events: u64) -> Result<Vec<Coming>, PlanError> {
        let (rng, night_ms) = (&mut Rng::new(seed ^ 0x7a9e), night_ms(seed));
        let mut scribe = Scribe { ground: self, night_ms, decoders: Vec::new(), tape: Vec::new() };
        let pipeline = self.pipeline();
        let max_skew = pipeline.validated.max_skew();
        let of_file = self.file().map(|(source, _)| source);
        for source in 0..self.partitions.len() {
            let (_, decoder) = pipeline.plan.ingest(pipeline.spec(), source, max_skew, &pipeline.keys)?;
            scribe.decoders.push(decoder);
        }
        // Most of it goes to the file, if there is one.
        let of_second = if of_file.is_some() { 700 } else { 300 };
        for n in 0..events {
            let tick = n * ticks / events;
            let mut made = Made::new(rng, n, unix_ms(tick, night_ms));
            if of_file.is_some() {
                // Nobody judges by its own clock what a file says of the future.
                made.ts = made.ts.min(unix_ms(tick, night_ms));
            }
            scribe.write(usize::from(rng.per_mille(of_second)), tick, &made, &made.text(rng));
            if rng.per_mille(60) {
                let later = (tick + rng.below(40)).min(ticks);
                scribe.write(usize::from(rng.per_mille(of_second)), later, &made, &made.text(rng));
            }
        }
        // Without a last word of each partition, one that fell silent early may hold the others back for good, and rightly.
        for (source, user) in (0..self.partitions.len()).flat_map(|source| (0..USERS).map(move |user| (source, user))) {
            let n = events + source as u64 * USERS + user;
            let last = Made { kind: A_CLICK, n, user, item: 0, ts: unix_ms(ticks, night_ms) };
            scribe.write(source, ticks, &last, &last.text(rng));
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
        let source = self.ground.pipeline().spec().sources[source].name.clone();
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
        Self { kind: rng.below(100), n, user: rng.below(USERS), item: rng.below(6), ts }
    }

    fn text(&self, rng: &mut Rng) -> String {
        let Self { kind, n, user, item, ts } = self;
        let body = match kind {
            0..12 => r#""type":"consent","ok":true"#.to_owned(),
            12..16 => r#""type":"consent","ok":false"#.to_owned(),
            16..55 => format!(r#""type":"shown","skus":["i{item}","i{}"],"decision":"d{}""#, (item + 1) % 6, n / 4),
            55..=A_CLICK => format!(r#""type":"click","sku":"i{item}","cat":"c{}","decision":"d{}""#, item % 3, n / 4),
            ..95 => format!(r#""type":"order","sku":"i{item}","total":{}"#, 1 + n % 50),
            _ => return "{\"user\": ".to_owned() + &"[".repeat(rng.below(9) as usize),
        };
        // Another generation may take another field for the user, and leave bots out.
        let (session, other, bot) = (n / 50, (user + n) % USERS, n % 8 == 0);
        format!(
            r#"{{"user":"u{user}","other":"o{other}","bot":{bot},"id":"e{n}","session":"s{session}","ts":{ts},{body}}}"#
        )
    }
}
