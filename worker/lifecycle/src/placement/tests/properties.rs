//! Whatever happens to a fleet: the checks of [`World::round`] hold, and it comes to rest.

use proptest::prelude::*;

use super::world::{World, member, profile, settings};
use crate::placement::*;

const SHARDS: [&str; 4] = ["a", "b", "c", "d"];
const TASKS: usize = 12;
/// What every fault below needs to be over and done with: each task moved once, `max_moving` at a time, and what failed
/// tried again.
const ROUNDS_TO_REST: usize = 250;

#[derive(Clone, Debug)]
enum Fault {
    Die(usize),
    Return(usize),
    Restart(usize),
    Silence(usize, bool),
    Delay(usize, usize),
    Drain(usize, bool),
    Ready(usize, bool),
    Fail(usize, usize),
    Lag(usize, u64),
    Template(bool),
    RolledBack(bool),
    Load(usize, u64),
    Task(usize, bool),
}

fn fault() -> impl Strategy<Value = Fault> {
    let shard = || 0..SHARDS.len();
    prop_oneof![
        shard().prop_map(Fault::Die),
        shard().prop_map(Fault::Return),
        shard().prop_map(Fault::Restart),
        (shard(), any::<bool>()).prop_map(|(s, on)| Fault::Silence(s, on)),
        (shard(), 0..4usize).prop_map(|(s, rounds)| Fault::Delay(s, rounds)),
        (shard(), any::<bool>()).prop_map(|(s, on)| Fault::Drain(s, on)),
        (shard(), any::<bool>()).prop_map(|(s, on)| Fault::Ready(s, on)),
        (shard(), 0..TASKS).prop_map(|(s, t)| Fault::Fail(s, t)),
        (shard(), 0..30u64).prop_map(|(s, records)| Fault::Lag(s, records)),
        any::<bool>().prop_map(Fault::Template),
        any::<bool>().prop_map(Fault::RolledBack),
        (0..TASKS, 0..1_500u64).prop_map(|(t, load)| Fault::Load(t, load)),
        (0..TASKS + 2, any::<bool>()).prop_map(|(t, on)| Fault::Task(t, on)),
    ]
}

fn apply(world: &mut World, fault: &Fault, incarnation: usize) {
    let there = |world: &World, s: usize| world.workers.keys().any(|m| m.shard == SHARDS[s]);
    match *fault {
        Fault::Return(s) if !there(world, s) => {
            world.join(Member::new(SHARDS[s], format!("uid-{incarnation}")));
            world.worker(SHARDS[s]).facts.engine_version = if world.settings.template == "v1" { 1 } else { 2 };
        }
        Fault::Template(second) => world.settings.template = if second { "v2" } else { "v1" }.to_owned(),
        Fault::RolledBack(on) => world.settings.rolled_back = on,
        Fault::Load(t, load) => drop(world.millicores.insert(profile(t), load)),
        Fault::Task(t, true) => drop(world.tasks.insert(profile(t))),
        Fault::Task(t, false) => drop(world.tasks.remove(&profile(t))),
        Fault::Die(s) if there(world, s) => world.lose(SHARDS[s]),
        Fault::Restart(s) if there(world, s) => world.restart(SHARDS[s]),
        Fault::Silence(s, on) if there(world, s) => world.worker(SHARDS[s]).silent = on,
        Fault::Delay(s, rounds) if there(world, s) => world.worker(SHARDS[s]).delay = rounds,
        Fault::Drain(s, on) if there(world, s) => world.worker(SHARDS[s]).facts.draining = on,
        Fault::Ready(s, on) if there(world, s) => world.worker(SHARDS[s]).facts.ready = on,
        Fault::Lag(s, records) if there(world, s) => world.worker(SHARDS[s]).lag_records = records,
        Fault::Fail(s, t) if there(world, s) => drop(world.worker(SHARDS[s]).fails.insert(profile(t))),
        _ => {}
    }
}

/// All shards are there, heard and able, and have room: of each engine that may have something to release.
fn heal(world: &mut World) {
    world.settings.shards = 2;
    world.millicores.values_mut().for_each(|load| *load = (*load).min(350));
    for worker in world.workers.values_mut() {
        (worker.silent, worker.facts.draining, worker.facts.ready) = (false, false, true);
        worker.lag_records = 3;
        worker.fails.clear();
    }
    for (template, engine_version) in [("v1", 1), ("v2", 2)] {
        for shard in ["x", "y"] {
            let name = format!("{shard}-{template}");
            world.join(member(&name));
            let facts = &mut world.worker(&name).facts;
            (facts.template, facts.engine_version) = (template.to_owned(), engine_version);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_fleet_comes_to_rest_whatever_happened(
        faults in proptest::collection::vec((fault(), 0..14usize), 0..40),
        max_moving in 1..4usize,
        canary in 0..2usize,
        standbys: bool,
        min_served_percent in 0..=100u64,
    ) {
        let canary = Canary { tasks: canary, level_for_ms: 5_000 };
        let wanted = Settings { max_moving, canary, standbys, min_served_percent, ..settings() };
        let mut world = World::new(&SHARDS[..3], TASKS, wanted);
        for (i, (fault, rounds)) in faults.iter().enumerate() {
            apply(&mut world, fault, i + 2);
            world.rounds(*rounds);
        }
        heal(&mut world);
        world.rounds(ROUNDS_TO_REST);
        let rested = world.record.clone();
        let last: Vec<String> = world.rounds(5).iter().map(ToString::to_string).collect();
        prop_assert_eq!(&world.record, &rested, "{:#?}", last);
        prop_assert!(world.is_calm(), "{:#?}", last);
        prop_assert_eq!(rested.tasks.keys().cloned().collect::<std::collections::BTreeSet<_>>(), world.tasks.clone());
        for (task, assignment) in &rested.tasks {
            let owner = &world.workers[assignment.owner()].facts;
            prop_assert_eq!(&owner.template, &world.settings.template, "{}: {:#?}", task, last);
            prop_assert_eq!(assignment.standby().is_some(), standbys, "{}: {:#?}", task, last);
        }
    }

    /// A shard that joins n others takes its share of the load, 1/(n+1), and at most one task beyond.
    #[test]
    fn a_shard_that_joins_takes_its_share(shards in 1..8usize, loads in proptest::collection::vec(10..300u64, 8..60)) {
        let names: Vec<String> = (0..shards).map(|i| format!("shard-{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut world = World::new(&names, loads.len(), Settings { max_moving: 4, standbys: false, ..settings() });
        world.millicores = loads.iter().enumerate().map(|(i, load)| (profile(i), *load)).collect();
        world.rounds(ROUNDS_TO_REST);
        let before = world.record.clone();
        world.join(member("joins"));
        let mut moved = 0;
        for decision in world.rounds(ROUNDS_TO_REST) {
            if let Decision::HandOver { task, .. } = decision {
                moved += world.millicores[&task];
            }
        }
        prop_assert!(world.is_calm());
        let share = loads.iter().sum::<u64>() / (shards as u64 + 1);
        prop_assert!(moved <= share + 300, "{} moved, its share is {}", moved, share);
        if before.tasks.values().filter(|a| a.owner() == before.tasks[&profile(0)].owner()).count() > 4 {
            prop_assert!(moved > 0);
        }
    }

    /// Loads that waver within the band move nothing.
    #[test]
    fn what_wavers_a_little_stays(noise in proptest::collection::vec(92..108u64, 240)) {
        let mut world = World::new(&["a", "b", "c"], 24, settings()).settled();
        for loads in noise.chunks(24) {
            world.millicores = loads.iter().enumerate().map(|(i, load)| (profile(i), *load)).collect();
            let decisions = world.round();
            prop_assert!(!decisions.iter().any(|d| matches!(d, Decision::Move { .. })), "{:?}", decisions);
        }
    }

    /// A lost shard moves its own tasks, and no other.
    #[test]
    fn a_lost_shard_moves_its_own_tasks(loads in proptest::collection::vec(10..500u64, 8..40), standbys: bool) {
        let mut world = World::new(&["a", "b", "c", "d"], loads.len(), Settings { standbys, ..settings() });
        world.millicores = loads.iter().enumerate().map(|(i, load)| (profile(i), *load)).collect();
        world.rounds(ROUNDS_TO_REST);
        world.lose("b");
        let planned = world.plan().placement;
        for (task, before) in &world.record.tasks {
            let (after, lost) = (&planned.tasks[task], before.owner().shard == "b");
            prop_assert_eq!(after.epoch(), before.epoch() + u64::from(lost));
            prop_assert_eq!(after.owner() == before.owner(), !lost);
        }
    }
}
