use millrace_crds::spec::PipelineSpec;
use proptest::prelude::*;

use super::{oracle::Oracle, *};
use crate::{
    event::{ConsentChange, Event, EventWriter, Head, Item, Pseudonym, Seq, Time, Value, category_of_text},
    example::FeatureValue::{self, Category, Missing, Number},
};

/// A pipeline with these features (JSON), and a model that reads all of them.
pub(crate) fn spec_with(features: &str) -> PipelineSpec {
    let features: serde_json::Value = serde_json::from_str(features).unwrap();
    let names: Vec<&String> = features.as_object().unwrap().keys().collect();
    let spec = serde_json::json!({
        "partitions": 1,
        "privacy": {
            "pseudonymKeys": {"active": "k"}, "user": {"field": "user"}, "consent": {"assumed": "tests"},
            "allowedAttributes": ["locale", "age", "item.category", "item.price", "item.flag"],
        },
        "sources": [{
            "name": "s", "format": "Json", "eventTime": {"field": "t"},
            "events": [{"name": "impression"}, {"name": "click"}, {"name": "order"}],
        }],
        "features": features,
        "outcomes": {},
        "models": [{"name": "m", "outcome": "click", "features": names}],
    });
    serde_json::from_value(spec).unwrap()
}

/// Every kind of feature, per user and per session. Affinities have half-lives so long that nothing decays below single
/// precision, where it would matter in how many steps.
pub(crate) const ALL: &str = r#"{
  "affinity":      {"affinity": ["click", "order"], "by": "item.category", "halfLife": "1m"},
  "affinityItem":  {"affinity": "click", "by": "item", "halfLife": "20s"},
  "affinityKept":  {"affinity": ["click", "order"], "by": "item.category", "halfLife": "1m", "keep": 2},
  "anyOf":         {"anyOf": ["locale", "item.flag", "age"]},
  "attribute":     {"attribute": "item.price", "bucket": {"log2": 2, "max": 9}},
  "attributeText": {"attribute": "item.category"},
  "count":         {"count": "click"},
  "countBy":       {"count": "click", "by": "item.category"},
  "countByAge":    {"count": ["click", "impression"], "by": "age"},
  "countMany":     {"count": ["click", "order", "click"], "bucket": {"max": 4}},
  "countSliding":  {"count": "click", "window": "40s"},
  "countTumbling": {"count": "click", "window": "15s", "tumbling": true},
  "decayed":       {"decayedSum": "click", "halfLife": "10s"},
  "decayedOf":     {"decayedSum": ["order", "click"], "of": "item.price", "halfLife": "1m"},
  "distinct":      {"distinct": ["click", "impression"], "of": "item"},
  "distinctAge":   {"distinct": "click", "of": "age"},
  "last":          {"last": "click", "of": "item.category"},
  "lastAge":       {"last": "click", "of": "age"},
  "lastN":         {"lastN": ["click", "order"], "of": "item", "n": 3},
  "lastNMixed":    {"lastN": ["click", "order"], "of": "item.flag", "n": 16},
  "lastValue":     {"last": "order", "of": "value", "bucket": {"bounds": [0, 1.5, 20]}},
  "max":           {"max": "order", "of": "value"},
  "maxSliding":    {"max": "click", "of": "item.price", "window": "30s", "buckets": 3},
  "mean":          {"mean": "order", "of": "value"},
  "meanSliding":   {"mean": "click", "of": "item.price", "window": "30s", "buckets": 3},
  "min":           {"min": "click", "of": "item.price"},
  "minTumbling":   {"min": "click", "of": "item.flag", "window": "30s", "tumbling": true},
  "ratio":         {"ratio": ["click", "impression"]},
  "ratioSmooth":   {"ratio": ["click", "impression"], "smoothing": 2.5, "window": "40s"},
  "sClicks":       {"per": "session", "count": "click"},
  "sDecayed":      {"per": "session", "decayedSum": "click", "halfLife": "10s"},
  "sDistinct":     {"per": "session", "distinct": "click", "of": "item"},
  "sLast":         {"per": "session", "lastN": "click", "of": "item.category", "n": 2},
  "sSliding":      {"per": "session", "sum": "order", "of": "value", "window": "20s", "buckets": 5},
  "sum":           {"sum": ["click", "order"], "of": "item.price"},
  "sumSliding":    {"sum": "order", "of": "value", "window": "7s"},
  "timeSince":     {"timeSince": ["click", "order"]},
  "timeSinceLog":  {"timeSince": "order", "bucket": {"log2": 1}}
}"#;

/// An event to be made: of random parts, or by hand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Made {
    pub time: i64,
    pub event: &'static str,
    pub session: u64,
    pub value: Option<f64>,
    pub locale: Option<&'static str>,
    pub age: Option<f64>,
    pub items: Vec<MadeItem>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct MadeItem {
    pub id: String,
    pub category: Option<String>,
    pub price: Option<f64>,
    /// A number, text or a boolean.
    pub flag: Option<u8>,
}

impl Made {
    pub fn bytes(&self, names: &Names, user: Pseudonym) -> Vec<u8> {
        let head = Head {
            seq: Seq::START,
            time: Time(self.time),
            stated: Time(self.time),
            user,
            event_type: names.event(self.event).unwrap(),
            consent: ConsentChange::None,
            id: 0,
            decision: 0,
            session: self.session,
            basket: 0,
            value: self.value.unwrap_or(f64::NAN),
        };
        let mut out = Vec::new();
        let id = |name| names.attribute(name).unwrap();
        let mut writer = EventWriter::new(&mut out, &head, "home", "", "");
        for item in &self.items {
            writer.item(&Item::new(&item.id));
            if let Some(category) = &item.category {
                writer.item_attribute(id("item.category"), Value::Text(category));
            }
            if let Some(flag) = item.flag {
                let value = match flag % 3 {
                    0 => Value::Bool(flag > 2),
                    1 => Value::Text("x"),
                    _ => Value::Number(f64::from(flag) - 4.0),
                };
                writer.item_attribute(id("item.flag"), value);
            }
            if let Some(price) = item.price {
                writer.item_attribute(id("item.price"), Value::Number(price));
            }
        }
        let mut writer = writer.attributes();
        if let Some(age) = self.age {
            writer.attribute(id("age"), Value::Number(age));
        }
        if let Some(locale) = self.locale {
            writer.attribute(id("locale"), Value::Text(locale));
        }
        writer.finish();
        out.split_off(4)
    }
}

fn any_number() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        2 => Just(None),
        8 => (0i32..4_000).prop_map(|n| Some(f64::from(n) / 8.0 - 20.0)),
        1 => Just(Some(f64::INFINITY)),
        1 => Just(Some(-0.0)),
    ]
}

fn any_item() -> impl Strategy<Value = MadeItem> {
    // Few categories and few items as a rule, sometimes more than any table holds.
    let id = prop_oneof![Just(String::new()), "[a-e]", "[a-z]{2}"];
    let category = prop_oneof![Just(None), "[a-d]".prop_map(Some), "[a-z]".prop_map(Some), Just(Some(String::new()))];
    (id, category, any_number(), proptest::option::of(0u8..9)).prop_map(|(id, category, price, flag)| MadeItem {
        id,
        category,
        price,
        flag,
    })
}

/// Times go on by nothing, a little, or a lot; sometimes back, which counts as not at all.
pub(crate) fn any_events(n: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<Made>> {
    let step = prop_oneof![
        3 => Just(0i64),
        6 => 0i64..5_000_000,
        3 => 0i64..50_000_000,
        1 => 0i64..500_000_000,
        1 => -3_000_000i64..0
    ];
    let event = prop_oneof![Just("impression"), Just("click"), Just("click"), Just("order")];
    let session = prop_oneof![8 => Just(None), 1 => (0u64..3).prop_map(Some)];
    let items = proptest::collection::vec(any_item(), 0..4);
    let locale = proptest::option::of(prop_oneof![Just(""), Just("de")]);
    let one = (step, event, session, any_number(), locale, any_number(), items);
    (proptest::collection::vec(one, n), -100_000_000i64..100_000_000).prop_map(|(list, start)| {
        let (mut time, mut session) = (start, 0);
        list.into_iter()
            .map(|(step, event, new_session, value, locale, age, items)| {
                time += step;
                session = new_session.unwrap_or(session);
                Made { time, event, session, value, locale, age, items }
            })
            .collect()
    })
}

/// A compiled pipeline over one user.
struct Bench<'s> {
    features: Features,
    names: Names,
    projection: Projection,
    spec: &'s PipelineSpec,
    row: OwnedRow,
    oracle: Oracle<'s>,
}

impl<'s> Bench<'s> {
    fn new(spec: &'s PipelineSpec) -> Self {
        let names = Names::of(spec);
        let features = Features::compile(spec, &names).unwrap();
        let projection = features.projection(spec, &spec.models[0], &names).unwrap();
        let row = features.new_row();
        Self { features, names, projection, spec, row, oracle: Oracle::new(spec) }
    }

    fn apply(&mut self, made: &Made) {
        let bytes = made.bytes(&self.names, Pseudonym(1));
        let event = Event::read(&bytes).unwrap();
        self.features.update(&mut self.row.row_mut(), &event);
        self.oracle.push(&event);
    }

    /// (fast, naive) for the first item of an impression.
    fn read(&self, made: &Made) -> (Vec<FeatureValue>, Vec<FeatureValue>) {
        let bytes = made.bytes(&self.names, Pseudonym(1));
        let event = Event::read(&bytes).unwrap();
        let context = Context { time: event.head.time, event: &event, item: event.items().next() };
        let mut fast = Vec::new();
        self.features.read(&self.projection, Some(self.row.row()), &context, &mut fast);
        (fast, self.oracle.read(&self.spec.models[0], &context))
    }

    fn one(&self, made: &Made) -> FeatureValue {
        self.read(made).0[0]
    }
}

fn close(a: &FeatureValue, b: &FeatureValue) -> bool {
    match (a, b) {
        (Number(a), Number(b)) => (a - b).abs() <= 1e-6 * (1.0 + a.abs().max(b.abs())),
        _ => a == b,
    }
}

fn at(seconds: i64, event: &'static str) -> Made {
    Made { time: seconds * 1_000_000, event, ..Made::default() }
}

fn of_category(seconds: i64, event: &'static str, category: &str) -> Made {
    let item = MadeItem { id: "i".into(), category: Some(category.into()), ..MadeItem::default() };
    Made { items: vec![item], ..at(seconds, event) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_feature_equals_its_oracle(events in any_events(1..60), after in any_events(1..4)) {
        let spec = spec_with(ALL);
        let mut bench = Bench::new(&spec);
        let schema = bench.features.schema(&spec, &spec.models[0]);
        prop_assert_eq!(schema.columns.len(), bench.projection.width());
        let (time, session) = events.last().map_or((0, 0), |last| (last.time, last.session));
        let after: Vec<Made> = after
            .into_iter()
            .map(|made| Made { time: time + (made.time % 200_000_000).abs(), session: made.session + session, ..made })
            .collect();
        for made in events.iter().chain(&after) {
            let (fast, naive) = bench.read(made);
            for (i, (fast, naive)) in fast.iter().zip(&naive).enumerate() {
                prop_assert!(close(fast, naive), "{}: {fast:?}, oracle {naive:?}", schema.columns[i].name);
            }
            prop_assert_eq!(fast.len(), naive.len());
            bench.apply(made);
        }
    }

    #[test]
    fn another_items_values_are_those_read_for_it(events in any_events(1..20), impression in any_events(1..2)) {
        let spec = spec_with(ALL);
        let mut bench = Bench::new(&spec);
        events.iter().for_each(|made| bench.apply(made));
        let bytes = impression[0].bytes(&bench.names, Pseudonym(1));
        let event = Event::read(&bytes).unwrap();
        let context = |item| Context { time: event.head.time, event: &event, item };
        let row = bench.row.row();
        let mut values = Vec::new();
        bench.features.read(&bench.projection, Some(row), &context(None), &mut values);
        for item in event.items() {
            let mut alone = Vec::new();
            bench.features.read(&bench.projection, Some(row), &context(Some(item)), &mut alone);
            bench.features.read_other_item(&bench.projection, Some(row), &context(Some(item)), &mut values);
            prop_assert_eq!(&alone, &values);
        }
    }

    #[test]
    fn a_row_of_any_bytes_is_read_and_changed_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 4096), events in any_events(1..10)
    ) {
        let spec = spec_with(ALL);
        let mut bench = Bench::new(&spec);
        let local = bench.features.layout().local;
        let cells = bench.row.row_mut().bytes;
        let len = cells.len() - local;
        cells[local..].copy_from_slice(&bytes[..len]);
        for made in &events {
            bench.read(made);
            bench.features.describe(bench.row.row(), Time(made.time));
            bench.apply(made);
        }
    }
}

#[test]
fn distinct_goes_over_to_the_sketch_like_its_oracle() {
    let spec = spec_with(r#"{"d": {"distinct": "click", "of": "item"}}"#);
    let mut bench = Bench::new(&spec);
    for i in 0..400 {
        let item = MadeItem { id: (i % 300).to_string(), ..MadeItem::default() };
        bench.apply(&Made { items: vec![item], ..at(i, "click") });
        if i % 29 == 0 || (30..36).contains(&i) {
            let (fast, naive) = bench.read(&at(i, "impression"));
            assert_eq!(fast, naive);
        }
    }
}

#[test]
fn an_unknown_user_has_the_defaults() {
    let spec = spec_with(ALL);
    let bench = Bench::new(&spec);
    let bytes = of_category(5, "impression", "a").bytes(&bench.names, Pseudonym(1));
    let event = Event::read(&bytes).unwrap();
    let context = Context { time: event.head.time, event: &event, item: event.items().next() };
    let mut fast = Vec::new();
    bench.features.read(&bench.projection, None, &context, &mut fast);
    assert_eq!(fast, bench.oracle.read(&spec.models[0], &context));
    let value_of = |name: &str| {
        let schema = bench.features.schema(&spec, &spec.models[0]);
        fast[schema.columns.iter().position(|c| c.name == name).unwrap()]
    };
    assert_eq!(value_of("count"), Number(0.0));
    assert_eq!(value_of("mean"), Missing);
    assert_eq!(value_of("ratio"), Missing);
    assert_eq!(value_of("ratioSmooth"), Number(0.0));
    assert_eq!(value_of("affinity"), Missing);
    assert_eq!(value_of("countMany"), Category(1), "bucket 0");
}

#[test]
fn a_decayed_sum_halves_and_is_whole_while_no_time_passes() {
    let spec = spec_with(r#"{"d": {"decayedSum": "click", "halfLife": "10s"}}"#);
    let mut bench = Bench::new(&spec);
    bench.apply(&at(7, "click"));
    assert_eq!(bench.one(&at(7, "impression")), Number(1.0));
    assert_eq!(bench.one(&at(17, "impression")), Number(0.5));
    bench.apply(&at(17, "click"));
    assert_eq!(bench.one(&at(17, "impression")), Number(1.5));
    assert_eq!(bench.one(&at(47, "impression")), Number(0.1875));
    assert_eq!(bench.one(&at(1_000_000, "impression")), Number(0.0));
}

#[test]
fn a_sliding_window_drops_whole_buckets() {
    let spec = spec_with(r#"{"c": {"count": "click", "window": "40s", "buckets": 4}}"#);
    let mut bench = Bench::new(&spec);
    bench.apply(&at(9, "click"));
    bench.apply(&at(10, "click"));
    assert_eq!(bench.one(&at(39, "impression")), Number(2.0));
    assert_eq!(bench.one(&at(40, "impression")), Number(1.0), "[0, 10) left");
    assert_eq!(bench.one(&at(50, "impression")), Number(0.0));
    bench.apply(&at(45, "click"));
    assert_eq!(bench.one(&at(45, "impression")), Number(2.0), "the update moved the buckets likewise");
}

#[test]
fn a_full_table_loses_the_lightest_category_and_of_equal_ones_the_first() {
    let spec = spec_with(r#"{"c": {"count": "click", "by": "item.category"}}"#);
    let mut bench = Bench::new(&spec);
    for category in ('a'..='p').chain(['a']) {
        bench.apply(&of_category(1, "click", &category.to_string()));
    }
    assert_eq!(bench.one(&of_category(1, "impression", "a")), Number(2.0));
    bench.apply(&of_category(1, "click", "new"));
    assert_eq!(bench.one(&of_category(1, "impression", "b")), Number(0.0), "the first of those with one");
    assert_eq!(bench.one(&of_category(1, "impression", "c")), Number(1.0));
    bench.apply(&of_category(1, "click", "newer"));
    assert_eq!(bench.one(&of_category(1, "impression", "c")), Number(0.0));
    assert_eq!(bench.one(&of_category(1, "impression", "new")), Number(1.0));
}

#[test]
fn affinity_is_the_decayed_share() {
    let spec = spec_with(r#"{"a": {"affinity": "click", "by": "item.category", "halfLife": "10s"}}"#);
    let mut bench = Bench::new(&spec);
    bench.apply(&of_category(0, "click", "x"));
    assert_eq!(bench.one(&of_category(0, "impression", "x")), Number(1.0));
    assert_eq!(bench.one(&of_category(0, "impression", "y")), Number(0.0));
    assert_eq!(bench.one(&at(0, "impression")), Missing, "no candidate");
    bench.apply(&of_category(10, "click", "y"));
    assert!(close(&bench.one(&of_category(99, "impression", "x")), &Number(1.0 / 3.0)));
}

#[test]
fn an_affinity_keeps_as_many_categories_as_asked() {
    let share_of_the_first = |keep: u32| {
        let spec = spec_with(&format!(
            r#"{{"a": {{"affinity": "click", "by": "item.category", "halfLife": "1h", "keep": {keep}}}}}"#
        ));
        let mut bench = Bench::new(&spec);
        for category in ["first", "b", "c"] {
            bench.apply(&of_category(0, "click", category));
        }
        bench.one(&of_category(0, "impression", "first"))
    };
    assert!(close(&share_of_the_first(3), &Number(1.0 / 3.0)));
    assert_eq!(share_of_the_first(2), Number(0.0), "the third took its place");
}

#[test]
fn a_session_starts_with_the_first_event_of_another_one() {
    let spec = spec_with(r#"{"c": {"per": "session", "count": "click"}}"#);
    let mut bench = Bench::new(&spec);
    let of = |session, event| Made { session, ..at(1, event) };
    bench.apply(&of(0, "click"));
    assert_eq!(bench.one(&of(0, "impression")), Number(1.0), "no session is one, too");
    assert_eq!(bench.one(&of(7, "impression")), Number(0.0));
    bench.apply(&of(7, "impression"));
    bench.apply(&of(7, "click"));
    assert_eq!(bench.one(&of(7, "impression")), Number(1.0));
    bench.apply(&of(0, "order"));
    assert_eq!(bench.one(&of(0, "impression")), Number(0.0), "its clicks are forgotten");
}

#[test]
fn counts_stay_at_their_greatest_value() {
    let spec = spec_with(r#"{"c": {"count": "click"}}"#);
    let mut bench = Bench::new(&spec);
    let row = bench.row.row_mut().bytes;
    let at_cell = row.len() - 4;
    cells::put_u32(row, at_cell, u32::MAX);
    bench.apply(&at(1, "click"));
    assert_eq!(bench.one(&at(1, "impression")), Number(f64::from(u32::MAX)));
}

#[test]
fn buckets_of_numbers() {
    let bucket = |bucket: &str, price: f64| {
        let spec = spec_with(&format!(r#"{{"b": {{"attribute": "item.price", "bucket": {bucket}}}}}"#));
        let item = MadeItem { price: Some(price), ..MadeItem::default() };
        Bench::new(&spec).one(&Made { items: vec![item], ..at(0, "impression") })
    };
    assert_eq!(bucket(r#"{"bounds": [0, 10]}"#, -1.0), Category(1));
    assert_eq!(bucket(r#"{"bounds": [0, 10]}"#, 0.0), Category(2));
    assert_eq!(bucket(r#"{"bounds": [0, 10]}"#, 10.0), Category(3));
    assert_eq!(bucket(r#"{"log2": 2}"#, 0.99), Category(1));
    assert_eq!(bucket(r#"{"log2": 2}"#, 1.0), Category(1));
    assert_eq!(bucket(r#"{"log2": 2}"#, 8.0), Category(7));
    assert_eq!(bucket(r#"{"log2": 2, "max": 3}"#, 8.0), Category(4));
    assert_eq!(bucket(r#"{"max": 3}"#, 2.9), Category(3));
    assert_eq!(bucket(r#"{"max": 3}"#, -5.0), Category(1));
    assert_eq!(bucket(r#"{"max": 3}"#, f64::NAN), Missing);
}

#[test]
fn plain_columns_and_those_of_crosses_only() {
    let mut spec = spec_with(
        r#"{"c": {"count": "click"}, "g": {"per": "global", "count": "click"}, "l": {"lastN": "click", "of": "item", "n": 2}}"#,
    );
    let text = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    spec.models[0].features = text(&["g", "item", "item.category", "age"]);
    spec.models[0].crosses = vec![text(&["item", "l"]), text(&["g", "placement"]), text(&["c", "platform"])];
    let bench = Bench::new(&spec);
    let schema = bench.features.schema(&spec, &spec.models[0]);
    let names: Vec<&str> = schema.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["item", "item.category", "age", "l", "l", "placement", "c", "platform"]);
    let impression = Made { age: Some(30.0), ..of_category(1, "impression", "shoes") };
    let (fast, naive) = bench.read(&impression);
    let category = |text| Category(category_of_text(text));
    let expected =
        [category("i"), category("shoes"), Number(30.0), Missing, Missing, category("home"), Number(0.0), Missing];
    assert_eq!(fast, expected);
    assert_eq!(naive, expected);
}

#[test]
fn wrong_features_are_errors() {
    let compile = |features: &str| {
        let spec = spec_with(features);
        Features::compile(&spec, &Names::of(&spec)).unwrap_err().to_string()
    };
    assert_eq!(compile(r#"{"f": {"count": "buy"}}"#), "feature f: unknown event buy");
    assert_eq!(compile(r#"{"f": {"sum": "click"}}"#), "feature f: `of` is missing");
    assert_eq!(compile(r#"{"f": {"sum": "click", "of": "zip"}}"#), "feature f: zip is not an allowed attribute");
    assert!(compile(r#"{"f": {}}"#).contains("exactly one"));
    assert!(compile(r#"{"f": {"count": "click", "last": "click", "of": "item"}}"#).contains("exactly one"));
    assert!(compile(r#"{"f": {"lastN": "click", "of": "item", "n": 17}}"#).contains("`n` is out of range"));
    let kept = r#"{"f": {"affinity": "click", "by": "item", "halfLife": "1h", "keep": 65}}"#;
    assert!(compile(kept).contains("`keep` is out of range"));
    assert!(compile(r#"{"f": {"decayedSum": "click"}}"#).contains("`halfLife` is missing"));
    assert!(compile(r#"{"f": {"count": "click", "window": "3us"}}"#).contains("`window` is out of range"));
    assert!(compile(r#"{"f": {"count": "click", "by": "item", "window": "3s"}}"#).contains("not supported"));
}

#[test]
fn features_that_need_the_same_share_a_cell() {
    let width = |features: &str| {
        let spec = spec_with(features);
        Features::compile(&spec, &Names::of(&spec)).unwrap().row_bytes()
    };
    let one = width(r#"{"a": {"count": "click"}}"#);
    assert_eq!(width(r#"{"a": {"count": "click"}, "b": {"count": ["click", "click"], "bucket": {"log2": 1}}}"#), one);
    assert_eq!(width(r#"{"a": {"count": "click"}, "b": {"ratio": ["click", "order"]}}"#), one + 4);
}

#[test]
fn a_user_can_be_described() {
    let spec = spec_with(
        r#"{"a": {"count": "click"}, "b": {"affinity": "click", "by": "item", "halfLife": "1h"},
            "c": {"mean": "order", "of": "value"}, "d": {"timeSince": "click", "bucket": {"log2": 1}}}"#,
    );
    let mut bench = Bench::new(&spec);
    bench.apply(&of_category(10, "click", "x"));
    let lines: Vec<String> =
        bench.features.describe(bench.row.row(), Time(18_000_000)).iter().map(|(k, v)| format!("{k}: {v}")).collect();
    let tag = format!("{:08x}", category_of_text("i") >> 32);
    assert_eq!(lines, ["a: 1".to_owned(), format!("b: #{tag} 1.0000"), "c: -".to_owned(), "d: bucket 3".to_owned()]);
}

#[test]
fn the_mix_has_20_features_and_fits_260_bytes() {
    let spec = mix::spec().unwrap();
    let features = Features::compile(&spec, &Names::of(&spec)).unwrap();
    assert_eq!(spec.features.len(), 20);
    assert!(features.row_bytes() <= 260, "{} bytes", features.row_bytes());
}

#[test]
fn a_copy_of_a_row_leaves_the_row_alone() {
    let spec = spec_with(ALL);
    let mut bench = Bench::new(&spec);
    bench.apply(&of_category(1, "click", "x"));
    let encoded = |row: RowRef<'_>| {
        let mut out = Vec::new();
        row.encode(&mut out);
        out
    };
    let before = encoded(bench.row.row());
    let mut copy = bench.row.row().to_owned_row();
    assert_eq!(encoded(copy.row()), before);
    let bytes = of_category(2, "click", "y").bytes(&bench.names, Pseudonym(1));
    bench.features.update(&mut copy.row_mut(), &Event::read(&bytes).unwrap());
    assert_eq!(encoded(bench.row.row()), before);
    assert_ne!(encoded(copy.row()), before);
}
