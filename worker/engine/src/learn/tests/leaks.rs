//! The leak detector: what it must find, and what it must not.

use super::support::{DAY, Random, text};
use crate::{
    event::Time,
    example::FeatureValue::{self, Category, Missing, Number},
    learn::leak::{FALSE_ALARM, LeakDetector, LeakWarning},
};

const START: i64 = 18_000 * DAY;

/// Examples of some days; `value` is given the day, the label and randomness.
fn warnings(
    seed: u64,
    (days, per_day, rate): (i64, i64, f64),
    columns: usize,
    mut values: impl FnMut(i64, bool, &mut Random, &mut Vec<FeatureValue>),
) -> Vec<LeakWarning> {
    let mut detector = LeakDetector::new((0..columns).map(|c| c.to_string()).collect());
    let mut random = Random(seed);
    let mut row = Vec::new();
    for day in 0..days {
        for n in 0..per_day {
            let label = random.unit() < rate;
            row.clear();
            values(day, label, &mut random, &mut row);
            detector.learn(Time(START + day * DAY + n * (DAY / per_day)), &row, label);
        }
    }
    detector.warnings()
}

/// 20 columns without any relation to the label, of every kind.
fn noise(random: &mut Random, out: &mut Vec<FeatureValue>) {
    for column in 0..20u32 {
        out.push(match column {
            0..5 => Category(random.below([2, 10, 100, 1_000, 100_000][column as usize])),
            5..8 => Category(u64::from(random.unit() < [0.01, 0.001, 0.1][column as usize - 5])),
            8..12 => Number(random.unit() * 10.0 - 5.0),
            12..15 => Number(f64::from(u8::from(random.unit() < [0.01, 0.1, 0.003][column as usize - 12]))),
            15..17 => {
                if random.unit() < 0.02 {
                    Number(1.0)
                } else {
                    Missing
                }
            }
            17 => {
                if random.unit() < 0.02 {
                    text("rare")
                } else {
                    Missing
                }
            }
            18 => Number(libm::exp(random.unit() * 30.0)),
            _ => Category(random.bits()),
        });
    }
}

#[test]
fn noise_is_not_warned_of() {
    let shapes = [(5, 400, 0.01), (5, 400, 0.5), (4, 1_000, 0.004), (10, 100, 0.05), (5, 300, 0.97)];
    let (mut alarms, mut tried) = (0, 0);
    for seed in 0..250 {
        let shape = shapes[seed as usize % shapes.len()];
        let found = warnings(seed, shape, 20, |_, _, random, out| noise(random, out));
        (alarms, tried) = (alarms + usize::from(!found.is_empty()), tried + 1);
    }
    println!("{alarms} false alarms in {tried} models");
    assert!(alarms as f64 <= FALSE_ALARM * f64::from(tried) / 2.0, "{alarms} of {tried}");
}

#[test]
fn a_label_in_disguise_is_found_in_any_kind_of_column() {
    let found = warnings(1, (3, 1_000, 0.01), 7, |day, label, random, out| {
        let noisy = label || random.unit() < 0.05;
        out.push(Number(f64::from(u8::from(noisy))));
        out.push(Number(-libm::exp(f64::from(u8::from(label)) + random.unit())));
        out.push(if noisy { text("yes") } else { text("no") });
        out.push(if label { text("set afterwards") } else { Missing });
        out.push(if label { Missing } else { Number(random.unit()) });
        // Only on the second day.
        out.push(Category(if day == 1 && label { 7 } else { random.below(5) }));
        out.push(Category(random.bits()));
    });
    let columns: Vec<_> = found.iter().map(|w| w.column.as_str()).collect();
    assert_eq!(columns, ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(found[5].day, 18_001);
    assert_eq!(found[0].day, 18_002, "the last day that leaks");
    assert!(found.iter().all(|w| w.auc > 0.95), "{found:?}");
}

#[test]
fn two_positives_are_too_few_and_a_good_feature_is_no_leak() {
    let mut detector = LeakDetector::new(vec!["x".into()]);
    for n in 0..100_000 {
        let label = n == 500 || n == 600;
        detector.learn(Time(START), &[Number(f64::from(u8::from(label)))], label);
    }
    assert!(detector.warnings().is_empty(), "two positives");
    let good = warnings(2, (3, 3_000, 0.2), 1, |_, label, random, out| {
        out.push(Number(random.unit() + if label { 0.4 } else { 0.0 }));
    });
    assert!(good.is_empty(), "{good:?}");
}
