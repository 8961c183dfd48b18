use millrace_crds::spec::Join;
use proptest::prelude::*;

use super::*;
use crate::{
    checkpoint::{Extent, VERSION},
    codec::Reader,
    event::{ConsentChange, EventWriter, Head, Item},
};

const IMPRESSION: EventType = 0;
const CLICK: EventType = 1;
const ORDER: EventType = 2;

/// An event in small numbers. `record` tells which source record it came of.
#[derive(Clone, Debug)]
struct Small {
    time: i64,
    record: u64,
    kind: EventType,
    decision: u64,
    items: Vec<u8>,
}

fn encode(small: &Small, index: u32) -> Vec<u8> {
    let head = Head {
        seq: Seq { offset: small.record, index },
        time: Time(small.time),
        stated: Time(small.time),
        user: Pseudonym(1),
        event_type: small.kind,
        consent: ConsentChange::None,
        id: 0,
        decision: small.decision,
        session: 0,
        basket: 0,
        value: f64::NAN,
    };
    let mut bytes = Vec::new();
    let mut w = EventWriter::new(&mut bytes, &head, "home", "web", "");
    for (n, item) in small.items.iter().enumerate() {
        let id = format!("i{item}");
        let mut item = Item::new(&id);
        item.position = n as i32;
        w.item(&item);
    }
    w.attributes().finish();
    bytes[4..].to_vec()
}

fn outcomes() -> Vec<OutcomePlan> {
    let plan = |name: &str, event, join, within_micros| OutcomePlan { name: name.into(), event, join, within_micros };
    vec![
        plan("item", CLICK, Join::Item, 10),
        plan("decision", CLICK, Join::Decision, 15),
        plan("user", ORDER, Join::User, 20),
    ]
}

/// (outcome, fire time, impression's number, item's place, label)
type Row = (usize, i64, usize, usize, bool);

/// The definition, word for word: each outcome's items label the latest impression that is eligible.
fn naive(events: &[Small]) -> Vec<Row> {
    let mut labels = std::collections::BTreeSet::new();
    for (n, outcome) in outcomes().iter().enumerate() {
        for (at, event) in events.iter().enumerate().filter(|(_, e)| e.kind == outcome.event) {
            let open =
                |i: &usize| events[*i].kind == IMPRESSION && event.time <= events[*i].time + outcome.within_micros;
            let before: Vec<usize> = (0..at).filter(open).filter(|i| !events[*i].items.is_empty()).collect();
            let mut label = |i: usize, wanted: Option<u8>| {
                for (place, item) in events[i].items.iter().enumerate() {
                    if wanted.is_none_or(|w| w == *item) {
                        labels.insert((n, i, place));
                    }
                }
            };
            match outcome.join {
                Join::User => {
                    if let Some(i) = before.iter().rev().find(|i| events[**i].record != event.record) {
                        label(*i, None);
                    }
                }
                Join::Decision if event.decision != 0 => {
                    if let Some(i) = before.iter().rev().find(|i| events[**i].decision == event.decision) {
                        match event.items.is_empty() {
                            true => label(*i, None),
                            false => event.items.iter().for_each(|item| label(*i, Some(*item))),
                        }
                    }
                }
                _ => {
                    for item in &event.items {
                        if let Some(i) = before.iter().rev().find(|i| events[**i].items.contains(item)) {
                            label(*i, Some(*item));
                        }
                    }
                }
            }
        }
    }
    let mut rows = Vec::new();
    for (n, outcome) in outcomes().iter().enumerate() {
        for (i, event) in events.iter().enumerate().filter(|(_, e)| e.kind == IMPRESSION) {
            for place in 0..event.items.len() {
                rows.push((n, event.time + outcome.within_micros, i, place, labels.contains(&(n, i, place))));
            }
        }
    }
    rows.sort_by_key(|row| (row.1, row.0, row.2, row.3));
    rows
}

fn save(joins: &mut Joins, extent: Extent) -> Vec<u8> {
    let (mut saved, mut all) = (Vec::new(), usize::MAX);
    joins.begin(extent);
    assert!(joins.go_on(&mut all, &mut saved));
    saved
}

/// The fast join, driven as the profile task drives it, saved and restored where `restore` says.
fn fast(events: &[Small], restore: &[bool]) -> Vec<Row> {
    let examples: Vec<ExamplePlan> =
        (0..3).map(|outcome| ExamplePlan { model: format!("m{outcome}"), outcome, schema: 7, columns: 1 }).collect();
    let mut joins = Joins::new(outcomes(), &examples);
    let (mut rows, mut parts) = (Vec::new(), Vec::new());
    let fire = |joins: &mut Joins, rows: &mut Vec<Row>| {
        joins.fire(|model, _, head, values| {
            let mut values = Reader::new(values);
            let Ok(FeatureValue::Number(impression)) = FeatureValue::read(&mut values) else {
                panic!("a value was lost")
            };
            assert!(values.is_empty());
            assert_eq!((head.placement, head.platform, head.schema), ("home", "web", 7));
            rows.push((model, head.time.0, impression as usize, head.position as usize, head.label));
        });
    };
    for (i, small) in events.iter().enumerate() {
        while joins.due().is_some_and(|due| due < Time(small.time)) {
            fire(&mut joins, &mut rows);
        }
        let bytes = encode(small, i as u32);
        let event = Event::read(&bytes).unwrap();
        joins.label(0, Origin::default(), &event);
        if small.kind == IMPRESSION {
            joins.open(0, Origin::default(), &event, |_, _, out| {
                out.clear();
                out.push(FeatureValue::Number(i as f64));
            });
        }
        if restore.get(i) == Some(&true) {
            let extent = if parts.is_empty() { Extent::Base } else { Extent::Changes };
            parts.push((extent, save(&mut joins, extent)));
            let mut restoring = Restoring::new(outcomes(), &examples);
            for (extent, part) in &parts {
                restoring.read(VERSION, *extent, &mut Reader::new(part)).unwrap();
            }
            let restored = restoring.finish(|_| Some(0)).unwrap();
            assert_eq!(restored.digest(), joins.digest());
            joins = restored;
        }
    }
    while joins.due().is_some() {
        fire(&mut joins, &mut rows);
    }
    assert_eq!(joins.open_count(), 0);
    rows
}

fn event() -> impl Strategy<Value = (i64, bool, u8, u64, Vec<u8>)> {
    (0i64..6, any::<bool>(), 0u8..3, 0u64..3, proptest::collection::vec(0u8..4, 0..3))
}

proptest! {
    #[test]
    fn the_fast_join_is_the_naive_one(
        steps in proptest::collection::vec(event(), 1..60),
        restore in proptest::collection::vec(proptest::bool::weighted(0.1), 60),
    ) {
        let (mut time, mut record) = (0, 0);
        let events: Vec<Small> = steps.into_iter().map(|(step, same_record, kind, decision, mut items)| {
            time += step;
            record += u64::from(!same_record);
            items.dedup();
            Small { time, record, kind, decision, items }
        }).collect();
        prop_assert_eq!(fast(&events, &restore), naive(&events));
    }
}

#[test]
fn a_user_who_is_forgotten_leaves_no_example() {
    let events = [Small { time: 1, record: 1, kind: IMPRESSION, decision: 0, items: vec![1] }];
    let mut joins = Joins::new(outcomes(), &[ExamplePlan { model: "m".into(), outcome: 0, schema: 7, columns: 0 }]);
    let bytes = encode(&events[0], 0);
    joins.open(3, Origin::default(), &Event::read(&bytes).unwrap(), |_, _, _| {});
    joins.forget(3);
    while joins.due().is_some() {
        joins.fire(|_, _, _, _| panic!("the impression was forgotten"));
    }
    assert_eq!(joins.open_count(), 0);
}

#[test]
fn changes_hold_what_was_opened_labelled_or_closed() {
    let examples = [ExamplePlan { model: "m".into(), outcome: 0, schema: 7, columns: 0 }];
    let small = |record: u64, kind| Small { time: 1, record, kind, decision: 0, items: vec![1] };
    let mut joins = Joins::new(outcomes(), &examples);
    let feed = |joins: &mut Joins, user_slot: u32, small: &Small| {
        let bytes = encode(small, 0);
        let event = Event::read(&bytes).unwrap();
        joins.label(user_slot, Origin::default(), &event);
        if small.kind == IMPRESSION {
            joins.open(user_slot, Origin::default(), &event, |_, _, _| {});
        }
    };
    (0..100).for_each(|user| feed(&mut joins, user, &small(u64::from(user), IMPRESSION)));
    let base = save(&mut joins, Extent::Base);
    let nothing = save(&mut joins, Extent::Changes);
    feed(&mut joins, 5, &small(100, CLICK));
    // The newest was never saved: nobody needs to know that it is gone.
    feed(&mut joins, 100, &small(101, IMPRESSION));
    [100, 7, 8].into_iter().for_each(|user| joins.forget(user));
    feed(&mut joins, 100, &small(102, IMPRESSION));
    let changes = save(&mut joins, Extent::Changes);
    let row = (base.len() - nothing.len()) / 100;
    let two_rows = nothing.len() + 2 * row;
    assert!((two_rows..two_rows + row).contains(&changes.len()), "{row}: {} {}", nothing.len(), changes.len());
    let restored = |parts: &[(Extent, &[u8])]| {
        let mut restoring = Restoring::new(outcomes(), &examples);
        let read = parts.iter().try_for_each(|(of, part)| restoring.read(VERSION, *of, &mut Reader::new(part)));
        read.and_then(|()| restoring.finish(|_| Some(0))).map(|joins| (joins.open_count(), joins.digest()))
    };
    let all = [(Extent::Base, base.as_slice()), (Extent::Changes, &nothing), (Extent::Changes, &changes)];
    assert_eq!(restored(&all).unwrap(), (99, joins.digest()));
    assert!(restored(&all[1..]).is_err(), "what is closed was never open");
}
