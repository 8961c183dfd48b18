//! A worker: one station, and what it waits for.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use millrace::{
    host::{
        HostError,
        ingest::Shared,
        make::{Maker, outputs_of},
        station::{Cadence, Station},
    },
    log::{Log, LogPartition},
};
use millrace_engine::{control::Configure, frame::Kind, plan::FIRST_GENERATION};
use millrace_lifecycle::{keys::TaskKind, lineage::Claimant, placement::Member};

use crate::{
    ground::{Generation, Ground},
    ledger::Process,
};

pub struct Node<'g> {
    pub member: Member,
    pub zone: String,
    pub template: String,
    pub engine_version: u32,
    /// Rises with every start. What was on its way for an earlier one is not for this.
    pub life: u64,
    /// Of the pipeline as it was told last, in this life or an earlier one.
    pub generation: u32,
    /// Likewise: up to which profile tasks are told.
    pub profiles: u32,
    pub work: Option<Work<'g>>,
    /// It stands still until then, and what comes in waits.
    pub paused_until: u64,
    pub draining: bool,
    /// It hears nothing, and is not heard, until then.
    pub deaf_until: u64,
    pub mute_until: u64,
    /// What people call the time, there.
    pub clock_ahead_ms: i64,
}

/// What is appended at once.
pub type Frames = Vec<(LogPartition, Vec<u8>)>;

/// What is lost with a crash.
pub struct Work<'g> {
    pub station: Station,
    pub maker: Maker<'g>,
    pub claimant: Claimant,
    /// Batches that wait for the one before.
    pub outbound: VecDeque<(u64, Frames)>,
    pub is_appending: bool,
}

/// Of every world.
pub const PIPELINE: &str = "sim";

impl<'g> Node<'g> {
    pub fn new(number: usize, engine_version: u32) -> Self {
        Self {
            member: Member::new(format!("shard-{number}"), "0"),
            zone: format!("zone-{}", number % 2),
            template: "t0".to_owned(),
            engine_version,
            life: 0,
            generation: FIRST_GENERATION,
            profiles: FIRST_GENERATION,
            work: None,
            paused_until: 0,
            draining: false,
            deaf_until: 0,
            mute_until: 0,
            clock_ahead_ms: 0,
        }
    }

    /// What it is called in manifests, in this life.
    pub fn process(&self, life: u64) -> Process {
        format!("{}/{life}", self.member.shard)
    }

    /// The pipeline is another one: tasks are told by their logs, those that read sources directly.
    pub fn learn(&mut self, ground: &'g Ground, (generation, profiles): (u32, u32)) -> Result<(), HostError> {
        let is_new = generation > self.generation;
        (self.generation, self.profiles) = (generation.max(self.generation), profiles.max(self.profiles));
        let Some(Work { station, maker: of, .. }) = &mut self.work else { return Ok(()) };
        station.configure(TaskKind::Profile, configure(ground, self.profiles));
        if !is_new {
            return Ok(());
        }
        station.configure(TaskKind::Model, configure(ground, generation));
        *of = maker(ground, generation, of.log.clone(), of.shared.clone());
        station.seats.iter_mut().try_for_each(|seat| of.teach(&seat.id, &mut seat.task))
    }

    pub fn start(&mut self, ground: &'g Ground, log: Arc<dyn Log>) {
        self.life += 1;
        self.member.incarnation = self.life.to_string();
        let Generation { pipeline, .. } = ground.at(self.generation);
        let plan = &pipeline.plan;
        let (outputs, kinds): (Vec<LogPartition>, Vec<Kind>) = outputs_of(plan, std::iter::empty());
        let checkpoints = &pipeline.spec().checkpoints;
        let cadence = Cadence {
            frame_bytes: 400,
            flush_every: Duration::from_millis(3),
            checkpoint_every: Duration::from_micros(checkpoints.interval.as_micros().max(0) as u64),
            retain_ms: 100,
            // Both ways of releasing a task.
            release_at_once_bytes: if self.life.is_multiple_of(2) { u64::MAX } else { 0 },
            generation: self.generation,
            spec_digest: 0,
        };
        let shared = Shared::new(&ground.partitions, None);
        let owner = self.process(self.life);
        let mut station = Station::new(outputs, &kinds, log.clone(), cadence);
        station.configure(TaskKind::Model, configure(ground, self.generation));
        station.configure(TaskKind::Profile, configure(ground, self.profiles));
        self.work = Some(Work {
            station,
            maker: maker(ground, self.generation, log, shared),
            claimant: Claimant { pipeline: PIPELINE.to_owned(), owner, engine_version: self.engine_version },
            outbound: VecDeque::new(),
            is_appending: false,
        });
    }
}

fn configure(ground: &Ground, generation: u32) -> Configure {
    Configure { generation, spec: ground.at(generation).configuration.spec.clone() }
}

/// Makes tasks as a generation of the pipeline has them.
pub fn maker(ground: &Ground, generation: u32, log: Arc<dyn Log>, shared: Arc<Shared>) -> Maker<'_> {
    let Generation { pipeline, configuration } = ground.at(generation);
    let partitions = &ground.partitions;
    Maker { pipeline, configuration, partitions, log, fetcher: None, shared, until_end: false, read_order: None }
}

/// Is this what a store or another owner may do to us, or a bug?
pub fn is_expected(error: &HostError) -> bool {
    use millrace_lifecycle::lineage::LineageError::{EngineVersion, Fenced, Store};
    matches!(error, HostError::Lineage { cause: Store(_) | Fenced { .. } | EngineVersion { .. }, .. })
}
