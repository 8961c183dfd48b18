//! Owners and standbys: each case by itself.

use super::world::{ROUND_MS, World, member, profile, settings};
use crate::keys::{TaskId, TaskKind};
use crate::placement::*;

pub fn told(decisions: &[Decision]) -> Vec<String> {
    decisions.iter().map(ToString::to_string).collect()
}

/// Of one task, what is held back left out.
pub fn told_of(decisions: &[Decision], task: usize) -> Vec<String> {
    let changes: Vec<Decision> = decisions.iter().filter(|d| !matches!(d, Decision::Hold(_))).cloned().collect();
    told(&changes).into_iter().filter(|line| line.starts_with(&format!("profile/{task} "))).collect()
}

#[test]
fn the_first_placement_is_even_and_standbys_come_once_owners_have_acquired() {
    let mut world = World::new(&["a", "b", "c"], 9, settings());
    let first = world.round();
    let line = "profile/0 goes to a with epoch 1, because it is new; of the ready shards that one has the most room";
    assert_eq!(told_of(&first, 0), [line]);
    assert!(world.record.tasks.values().all(|a| a.standby().is_none()));
    let later = world.rounds(12);
    assert!(told_of(&later, 0).contains(&"profile/0 is owned by a with epoch 1".to_owned()));
    assert!(world.is_calm());
    for shard in ["a", "b", "c"] {
        assert_eq!(world.owned_by(shard), 3);
        let standbys = world.record.tasks.values().filter(|a| a.standby() == Some(&member(shard))).count();
        assert!((2..=4).contains(&standbys), "{shard}: {standbys}");
    }
}

#[test]
fn the_first_placement_is_by_what_shards_have() {
    let mut world = World::new(&["a", "b"], 12, settings());
    world.worker("b").facts.capacity.millicores = 4_000;
    world.round();
    assert_eq!((world.owned_by("a"), world.owned_by("b")), (8, 4));
}

#[test]
fn without_a_ready_shard_nothing_is_placed_and_it_is_said() {
    let mut world = World::new(&["a"], 1, settings());
    world.worker("a").facts.ready = false;
    let expected = "profile/0 is not served, because no ready shard can take it: add one";
    assert_eq!(told(&world.round()), [expected]);
    assert_eq!(world.record, Placement::new("shop"));
}

#[test]
fn a_standby_that_is_close_takes_over_from_a_lost_owner() {
    let mut world = World::new(&["a", "b", "c"], 3, settings()).settled();
    let standby = world.record.tasks[&profile(0)].standby().unwrap().clone();
    world.lose("a");
    let decisions = world.round();
    let expected = format!(
        "profile/0 goes to {standby} with epoch 2, because a is gone; it follows the log there, 3 records behind"
    );
    assert_eq!(told_of(&decisions, 0), [expected]);
    assert_eq!((world.owner(0), world.epoch(0)), (&standby, 2));
    world.rounds(12);
    let assignment = &world.record.tasks[&profile(0)];
    assert!(assignment.standby().is_some_and(|s| *s != standby && s.shard != "a"), "another stands by");
}

#[test]
fn a_standby_that_is_far_behind_does_not() {
    let mut world = World::new(&["a", "b", "c"], 3, Settings { promote_lag_records: 2, ..settings() }).settled();
    world.lose("a");
    let lines = told_of(&world.round(), 0);
    assert!(lines[0].ends_with("of the ready shards that one has the most room"), "{lines:?}");
}

#[test]
fn another_pod_of_the_shard_does_not_inherit() {
    let mut world = World::new(&["a", "b"], 2, Settings { standbys: false, ..settings() }).settled();
    world.lose("a");
    world.join(Member::new("a", "uid-2"));
    let lines = told_of(&world.round(), 0);
    assert!(lines[0].starts_with("profile/0 goes to a with epoch 2, because the pod of a was replaced"), "{lines:?}");
    assert_eq!(world.owner(0), &Member::new("a", "uid-2"));
}

#[test]
fn silence_counts_only_after_a_while() {
    let mut world = World::new(&["a", "b"], 2, settings()).settled();
    world.worker("a").silent = true;
    let before = world.record.clone();
    world.rounds(9);
    assert_eq!(world.record, before);
    let lines = told_of(&world.rounds(2), 0);
    assert!(lines[0].contains("goes to b with epoch 2, because a has been silent for 10 s"), "{lines:?}");
}

#[test]
fn what_was_said_under_an_earlier_epoch_or_by_another_incarnation_does_not_count() {
    let mut world = World::new(&["a", "b"], 2, settings()).settled();
    let mut facts = world.facts();
    let report = facts.members[&member("a")].reports[&profile(0)].clone();
    assert!(facts.report(&member("a"), &profile(0), 1).is_some());
    assert_eq!(facts.report(&member("a"), &profile(0), 2), None);
    assert_eq!(facts.report(&Member::new("a", "uid-2"), &profile(0), 1), None);
    let stale = Report { epoch: 7, role: Role::Released { offset: 9 }, ..report };
    facts.members.get_mut(&member("a")).unwrap().reports.insert(profile(0), stale);
    let planned = plan(world.now_ms, &world.record, &facts, &world.settings);
    assert_eq!(planned.placement, world.record);
    assert_eq!(told(&planned.decisions), ["profile/0 is not known to be served: a, its owner, says nothing of it"]);
}

#[test]
fn a_container_that_restarts_gives_way_to_its_standby_or_gets_a_new_epoch() {
    let mut world = World::new(&["a", "b"], 2, settings()).settled();
    world.restart("a");
    let lines = told_of(&world.rounds(4), 0);
    let why = "because its manifest has epoch 1 already: a restarted, or the record is old";
    assert_eq!(
        lines[0],
        format!("profile/0 goes to b with epoch 2, {why}; it follows the log there, 3 records behind")
    );
    let mut world = World::new(&["a"], 1, settings()).settled();
    world.restart("a");
    let lines = told_of(&world.rounds(4), 0);
    assert_eq!(lines[0], format!("profile/0 goes to a with epoch 2, {why}; it was there before"));
}

#[test]
fn a_record_that_went_back_goes_on_above_the_manifest() {
    let mut world = World::new(&["a", "b"], 2, Settings { standbys: false, ..settings() }).settled();
    let old = world.record.clone();
    for _ in 0..3 {
        world.restart("a");
        world.rounds(8);
    }
    assert_eq!(world.epoch(0), 4);
    world.record = old;
    world.restart("a");
    let decisions = world.rounds(8);
    assert!(
        told_of(&decisions, 0)[0].starts_with("profile/0 goes to a with epoch 5, because its manifest has epoch 4")
    );
}

#[test]
fn an_owner_that_fails_is_left_and_not_tried_again_for_a_while() {
    let mut world = World::new(&["a", "b", "c"], 3, settings()).settled();
    world.worker("a").fails.insert(profile(0));
    let lines = told_of(&world.rounds(3), 0);
    assert!(lines[0].contains("because a failed: checkpoint damaged; it follows the log there"), "{lines:?}");
    let (owner, now_ms) = (world.owner(0).clone(), world.now_ms);
    assert_ne!(owner.shard, "a");
    assert!(world.record.tasks[&profile(0)].avoids(&member("a"), now_ms));
    assert!(!world.record.tasks[&profile(0)].avoids(&member("a"), now_ms + 30 * ROUND_MS));
    for shard in ["a", "b", "c"] {
        world.worker(shard).fails.insert(profile(0));
    }
    let epoch = world.epoch(0);
    world.rounds(20);
    assert!(world.epoch(0) <= epoch + 2, "each is tried once, not round and round");
}

#[test]
fn an_owner_that_never_acquires_is_given_up() {
    let mut world = World::new(&["a", "b"], 2, Settings { standbys: false, ..settings() });
    world.round();
    let facts = world.facts();
    let later = world.now_ms + 59 * ROUND_MS;
    let mut heard = facts.clone();
    heard.members.values_mut().for_each(|m| (m.heard_at_ms, m.reports) = (later + 2 * ROUND_MS, [].into()));
    let planned = plan(later, &world.record, &heard, &world.settings);
    assert_eq!(planned.placement, world.record);
    assert_eq!(told(&planned.decisions)[0], "profile/0 waits until a acquires epoch 1");
    let planned = plan(later + 2 * ROUND_MS, &world.record, &heard, &world.settings);
    assert_eq!(
        told(&planned.decisions)[0],
        "profile/0 goes to b with epoch 2, because a did not acquire it in 62 s; of the ready shards that one has the most room"
    );
}

#[test]
fn without_room_an_orphan_goes_to_the_least_loaded_and_it_is_said() {
    let mut world = World::new(&["a", "b", "c"], 6, Settings { standbys: false, ..settings() });
    world.millicores = (0..6).map(|i| (profile(i), 2_600)).collect();
    let mut world = world.settled();
    world.lose("a");
    let overloaded: Vec<_> =
        world.round().into_iter().filter(|d| d.to_string().contains("overloaded: add shards")).collect();
    assert_eq!(overloaded.len(), 2);
    assert_eq!((world.owned_by("b"), world.owned_by("c")), (3, 3));
}

#[test]
fn what_was_not_released_waits_for_its_engine_version_unless_the_rollout_was_taken_back() {
    let mut world = World::new(&["a", "b"], 2, Settings { standbys: false, ..settings() });
    for shard in ["a", "b"] {
        world.worker(shard).facts.engine_version = 2;
    }
    let mut world = world.settled();
    world.worker("b").facts.engine_version = 1;
    world.lose("a");
    let before = world.record.clone();
    let decisions = world.round();
    let expected =
        "profile/0 is not served, because a is gone, and no other ready shard of engine version 2 can take it: add one";
    assert!(told(&decisions).contains(&expected.to_owned()), "{:?}", told(&decisions));
    assert_eq!(world.record, before);
    world.settings.rolled_back = true;
    world.round();
    let assignment = &world.record.tasks[&profile(0)];
    assert_eq!((assignment.owner(), assignment.engine_version(), assignment.rolled_back()), (&member("b"), 1, true));
    let own = Order::Own { epoch: 2, rolled_back: true };
    assert_eq!(world.record.orders(&member("b"))[&profile(0)], own);
}

#[test]
fn standbys_are_in_another_zone_where_there_is_one_and_move_there_when_it_comes() {
    let mut world = World::new(&["a", "b"], 4, settings());
    for shard in ["a", "b"] {
        world.worker(shard).facts.zone = "z1".to_owned();
    }
    let mut world = world.settled();
    assert!(world.record.tasks.values().all(|a| a.standby().is_some()), "one in the same zone is better than none");
    world.join(member("c"));
    world.settings.max_moving = 0;
    let lines = told_of(&world.rounds(1), 0);
    assert_eq!(lines, ["profile/0 has its standby on c instead of b, because b is in the failure domain of the owner"]);
    assert!(world.record.tasks.values().all(|a| a.standby() == Some(&member("c"))));
}

#[test]
fn a_lost_standby_is_replaced_and_a_failed_one_avoided() {
    let mut world = World::new(&["a", "b", "c"], 3, settings()).settled();
    let standby = |world: &World| world.record.tasks[&profile(0)].standby().cloned();
    assert_eq!((world.owner(0), standby(&world)), (&member("a"), Some(member("b"))));
    world.worker("b").fails.insert(profile(0));
    let lines = told_of(&world.rounds(3), 0);
    assert_eq!(lines[0], "profile/0 has its standby on c instead of b, because b failed: checkpoint damaged");
    world.lose("c");
    let decisions = world.round();
    assert_eq!(told_of(&decisions, 0), ["profile/0 loses its standby on c, because c is gone"]);
    let without =
        "1 tasks have no standby, such as profile/0: no other ready shard of the owner's engine version has room";
    assert!(told(&decisions).contains(&without.to_owned()), "{:?}", told(&decisions));
    world.settings.standbys = false;
    world.rounds(2);
    assert!(world.record.tasks.values().all(|a| a.standby().is_none()));
}

#[test]
fn new_models_are_placed_and_old_ones_end_in_order() {
    let mut world = World::new(&["a", "b"], 2, settings()).settled();
    let model = TaskId::new(TaskKind::Model, "ctr");
    world.tasks.insert(model.clone());
    assert!(told(&world.round())[0].starts_with("model/ctr goes to a with epoch 1, because it is new"));
    world.rounds(8);
    let owner = world.record.tasks[&model].owner().clone();
    world.tasks.remove(&model);
    let first = "model/ctr is to be released by a for good, because the pipeline has it no more";
    assert_eq!(told(&world.round())[0], first);
    assert_eq!(world.record.orders(&owner)[&model], Order::Release { epoch: 1 });
    assert_eq!(told(&world.round()), ["model/ctr has ended with epoch 1, released"]);
    assert_eq!(world.record.retired[&model], Retired { epoch: 1, unreleased_engine_version: None });
    world.tasks.insert(model.clone());
    world.rounds(8);
    assert_eq!((world.record.tasks[&model].epoch(), world.record.retired.len()), (2, 0), "its epochs go on");
}

#[test]
fn a_model_that_is_wanted_again_before_it_has_ended_stays() {
    let mut world = World::new(&["a", "b"], 2, settings()).settled();
    world.tasks.remove(&profile(1));
    world.round();
    world.tasks.insert(profile(1));
    let lines = told_of(&world.rounds(8), 1);
    assert_eq!(lines[0], "profile/1 stays on b instead of ending, because the pipeline has it again");
    // It had released already.
    assert!(lines[1].starts_with("profile/1 goes to b with epoch 2, because b released it at offset 100"), "{lines:?}");
    assert!(world.is_calm());
}

#[test]
fn a_model_whose_owner_is_lost_ends_as_well_and_remembers_that_it_was_not_released() {
    let mut world = World::new(&["a", "b"], 2, Settings { standbys: false, ..settings() }).settled();
    world.tasks.remove(&profile(0));
    world.lose("a");
    let lines = told_of(&world.round(), 0);
    assert_eq!(lines, ["profile/0 has ended with epoch 1, without a release, because its owner is lost"]);
    assert_eq!(world.record.retired[&profile(0)].unreleased_engine_version, Some(1));
    world.worker("b").facts.engine_version = 2;
    world.tasks.insert(profile(0));
    let expected = "profile/0 is not served, because no other ready shard of engine version 1 can take it: add one";
    assert!(told(&world.round()).contains(&expected.to_owned()));
}
