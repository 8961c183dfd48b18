//! A station driven by hand: what it wants done, and when.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use millrace_lifecycle::{
    keys::{self, FileKind, Named},
    lineage::Claimant,
    placement::{Order, Role},
};

use super::*;
use crate::{
    configuration::Configuration,
    host::{
        ingest::Shared,
        make::{Maker, outputs_of, profile_task},
        tests::{RECEIVED, World, records},
    },
    source::partitions::Partition,
    store::{Outcome, Store, StoreError, memory::MemoryStore},
};

/// A station in a world with one task, and a log that others have written.
struct Stage<'w> {
    station: Station,
    maker: Maker<'w>,
    store: Arc<MemoryStore>,
    log: Arc<dyn Log>,
    claimant: Claimant,
    now: Now,
}

struct Ground {
    world: World,
    configuration: Configuration,
    partitions: Vec<Vec<Partition>>,
}

impl Ground {
    /// Everything is in the events log.
    fn new() -> Self {
        let mut world = World::new(crate::host::tests::PIPELINE);
        world.post(&records(), RECEIVED);
        world.run(3);
        // Profiles have to begin anew.
        let store = MemoryStore::default();
        world.store = Arc::new(store);
        let configuration = Configuration::first_of(&world.pipeline);
        let partitions = world.partitions();
        Self { world, configuration, partitions }
    }

    fn stage(&self, owner: &str) -> Stage<'_> {
        let World { pipeline, log, store, .. } = &self.world;
        let (outputs, kinds) = outputs_of(&pipeline.plan, std::iter::empty());
        let cadence = Cadence {
            frame_bytes: 1 << 20,
            flush_every: Duration::from_millis(5),
            checkpoint_every: Duration::from_millis(100),
            retain_ms: 1_000,
            release_at_once_bytes: 0,
            generation: 1,
            spec_digest: 0,
        };
        let shared = Shared::new(&self.partitions, None);
        let maker = Maker {
            pipeline,
            configuration: &self.configuration,
            partitions: &self.partitions,
            fetcher: None,
            log: log.clone(),
            shared,
            until_end: false,
            read_order: None,
        };
        Stage {
            station: Station::new(outputs, &kinds, log.clone(), cadence),
            maker,
            store: store.clone(),
            log: log.clone(),
            claimant: Claimant { pipeline: "t".into(), owner: owner.into(), engine_version: 1 },
            now: Now::default(),
        }
    }
}

impl Stage<'_> {
    fn obey(&mut self, order: Order) {
        let orders = BTreeMap::from([(profile_task(0), order)]);
        self.station.obey(&orders, &self.claimant, self.now).unwrap();
    }

    /// Does all that the station wants done, but appends: those it gives back.
    fn serve(&mut self) -> Vec<u64> {
        self.take_all();
        let mut tickets = Vec::new();
        while let Some(command) = self.station.command() {
            match command {
                Command::Ask { id, op } => {
                    let answer = self.store.answer(&op);
                    self.station.answered(id, answer, self.now).unwrap();
                }
                Command::Make { id, task, restored } => {
                    self.station.made(id, self.maker.make(&task, restored.as_ref()).unwrap());
                }
                Command::Append { ticket, .. } => tickets.push(ticket),
                Command::LetGo { .. } | Command::Trim { .. } => {}
            }
        }
        tickets
    }

    /// Applies `records` records of the log, and lets time pass until a checkpoint is due.
    fn work(&mut self, records: usize) {
        for _ in 0..records {
            while self.station.step(0, 1 << 20, self.now).unwrap() == Stepped::Worked
                && !self.station.seats[0].task.is_clean()
            {}
        }
        self.now.since_start += Duration::from_millis(200);
        self.now.unix_ms += 200;
        self.station.tick(self.now).unwrap();
        self.take_all();
    }

    /// A state that is being taken is taken to its end.
    fn take_all(&mut self) {
        for at in 0..self.station.seats.len() {
            self.station.take_on(at, usize::MAX).unwrap();
        }
    }

    fn files(&self) -> Vec<(FileKind, u64)> {
        let listed = self.store.list(&keys::task(&profile_task(0))).unwrap();
        let named = listed.into_iter().filter_map(|listed| match keys::parse(&listed.key) {
            Some(Named::File { kind, epoch, .. }) => Some((kind, epoch)),
            _ => None,
        });
        named.collect()
    }

    fn role(&self) -> Role {
        self.station.reports()[&profile_task(0)].role.clone()
    }
}

const OWN: Order = Order::Own { epoch: 1, rolled_back: false };

#[test]
fn a_checkpoint_waits_until_its_effects_are_durable() {
    let ground = Ground::new();
    let mut stage = ground.stage("a");
    stage.obey(OWN);
    assert_eq!(stage.role(), Role::Loads);
    stage.serve();
    assert_eq!(stage.role(), Role::Owns);
    stage.work(1);
    let tickets = stage.serve();
    assert!(!tickets.is_empty());
    assert_eq!(stage.files(), [], "nothing is saved before they are durable");
    stage.station.appended(*tickets.last().unwrap()).unwrap();
    stage.serve();
    assert_eq!(stage.files(), [(FileKind::Base, 1)]);
}

#[test]
fn a_save_that_failed_is_told_and_the_next_one_holds_everything() {
    let ground = Ground::new();
    let mut stage = ground.stage("a");
    stage.obey(OWN);
    stage.serve();
    for _ in 0..2 {
        stage.work(1);
        let tickets = stage.serve();
        stage.station.appended(tickets.last().copied().unwrap_or_default()).unwrap();
        stage.serve();
    }
    assert_eq!(stage.files(), [(FileKind::Base, 1), (FileKind::Delta, 1)]);
    stage.work(1);
    let mut failed = None;
    while let Some(command) = stage.station.command() {
        match command {
            Command::Append { ticket, .. } => stage.station.appended(ticket).unwrap(),
            Command::Ask { id, op } => {
                let full = Outcome::Failed(StoreError::new(op.key(), "it is full"));
                failed = stage.station.answered(id, Answer::Wrote(full), stage.now).err();
            }
            _ => {}
        }
    }
    assert!(failed.unwrap().to_string().contains("it is full"));
    stage.work(0);
    let tickets = stage.serve();
    stage.station.appended(tickets.last().copied().unwrap_or(u64::MAX)).unwrap();
    stage.serve();
    assert_eq!(stage.files().iter().filter(|(kind, _)| *kind == FileKind::Base).count(), 2);
}

#[test]
fn a_standby_tells_nothing_until_it_owns_and_then_without_a_hole() {
    let ground = Ground::new();
    let (mut owner, mut standby) = (ground.stage("a"), ground.stage("b"));
    owner.obey(OWN);
    owner.serve();
    standby.obey(Order::Follow { epoch: 1 });
    standby.serve();
    standby.work(1_000);
    assert_eq!(standby.serve(), Vec::<u64>::new(), "its effects are held back");
    assert!(matches!(standby.role(), Role::Follows { lag_records: 0, .. }));

    owner.work(1);
    let tickets = owner.serve();
    owner.station.appended(*tickets.last().unwrap()).unwrap();
    owner.serve();
    let saved = owner.station.seats[0].task.position().0;

    standby.obey(Order::Own { epoch: 2, rolled_back: false });
    standby.serve();
    assert_eq!((standby.role(), standby.station.seats[0].epoch), (Role::Owns, 2));
    standby.work(0);
    let mut told = Vec::new();
    while let Some(command) = standby.station.command() {
        if let Command::Append { appends, .. } = command {
            told.extend(appends);
        }
    }
    let sections = told.iter().filter(|(partition, _)| partition.log == "examples.ctr").map(|(_, frame)| {
        let frame = millrace_engine::frame::Frame::read(frame, Kind::Examples).unwrap();
        let head = frame.sections().next().unwrap().unwrap().head;
        (head.epoch, head.from.offset)
    });
    assert_eq!(sections.collect::<Vec<_>>(), [(2, saved - 1)], "from the offset of the former owner's checkpoint on");

    // The former owner hears of it at its next save, and goes.
    owner.work(1);
    let mut fenced = None;
    for _ in 0..50 {
        match owner.station.command() {
            Some(Command::Append { ticket, .. }) => owner.station.appended(ticket).unwrap(),
            Some(Command::Ask { id, op }) => {
                let answer = owner.store.answer(&op);
                fenced = fenced.or(owner.station.answered(id, answer, owner.now).err());
            }
            _ => {}
        }
    }
    assert!(fenced.unwrap().to_string().contains("was taken over by b with epoch 2"));
    assert!(owner.station.seats.is_empty());
    assert_eq!(owner.role(), Role::Outdated { manifest_epoch: 2 });
}

#[test]
fn what_is_released_can_be_owned_by_another() {
    let ground = Ground::new();
    let (mut first, mut second) = (ground.stage("a"), ground.stage("b"));
    first.obey(OWN);
    first.serve();
    first.work(2);
    let tickets = first.serve();
    first.station.appended(*tickets.last().unwrap()).unwrap();
    first.serve();
    first.obey(Order::Release { epoch: 1 });
    let tickets = first.serve();
    first.station.appended(tickets.last().copied().unwrap_or(u64::MAX)).unwrap();
    first.serve();
    let Role::Released { offset } = first.role() else { panic!("{:?}", first.role()) };
    assert!(first.station.seats.is_empty() && offset > 1);
    second.obey(Order::Own { epoch: 2, rolled_back: false });
    second.serve();
    assert_eq!((second.role(), second.station.seats[0].task.position().0), (Role::Owns, offset));
    assert!(second.log.end(&second.station.seats[0].reads.clone().unwrap()).unwrap() > offset);
}

#[test]
fn large_states_are_taken_one_after_the_other() {
    let ground = Ground::new();
    let mut stage = ground.stage("a");
    let orders = [0, 1].map(|partition| (profile_task(partition), OWN));
    stage.station.obey(&BTreeMap::from(orders), &stage.claimant, stage.now).unwrap();
    let mut tickets = stage.serve();
    for at in [0, 1] {
        assert_eq!(stage.station.step(at, 1 << 20, stage.now).unwrap(), Stepped::Worked);
    }
    // Nothing is durable yet, so the first state stays in memory.
    let mut held_after = |ms| {
        stage.now.since_start = Duration::from_millis(ms);
        stage.station.tick(stage.now).unwrap();
        tickets.extend(stage.serve());
        stage.station.seats.iter().filter(|seat| matches!(seat.custody, Custody::Waiting(..))).count()
    };
    assert_eq!([90, 110, 190].map(&mut held_after), [0, 1, 1]);
    assert_eq!(held_after(210), 2, "it was to be taken long ago");
    assert!(!tickets.is_empty());
}
