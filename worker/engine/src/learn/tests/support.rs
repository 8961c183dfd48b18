//! Specs and examples for tests.

use millrace_crds::spec::{Model as ModelSpec, PipelineSpec};
use serde_json::{Value, json};

use crate::{
    event::{Seq, Time, category_of_text},
    example::{Column, Example, ExampleHead, FeatureValue, Schema, write_example},
    learn::Model,
};

pub const HOUR: i64 = 3_600_000_000;
pub const DAY: i64 = 24 * HOUR;

/// A pipeline with one outcome `click`, `within` as given, and one model.
pub fn pipeline(features: Value, within: &str, model: Value) -> PipelineSpec {
    serde_json::from_value(json!({
        "partitions": 1,
        "privacy": {"pseudonymKeys": {"active": "k"}, "user": {"rowNumber": true}, "consent": {"assumed": "a test"}},
        "sources": [],
        "features": features,
        "outcomes": {"click": {"event": "click", "join": "user", "within": within}},
        "models": [model],
    }))
    .unwrap()
}

pub fn model_of(spec: &PipelineSpec) -> &ModelSpec {
    &spec.models[0]
}

pub fn schema(names: &[&str]) -> Schema {
    Schema { columns: names.iter().map(|name| Column { name: (*name).to_owned() }).collect() }
}

pub fn compile(spec: &PipelineSpec, columns: &[&str]) -> Model {
    Model::compile(spec, model_of(spec), &schema(columns)).unwrap()
}

pub fn text(value: &str) -> FeatureValue {
    if value.is_empty() { FeatureValue::Missing } else { FeatureValue::Category(category_of_text(value)) }
}

/// One example as a test states it.
#[derive(Clone, Debug)]
pub struct Row {
    pub impression: i64,
    pub within: i64,
    pub label: bool,
    pub position: i32,
    pub item: String,
    pub placement: String,
    /// `experiment/variant`.
    pub variant: String,
    pub values: Vec<FeatureValue>,
}

impl Row {
    pub fn new(impression: i64, label: bool, values: Vec<FeatureValue>) -> Self {
        let (item, placement) = ("i".to_owned(), "home".to_owned());
        Self { impression, within: 0, label, position: -1, item, placement, variant: String::new(), values }
    }

    pub fn bytes(&self, schema: u64, number: u64) -> Vec<u8> {
        let head = ExampleHead {
            seq: Seq { offset: number + 1, index: 0 },
            time: Time(self.impression + self.within),
            impression: Time(self.impression),
            label: self.label,
            position: self.position,
            propensity: f64::NAN,
            placement: &self.placement,
            platform: "web",
            item: &self.item,
            schema,
            variant: &self.variant,
            ..ExampleHead::default()
        };
        let mut bytes = Vec::new();
        write_example(&mut bytes, &head, &self.values);
        bytes.drain(..4);
        bytes
    }
}

/// Learns the rows in order; the probabilities that were predicted.
pub fn learn(model: &mut Model, schema: &Schema, rows: &[Row]) -> Vec<f64> {
    let id = schema.id();
    let learn = |(number, row): (usize, &Row)| {
        let bytes = row.bytes(id, number as u64);
        model.learn(&Example::read(&bytes).unwrap()).unwrap()
    };
    rows.iter().enumerate().map(learn).collect()
}

/// A small generator of pseudo-random numbers (SplitMix64), so that tests need no other.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ x >> 31
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }
    /// In 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}
