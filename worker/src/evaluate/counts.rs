//! Many tests, one row an arm: how often it was shown and clicked.

use std::{collections::BTreeMap, path::Path};

use millrace_engine::experiment::past::{CountedArm, CountsReport};
use serde::Serialize;

use super::{EvaluateError, table::Table};

/// Columns; each the first that there is.
#[derive(Clone, Debug)]
pub struct CountsShape {
    pub test: Vec<String>,
    pub arm: String,
    pub impressions: String,
    pub clicks: String,
}

/// A test and what its counts say.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CountedTest {
    pub test: String,
    #[serde(flatten)]
    pub report: CountsReport,
}

/// How many of all tests show something, at usual levels. By chance alone a share of tests equal to the level does.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CountsSummary {
    pub tests: usize,
    pub arms: usize,
    pub impressions: u64,
    pub clicks: u64,
    pub different_below_05: usize,
    pub different_below_01: usize,
    pub sample_ratio_below_01: usize,
    pub sample_ratio_below_001: usize,
}

/// Tests in the order of their names.
pub fn read(path: &Path, shape: &CountsShape) -> Result<Vec<CountedTest>, EvaluateError> {
    let mut table = Table::open(path)?;
    let names: Vec<&str> = shape.test.iter().map(String::as_str).collect();
    let (test, arm) = (table.column(&names)?, table.column(&[&shape.arm])?);
    let (impressions, clicks) = (table.column(&[&shape.impressions])?, table.column(&[&shape.clicks])?);
    let mut tests: BTreeMap<String, Vec<CountedArm>> = BTreeMap::new();
    while table.advance()? {
        let name = table.text(arm).to_owned();
        let counted = CountedArm { name, impressions: table.count(impressions)?, clicks: table.count(clicks)? };
        if counted.clicks > counted.impressions {
            return Err(table.line(format!("{} clicks in {} impressions", counted.clicks, counted.impressions)));
        }
        let arms = tests.entry(table.text(test).to_owned()).or_default();
        if arms.iter().any(|a| a.name == counted.name) {
            return Err(table.line(format!("arm `{}` of test `{}` was there before", counted.name, table.text(test))));
        }
        arms.push(counted);
    }
    if tests.is_empty() {
        return Err(EvaluateError::Empty { path: path.to_owned() });
    }
    Ok(tests.into_iter().map(|(test, arms)| CountedTest { test, report: CountsReport::of(arms) }).collect())
}

pub fn summary(tests: &[CountedTest]) -> CountsSummary {
    let different = |level: f64| tests.iter().filter(|t| t.report.p_value < level).count();
    let ratio = |t: &&CountedTest, level: f64| t.report.sample_ratio.as_ref().is_some_and(|r| r.p_value < level);
    let uneven = |level: f64| tests.iter().filter(|t| ratio(t, level)).count();
    let arms = || tests.iter().flat_map(|t| &t.report.arms);
    CountsSummary {
        tests: tests.len(),
        arms: arms().count(),
        impressions: arms().map(|a| a.impressions).fold(0, u64::saturating_add),
        clicks: arms().map(|a| a.clicks).fold(0, u64::saturating_add),
        different_below_05: different(0.05),
        different_below_01: different(0.01),
        sample_ratio_below_01: uneven(0.01),
        sample_ratio_below_001: uneven(0.001),
    }
}
