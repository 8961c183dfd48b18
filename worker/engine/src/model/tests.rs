//! A model whose pipeline changes while it learns.

use millrace_crds::spec::PipelineSpec;
use serde_json::{Value, json};

use super::*;
use crate::{
    control,
    event::Seq,
    example::{ExampleHead, FeatureValue, Schema, write_example},
    frame::{
        Progress,
        outbox::{Handle, Outbox},
    },
};

fn pipeline(model: Value) -> PipelineSpec {
    serde_json::from_value(json!({
        "partitions": 1,
        "privacy": {"pseudonymKeys": {"active": "k"}, "user": {"rowNumber": true}, "consent": {"assumed": "a test"},
            "allowedAttributes": ["item.category", "item.price"]},
        "sources": [{"name": "s", "file": {"path": "x"}, "format": "Json", "eventTime": {"field": "t"},
            "events": [{"name": "impression"}, {"name": "click"}, {"name": "order"}]}],
        "features": {"ctr": {"per": "item", "ratio": ["click", "impression"], "window": "1h"}},
        "outcomes": {"click": {"event": "click", "join": "item", "within": "1m"},
            "order": {"event": "order", "join": "item", "within": "1m"}},
        "models": [model],
    }))
    .unwrap()
}

fn first() -> PipelineSpec {
    pipeline(
        json!({"name": "m", "outcome": "click", "features": ["item.category", "item", "ctr"], "learner": {"ftrl": {"bits": 8}}}),
    )
}

/// Another order of columns, one more, one less.
fn second() -> Value {
    json!({"name": "m", "outcome": "click", "features": ["item.price", "ctr", "item.category"], "learner": {"ftrl": {"bits": 8}}})
}

struct Rig {
    task: ModelTask,
    outbox: Outbox,
    examples: Handle,
    control: Handle,
    offset: u64,
    time: i64,
    predicted: Vec<f64>,
}

impl Rig {
    fn new(plan: &Plan) -> Self {
        let mut outbox = Outbox::new(1, &[Kind::Examples]);
        let examples = outbox.register(Origin::of_profile(0), 1, Seq::START, &[0]);
        let control = outbox.register(Origin::control(0), 1, Seq::START, &[0]);
        let task = ModelTask::new(plan, 0);
        Self { task, outbox, examples, control, offset: 0, time: 0, predicted: Vec::new() }
    }

    fn example(&mut self, schema: &Schema, values: &[FeatureValue], label: bool) {
        self.time += 1_000_000;
        let seq = Seq { offset: self.offset + 1, index: 0 };
        let (time, impression) = (Time(self.time + 60_000_000), Time(self.time));
        let head =
            ExampleHead { seq, time, impression, label, item: "i", schema: schema.id(), ..ExampleHead::default() };
        self.outbox.record(&self.examples, 0, |out| write_example(out, &head, values));
        self.outbox.advance(&self.examples, seq, Progress { watermark: time, ..Progress::default() });
        self.apply();
    }

    fn configure(&mut self, generation: u32, spec: &PipelineSpec) {
        let spec = serde_json::to_string(spec).unwrap();
        let seq = control::seq(1, u64::from(generation));
        let control = Control::Configure(Configure { generation, spec });
        self.outbox.record(&self.control, 0, |out| control.write(out, seq));
        self.outbox.advance(&self.control, seq, Progress::default());
        self.apply();
    }

    fn apply(&mut self) {
        self.offset += 1;
        let frame = Arc::from(self.outbox.cut(0).unwrap());
        self.task.accept(self.offset, &frame).unwrap();
        let predicted = &mut self.predicted;
        while !self.task.drain(10, |_, p| predicted.push(p)).unwrap() {}
    }
}

const RED: FeatureValue = FeatureValue::Category(7);
const BLUE: FeatureValue = FeatureValue::Category(8);
const ITEM: FeatureValue = FeatureValue::Category(9);
const PRICE: FeatureValue = FeatureValue::Number(3.0);
const MISSING: FeatureValue = FeatureValue::Missing;

/// Red is clicked, blue is not.
fn learned() -> (Plan, Rig) {
    let plan = Plan::compile(&first()).unwrap();
    let mut rig = Rig::new(&plan);
    for n in 0..200 {
        rig.example(&plan.models[0].schema, &[if n % 2 == 0 { RED } else { BLUE }, ITEM], n % 2 == 0);
    }
    (plan, rig)
}

/// What the model says of red and of blue, in whatever columns.
fn says(rig: &mut Rig, schema: &Schema, values: impl Fn(FeatureValue) -> Vec<FeatureValue>) -> (f64, f64) {
    rig.example(schema, &values(RED), true);
    rig.example(schema, &values(BLUE), false);
    let [.., red, blue] = rig.predicted[..] else { panic!("both were predicted") };
    (red, blue)
}

#[test]
fn weights_stay_with_the_names_of_their_columns() {
    let (plan, mut rig) = learned();
    let before = says(&mut rig, &plan.models[0].schema, |color| vec![color, ITEM]);
    let examples = rig.task.model().summary().validation.total.examples;
    rig.configure(2, &pipeline(second()));
    assert_eq!((rig.task.generation(), rig.task.wants_base()), (2, true));
    assert_eq!(rig.task.model().summary().validation.total.examples, examples);
    let new = Plan::compile(&pipeline(second())).unwrap();
    let after = says(&mut rig, &new.models[0].schema, |color| vec![MISSING, color]);
    assert!(before.0 > 0.7 && after.0 > 0.7 && before.1 < 0.3 && after.1 < 0.3, "{before:?} {after:?}");
}

#[test]
fn examples_of_earlier_columns_are_mapped_by_name() {
    let (old, mut earlier) = learned();
    let (_, mut current) = learned();
    let new = Plan::compile(&pipeline(second())).unwrap();
    for rig in [&mut earlier, &mut current] {
        rig.configure(2, &pipeline(second()));
    }
    // The profile's columns of before, then those of now.
    let of_old = says(&mut earlier, &old.models[0].schema, |color| vec![color, ITEM]);
    let of_new = says(&mut current, &new.models[0].schema, |color| vec![MISSING, color]);
    assert_eq!(of_old, of_new);
    // What was served of before has its own statistics.
    let of_old = says(&mut earlier, &old.models[0].served, |color| vec![color, ITEM, PRICE]);
    let of_new = says(&mut current, &new.models[0].served, |color| vec![MISSING, color, PRICE]);
    assert_eq!(of_old, of_new);
    assert_eq!(earlier.task.digest(), current.task.digest(), "the same was learned");
}

#[test]
fn another_size_or_outcome_begins_anew() {
    for change in [
        ("learner", json!({"ftrl": {"bits": 9}})),
        ("outcome", json!("order")),
        ("learner", json!({"betaBernoulli": {}})),
    ] {
        let (_, mut rig) = learned();
        let mut model = second();
        model["features"] = json!(["item"]);
        model[change.0] = change.1.clone();
        rig.configure(2, &pipeline(model.clone()));
        let new = Plan::compile(&pipeline(model)).unwrap();
        let (red, _) = says(&mut rig, &new.models[0].schema, |color| vec![color]);
        assert!((red - 0.5).abs() < 0.02, "{change:?}: {red}");
        let kept = rig.task.model().summary().validation.total.examples > 100;
        assert_eq!(kept, change.0 != "outcome", "{change:?}: validation is of the outcome");
    }
}

#[test]
fn a_restored_model_has_the_configuration_of_its_base() {
    let (plan, mut rig) = learned();
    rig.configure(2, &pipeline(second()));
    let base = rig.task.checkpoint(Extent::Base);
    assert!(!rig.task.wants_base());
    says(&mut rig, &plan.models[0].schema, |color| vec![color, ITEM]);
    let changes = rig.task.checkpoint(Extent::Changes);
    let mut restored = ModelTask::restore(&plan, 0, &[&base, &changes]).unwrap();
    assert_eq!((restored.digest(), restored.generation()), (rig.task.digest(), 2));
    rig.task = restored;
    says(&mut rig, &plan.models[0].schema, |color| vec![color, ITEM]);
    // A pipeline without it leaves it as it is.
    let mut other = second();
    other["name"] = json!("other");
    rig.configure(3, &pipeline(other));
    assert_eq!(rig.task.generation(), 2);
}
