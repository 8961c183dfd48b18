use proptest::prelude::*;

use super::*;
use crate::{
    checkpoint::Extent,
    codec::Put,
    event::{Event, Time},
    feature::tests::{ALL, Made, MadeItem, any_events, spec_with},
    names::Names,
};

const SMALL: &str = r#"{
  "clicks":  {"count": "click"},
  "recent":  {"count": "click", "window": "20s", "buckets": 2},
  "items":   {"distinct": "click", "of": "item"},
  "session": {"per": "session", "lastN": "click", "of": "item.category", "n": 2}
}"#;

fn compiled(features: &str) -> (Features, Names) {
    let spec = spec_with(features);
    let names = Names::of(&spec);
    (Features::compile(&spec, &names).unwrap(), names)
}

/// What a base is to be, in one go.
fn base(users: &Users) -> Vec<u8> {
    expected(users, 0, &users.live, &BTreeSet::new())
}

fn expected(users: &Users, kind: u8, of: &Bits, tombstones: &BTreeSet<Pseudonym>) -> Vec<u8> {
    let mut rows: Vec<(Pseudonym, Slot)> = of.iter().map(|slot| (users.pseudonym_of(Slot(slot)), Slot(slot))).collect();
    rows.sort_unstable();
    let mut out = Vec::new();
    out.put_u16(1);
    out.put_u8(kind);
    out.put_u64(users.layout.id);
    out.put_u32((users.layout.bytes - users.layout.local) as u32);
    out.put_u32(rows.len() as u32);
    rows.iter().for_each(|(_, slot)| users.row(*slot).encode(&mut out));
    out.put_u32(tombstones.len() as u32);
    tombstones.iter().for_each(|user| out.put_u128(user.0));
    out
}

fn encode(users: &mut Users, extent: Extent) -> Vec<u8> {
    let mut out = Vec::new();
    users.begin(extent);
    let mut all = usize::MAX;
    assert!(users.go_on(&mut all, &mut out));
    out
}

fn changes(users: &mut Users) -> Vec<u8> {
    let expected = expected(users, 1, &users.dirty, &users.tombstones);
    let bytes = encode(users, Extent::Changes);
    assert_eq!(bytes, expected);
    bytes
}

fn saved(users: &mut Users) -> Vec<u8> {
    let expected = base(users);
    let bytes = encode(users, Extent::Base);
    assert_eq!(bytes, expected);
    bytes
}

/// A base of what is restored of these.
fn restored(features: &Features, saved: &[Vec<u8>]) -> Vec<u8> {
    let mut users = Users::load_all(features, &saved[0]).unwrap();
    saved[1..].iter().for_each(|delta| users.apply_changes(delta).unwrap());
    base(&users)
}

fn apply(users: &mut Users, features: &Features, names: &Names, user: u128, made: &Made) {
    let bytes = made.bytes(names, Pseudonym(user));
    let event = Event::read(&bytes).unwrap();
    let slot = users.get_or_insert(event.head.user);
    features.update(&mut users.row_mut(slot), &event);
}

fn click(time: i64, item: &str) -> Made {
    let item = MadeItem { id: item.into(), category: Some("c".into()), ..MadeItem::default() };
    Made { time, event: "click", session: 9, items: vec![item], ..Made::default() }
}

#[derive(Clone, Debug)]
enum Step {
    Row(RowChange),
    Delta,
    Base,
    Digest,
}

#[derive(Clone, Debug)]
enum RowChange {
    Apply(u128, Made),
    Grant(u128, i64),
    Remove(u128),
}

impl RowChange {
    fn make(&self, users: &mut Users, features: &Features, names: &Names) {
        match self {
            Self::Apply(user, made) => apply(users, features, names, *user, made),
            Self::Grant(user, time) => {
                let slot = users.get_or_insert(Pseudonym(*user));
                users.row_mut(slot).set_granted(Time(*time));
                assert_eq!(users.row(slot).granted(), Time(*time));
            }
            Self::Remove(user) => {
                let was_there = users.find(Pseudonym(*user)).is_some();
                assert_eq!(users.remove(Pseudonym(*user)), was_there);
                assert_eq!(users.find(Pseudonym(*user)), None);
            }
        }
    }
}

/// Few users whose pseudonyms agree in their low bits, so that the index has to tell them apart.
fn any_user() -> impl Strategy<Value = u128> {
    (0u128..12).prop_map(|i| (i << 100) | (i % 3))
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = |(dice, user, made, time): (u8, u128, Made, i64)| match dice {
        0..10 => Step::Row(RowChange::Apply(user, made)),
        10 => Step::Row(RowChange::Grant(user, time)),
        11..13 => Step::Row(RowChange::Remove(user)),
        13..15 => Step::Delta,
        15 => Step::Base,
        _ => Step::Digest,
    };
    any_events(1..80).prop_flat_map(move |events| {
        let each = (0u8..17, any_user(), any::<i64>());
        proptest::collection::vec(each, events.len()).prop_map(move |dice| {
            dice.into_iter().zip(events.clone()).map(|((d, user, time), made)| step((d, user, made, time))).collect()
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn base_and_deltas_restore_the_live_table(steps in any_steps()) {
        let (features, names) = compiled(ALL);
        let mut live = Users::new(&features);
        let mut saved = super::tests::saved(&mut live);
        let mut deltas: Vec<Vec<u8>> = Vec::new();
        for step in steps {
            match step {
                Step::Row(change) => change.make(&mut live, &features, &names),
                Step::Delta => deltas.push(changes(&mut live)),
                Step::Base => {
                    saved = super::tests::saved(&mut live);
                    deltas.clear();
                }
                Step::Digest => {
                    live.digest();
                }
            }
        }
        deltas.push(changes(&mut live));
        let mut restored = Users::load_all(&features, &saved).unwrap();
        for delta in &deltas {
            restored.apply_changes(delta).unwrap();
        }
        prop_assert_eq!(base(&restored), base(&live));
        prop_assert_eq!(restored.digest(), live.digest());
        prop_assert_eq!(restored.len(), live.len());
        let mut rebuilt = Users::load_all(&features, &base(&live)).unwrap();
        prop_assert_eq!(rebuilt.digest(), live.digest(), "the incremental digest is that of a rebuilt table");
        prop_assert_eq!(changes(&mut rebuilt), changes(&mut Users::new(&features)), "a loaded table is clean");
    }

    /// Whatever happens while it is under way, a checkpoint holds the table as it was when it began, byte for byte, and the
    /// next one what changed since.
    #[test]
    fn a_checkpoint_under_way_is_of_its_beginning(
        steps in any_steps(), budgets in proptest::collection::vec(1usize..6, 1..200)
    ) {
        let (features, names) = compiled(ALL);
        let mut live = Users::new(&features);
        let mut saved: Vec<Vec<u8>> = vec![super::tests::saved(&mut live)];
        let mut under_way: Option<(Vec<u8>, Vec<u8>, Vec<u8>)> = None;
        let mut budgets = budgets.into_iter().cycle();
        for step in steps {
            match step {
                Step::Row(change) => change.make(&mut live, &features, &names),
                Step::Delta | Step::Base if under_way.is_none() => {
                    let extent = if matches!(step, Step::Base) { Extent::Base } else { Extent::Changes };
                    let bytes = match extent {
                        Extent::Base => base(&live),
                        Extent::Changes => expected(&live, 1, &live.dirty, &live.tombstones),
                    };
                    under_way = Some((bytes, base(&live), Vec::new()));
                    live.begin(extent);
                    if extent == Extent::Base {
                        saved.clear();
                    }
                }
                _ => {
                    live.digest();
                }
            }
            if let Some((expected, whole, mut out)) = under_way.take() {
                let is_done = live.go_on(&mut budgets.next().unwrap(), &mut out);
                if !is_done {
                    under_way = Some((expected, whole, out));
                    continue;
                }
                prop_assert_eq!(&out, &expected);
                saved.push(out);
                prop_assert_eq!(restored(&features, &saved), whole);
            }
        }
        if let Some((_, _, mut out)) = under_way {
            while !live.go_on(&mut 1, &mut out) {}
            saved.push(out);
        }
        saved.push(changes(&mut live));
        prop_assert_eq!(restored(&features, &saved), base(&live));
    }

    #[test]
    fn the_digest_does_not_depend_on_the_order_of_users(events in any_events(1..40)) {
        let (features, names) = compiled(ALL);
        let (mut forth, mut back) = (Users::new(&features), Users::new(&features));
        let users: Vec<u128> = (0..5).map(|i| i * 7).collect();
        let history = |user: u128| events.iter().skip(user as usize % 3).step_by(2);
        for user in &users {
            history(*user).for_each(|made| apply(&mut forth, &features, &names, *user, made));
            forth.digest();
        }
        for user in users.iter().rev() {
            history(*user).for_each(|made| apply(&mut back, &features, &names, *user, made));
        }
        prop_assert_eq!(forth.digest(), back.digest());
        prop_assert_eq!(base(&forth), base(&back));
    }

    #[test]
    fn damaged_bytes_are_refused_or_harmless(
        events in any_events(1..30), flips in proptest::collection::vec((any::<usize>(), 0u8..8), 0..4), cut in any::<usize>()
    ) {
        let (features, names) = compiled(ALL);
        let mut live = Users::new(&features);
        for (i, made) in events.iter().enumerate() {
            apply(&mut live, &features, &names, i as u128 % 3, made);
        }
        let mut bytes = base(&live);
        for (at, bit) in &flips {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        if flips.is_empty() {
            bytes.truncate(cut % bytes.len());
            prop_assert!(Users::load_all(&features, &bytes).is_err(), "cut off");
        }
        if let Ok(mut users) = Users::load_all(&features, &bytes) {
            for (i, made) in events.iter().enumerate() {
                apply(&mut users, &features, &names, i as u128 % 3, made);
            }
            users.digest();
            changes(&mut users);
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (features, _) = compiled(SMALL);
        prop_assert!(Users::load_all(&features, &bytes).is_err());
        prop_assert!(Users::new(&features).apply_changes(&bytes).is_err());
    }
}

#[test]
fn a_removed_users_slot_is_used_again_without_a_trace() {
    let (features, names) = compiled(SMALL);
    let mut users = Users::new(&features);
    apply(&mut users, &features, &names, 1, &click(1, "a"));
    let slot = users.find(Pseudonym(1)).unwrap();
    users.digest();
    assert!(users.remove(Pseudonym(1)));
    assert!(!users.remove(Pseudonym(1)));
    assert_eq!(users.digest(), 0);
    assert_eq!(users.get_or_insert(Pseudonym(2)), slot);
    assert_eq!(users.row(slot).last_event(), Time::MIN);
    assert_eq!(users.row(slot).granted(), Time::MIN);
    assert_eq!((users.len(), users.pseudonym_of(slot)), (1, Pseudonym(2)));
    let mut fresh = Users::new(&features);
    fresh.get_or_insert(Pseudonym(2));
    assert_eq!(users.digest(), fresh.digest());
}

#[test]
fn a_user_removed_and_there_again_is_in_the_delta_without_the_past() {
    let (features, names) = compiled(SMALL);
    let mut live = Users::new(&features);
    apply(&mut live, &features, &names, 1, &click(1, "a"));
    let saved = saved(&mut live);
    live.remove(Pseudonym(1));
    apply(&mut live, &features, &names, 1, &click(2, "b"));
    let delta = changes(&mut live);
    let mut restored = Users::load_all(&features, &saved).unwrap();
    restored.apply_changes(&delta).unwrap();
    assert_eq!(base(&restored), base(&live));
}

/// So many that they are dealt into several ranges, while some go, come and change.
#[test]
fn a_large_checkpoint_under_way_is_of_its_beginning() {
    let (features, names) = compiled(SMALL);
    let mut users = Users::new(&features);
    let pseudonym = |i: u64| Pseudonym(xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes()));
    (0..5_000).for_each(|i| apply(&mut users, &features, &names, pseudonym(i).0, &click(1, "a")));
    (0..100).for_each(|i| assert!(users.remove(pseudonym(i))));
    let before = base(&users);
    let (mut out, mut at) = (Vec::new(), 0);
    users.begin(Extent::Base);
    while !users.go_on(&mut 40, &mut out) {
        at += 13;
        assert!(users.remove(pseudonym(at)) || at < 100);
        apply(&mut users, &features, &names, pseudonym(at + 1).0, &click(2, "b"));
        apply(&mut users, &features, &names, pseudonym(at + 100_000).0, &click(2, "c"));
    }
    assert!(at > 1_000 && out == before);
    let delta = changes(&mut users);
    assert_eq!(restored(&features, &[out, delta]), base(&users));
}

#[test]
fn many_users_are_found_again() {
    let (features, _) = compiled(SMALL);
    let mut users = Users::new(&features);
    let pseudonym = |i: u64| Pseudonym(xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes()));
    for i in 0..20_000 {
        users.get_or_insert(pseudonym(i));
    }
    (0..20_000).step_by(3).for_each(|i| assert!(users.remove(pseudonym(i))));
    (0..40_000).for_each(|i| assert_eq!(users.find(pseudonym(i)).is_some(), i < 20_000 && i % 3 != 0));
}

#[test]
fn bytes_of_other_features_are_refused() {
    let (features, _) = compiled(SMALL);
    let (other, _) = compiled(r#"{"clicks": {"count": "order"}}"#);
    let (same_width, _) = compiled(&SMALL.replace("\"count\": \"click\"", "\"count\": \"order\""));
    let bytes = base(&Users::new(&features));
    assert_eq!(Users::load_all(&other, &bytes).unwrap_err().what, "layout of users");
    assert_eq!(Users::load_all(&same_width, &bytes).unwrap_err().what, "layout of users");
}

/// Version 1 of a base. If this fails, old checkpoints cannot be read: raise the version and keep reading this one.
#[test]
fn golden_version_1() {
    let (features, names) = compiled(SMALL);
    let mut users = Users::new(&features);
    apply(&mut users, &features, &names, 2, &click(25_000_000, "b"));
    apply(&mut users, &features, &names, 1, &click(1_000_000, "a"));
    apply(&mut users, &features, &names, 1, &click(12_000_000, "b"));
    let slot = users.get_or_insert(Pseudonym(1));
    users.row_mut(slot).set_granted(Time(500));
    let golden: String = include_str!("golden_v1.hex").split_whitespace().collect();
    let hex: String = base(&users).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden);
    assert_eq!(base(&Users::load_all(&features, &base(&users)).unwrap()), base(&users));
}
