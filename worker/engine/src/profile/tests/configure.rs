//! A changed pipeline on living state.

use super::{
    decisions::{decision, user},
    *,
};
use crate::{
    control::Configure,
    experiment::VariantSums,
    feature::{Context, Projection},
    frame::outbox::OutputId,
};

const OTHER_MODEL: &str = "  - {name: other, outcome: click, features: [newest, item]}\n";

/// Of the experiments' pipeline: without `taste`, with `newest`, another column in `ctr`, another model.
fn changed() -> String {
    let pipeline = experiments::pipeline();
    let pipeline = pipeline.replace(
        "    taste: {affinity: click, by: item.category, halfLife: 1h}\n",
        "    newest: {last: click, of: item.category}\n",
    );
    let pipeline = pipeline.replace("[clicks, taste, kinds, item, popular]", "[newest, clicks, kinds, item, popular]");
    pipeline.replace("  policies:\n", &format!("{OTHER_MODEL}  policies:\n"))
}

fn configure(generation: u32, pipeline: &str) -> Control {
    let spec = serde_json::to_string(load(pipeline).unwrap().spec()).unwrap();
    Control::Configure(Configure { generation, spec })
}

/// A host that wires the outputs of a new model; dead letters are behind those.
fn rewired(rig: &mut Rig, models: usize) {
    let outputs: Vec<OutputId> = match models {
        1 => vec![0, 1],
        _ => vec![0, rig.examples.add_output(Kind::Examples), 1],
    };
    rig.to_examples = rig.examples.rewire(&rig.to_examples, Origin::of_profile(0), 1, &outputs);
}

fn live() -> Rig {
    let mut rig = rig_of(&experiments::pipeline());
    let view = r#"{"type":"view","u":"a","t":2000,"item":"i1","cat":"x","d":"d1","p":"home"}"#;
    rig.read(&[GRANT, view, CLICK, r#"{"type":"click","u":"a","t":3100,"item":"i9","cat":"y"}"#]);
    rig.control(&Control::Decision(decision(&rig, "d1", "a", 1_900, "home", &["i1"])));
    rig.read(&[r#"{"type":"view","u":"b","t":5000}"#]);
    rig
}

/// What a model would be told of user a and item i1 of category x.
fn read(rig: &Rig, projection: &Projection) -> Vec<crate::example::FeatureValue> {
    let slot = rig.profile.users().find(user("a")).unwrap();
    let mut bytes = Vec::new();
    let mut event = rig.ingest_one(r#"{"type":"view","u":"a","t":6000,"item":"i1","cat":"x"}"#, &mut bytes);
    event.head.time = Time(6_000_000);
    let context = Context { time: event.head.time, event: &event, item: event.items().next() };
    let mut out = Vec::new();
    rig.profile.plan().features.read(projection, Some(rig.profile.users().row(slot)), &context, &mut out);
    out
}

#[test]
fn what_is_defined_as_before_stays_and_the_rest_begins_empty() {
    let mut rig = live();
    let of = |rig: &Rig| read(rig, &rig.profile.plan().models[0].projection);
    let before = of(&rig);
    let sums: Vec<VariantSums> = rig.profile.experiments().next().unwrap().1.to_vec();
    rig.control(&configure(2, &changed()));
    rewired(&mut rig, 2);
    assert_eq!((rig.profile.generation(), rig.profile.wants_base()), (2, true));
    // clicks, taste, kinds, item, then newest, clicks, kinds, item.
    let after = of(&rig);
    assert_eq!(after[1..], [before[0], before[2], before[3]]);
    assert_eq!(after[0], crate::example::FeatureValue::Missing);
    assert_eq!(rig.profile.experiments().next().unwrap().1, sums);
    let slot = rig.profile.users().find(user("a")).unwrap();
    assert_eq!(rig.profile.users().row(slot).experiment(0).impressions, 1);
    rig.read(&[r#"{"type":"click","u":"a","t":6000,"item":"i1","cat":"z"}"#, LATER]);
    let later = of(&rig);
    assert_ne!(later[0], after[0], "the new feature counts from now on");
    assert_ne!(later[2], after[2], "the old one goes on");
}

#[test]
fn open_impressions_keep_their_values_and_their_decision() {
    let mut rig = live();
    let (served, columns) = (rig.plan.models[0].served.id(), rig.plan.models[0].served.columns.len());
    let own = rig.plan.models[0].schema.id();
    rig.read(&[r#"{"type":"view","u":"a","t":5200,"item":"i2","p":"home"}"#, r#"{"type":"view","u":"b","t":5400}"#]);
    rig.control(&configure(2, &changed()));
    rewired(&mut rig, 2);
    let base = rig.profile.checkpoint(Extent::Base);
    rig.restart(&[&base]);
    rig.read(&[r#"{"type":"view","u":"a","t":6000,"item":"i3","p":"home"}"#, LATER]);
    rig.end();
    let of_ctr = rig.examples();
    let seen: Vec<(String, u64, u32)> = of_ctr
        .iter()
        .map(|bytes| Example::read(bytes).unwrap().head)
        .map(|head| (head.item.to_owned(), head.schema, head.generation))
        .collect();
    let new = rig.profile.plan().models[0].schema.id();
    let expected = [("i1", served), ("i2", own), ("i3", new)];
    assert_eq!(seen, expected.map(|(item, schema)| (item.to_owned(), schema, 2)));
    assert_eq!(Example::read(&of_ctr[0]).unwrap().values().len(), columns);
    // The new model has only what was shown since.
    let frame = rig.examples.cut(2).unwrap();
    let frame = Frame::read(&frame, Kind::Examples).unwrap();
    let section = frame.sections().next().unwrap().unwrap();
    assert_eq!((section.head.from, section.records().count()), (Seq::START, 1));
}

#[test]
fn checkpoints_bring_their_own_configuration_and_going_back_is_another_one() {
    let mut rig = live();
    rig.control(&configure(2, &changed()));
    rewired(&mut rig, 2);
    let base = rig.profile.checkpoint(Extent::Base);
    rig.read(&[r#"{"type":"click","u":"a","t":6000,"item":"i1","cat":"z"}"#, LATER]);
    let changes = rig.profile.checkpoint(Extent::Changes);
    let digest = rig.profile.digest();
    rig.restart(&[&base, &changes]); // under the plan of the start
    assert_eq!((rig.profile.digest(), rig.profile.generation()), (digest, 2));
    assert_eq!(rig.profile.plan().models.len(), 2);
    assert!(!rig.profile.wants_base());
    rig.control(&configure(2, &experiments::pipeline()));
    assert_eq!(rig.profile.plan().models.len(), 2, "a generation that was there changes nothing");
    rig.control(&configure(3, &experiments::pipeline()));
    rewired(&mut rig, 1);
    assert_eq!((rig.profile.plan().models.len(), rig.profile.generation()), (1, 3));
    rig.end();
}

#[test]
fn another_order_of_outcomes_is_the_same_to_open_impressions() {
    let mut rig = live();
    let renumbered =
        changed().replace("  outcomes:\n", "  outcomes:\n    abuse: {event: order, join: user, within: 20s}\n");
    rig.control(&configure(2, &renumbered));
    rewired(&mut rig, 2);
    assert_eq!(rig.profile.outcome_counts()[1].events, 2, "those of clicks");
    let base = rig.profile.checkpoint(Extent::Base);
    rig.restart(&[&base]);
    rig.end();
    assert_eq!(rig.labels(), [(2_000, true)]);
    assert_eq!(rig.profile.open_joins(), 0);
}

#[test]
fn what_cannot_be_taken_over_is_an_error() {
    let mut rig = live();
    let more = changed().replace("allowedAttributes: [item.category]", "allowedAttributes: [item.category, locale]");
    for (spec, cause) in [("{}".to_owned(), "missing field"), (more, "other events, attributes")] {
        let spec = if spec == "{}" { spec } else { serde_json::to_string(load(&spec).unwrap().spec()).unwrap() };
        let error = rig.profile.configure(Configure { generation: 2, spec }).unwrap_err().to_string();
        assert!(error.contains("generation 2") && error.contains(cause), "{error}");
    }
    assert_eq!(rig.profile.generation(), 1);
}
