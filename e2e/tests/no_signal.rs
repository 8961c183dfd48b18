//! Where there is nothing to learn, no model may look as if it had learned something.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;

use common::{Run, figure, write_lines};
use millrace_e2e::rng::Rng;

const PIPELINE: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: no-signal}
spec:
  partitions: 4
  privacy:
    pseudonymKeys: {file: keys.txt, active: k}
    user: {field: u}
    consent: {assumed: generated}
    allowedAttributes: [mood, item.c]
  sources:
  - name: s
    file: {path: "events.jsonl"}
    format: Json
    eventTime: {field: t, unit: ms, maxOutOfOrderness: 2h, notAfter: "2030-01-01T00:00:00Z"}
    events:
    - name: impression
      when: {k: i}
      fields: {decision: d, items: "x[].s", positions: "x[].p", attributes: {item.c: "x[].c"}}
    - {name: click, when: {k: o}, fields: {decision: d, items: s, attributes: {item.c: c}}}
    - {name: order, when: {k: b}, fields: {items: s, attributes: {item.c: c}}}
  features:
    clicks: {count: click}
    clicksOfItem: {count: click, by: item}
    clickRate: {ratio: [click, impression], smoothing: 20}
    sinceClick: {timeSince: click, bucket: {log2: 1, max: 20}}
    lastClicked: {last: click, of: item}
    taste: {affinity: click, by: item.c, halfLife: 1d}
    recent: {decayedSum: click, halfLife: 1h}
    itemClicks: {per: item, count: click, window: 1d}
    itemCtr: {per: item, ratio: [click, impression], window: 1d, smoothing: 20}
    itemCtrEver: {per: item, ratio: [click, impression], smoothing: 20}
    globalCtr: {per: global, ratio: [click, impression], window: 6h, smoothing: 20}
    itemOrders: {per: item, ratio: [order, impression], window: 2d, smoothing: 20}
  outcomes:
    click: {event: click, join: decision, within: 30m}
    order: {event: order, join: item, within: 90m}
  models:
  - name: of-user
    outcome: click
    features: [clicks, clicksOfItem, clickRate, sinceClick, lastClicked, taste, recent, item, mood]
    crosses: [[lastClicked, item]]
  - name: of-item
    outcome: click
    features: [itemClicks, itemCtr, itemCtrEver, globalCtr]
    learner: {ftrl: {alpha: 0.1, l1: 0, l2: 1}}
  - name: of-order
    outcome: order
    features: [itemOrders, item, item.c]
    crosses: [[itemOrders, item]]
    position: TrainOnly
"#;

const IMPRESSIONS: u64 = 40_000;
const MINUTE: u64 = 60_000;

/// Impressions of three items of 30; each is clicked and ordered by chance alone, at any time within the window or long
/// after it. A user comes back only when all windows are closed, so that an outcome can belong to one impression only.
fn events() -> Vec<String> {
    let mut rng = Rng::new(21);
    let mut events = Vec::new();
    let users = 2_000;
    for n in 0..IMPRESSIONS {
        let t = 1_760_000_000_000 + n / users * 300 * MINUTE + rng.below(100 * MINUTE);
        let user = n % users;
        let mut items: Vec<u64> = (0..30).collect();
        let shown: Vec<u64> = (0..3).map(|_| items.swap_remove(rng.below(items.len() as u64) as usize)).collect();
        let list: Vec<String> =
            shown.iter().enumerate().map(|(p, s)| format!(r#"{{"s":"p{s}","p":{p},"c":"c{}"}}"#, s % 4)).collect();
        let mood = rng.below(5);
        events.push((
            t,
            format!(r#"{{"k":"i","t":{t},"u":"u{user}","d":"d{n}","mood":"m{mood}","x":[{}]}}"#, list.join(",")),
        ));
        for item in shown {
            if rng.per_mille(120) {
                let t = t + rng.below(60 * MINUTE);
                events.push((
                    t,
                    format!(r#"{{"k":"o","t":{t},"u":"u{user}","d":"d{n}","s":"p{item}","c":"c{}"}}"#, item % 4),
                ));
            }
            if rng.per_mille(60) {
                let t = t + rng.below(120 * MINUTE);
                events.push((t, format!(r#"{{"k":"b","t":{t},"u":"u{user}","s":"p{item}","c":"c{}"}}"#, item % 4)));
            }
        }
    }
    events.sort();
    events.into_iter().map(|(_, line)| line).collect()
}

#[test]
fn auc_is_one_half_within_its_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pipeline.yaml"), PIPELINE).unwrap();
    fs::write(folder.path().join("keys.txt"), "k: 00112233445566778899aabbccddeeff\n").unwrap();
    write_lines(&folder.path().join("events.jsonl"), events());
    let summary = Run::new(&folder.path().join("pipeline.yaml"), &folder.path().join("data")).summary();
    for model in ["of-user", "of-item", "of-order"] {
        let (examples, positives) = (figure(&summary, model, "examples"), figure(&summary, model, "positives"));
        assert_eq!(examples, 3.0 * IMPRESSIONS as f64);
        let negatives = examples - positives;
        assert!(positives > 0.02 * examples, "{model}: {positives} positives");
        // Hanley and McNeil (1982) at an AUC of one half.
        let error = ((examples + 1.0) / (12.0 * positives * negatives)).sqrt();
        let auc = figure(&summary, model, "auc");
        assert!((auc - 0.5).abs() < 3.5 * error, "{model}: AUC {auc}, standard error {error:.4}");
        let (loss, base) = (figure(&summary, model, "logLoss"), figure(&summary, model, "baseLogLoss"));
        assert!(loss < 1.01 * base && loss > 0.998 * base, "{model}: log loss {loss}, base rate {base}");
    }
}
