//! What models see of a decision, and what is recorded of it.

use super::support::*;
use crate::{
    codec::Reader,
    decide::{Candidate, Request},
    event::{Event, EventWriter, Head, Item, Seq, Value},
    example::{Example, ExampleHead, FeatureValue, VALUE_BYTES},
    feature::Context,
};

fn read(bytes: &[u8]) -> Vec<FeatureValue> {
    bytes.chunks(VALUE_BYTES).map(|value| FeatureValue::read(&mut Reader::new(value)).unwrap()).collect()
}

/// The recorded values, learned from as an example, give the score that was served; and they are what an impression of the
/// same moment would have been read as.
#[test]
fn trained_is_what_was_served() {
    let mut shop = Shop::new();
    let attributes = [(LOCALE, Value::Text("fr"))];
    for seed in 0..20 {
        let answer = shop.personal(&Request { seed, attributes: &attributes, ..request(HOME) });
        let record = answer.record.clone().unwrap();
        assert_eq!((record.id, record.time, record.session, record.placement.as_str()), (11, NOW, 7, "home"));
        let names: Vec<&str> = record.models.iter().map(|used| used.name.as_str()).collect();
        assert_eq!(names, ["ctr", "each"]);
        for (slot, shown) in record.slots.iter().zip(&answer.items) {
            assert_eq!((&slot.item, slot.propensity, slot.score), (&shown.item, shown.propensity, shown.score));
            let (mut rest, mut score) = (slot.values.as_slice(), 0.0);
            for (used, weight) in record.models.iter().zip([1.0, 0.5]) {
                let at = shop.plan.models.iter().position(|model| model.name == used.name).unwrap();
                let plan = &shop.plan.models[at];
                assert_eq!((used.schema, used.version), (plan.served.id(), 3_000));
                let (values, after) = rest.split_at(plan.served.columns.len() * VALUE_BYTES);
                rest = after;
                let head = ExampleHead {
                    time: NOW.plus(HOUR),
                    impression: NOW,
                    item: &slot.item,
                    schema: used.schema,
                    ..ExampleHead::default()
                };
                let bytes = example(&head, values);
                score += weight * shop.trained[at].predict(&Example::read(&bytes).unwrap()).probability;

                let impression = impression(&shop, &slot.item);
                let event = Event::read(&impression).unwrap();
                let context = Context { time: NOW, event: &event, item: event.items().next() };
                let mut expected = Vec::new();
                shop.plan.features.read(&plan.projection, Some(shop.row.row()), &context, &mut expected);
                assert_eq!(read(values)[..expected.len()], expected, "{:?}", plan.served);
            }
            assert!(rest.is_empty() && (score - slot.score).abs() < 1e-6, "{score} {}", slot.score);
        }
    }
}

/// As a client would send it.
fn impression(shop: &Shop, id: &str) -> Vec<u8> {
    let head = Head {
        seq: Seq::START,
        time: NOW,
        stated: NOW,
        user: crate::event::Pseudonym(1),
        event_type: shop.plan.names.event("impression").unwrap(),
        consent: crate::event::ConsentChange::None,
        id: 0,
        decision: 11,
        session: 7,
        basket: 0,
        value: f64::NAN,
    };
    let mut bytes = Vec::new();
    let mut writer = EventWriter::new(&mut bytes, &head, "home", "web", "");
    writer.item(&Item::new(id));
    let attributes = &shop.catalog.get(id).unwrap().attributes;
    attributes.iter().for_each(|(id, value)| writer.item_attribute(*id, value.value()));
    let mut writer = writer.attributes();
    writer.attribute(LOCALE, Value::Text("fr"));
    writer.finish();
    bytes.split_off(4)
}

/// Numbers that are none, text that is too long, attributes named twice: as if they were missing, or as named first.
#[test]
fn attributes_of_requests_may_be_anything() {
    let mut shop = Shop::new();
    let long = "x".repeat(300);
    let of = |attributes: &'static [(u16, Value<'static>)]| [Candidate { item: "unseen", attributes }];
    let mut score = |candidates: &[Candidate<'_>], attributes: &[(u16, Value<'_>)]| {
        let answer = shop.personal(&Request { candidates, attributes, ..request(SEARCH) });
        let record = answer.record.unwrap();
        (answer.items[0].score, record.slots[0].values.clone())
    };
    let missing = score(&of(&[]), &[]);
    for odd in [
        of(&[(PRICE, Value::Number(f64::NAN))]),
        of(&[(PRICE, Value::Number(f64::INFINITY))]),
        of(&[(PRICE, Value::Number(f64::NEG_INFINITY)), (CATEGORY, Value::Text(""))]),
        [Candidate { item: "unseen", attributes: &[(CATEGORY, Value::Text(&long))] }],
    ] {
        let found = score(&odd, &[(LOCALE, Value::Text(&long)), (LOCALE, Value::Number(f64::NAN))]);
        assert!(found.0.is_finite());
        assert_eq!(found, missing, "{odd:?}");
    }
    let once =
        score(&of(&[(CATEGORY, Value::Text("c1")), (PRICE, Value::Number(7.0))]), &[(LOCALE, Value::Text("de"))]);
    assert_ne!(once, missing);
    let twice = of(&[
        (PRICE, Value::Number(7.0)),
        (CATEGORY, Value::Text("c1")),
        (PRICE, Value::Number(1e300)),
        (CATEGORY, Value::Text("c0")),
    ]);
    assert_eq!(score(&twice, &[(LOCALE, Value::Text("de")), (LOCALE, Value::Text("fr"))]), once);
    let extreme = score(&of(&[(PRICE, Value::Number(f64::MAX))]), &[]);
    assert!(extreme.0.is_finite());
}

#[test]
fn the_catalog_says_what_the_request_does_not() {
    let mut shop = Shop::new();
    let mut values = |item: &str, attributes: &[(u16, Value<'_>)]| {
        let candidates = [Candidate { item, attributes }];
        shop.personal(&Request { candidates: &candidates, ..request(SEARCH) }).record.unwrap().slots[0].values.clone()
    };
    let of_catalog = values("i04", &[]);
    assert_eq!(of_catalog, values("i04", &[(PRICE, Value::Number(9.0)), (CATEGORY, Value::Text("c1"))]));
    assert_ne!(of_catalog, values("i04", &[(PRICE, Value::Number(3.0))]));
    assert_eq!(
        values("i04", &[(CATEGORY, Value::Text("c2"))]),
        values("i04", &[(PRICE, Value::Number(9.0)), (CATEGORY, Value::Text("c2"))])
    );
}

/// The order in which candidates are named, and who is among them, does not change a candidate's score.
#[test]
fn scores_do_not_depend_on_the_other_candidates() {
    let mut shop = Shop::new();
    let all: Vec<String> = (0..12).filter(|n| n % 6 != 5).map(|n| item(n).id).collect();
    let mut order: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut expected = std::collections::BTreeMap::new();
    for turn in 0..order.len() {
        order.rotate_left(1);
        let candidates = named(&order[..4 + turn % 5]);
        let answer = shop.personal(&Request { candidates: &candidates, ..request(SEARCH) });
        for shown in &answer.items {
            let score = *expected.entry(shown.item.clone()).or_insert(shown.score);
            assert_eq!(score, shown.score, "{}", shown.item);
        }
        assert!(answer.items.is_sorted_by(|a, b| a.score >= b.score), "greedy");
    }
    assert!(expected.len() > 6);
}
