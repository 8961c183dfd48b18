//! Learning on real data, where the shared folder with it is present.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::PathBuf,
};

use serde_json::json;

use super::support::{Row, compile, learn, pipeline, schema, text};
use crate::{
    event::category_of_number,
    example::FeatureValue::{self, Category, Number},
    learn::ModelSummary,
};

/// The lines of a compressed file of the shared data, split; None, with a line that says so, where it is absent.
fn table(path: &str, delimiter: char) -> Option<Vec<Vec<String>>> {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../../shared/data");
    let Ok(bytes) = std::fs::read(root.join(path)) else {
        println!("skipped: {path} is not there");
        return None;
    };
    let mut content = String::new();
    flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut content).unwrap();
    Some(content.lines().map(|line| line.split(delimiter).map(str::to_owned).collect()).collect())
}

fn capped(n: usize, cap: usize) -> FeatureValue {
    Category(n.min(cap) as u64)
}

/// "Does the session continue?", with features read before the click's own update.
fn eshop_rows(lines: &[Vec<String>]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut session = "";
    let mut per_category: BTreeMap<&str, usize> = BTreeMap::new();
    let mut models: BTreeSet<&str> = BTreeSet::new();
    let mut previous = "";
    for (number, line) in lines.iter().enumerate() {
        let next = lines.get(number + 1).map_or("", |l| l[5].as_str());
        let (order, country, category, model) = (&line[3], &line[4], line[6].as_str(), line[7].as_str());
        if line[5] != session {
            (session, previous) = (&line[5], "");
            per_category.clear();
            models.clear();
        }
        let order: f64 = order.parse().unwrap();
        let values = vec![
            Category(libm::floor(2.0 * libm::log2(order)).min(14.0) as u64),
            text(country),
            text(category),
            text(model),
            text(&line[9]),
            text(&line[13]),
            text(&line[12]),
            capped(per_category.get(category).copied().unwrap_or(0), 15),
            capped(per_category.len(), 20),
            capped(models.len(), 20),
            text(previous),
        ];
        rows.push(Row { within: 1_800_000_000, ..Row::new(number as i64 * 1_000_000, line[5] == next, values) });
        *per_category.entry(category).or_default() += 1;
        models.insert(model);
        previous = category;
    }
    rows
}

const ESHOP: [&str; 11] = [
    "order",
    "country",
    "category",
    "model",
    "location",
    "page",
    "price2",
    "inCategory",
    "categories",
    "models",
    "previous",
];

#[test]
fn eshop_reaches_the_reference() {
    let Some(lines) = table("eshop-clickstream/clicks-2008-04-to-06.csv.gz", ';') else { return };
    let rows = eshop_rows(&lines[1..]);
    let spec = pipeline(
        json!({}),
        "30m",
        json!({
            "name": "continues",
            "outcome": "click",
            "features": &ESHOP[..10],
            "crosses": [["category", "inCategory"], ["previous", "category"], ["order", "page"]],
            "learner": {"ftrl": {"alpha": 0.1, "beta": 1, "l1": 0, "l2": 1, "bits": 18}},
        }),
    );
    let mut model = compile(&spec, &ESHOP);
    learn(&mut model, &schema(&ESHOP), &rows);
    let summary = model.summary();
    println!("e-shop: {}", serde_json::to_string(&summary.validation.total).unwrap());
    let total = &summary.validation.total;
    assert_eq!(total.examples, 116_095);
    assert!(total.auc.unwrap() - total.auc_bin_error.unwrap() >= 0.647, "{total:?}");
    assert!(total.log_loss.unwrap() <= 0.3997, "{total:?}");
    assert!((total.base_log_loss.unwrap() - 0.41699).abs() < 2e-4, "{total:?}");
    assert!((total.calibration.unwrap() - 1.0).abs() < 0.01, "{total:?}");
    assert!(summary.leaks.is_empty(), "{:?}", summary.leaks);
}

/// Microseconds of `2019-11-24 00:00:34.762830+00:00`, within November 2019.
fn bandit_time(text: &str) -> i64 {
    let part = |range: std::ops::Range<usize>| text.get(range).and_then(|p| p.parse::<i64>().ok());
    assert_eq!(&text[..8], "2019-11-");
    let (day, hour, minute, second) =
        (part(8..10).unwrap(), part(11..13).unwrap(), part(14..16).unwrap(), part(17..19));
    let micros = if &text[19..20] == "." { part(20..26).unwrap() } else { 0 };
    // 2019-11-01 is day 18,201.
    ((((18_200 + day) * 24 + hour) * 60 + minute) * 60 + second.unwrap()) * 1_000_000 + micros
}

fn bandit_rows(lines: &[Vec<String>]) -> Vec<Row> {
    let row = |line: &Vec<String>| {
        let (item, position) = (line[2].clone(), line[3].parse().unwrap());
        let any = line[10..].iter().any(|affinity| affinity.parse::<f64>().unwrap() > 0.0);
        let mut values: Vec<_> = line[6..10].iter().map(|feature| text(feature)).collect();
        values.push(Category(category_of_number(item.parse().unwrap())));
        values.push(Number(f64::from(u8::from(any))));
        Row { within: 60_000_000, position, item, ..Row::new(bandit_time(&line[1]), line[4] == "1", values) }
    };
    let mut rows: Vec<Row> = lines.iter().map(row).collect();
    rows.sort_by_key(|row| row.impression);
    rows
}

const BANDIT: [&str; 6] =
    ["user_feature_0", "user_feature_1", "user_feature_2", "user_feature_3", "item", "anyAffinity"];

#[test]
fn open_bandit_is_never_much_worse_than_its_base_rate_and_its_leak_is_found() {
    let paths = ["open-bandit/random/all/all.csv.gz", "open-bandit/bts/all/all.csv.gz"];
    let Some(tables) = paths.map(|path| table(path, ',')).into_iter().collect::<Option<Vec<_>>>() else { return };
    let both: Vec<_> = tables.iter().flat_map(|lines| &lines[1..]).cloned().collect();
    let samples = [(&tables[0][1..], 10_000, 38), (&tables[1][1..], 10_000, 42), (&both[..], 20_000, 80)];
    let with_statistics = [&BANDIT[..], &["itemCtr"]].concat();
    for (lines, examples, positives) in samples {
        let rows = bandit_rows(lines);
        for features in [&BANDIT[..5], &["item", "itemCtr"], &BANDIT[..], &with_statistics] {
            // The spec's defaults, and what a stream with so few positives deserves.
            for (alpha, l1, worst) in [(0.1, 1.0, 1.01), (0.02, 0.0, 1.005)] {
                let summary = bandit_summary(&rows, features, alpha, l1);
                let total = &summary.validation.total;
                assert_eq!((total.examples, total.positives), (examples, positives));
                assert!(summary.validation.worst_ratio_to_base.unwrap() <= worst, "{features:?} {alpha} {total:?}");
                let leaks: Vec<_> = summary.leaks.iter().map(|l| (l.column.as_str(), l.day)).collect();
                assert_eq!(leaks, [("anyAffinity", 18_224)]);
                assert!((summary.leaks[0].auc - 0.97).abs() < 0.002, "{:?}", summary.leaks);
            }
        }
    }
}

fn bandit_summary(rows: &[Row], features: &[&str], alpha: f64, l1: f64) -> ModelSummary {
    let item_ctr = json!({"per": "item", "ratio": ["click", "impression"], "window": "1d", "smoothing": 50});
    let learner = json!({"ftrl": {"alpha": alpha, "beta": 1, "l1": l1, "l2": 1, "bits": 18}});
    let model =
        json!({"name": "ctr", "outcome": "click", "features": features, "position": "TrainOnly", "learner": learner});
    let mut model = compile(&pipeline(json!({"itemCtr": item_ctr}), "1m", model), &BANDIT);
    learn(&mut model, &schema(&BANDIT), rows);
    model.summary()
}
