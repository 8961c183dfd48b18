//! What must hold, in small: few days, few shoppers.

use super::{
    pipeline::PIPELINE,
    summary::Summary,
    table::{Row, SHARE_BACK},
    threads::in_order,
};
use crate::world::{Scenario, Settings, settings::DAY_MICROS};

fn row(scenario: Scenario, seed: u64, days: f64) -> Row {
    let drift_at_micros = (days / 2.0 * DAY_MICROS as f64) as i64;
    let small = Settings { users: 800, items: 100, events_per_second: 1_000.0, ..Settings::default() };
    let settings = Settings { scenario, seed, drift_at_micros, ..small };
    Row::of(settings, PIPELINE, days).unwrap()
}

#[test]
fn tastes_are_learned() {
    let row = row(Scenario::Taste, 1, 3.0);
    assert!(row.lift() > 0.35 && row.ever_excluded_zero, "{row}");
    assert!(row.share.unwrap() > 0.5, "{row}");
    assert!((0.01..0.05).contains(&row.control_ctr) && row.personal_ctr < 0.05, "{row}");
}

#[test]
fn where_nothing_is_to_be_gained_nothing_is_found() {
    for scenario in [Scenario::Homogeneous, Scenario::Position] {
        let row = row(scenario, 1, 2.0);
        assert!(!row.ever_excluded_zero && row.looks >= 30, "{row}");
        assert!(row.share.is_none_or(|share| share < 0.5), "{row}");
    }
}

#[test]
fn a_drift_is_noticed_and_made_good() {
    let row = row(Scenario::Drift, 1, 8.0);
    let drift = row.drift.unwrap();
    assert!(drift.share_after < 0.8 * drift.share_before, "tastes did change: {row}");
    assert!(drift.impressions_until_back.unwrap() <= 50_000, "back at {SHARE_BACK}: {row}");
}

#[test]
fn newcomers_do_not_suffer() {
    let row = row(Scenario::Cold, 1, 3.0);
    assert!(row.first.decisions > 500, "{row}");
    assert!(row.first.personal_ctr > 0.9 * row.first.control_ctr, "{row}");
}

#[test]
fn any_number_of_threads_gives_the_same() {
    let of = |threads| {
        let mut rows = Vec::new();
        in_order(&[3u64, 4, 5], threads, |seed| row(Scenario::Taste, *seed, 0.2).to_string(), |row| rows.push(row));
        rows
    };
    let one = of(1);
    assert_eq!(one.len(), 3);
    assert!(one[0] != one[1] && one == of(2), "{one:?}");
}

#[test]
fn a_summary_says_what_falls_short() {
    let mut rows = vec![row(Scenario::Taste, 1, 0.4), row(Scenario::Taste, 2, 0.4)];
    let set = |row: &mut Row, lift: f64, share: f64| {
        (row.control_ctr, row.personal_ctr, row.share) = (0.01, 0.01 * (1.0 + lift), Some(share));
    };
    set(&mut rows[0], 0.5, 0.7);
    set(&mut rows[1], 0.4, 0.6);
    assert!(Summary::of(Scenario::Taste, &rows).holds);
    set(&mut rows[1], 0.4, 0.59);
    assert!(!Summary::of(Scenario::Taste, &rows).holds, "one world falls short, though not the mean");
    set(&mut rows[1], 0.3, 0.6);
    assert!(!Summary::of(Scenario::Taste, &rows).holds, "a lift that is too low");
    set(&mut rows[1], 0.4, 0.4);
    let summary = Summary::of(Scenario::Taste, &rows);
    assert!(!summary.holds && summary.text().contains("share: least 0.40, median 0.55"), "{}", summary.text());
    // None of two may have an interval without zero; of 40, two may.
    rows[0].ever_excluded_zero = false;
    rows[1].ever_excluded_zero = true;
    assert!(!Summary::of(Scenario::Position, &rows).holds);
    rows.extend(std::iter::repeat_n(rows[0].clone(), 38));
    assert!(Summary::of(Scenario::Position, &rows).holds);
}
