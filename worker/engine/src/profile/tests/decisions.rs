//! Decisions and the impressions that name them.

use super::*;
use crate::{
    control::{Decision, Slot, UsedModel},
    decode::{Decoded, Decoder, Place},
    example::FeatureValue,
};

/// The pipeline of the other tests with two placements; `banner` sends no impressions.
pub fn pipeline() -> String {
    let fields = "fields: {items: item, decision: d, placement: p, attributes: {item.category: cat}}}";
    let pipeline = PIPELINE.replace("fields: {items: item, attributes: {item.category: cat}}}", fields);
    let models = "- {name: ctr, outcome: click, features: [clicks, taste, kinds, item, popular]}";
    let pipeline = pipeline.replace("- {name: ctr, outcome: click, features: [clicks, taste, kinds, item]}", models);
    let pipeline =
        pipeline.replace("  outcomes:\n", "    popular: {per: item, ratio: [click, impression]}\n  outcomes:\n");
    let candidates = "candidates: {fromRequest: 10}, slots: 2, default: plain";
    format!(
        "{pipeline}  policies:\n    plain: {{rankBy: request}}\n    best: {{score: {{ctr: 1}}}}\n  placements:\n  \
         - {{name: home, {candidates}, policy: best, exposeWithin: 5s}}\n  \
         - {{name: banner, {candidates}, policy: best, impressions: decision}}\n"
    )
}

pub fn user(name: &str) -> Pseudonym {
    pseudonymizer().user_of(name)
}

impl Rig {
    /// What ingest makes of one record.
    pub fn ingest_one<'b>(&self, record: &str, bytes: &'b mut Vec<u8>) -> Event<'b> {
        let valid = load(&pipeline()).unwrap();
        let source = &valid.spec().sources[0];
        let mut decoder = Decoder::compile(valid.spec(), source, &self.plan.names, pseudonymizer()).unwrap();
        let mut decoded = Decoded::default();
        decoder.decode(record.as_bytes(), Place { partition: 0, row: 1 }, &mut decoded);
        let (from, to) = decoded.events[0].bytes;
        bytes.extend_from_slice(&decoded.bytes[from as usize + 4..to as usize]);
        Event::read(bytes).unwrap()
    }
}

/// The keyed hash of a decision's id, as `decode` makes it.
pub fn id_of(rig: &Rig, id: &str) -> u64 {
    let record = format!(r#"{{"type":"view","u":"a","t":1,"item":"i","d":"{id}"}}"#);
    rig.ingest_one(&record, &mut Vec::new()).head.decision
}

fn values(numbers: &[f64]) -> Vec<u8> {
    let mut out = Vec::new();
    numbers.iter().for_each(|n| FeatureValue::Number(*n).write(&mut out));
    out
}

pub fn decision(rig: &Rig, id: &str, of: &str, time_ms: i64, placement: &str, items: &[&str]) -> Decision {
    let model = &rig.plan.models[0];
    let columns = model.served.columns.len();
    let slot = |(n, item): (usize, &&str)| Slot {
        item: (*item).into(),
        propensity: 0.5 + n as f64 / 8.0,
        score: n as f64,
        values: values(&vec![n as f64 + 0.25; columns]),
    };
    Decision {
        id: id_of(rig, id),
        user: user(of),
        time: Time(time_ms * 1000),
        session: 0,
        placement: placement.into(),
        platform: "web".into(),
        experiment: Some(("test".into(), "b".into())),
        policy: "best".into(),
        models: vec![UsedModel { name: "ctr".into(), version: 77, schema: model.served.id() }],
        slots: items.iter().enumerate().map(slot).collect(),
    }
}

const VIEW_OF: &str = r#"{"type":"view","u":"a","t":2000,"item":"i1","cat":"x","d":"d1","p":"home"}"#;
const CLICK_OF: &str = r#"{"type":"click","u":"a","t":3000,"item":"i1","cat":"x","id":"e1","d":"d1","p":"home"}"#;

/// Something of everything that a checkpoint holds: a base, and changes.
pub fn saved() -> (Rig, Vec<u8>, Vec<u8>) {
    let mut rig = rig_of(&experiments::pipeline());
    rig.read(&[GRANT, VIEW_OF, CLICK_OF]);
    rig.control(&Control::Decision(decision(&rig, "d1", "a", 1_900, "home", &["i1", "i2"])));
    rig.control(&Control::Erase(crate::control::Erase { user: user("x"), time: Time(5_000_000) }));
    let base = rig.profile.checkpoint(Extent::Base);
    // One impression is labelled and becomes an example, the next one is open.
    rig.read(&[r#"{"type":"view","u":"a","t":4000,"item":"i2","cat":"y","p":"home"}"#, LATER]);
    let changes = rig.profile.checkpoint(Extent::Changes);
    (rig, base, changes)
}

#[test]
fn an_example_says_what_its_decision_says() {
    let mut rig = rig_of(&pipeline());
    rig.read(&[GRANT, VIEW_OF, CLICK_OF, LATER]);
    // It comes after the impression, but before the example.
    rig.control(&Control::Decision(decision(&rig, "d1", "a", 1_900, "home", &["i1", "i2"])));
    rig.end();
    let examples = rig.examples();
    assert_eq!(examples.len(), 1, "the slot that was not exposed is not learned from");
    let example = Example::read(&examples[0]).unwrap();
    let (head, served) = (&example.head, &rig.plan.models[0].served);
    assert_eq!((head.item, head.label, head.propensity, head.score), ("i1", true, 0.5, 0.0));
    assert_eq!((head.variant, head.policy, head.model_version), ("test/b", "best", 77));
    assert_eq!((head.schema, head.generation), (served.id(), 1));
    assert!(example.values().eq(vec![FeatureValue::Number(0.25); served.columns.len()]));
    assert_eq!((rig.profile.counts().decisions, rig.profile.counts().decisions_missing), (1, 0));
    let mut model = rig.plan.models[0].fresh.clone();
    model.learn(&example).expect("the model takes what it was served");
}

#[test]
fn without_its_decision_an_example_has_its_own_values_and_is_counted() {
    let other_user = |rig: &Rig| Some(decision(rig, "d1", "b", 1_900, "home", &["i1"]));
    let other_item = |rig: &Rig| Some(decision(rig, "d1", "a", 1_900, "home", &["i2"]));
    let too_early = |rig: &Rig| Some(decision(rig, "d1", "a", -40_000, "home", &["i1"]));
    let cases: [fn(&Rig) -> Option<Decision>; 4] = [|_| None, other_user, other_item, too_early];
    for case in cases {
        let mut rig = rig_of(&pipeline());
        rig.read(&[GRANT, VIEW_OF, LATER]);
        if let Some(decision) = case(&rig) {
            rig.control(&Control::Decision(decision));
        }
        rig.end();
        let examples = rig.examples();
        let example = Example::read(&examples[0]).unwrap();
        assert!(example.head.propensity.is_nan() && !example.head.is_decided());
        assert_eq!(example.head.schema, rig.plan.models[0].schema.id());
        assert_eq!(rig.profile.counts().decisions_missing, 1);
    }
}

#[test]
fn a_model_that_the_decision_did_not_use_gets_its_own_values() {
    let mut rig = rig_of(&pipeline());
    let mut plain = decision(&rig, "d1", "a", 1_900, "home", &["i1"]);
    plain.models.clear();
    plain.slots[0].values.clear();
    let mut other = plain.clone();
    other.models = vec![UsedModel { name: "gone".into(), version: 3, schema: 4 }];
    other.slots[0].values = values(&[1.0, 2.0]);
    for decision in [plain, other] {
        rig = rig_of(&pipeline());
        rig.read(&[GRANT, VIEW_OF]);
        rig.control(&Control::Decision(decision));
        rig.end();
        let examples = rig.examples();
        let example = Example::read(&examples[0]).unwrap();
        assert_eq!((example.head.propensity, example.head.model_version), (0.5, 0), "the slot counts all the same");
        assert_eq!(example.head.schema, rig.plan.models[0].schema.id());
    }
}

#[test]
fn where_decisions_are_impressions_all_slots_are_exposed() {
    let mut rig = rig_of(&pipeline());
    rig.read(&[GRANT, r#"{"type":"view","u":"b","t":2000}"#]);
    rig.control(&Control::Decision(decision(&rig, "d1", "a", 4_000, "banner", &["i1", "i2"])));
    assert_eq!(rig.profile.open_joins(), 0, "its time has not come");
    // An impression of such a placement shows nothing more; its click labels the decision.
    rig.read(&[
        r#"{"type":"view","u":"a","t":4100,"item":"i3","d":"d1","p":"banner"}"#,
        r#"{"type":"click","u":"a","t":4500,"item":"i2","d":"d1"}"#,
        LATER,
    ]);
    assert_eq!(rig.profile.open_joins(), 1);
    // One that is read late opens where the watermark stands.
    rig.control(&Control::Decision(decision(&rig, "d2", "a", 3_000, "banner", &["i1"])));
    rig.end();
    let examples = rig.examples();
    let read = |bytes: &Vec<u8>| {
        let head = Example::read(bytes).unwrap().head;
        (head.item.to_owned(), head.position, head.impression.0 / 1000, head.label, head.propensity)
    };
    let expected = [("i1", 0, 4_000, false, 0.5), ("i2", 1, 4_000, true, 0.625), ("i1", 0, 8_899, false, 0.5)];
    let expected = expected.map(|(item, at, time, label, p)| (item.to_owned(), at, time, label, p));
    assert_eq!(examples.iter().map(read).collect::<Vec<_>>(), expected);
    let counts = rig.profile.counts();
    assert_eq!((counts.accepted, counts.unconsented, counts.decisions), (3, 2, 2), "decisions are no events");
}

#[test]
fn filed_decisions_go_with_their_window_and_with_their_user() {
    let mut rig = rig_of(&pipeline());
    rig.read(&[GRANT]);
    let early = decision(&rig, "d1", "a", 1_900, "home", &["i1"]);
    rig.control(&Control::Decision(early.clone()));
    rig.control(&Control::Decision(early));
    rig.control(&Control::Decision(decision(&rig, "d2", "a", 30_000, "home", &["i1"])));
    assert_eq!((rig.profile.counts().decisions, rig.profile.filed_decisions().0), (2, 2), "the same one once");
    let until = 1_900 + 5_000 + 10_000; // + exposeWithin + within
    let at = |t: i64| format!(r#"{{"type":"view","u":"b","t":{}}}"#, t + 100);
    rig.read(&[&at(until)]);
    assert_eq!(rig.profile.filed_decisions().0, 2);
    rig.read(&[&at(until + 2)]);
    assert_eq!(rig.profile.filed_decisions().0, 1);
    rig.read(&[r#"{"type":"consent","u":"a","t":17500,"ok":false}"#, r#"{"type":"view","u":"b","t":17700}"#]);
    assert_eq!(rig.profile.filed_decisions(), (0, 0));
}

#[test]
fn decisions_survive_restarts_from_a_base_and_changes() {
    let mut rig = rig_of(&pipeline());
    rig.read(&[GRANT, VIEW_OF]);
    for (id, time) in [("d1", 1_900), ("d2", 2_000), ("d3", 2_100)] {
        rig.control(&Control::Decision(decision(&rig, id, "a", time, "home", &["i1"])));
    }
    let base = rig.profile.checkpoint(Extent::Base);
    rig.control(&Control::Decision(decision(&rig, "d4", "a", 20_000, "home", &["i1"])));
    rig.read(&[r#"{"type":"view","u":"b","t":17050}"#]); // d1 goes
    let changes = rig.profile.checkpoint(Extent::Changes);
    assert!(changes.len() < base.len());
    let (digest, filed) = (rig.profile.digest(), rig.profile.filed_decisions());
    assert_eq!(filed.0, 3);
    rig.restart(&[&base, &changes]);
    assert_eq!((rig.profile.digest(), rig.profile.filed_decisions()), (digest, filed));
    rig.read(&[r#"{"type":"view","u":"a","t":17300,"item":"i1","d":"d4","p":"home"}"#]);
    rig.end();
    let of_d4 = rig.examples().pop().unwrap();
    assert_eq!(Example::read(&of_d4).unwrap().head.propensity, 0.5);
}
