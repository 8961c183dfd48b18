use proptest::prelude::*;

use super::world::{member, profile};
use crate::placement::*;
use crate::sealed::Unsealed;

const GOLDEN: &str = concat!(
    r#"{"checksum":"1816b60cdd0058be","content":{"formatVersion":1,"pipeline":"shop","tasks":["#,
    r#"{"task":{"kind":"profile","name":"0"},"owner":{"shard":"a","incarnation":"uid-1"},"engineVersion":1,"#,
    r#""epoch":2,"rolledBack":true,"standby":{"shard":"b","incarnation":"uid-1"},"phase":{"name":"acquiring","#,
    r#""sinceMs":1700000000000,"from":{"shard":"b","incarnation":"uid-1"}}},"#,
    r#"{"task":{"kind":"profile","name":"1"},"owner":{"shard":"a","incarnation":"uid-1"},"engineVersion":1,"#,
    r#""epoch":1,"phase":{"name":"preparing","to":{"shard":"b","incarnation":"uid-1"},"sinceMs":6},"#,
    r#""avoided":[{"member":{"shard":"c","incarnation":"uid-1"},"untilMs":9}]},"#,
    r#"{"task":{"kind":"profile","name":"2"},"owner":{"shard":"a","incarnation":"uid-1"},"engineVersion":1,"#,
    r#""epoch":1,"phase":{"name":"releasing","to":{"shard":"b","incarnation":"uid-1"},"sinceMs":6},"#,
    r#""avoided":[{"member":{"shard":"c","incarnation":"uid-1"},"untilMs":9}]},"#,
    r#"{"task":{"kind":"profile","name":"3"},"owner":{"shard":"c","incarnation":"uid-1"},"engineVersion":1,"#,
    r#""epoch":7,"phase":{"name":"steady"}},"#,
    r#"{"task":{"kind":"profile","name":"4"},"owner":{"shard":"c","incarnation":"uid-1"},"engineVersion":1,"#,
    r#""epoch":7,"phase":{"name":"retiring"}}],"#,
    r#""retired":["#,
    r#"{"task":{"kind":"profile","name":"8"},"epoch":4,"unreleasedEngineVersion":1},"#,
    r#"{"task":{"kind":"profile","name":"9"},"epoch":3}]}}"#,
    "\n"
);

fn heir(shard: &str) -> Heir {
    Heir { member: member(shard), engine_version: 1, rolled_back: false, from: None }
}

fn golden() -> Placement {
    let mut acquiring =
        Assignment::new(Heir { rolled_back: true, from: Some(member("b")), ..heir("a") }, 2, 1_700_000_000_000);
    acquiring.set_standby(Some(member("b")));
    let mut preparing = Assignment::new(heir("a"), 1, 5);
    assert!(preparing.acquired() && preparing.prepare(member("b"), 6));
    preparing.avoid(member("c"), 6, 9);
    let mut releasing = preparing.clone();
    assert!(releasing.release());
    let mut steady = Assignment::new(heir("c"), 7, 5);
    assert!(steady.acquired());
    let mut retiring = steady.clone();
    assert!(retiring.retire());
    let assigned = [acquiring, preparing, releasing, steady, retiring];
    let retired = [
        (profile(8), Retired { epoch: 4, unreleased_engine_version: Some(1) }),
        (profile(9), Retired { epoch: 3, unreleased_engine_version: None }),
    ];
    let tasks = assigned.into_iter().enumerate().map(|(i, a)| (profile(i), a)).collect();
    Placement { tasks, retired: retired.into(), ..Placement::new("shop") }
}

#[test]
fn golden_placement_version_1() {
    assert_eq!(String::from_utf8(golden().encode().unwrap()).unwrap(), GOLDEN);
    assert_eq!(Placement::decode(GOLDEN.as_bytes(), "shop"), Ok(golden()));
}

#[test]
fn a_newer_record_and_one_of_another_pipeline_are_refused() {
    let newer = Placement { format_version: 2, ..golden() }.encode().unwrap();
    assert_eq!(Placement::decode(&newer, "shop"), Err(Unsealed::Newer { found: 2, known: 1 }));
    let error = Placement::decode(&golden().encode().unwrap(), "other").unwrap_err().to_string();
    assert!(error.contains("of pipeline shop, not other"), "{error}");
}

#[test]
fn a_record_that_no_plan_writes_is_refused() {
    let broken = |change: fn(&mut Placement)| {
        let mut placement = golden();
        change(&mut placement);
        Placement::decode(&placement.encode().unwrap(), "shop").unwrap_err().to_string()
    };
    let own_standby = broken(|p| p.tasks.get_mut(&profile(3)).unwrap().standby = Some(member("c")));
    assert!(own_standby.contains("profile/3 has c as owner and as standby"), "{own_standby}");
    let epoch = broken(|p| p.tasks.get_mut(&profile(3)).unwrap().epoch = 0);
    assert!(epoch.contains("profile/3 has epoch 0"), "{epoch}");
    let both = broken(|p| p.retired.extend([(profile(3), Retired { epoch: 1, unreleased_engine_version: None })]));
    assert!(both.contains("assigned and retired"), "{both}");
    let sealed = crate::sealed::seal(&serde_json::json!({
        "formatVersion": 1, "pipeline": "shop", "tasks": [],
        "retired": [{"task": {"kind": "model", "name": "b"}, "epoch": 1}, {"task": {"kind": "model", "name": "a"}, "epoch": 1}],
    }));
    let disorder = Placement::decode(&sealed.unwrap(), "shop").unwrap_err().to_string();
    assert!(disorder.contains("model/a is named twice or out of order"), "{disorder}");
}

#[test]
fn only_legal_steps_are_taken() {
    let phases: Vec<Assignment> = golden().tasks.into_values().collect();
    let taken =
        |step: fn(&mut Assignment) -> bool| phases.iter().map(|a| u8::from(step(&mut a.clone()))).collect::<Vec<u8>>();
    // acquiring, preparing, releasing, steady, retiring
    assert_eq!(taken(Assignment::acquired), [1, 0, 0, 0, 0]);
    assert_eq!(taken(|a| a.prepare(member("d"), 1)), [0, 0, 0, 1, 0]);
    assert_eq!(taken(Assignment::release), [0, 1, 0, 0, 0]);
    assert_eq!(taken(Assignment::stay), [0, 1, 1, 0, 1]);
    assert_eq!(taken(Assignment::retire), [0, 1, 1, 1, 0]);
    assert_eq!(taken(|a| a.assign(heir("d"), a.epoch() + 1, 1)), [1, 1, 1, 1, 0]);
    assert_eq!(taken(|a| a.assign(heir("d"), a.epoch(), 1)), [0, 0, 0, 0, 0]);
    assert_eq!(taken(|a| a.set_standby(Some(a.owner().clone()))), [0, 0, 0, 0, 0]);
    assert_eq!(taken(|a| a.clone().prepare(a.owner().clone(), 1)), [0, 0, 0, 0, 0]);
}

#[test]
fn a_record_is_replaced_only_by_one_that_goes_on_from_it() {
    let base = golden();
    let refused = |change: &dyn Fn(&mut Placement)| {
        let mut next = base.clone();
        change(&mut next);
        base.check_successor(&next).unwrap_err()
    };
    let edit = |p: &mut Placement, change: &dyn Fn(&mut Assignment)| change(p.tasks.get_mut(&profile(3)).unwrap());
    assert_eq!(base.check_successor(&base), Ok(()));
    assert!(refused(&|p| edit(p, &|a| a.epoch = 6)).contains("epoch 7 falls to 6"));
    assert!(refused(&|p| edit(p, &|a| a.owner = member("a"))).contains("epoch 7 has two owners, c and a"));
    assert!(refused(&|p| edit(p, &|a| a.epoch = 8)).contains("begins without acquiring"));
    assert!(
        refused(&|p| edit(p, &|a| a.phase = Phase::Acquiring { since_ms: 1, from: None })).contains("acquires twice")
    );
    assert!(refused(&|p| drop(p.tasks.remove(&profile(3)))).contains("profile/3 vanishes, and with it epoch 7"));
    assert!(refused(&|p| p.retired.clear()).contains("profile/8 was retired at epoch 4"));
    let mut back = base.clone();
    back.retired.remove(&profile(8));
    back.tasks.insert(profile(8), Assignment::new(heir("a"), 5, 1));
    assert_eq!(base.check_successor(&back), Ok(()));
}

#[test]
fn members_are_told_what_the_record_says_and_nothing_else() {
    let placement = golden();
    let orders = |shard| placement.orders(&member(shard)).into_values().collect::<Vec<_>>();
    use Order::{Follow, Own, Release};
    let own = |epoch, rolled_back| Own { epoch, rolled_back };
    assert_eq!(orders("a"), [own(2, true), own(1, false), Release { epoch: 1 }]);
    assert_eq!(orders("b"), [Follow { epoch: 2 }, Follow { epoch: 1 }, Follow { epoch: 1 }]);
    assert_eq!(orders("c"), [own(7, false), Release { epoch: 7 }]);
    assert_eq!(placement.orders(&Member::new("a", "uid-2")), [].into(), "another incarnation is told nothing");
}

proptest! {
    #[test]
    fn records_of_any_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..2000) {
        prop_assert!(Placement::decode(&bytes, "shop").is_err());
        let mut tampered = golden().encode().unwrap();
        let at = at % tampered.len();
        tampered.splice(at..at, bytes.clone());
        prop_assert_eq!(Placement::decode(&tampered, "shop").is_ok(), bytes.is_empty());
    }
}
