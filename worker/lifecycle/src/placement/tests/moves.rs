//! Moves: drains, rollouts, balance, and what holds them back.

use super::cases::{told, told_of};
use super::world::{ROUND_MS, World, member, profile, settings};
use crate::placement::*;

fn alone() -> Settings {
    Settings { standbys: false, ..settings() }
}

fn moves(decisions: &[Decision]) -> usize {
    decisions.iter().filter(|d| matches!(d, Decision::Move { .. })).count()
}

#[test]
fn a_shard_that_drains_is_emptied_by_a_few_moves_at_once() {
    let mut world = World::new(&["a", "b", "c"], 9, alone()).settled();
    world.worker("a").facts.draining = true;
    let first = world.round();
    assert_eq!(told_of(&first, 0), ["profile/0 moves from a to b, because a drains; 1 of 2 moves"]);
    assert_eq!(moves(&first), 2);
    let held = "1 tasks stay on a for now, although a drains: 2 of 2 moves are under way";
    assert!(told(&first).contains(&held.to_owned()), "{:?}", told(&first));
    let lines = told_of(&world.rounds(20), 0);
    assert_eq!(
        lines,
        [
            "profile/0 is to be released by a, because b is level (3 records behind)",
            "profile/0 goes to b with epoch 2, because a released it at offset 100",
            "profile/0 is owned by b with epoch 2",
        ]
    );
    assert_eq!(world.owned_by("a"), 0);
    assert!(world.is_calm());
}

#[test]
fn a_level_standby_takes_over_at_once_and_the_owner_stands_by() {
    let mut world = World::new(&["a", "b", "c"], 3, Settings { max_moving: 1, ..settings() }).settled();
    let standby = world.record.tasks[&profile(0)].standby().unwrap().clone();
    world.worker("a").facts.draining = true;
    let lines = told_of(&world.round(), 0);
    assert_eq!(lines[0], format!("profile/0 moves from a to {standby}, because a drains; 1 of 1 moves"));
    let level = format!("profile/0 is to be released by a, because {standby} is level (3 records behind)");
    assert!(lines.contains(&level), "{lines:?}");
    world.round();
    assert_eq!(world.owner(0), &standby);
    assert_eq!(world.record.tasks[&profile(0)].standby(), Some(&member("a")));
    world.rounds(12);
    let standby = world.record.tasks[&profile(0)].standby().unwrap();
    assert_ne!(standby.shard, "a", "it drains, so another stands by in the end");
}

#[test]
fn without_room_a_drain_waits() {
    let mut world = World::new(&["a", "b"], 4, alone());
    world.millicores = (0..4).map(|i| (profile(i), 2_500)).collect();
    let mut world = world.settled();
    world.worker("a").facts.draining = true;
    let held = "2 tasks stay on a for now, although a drains: no ready shard that may take them has room";
    assert_eq!(told(&world.round()), [held]);
}

#[test]
fn nothing_is_released_below_the_floor() {
    let settings = Settings { min_served_percent: 75, max_moving: 4, ..alone() };
    let mut world = World::new(&["a", "b"], 4, settings).settled();
    world.worker("a").facts.draining = true;
    let lines = told(&world.rounds(6));
    let held = "profile/2 is not yet released to b: 3 tasks are served, and 3 are to be at any time";
    assert!(lines.contains(&held.to_owned()), "{lines:?}");
    world.rounds(20);
    assert_eq!(world.owned_by("a"), 0, "one after the other");
}

#[test]
fn nothing_is_released_when_too_few_shards_stay() {
    let mut world = World::new(&["a", "b"], 2, Settings { min_ready_members: 2, ..alone() }).settled();
    world.worker("a").facts.draining = true;
    let lines = told(&world.rounds(10));
    let held = "profile/0 is not yet released to b: 1 shards are ready and stay, and 2 are to at any time";
    assert_eq!(lines.last().unwrap(), held);
    assert_eq!(world.owned_by("a"), 1);
    world.join(member("c"));
    world.rounds(10);
    assert_eq!(world.owned_by("a"), 0);
}

#[test]
fn the_floor_lets_one_task_move_also_where_there_are_few() {
    let settings = settings();
    let floors = [0, 1, 2, 3, 10, 100].map(|tasks| settings.served_floor(tasks));
    assert_eq!(floors, [0, 0, 1, 2, 9, 90]);
    let never = Settings { min_served_percent: 100, ..settings };
    assert_eq!(never.served_floor(10), 9);
}

#[test]
fn a_move_whose_target_dies_ends_where_it_began() {
    let mut world = World::new(&["a", "b", "c"], 3, Settings { max_moving: 1, ..alone() }).settled();
    world.worker("a").facts.draining = true;
    world.rounds(2);
    assert_eq!(world.record.tasks[&profile(0)].target(), Some(&member("b")));
    world.lose("b");
    world.worker("a").facts.draining = false;
    let lines = told_of(&world.round(), 0);
    assert_eq!(lines, ["profile/0 stays on a instead of moving to b, because b is gone"]);
    assert_eq!((world.phase(0), world.owner(0), world.epoch(0)), (&Phase::Steady, &member("a"), 1));
}

#[test]
fn when_the_target_dies_after_the_owner_was_told_to_release_the_owner_has_it_again() {
    let mut world = World::new(&["a", "b", "c"], 3, Settings { max_moving: 1, ..alone() }).settled();
    world.worker("a").facts.draining = true;
    while !matches!(world.phase(0), Phase::Releasing { .. }) {
        world.round();
    }
    world.worker("a").facts.draining = false;
    world.lose("b");
    let lines = told_of(&world.rounds(6), 0);
    let expected = "profile/0 goes to a with epoch 2, because a released it at offset 100; it was there before";
    assert_eq!(lines, [expected, "profile/0 is owned by a with epoch 2"]);
}

#[test]
fn a_move_whose_owner_dies_half_way_ends_at_the_target() {
    let mut world = World::new(&["a", "b", "c"], 3, Settings { max_moving: 1, level_lag_records: 0, ..alone() });
    world.rounds(8);
    world.worker("a").facts.draining = true;
    world.rounds(6);
    assert_eq!(world.record.tasks[&profile(0)].target(), Some(&member("b")));
    assert!(told(&world.round()).contains(&"profile/0 is not yet released to b, which is 3 records behind".to_owned()));
    world.lose("a");
    let lines = told_of(&world.round(), 0);
    let expected = "profile/0 goes to b with epoch 2, because a is gone; it follows the log there, 3 records behind";
    assert_eq!(lines, [expected]);
}

#[test]
fn a_move_that_takes_too_long_is_given_up_and_tried_elsewhere() {
    let mut world = World::new(&["a", "b", "c"], 3, Settings { level_lag_records: 2, max_moving: 1, ..alone() });
    world.rounds(8);
    world.worker("a").facts.draining = true;
    let lines = told_of(&world.rounds(63), 0);
    assert_eq!(
        lines,
        [
            "profile/0 moves from a to b, because a drains; 1 of 1 moves",
            "profile/0 stays on a instead of moving to b, because b has not got it in 61 s",
            "profile/0 moves from a to c, because a drains; 1 of 1 moves",
        ]
    );
}

#[test]
fn a_target_that_fails_is_avoided() {
    let mut world = World::new(&["a", "b", "c"], 3, Settings { max_moving: 1, ..alone() }).settled();
    world.worker("b").fails.insert(profile(0));
    world.worker("a").facts.draining = true;
    let lines = told_of(&world.rounds(14), 0);
    assert_eq!(lines[1], "profile/0 stays on a instead of moving to b, because b failed: checkpoint damaged");
    assert_eq!(world.owner(0), &member("c"));
}

fn roll(world: &mut World, shards: &[&str], engine_version: u32) {
    world.settings.template = "v2".to_owned();
    for shard in shards {
        world.join(member(shard));
        world.worker(shard).facts.engine_version = engine_version;
    }
}

#[test]
fn a_rollout_clears_one_shard_after_the_other_and_gives_a_new_one_its_share() {
    let mut world = World::new(&["a", "b", "c"], 9, settings()).settled();
    roll(&mut world, &["d"], 2);
    let first = world.round();
    assert!(told_of(&first, 0)[0].starts_with("profile/0 moves from a to d, because a has an old pod template; "));
    let last = world.rounds(40);
    assert_eq!([world.owned_by("a"), world.owned_by("d")], [0, 3], "its share, and the first is empty");
    let held = "3 tasks stay on b for now, although b has an old pod template: the shards with the new pod template \
                that are ready have their share of 3";
    assert!(told(&last).contains(&held.to_owned()), "{:?}", told(&last));
    for (old, new) in [("a", "e"), ("b", "f")] {
        world.lose(old);
        roll(&mut world, &[new], 2);
        world.rounds(60);
    }
    assert_eq!(["c", "d", "e", "f"].map(|shard| world.owned_by(shard)), [0, 3, 3, 3]);
    assert!(world.record.tasks.values().all(|a| a.epoch() == 2), "each moved once");
    assert!(world.record.tasks.values().all(|a| a.standby().is_some_and(|s| s.shard != "c")));
}

#[test]
fn a_canary_follows_for_a_while_before_the_others_begin() {
    let canary = Canary { tasks: 1, level_for_ms: 20 * ROUND_MS };
    let mut world = World::new(&["a", "b"], 4, Settings { canary, ..alone() }).settled();
    roll(&mut world, &["d", "e"], 2);
    let lines = told(&world.rounds(15));
    assert_eq!(lines.iter().filter(|line| line.contains(" moves from ")).count(), 1);
    let waits = "profile/0 is a canary and not yet released to d, which has been level for 10 of 20 s";
    assert!(lines.contains(&waits.to_owned()), "{lines:#?}");
    let others = "1 tasks stay on a for now, although a has an old pod template: the first 1 on the new pod template \
                  come before";
    assert!(lines.contains(&others.to_owned()), "{lines:#?}");
    assert_eq!(world.owned_by("d"), 0);
    world.rounds(60);
    assert_eq!([world.owned_by("d"), world.owned_by("e")], [2, 2]);
}

#[test]
fn a_canary_whose_rollout_is_taken_back_ends_where_it_began() {
    let canary = Canary { tasks: 1, level_for_ms: 20 * ROUND_MS };
    let mut world = World::new(&["a", "b"], 4, Settings { canary, ..alone() }).settled();
    roll(&mut world, &["d"], 2);
    world.rounds(6);
    world.settings.template = "v1".to_owned();
    let lines = told_of(&world.round(), 0);
    let expected = "profile/0 stays on a instead of moving to d, because d has a pod template that is wanted no more";
    assert_eq!(lines, [expected]);
    assert!(world.record.tasks.values().all(|a| a.epoch() == 1));
}

#[test]
fn load_is_evened_out_by_the_largest_tasks_that_help() {
    let mut world = World::new(&["a", "b"], 8, alone()).settled();
    world.millicores = (0..8).map(|i| (profile(i), if world.owner(i).shard == "a" { 400 } else { 100 })).collect();
    let decisions = world.rounds(30);
    let lines = told(&decisions);
    let first = "profile/0 moves from a to b, because a is 20 % busy with its own tasks and b 5 %; 1 of 2 moves";
    assert!(lines.contains(&first.to_owned()), "{lines:?}");
    assert_eq!(moves(&decisions), 1, "one of 400 makes 1200 and 800: inside the band of 20 %");
    world.settings.imbalance_percent = 5;
    assert_eq!(moves(&world.rounds(30)), 0, "another of 400 would only turn them around");
}

#[test]
fn a_shard_that_joins_gets_standbys_as_well() {
    let mut world = World::new(&["a", "b", "c"], 24, settings()).settled();
    world.join(member("d"));
    let lines = told(&world.rounds(120));
    let carried = world.record.tasks.values().filter(|a| a.standby() == Some(&member("d"))).count();
    assert!((5..=6).contains(&world.owned_by("d")), "{}", world.owned_by("d"));
    assert!((10..=13).contains(&(world.owned_by("d") + carried)), "{carried}");
    assert!(lines.iter().any(|line| line.ends_with("carries more than others")), "{lines:#?}");
    assert!(world.is_calm());
}

#[test]
fn moves_can_be_stopped_altogether_and_owners_found_still() {
    let mut world = World::new(&["a", "b"], 8, Settings { max_moving: 0, ..alone() }).settled();
    world.join(member("c"));
    let held = "tasks stay on b, 5 % busy, although c is 0 % busy: 0 of 0 moves are under way";
    assert_eq!(told(&world.round()), [held]);
    world.lose("a");
    world.rounds(8);
    assert_eq!((world.owned_by("a"), world.owned_by("c")), (0, 4));
    assert!(world.is_calm());
}

#[test]
fn one_heavy_task_is_not_passed_around() {
    let mut world = World::new(&["a", "b"], 2, alone()).settled();
    world.millicores = [(profile(0), 3_000), (profile(1), 10)].into();
    assert_eq!(moves(&world.rounds(10)), 0);
}

#[test]
fn absurd_figures_do_no_harm() {
    let mut world = World::new(&["a", "b", "c"], 6, settings()).settled();
    let mut facts = world.facts();
    for (i, (_, member)) in facts.members.iter_mut().enumerate() {
        let capacity = [0, u64::MAX, 1][i];
        member.capacity = Capacity { millicores: capacity, state_bytes: capacity };
        member.heard_at_ms = u64::MAX;
        for report in member.reports.values_mut() {
            (report.load_millicores, report.state_bytes) = (u64::MAX, u64::MAX);
        }
    }
    let wild = Settings {
        shards: u64::MAX,
        imbalance_percent: u64::MAX,
        target_utilisation_percent: u64::MAX,
        min_served_percent: u64::MAX,
        move_within_ms: u64::MAX,
        retry_after_ms: u64::MAX,
        ..world.settings.clone()
    };
    for settings in [wild, Settings { imbalance_percent: 0, shards: 0, ..world.settings.clone() }] {
        let planned = plan(world.now_ms, &world.record, &facts, &settings);
        assert_eq!(world.record.check_successor(&planned.placement), Ok(()));
        assert!(planned.placement.tasks.values().all(|a| a.epoch() == 1), "nobody is lost, so nobody is replaced");
    }
}

/// A hundred shards and two thousand tasks; what is counted is decisions, as no test counts time.
#[test]
fn a_large_fleet_is_planned() {
    let names: Vec<String> = (0..100).map(|i| format!("shard-{i:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(&names, 2_000, Settings { max_moving: 10, ..settings() });
    let first = world.round();
    assert_eq!(first.len(), 2_000);
    assert!(names.iter().all(|shard| world.owned_by(shard) == 20));
    world.rounds(8);
    assert!(world.is_calm());
    assert!(world.record.tasks.values().all(|a| a.standby().is_some()));
    world.lose("shard-007");
    let placed = world.round().iter().filter(|d| matches!(d, Decision::Place { .. })).count();
    assert_eq!(placed, 20);
}
