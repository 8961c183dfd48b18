//! Rows of users (or of single impressions) with their variant and what they did.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
};

use millrace_engine::experiment::{Arm, ExperimentReport, Settings, ratio::RatioSums};

use super::{EvaluateError, list, table::Table};

/// `NAME=X/Y`, sum of a column per sum of another, or `NAME=X`, sum of a column per user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricColumns {
    pub name: String,
    pub x: String,
    pub per: Option<String>,
}

impl FromStr for MetricColumns {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected NAME=COLUMN/COLUMN or NAME=COLUMN, such as ctr=clicks/impressions".to_owned();
        let (name, columns) = text.split_once('=').ok_or_else(expected)?;
        let (x, per) = columns.split_once('/').map_or((columns, None), |(x, per)| (x, Some(per.to_owned())));
        if name.is_empty() || x.is_empty() || per.as_deref() == Some("") {
            return Err(expected());
        }
        Ok(Self { name: name.to_owned(), x: x.to_owned(), per })
    }
}

/// Where to find what.
#[derive(Clone, Debug)]
pub struct UsersShape {
    /// Column of the user; `None`: each row is a unit of its own.
    pub user: Option<String>,
    /// Column of the variant, for files that are not of one variant.
    pub variant: String,
    pub metrics: Vec<MetricColumns>,
    /// By default a variant named `control`, or the first that is read.
    pub control: Option<String>,
    /// Planned shares; by default equal.
    pub weights: BTreeMap<String, f64>,
    pub settings: Settings,
}

/// An experiment, and what of its file was not counted.
pub struct UsersReport {
    pub report: ExperimentReport,
    /// Users with rows of several variants: left out of all.
    pub crossovers: u64,
}

struct User {
    variant: usize,
    crossed: bool,
    /// x and y of each metric.
    sums: Vec<(f64, f64)>,
}

#[derive(Default)]
struct Units {
    variants: Vec<String>,
    sums: Vec<Vec<RatioSums>>,
    users: BTreeMap<String, User>,
}

/// Reads files of (variant, path); without a variant it is in the rows. Rows of one user are added up.
pub fn read(files: &[(Option<String>, PathBuf)], shape: &UsersShape) -> Result<UsersReport, EvaluateError> {
    let mut units = Units::default();
    for (variant, path) in files {
        units.read(path, variant.as_deref(), shape)?;
    }
    let crossovers = units.users.values().filter(|user| user.crossed).count() as u64;
    for user in std::mem::take(&mut units.users).into_values().filter(|user| !user.crossed) {
        units.add(user.variant, &user.sums);
    }
    Ok(UsersReport { report: units.report(shape)?, crossovers })
}

impl Units {
    fn variant(&mut self, name: &str, metrics: usize) -> usize {
        self.variants.iter().position(|v| v == name).unwrap_or_else(|| {
            self.variants.push(name.to_owned());
            self.sums.push(vec![RatioSums::default(); metrics]);
            self.variants.len() - 1
        })
    }

    fn add(&mut self, variant: usize, user: &[(f64, f64)]) {
        self.sums[variant].iter_mut().zip(user).for_each(|(sums, (x, y))| sums.add(*x, *y));
    }

    fn read(&mut self, path: &Path, of: Option<&str>, shape: &UsersShape) -> Result<(), EvaluateError> {
        let mut table = Table::open(path)?;
        let user = shape.user.as_deref().map(|name| table.column(&[name])).transpose()?;
        let variant = if of.is_none() { Some(table.column(&[&shape.variant])?) } else { None };
        let column = |m: &MetricColumns| {
            let per = m.per.as_deref().map(|per| table.column(&[per])).transpose()?;
            Ok((table.column(&[&m.x])?, per))
        };
        let columns = shape.metrics.iter().map(column).collect::<Result<Vec<_>, EvaluateError>>()?;
        let mut rows = 0u64;
        while table.advance()? {
            rows += 1;
            let values = columns.iter().map(|(x, per)| {
                let y = per.map_or(Ok(1.0), |per| table.number(per))?;
                Ok((table.number(*x)?, y))
            });
            let values = values.collect::<Result<Vec<_>, EvaluateError>>()?;
            let name = of.or(variant.map(|column| table.text(column))).unwrap_or("");
            if name.is_empty() {
                return Err(table.line("a row without a variant".to_owned()));
            }
            let variant = self.variant(name, columns.len());
            match user.map(|column| table.text(column)) {
                None => self.add(variant, &values),
                Some("") => return Err(table.line("a row without a user".to_owned())),
                Some(id) => self.user(id, variant, &values, shape),
            }
        }
        if rows == 0 { Err(EvaluateError::Empty { path: path.to_owned() }) } else { Ok(()) }
    }

    fn user(&mut self, id: &str, variant: usize, values: &[(f64, f64)], shape: &UsersShape) {
        let Some(user) = self.users.get_mut(id) else {
            self.users.insert(id.to_owned(), User { variant, crossed: false, sums: values.to_vec() });
            return;
        };
        user.crossed |= user.variant != variant;
        for ((sum, value), metric) in user.sums.iter_mut().zip(values).zip(&shape.metrics) {
            sum.0 += value.0;
            // A metric per user counts the user once.
            sum.1 += if metric.per.is_some() { value.1 } else { 0.0 };
        }
    }

    fn report(self, shape: &UsersShape) -> Result<ExperimentReport, EvaluateError> {
        let known = list(&self.variants);
        let unknown = |name: &str| EvaluateError::Asked(format!("no variant `{name}`; there is {known}"));
        let place = |name: &str| self.variants.iter().position(|v| v == name);
        let control = match &shape.control {
            Some(name) => place(name).ok_or_else(|| unknown(name))?,
            None => place("control").unwrap_or(0),
        };
        if let Some(name) = shape.weights.keys().find(|name| place(name).is_none()) {
            return Err(unknown(name));
        }
        if self.variants.len() < 2 {
            return Err(EvaluateError::Asked(format!("there is only one variant, {known}: nothing to compare")));
        }
        let arm = |(name, sums): (&String, &Vec<RatioSums>)| {
            let without = || EvaluateError::Asked(format!("--weights says nothing of variant `{name}`"));
            let equal = shape.weights.is_empty().then_some(1.0);
            let weight = shape.weights.get(name).copied().or(equal).ok_or_else(without)?;
            Ok(Arm { name: name.clone(), weight, users: sums.first().map_or(0, |s| s.users) })
        };
        let arms = self.variants.iter().zip(&self.sums).map(arm).collect::<Result<Vec<_>, EvaluateError>>()?;
        let of = |(n, m): (usize, &MetricColumns)| {
            let sums = self.sums.iter().map(|metrics| metrics[n]).collect::<Vec<_>>();
            (m.name.clone(), sums)
        };
        let metrics: Vec<(String, Vec<RatioSums>)> = shape.metrics.iter().enumerate().map(of).collect();
        let named: Vec<(&str, Vec<RatioSums>)> = metrics.iter().map(|(name, s)| (name.as_str(), s.clone())).collect();
        Ok(ExperimentReport::of(&shape.settings, arms, control, &named))
    }
}
