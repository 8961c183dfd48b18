//! How the pipeline of a world changes while it runs: other models and features and, in some worlds, another mapping of a
//! source, which is a file then: what is posted is decoded when it is received. It may well change back.

use millrace_e2e::rng::Rng;

use crate::ground::{FILE, PIPELINE};

/// In which ways models and features, and in which the mapping, may be.
const WAYS: u64 = 3;

/// The pipeline as of each generation.
pub fn pipelines(seed: u64, changes: u64, remapped: bool) -> Vec<String> {
    let mut rng = Rng::new(seed ^ 0xc4a9);
    let base = if remapped { of_a_file(PIPELINE) } else { PIPELINE.to_owned() };
    let (mut models, mut mapping) = (0, 0);
    let mut all = vec![base.clone()];
    for _ in 0..changes {
        // Another one than before, in one way at least.
        models = (models + if remapped { rng.below(WAYS) } else { 1 + rng.below(WAYS - 1) }) % WAYS;
        if remapped {
            mapping = (mapping + 1 + rng.below(WAYS - 1)) % WAYS;
        }
        all.push(with_mapping(with_models(base.clone(), models), mapping));
    }
    all
}

/// When it changes: once in each of so many parts of the time with faults.
pub fn ticks(seed: u64, changes: u64, ticks: u64) -> Vec<u64> {
    let mut rng = Rng::new(seed ^ 0x71c5);
    let part = ticks / (changes + 1).max(1);
    (0..changes).map(|n| n * part + part / 2 + rng.below(part.max(1))).collect()
}

fn of_a_file(text: &str) -> String {
    let file = format!("    file: {{path: {FILE}}}\n");
    let text = text.replace("    http: {partitions: 1}\n", &file);
    text.replace(
        "maxOutOfOrderness: 1m, late: Drop}",
        "maxOutOfOrderness: 1m, late: Drop, notAfter: \"2200-01-01T00:00:00Z\"}",
    )
}

fn with_models(text: String, way: u64) -> String {
    match way {
        0 => text,
        // Without a feature, and with one more model.
        1 => text
            .replace("    seen: {distinct: impression, of: item}\n", "")
            .replace("inSession, seen]", "inSession]")
            .replace(
                "  - {name: buy,",
                "  - {name: again, outcome: click, features: [item, clicks, ctr]}\n  - {name: buy,",
            ),
        // One model less, and another feature.
        _ => {
            let kept = text.lines().filter(|line| !line.contains("{name: buy,")).map(|line| format!("{line}\n"));
            let text: String = kept.collect();
            text.replace("    recent: ", "    orders: {count: order}\n    recent: ")
                .replace("recent, taste", "orders, taste")
        }
    }
}

fn with_mapping(text: String, way: u64) -> String {
    match way {
        0 => text,
        // Other users, and some records are no events any more.
        1 => text
            .replace("user: {field: user}", "user: {field: other}")
            .replace("    events: *events\n", "    drop: [{bot: true}]\n    events: *events\n"),
        // What was a click is an order.
        _ => text.replace(
            "    events: *events\n",
            "    events:\n    - {name: consent, when: {type: consent}}\n    - {name: impression, when: {type: shown}, fields: {items: skus}}\n    \
             - {name: click, when: {type: order}, fields: {items: sku}}\n    - {name: order, when: {type: click}, fields: {items: sku}}\n",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{faults::Faults, ground::Ground};

    #[test]
    fn every_way_is_a_pipeline_and_another_one() {
        for seed in 0..20 {
            for remapped in [false, true] {
                let ground =
                    Ground::changing(seed, &Faults { changes: 3, remapped: u64::from(remapped), ..Faults::none() })
                        .unwrap();
                let specs: Vec<&str> = (1..=4).map(|g| ground.at(g).configuration.spec.as_str()).collect();
                assert!(specs.windows(2).all(|pair| pair[0] != pair[1]), "seed {seed}");
                assert!(ground.at(4).configuration.other_meanings().is_empty());
                assert_eq!(ground.file().is_some(), remapped);
            }
        }
        assert!(ticks(3, 3, 1_500).windows(2).all(|pair| pair[0] < pair[1]));
    }
}
