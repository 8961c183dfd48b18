//! States: whole, changes, digests, damage, and the golden files of earlier versions (the present one's is in `drifts`).

use proptest::prelude::*;
use serde_json::json;

use super::support::{DAY, HOUR, Random, Row, compile, learn, pipeline, schema, text};
use crate::{
    example::{
        Example,
        FeatureValue::{Category, Missing, Number},
        Schema,
    },
    learn::Model,
};

const NAMES: [&str; 3] = ["item", "x", "number"];

fn model(half_life: Option<u32>) -> (Model, Schema) {
    let features = json!({
        "ctr": {"per": "item", "ratio": ["click", "impression"], "window": "4h", "smoothing": 5},
        "shown": {"per": "item", "count": "impression"},
    });
    let ftrl = json!({"l1": 0, "bits": 8, "halfLifeExamples": half_life});
    let spec = pipeline(
        features,
        "1h",
        json!({"name": "m", "outcome": "click", "features": ["item", "x", "number", "ctr", "shown"],
            "crosses": [["item", "x"]], "position": "TrainOnly", "learner": {"ftrl": ftrl}}),
    );
    (compile(&spec, &NAMES), schema(&NAMES))
}

fn rows(seed: u64, count: i64) -> Vec<Row> {
    let mut random = Random(seed);
    (0..count)
        .map(|n| {
            // Few items at any time, so that some expire.
            let item = (n / 40 + random.below(4) as i64).to_string();
            let number = if random.below(5) == 0 { Missing } else { Number(random.unit() * 9.0) };
            let values = vec![text(&item), Category(random.below(3)), number];
            let (position, placement) = (random.below(3) as i32, format!("p{}", random.below(2)));
            let impression = 18_000 * DAY + n * HOUR / 20;
            Row { within: HOUR, position, placement, item, ..Row::new(impression, random.below(4) == 0, values) }
        })
        .collect()
}

fn whole(model: &Model) -> Vec<u8> {
    let mut bytes = Vec::new();
    model.encode_all(&mut bytes);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// A model that is saved as a base and changes and loaded anew, at any places, goes on as if nothing had happened.
    #[test]
    fn checkpoints_change_nothing(
        seed: u64, half_life in prop::option::of(5u32..40), cuts in prop::collection::vec((1usize..120, any::<bool>()), 1..8),
    ) {
        let rows = rows(seed, 600);
        let (mut straight, schema) = model(half_life);
        learn(&mut straight, &schema, &rows);

        let (mut live, _) = model(half_life);
        let (mut base, mut changes) = (whole(&live), Vec::new());
        let mut at = 0;
        for (length, reload) in cuts {
            let end = (at + length).min(rows.len());
            learn(&mut live, &schema, &rows[at..end]);
            at = end;
            let mut delta = Vec::new();
            live.encode_changes(&mut delta);
            live.mark_clean();
            changes.push(delta);
            if reload {
                let digest = live.digest();
                live = model(half_life).0;
                live.load_all(&base).unwrap();
                for delta in &changes {
                    live.apply_changes(delta).unwrap();
                }
                prop_assert_eq!(live.digest(), digest);
                (base, changes) = (whole(&live), Vec::new());
            }
        }
        learn(&mut live, &schema, &rows[at..]);
        prop_assert_eq!(live.digest(), straight.digest());
        prop_assert_eq!(live.summary(), straight.summary());
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic(at in any::<prop::sample::Index>(), bit in 0u8..8, cut: bool) {
        let (mut live, schema) = model(None);
        learn(&mut live, &schema, &rows(1, 60));
        let mut bytes = whole(&live);
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
            prop_assert!(model(None).0.load_all(&bytes).is_err());
        } else {
            bytes[at] ^= 1 << bit;
            let mut damaged = model(None).0;
            if damaged.load_all(&bytes).is_ok() {
                // Or harmless: an earlier "oldest bucket" drops no more than the right one.
                prop_assert!(damaged.digest() != live.digest() || whole(&damaged) == whole(&live));
            }
        }
    }
}

#[test]
fn predicting_leaves_no_trace_and_the_log_place_does_not_count() {
    let (mut live, schema) = model(Some(100));
    let rows = rows(7, 300);
    learn(&mut live, &schema, &rows[..200]);
    let (digest, state) = (live.digest(), whole(&live));
    for row in &rows[200..] {
        live.predict(&Example::read(&row.bytes(schema.id(), 0)).unwrap());
    }
    assert_eq!((live.digest(), whole(&live)), (digest, state));
    // Other sequence numbers, and examples learned one by one: the same.
    let (mut other, _) = model(Some(100));
    for row in &rows[..200] {
        learn(&mut other, &schema, std::slice::from_ref(row));
        other.digest();
    }
    assert_eq!(other.digest(), digest);
    let mut swapped = rows[..200].to_vec();
    swapped[3].values[2] = Number(8.75);
    let (mut other, _) = model(Some(100));
    learn(&mut other, &schema, &swapped);
    assert_ne!(other.digest(), digest);
}

#[test]
fn changes_are_small_and_another_models_state_is_refused() {
    let (mut live, schema) = model(None);
    let rows = rows(3, 500);
    learn(&mut live, &schema, &rows[..499]);
    live.mark_clean();
    let (mut none, mut one) = (Vec::new(), Vec::new());
    live.encode_changes(&mut none);
    learn(&mut live, &schema, &rows[499..]);
    live.encode_changes(&mut one);
    assert!(none.len() < one.len() && one.len() < whole(&live).len());
    let spec = pipeline(
        json!({}),
        "1h",
        json!({"name": "m", "outcome": "click", "features": ["item"], "learner": {"ftrl": {"bits": 8}}}),
    );
    let error = compile(&spec, &NAMES).load_all(&whole(&live)).unwrap_err();
    assert!(error.what.starts_with("layout"), "{error}");
    let error = model(None).0.load_all(&one).unwrap_err();
    assert!(error.what.starts_with("kind"), "{error}");
    let mut newer = whole(&live);
    newer[0] = 4;
    assert!(model(None).0.load_all(&newer).unwrap_err().what.starts_with("version"));
}

/// What version 2 wrote. If this fails because results changed: raise the engine's version.
#[test]
fn version_2_is_read_as_what_it_was() {
    let (mut live, schema) = model(Some(50));
    learn(&mut live, &schema, &rows(2026, 100));
    let mut loaded = model(Some(50)).0;
    loaded.load_all(include_bytes!("model-v2.bin")).unwrap();
    assert_eq!((loaded.digest(), whole(&loaded)), (live.digest(), whole(&live)));
    assert_eq!(format!("{:032x}", loaded.digest()), include_str!("model-v2.digest").trim());
}

/// What version 1 wrote of the same examples.
#[test]
fn version_1_is_read_as_what_it_was() {
    let (mut live, schema) = model(Some(50));
    learn(&mut live, &schema, &rows(2026, 100));
    let mut loaded = model(Some(50)).0;
    loaded.load_all(include_bytes!("model-v1.bin")).unwrap();
    assert_eq!((loaded.digest(), whole(&loaded)), (live.digest(), whole(&live)));
}

/// A model that forgets no more, or begins to, goes on the same whether it was restarted or not.
#[test]
fn another_half_life_outlasts_a_restart() {
    let rows = rows(11, 600);
    for (before, after) in [(Some(20), None), (None, Some(20)), (Some(20), Some(200))] {
        let (mut old, schema) = model(before);
        learn(&mut old, &schema, &rows[..300]);
        let (mut live, mut restarted) = (model(after).0, model(after).0);
        assert!(live.take_over(old));
        restarted.load_all(&whole(&live)).unwrap();
        let predicted = learn(&mut live, &schema, &rows[300..]);
        assert_eq!(learn(&mut restarted, &schema, &rows[300..]), predicted, "{before:?} {after:?}");
        assert_eq!(restarted.digest(), live.digest());
    }
}
