use millrace_engine::example::FeatureValue;

use super::*;

/// Milliseconds since 1970 at which the shop opens.
const OPENS: i64 = 1_767_225_600_000;

fn time(ms: i64) -> Time {
    Time((OPENS + ms) * 1_000)
}

fn event(who: &str, ms: i64, what: &str) -> String {
    let ts = OPENS + ms;
    format!(r#"{{"ts":{ts},"id":"{who}{ms}","v":2,"customerId":"{who}","client":"web","sessionId":"s1",{what}}}"#)
}

fn product(sku: &str, category: &str) -> String {
    format!(r#"{{"ts":{OPENS},"sku":"{sku}","category":"{category}","brand":"b","priceBand":"low","inStock":true}}"#)
}

/// Events name items and nothing else of them; what the catalog says of them must reach the models all the same.
#[test]
fn examples_have_the_attributes_of_the_catalog() {
    let mut pipeline = Pipeline::new(PIPELINE, 1).unwrap();
    for (sku, category) in [("p1", "shoes"), ("p2", "hats"), ("p3", "shoes")] {
        pipeline.product(&product(sku, category), time(0)).unwrap();
    }
    let shown = r#"[{"sku":"p1","pos":0},{"sku":"p2","pos":1},{"sku":"p3","pos":2}]"#;
    let impression = format!(r#""topic":"content","type":"impression","slot":"home","shown":{shown}"#);
    let view = |sku: &str| format!(r#""type":"view","sku":"{sku}""#);
    let mut events = vec![
        event("ann", 1_000, r#""topic":"identity","type":"consent","personalization":true"#),
        event("ann", 2_000, &view("p3")),
        event("ann", 3_000, &impression),
    ];
    // Time goes on in all partitions.
    events.extend((0..20).map(|n| event(&format!("c{n}"), 60_000, &view("p2"))));
    for record in &events {
        pipeline.of_shop.receive(record, time(60_000), &mut pipeline.events);
    }
    let column = |pipeline: &Pipeline, name: &str| {
        pipeline.plan.models[0].schema.columns.iter().position(|column| column.name == name).unwrap()
    };
    let (category, likes) = (column(&pipeline, "item.category"), column(&pipeline, "likesCategory"));
    let mut seen = Vec::new();
    let see = |model: usize, example: &Example<'_>, _| {
        let values: Vec<FeatureValue> = example.values().collect();
        if model == 0 {
            seen.push((example.head.item.to_owned(), values[category], values[likes]));
        }
    };
    pipeline.read(see).unwrap();
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    let [(_, shoes, of_shoes), (_, hats, of_hats), third] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(matches!(shoes, FeatureValue::Category(_)) && shoes != hats, "{seen:?}");
    assert_eq!((&third.1, &third.2), (shoes, of_shoes));
    assert!(matches!(of_shoes, FeatureValue::Category(_)) && of_shoes != of_hats, "a view of shoes counts: {seen:?}");
}
