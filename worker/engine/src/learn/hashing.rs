//! From an example's typed values to hashed sparse features.
//!
//! A category adds 1 at the hash of (column, category); a number x adds sign(x) ln(1 + |x|) at its column's own index; a
//! missing value adds 1 at the column's "missing", except in a `lastN`, whose columns share one name and thus one bag of
//! categories, and where nothing is added. A cross hashes its columns and their categories together and multiplies the
//! values, once for each combination where a column is a bag. There is no constant: the running base rate is in its place.

use millrace_crds::spec::{self, Per, PipelineSpec};

use super::{CompileError, ftrl::Entry};
use crate::example::{FeatureValue, Schema};

/// Stands for a missing value and for the number of a column, where categories stand. No bucket's number comes near;
/// a text's hash is this with a chance of 2^-64.
const MISSING: u64 = 0x9E37_79B9_7F4A_7C15;
const NUMBER: u64 = 0xD1B5_4A32_D192_ED03;

/// Whole numbers below this are looked up instead of calling log1p.
const TABLE: usize = 256;

/// One term: what a value adds before it is hashed into an index.
#[derive(Clone, Copy, Debug)]
struct Term {
    hash: u64,
    value: f64,
}

#[derive(Clone, Debug)]
struct Column {
    seed: u64,
    /// Named in `features`, not only in crosses.
    main: bool,
    /// One of the columns of a `lastN`.
    bag: bool,
}

#[derive(Clone, Debug)]
struct Cross {
    seed: u64,
    /// Of each factor, the columns of its name: one, or n of a bag.
    factors: Vec<Vec<usize>>,
}

/// How the values of a model become features: the example's columns in order, then the model's own statistics.
#[derive(Clone, Debug)]
pub struct Plan {
    shift: u32,
    columns: Vec<Column>,
    crosses: Vec<Cross>,
    position_seed: Option<u64>,
    log1p: Vec<f64>,
}

/// The names of a model's features and crosses that it keeps itself (`per: item | global`), each once, in order.
pub fn own_statistics<'s>(spec: &'s PipelineSpec, model: &'s spec::Model) -> Vec<&'s str> {
    let mut names: Vec<&str> = Vec::new();
    for name in model.features.iter().chain(model.crosses.iter().flatten()) {
        let own = spec.features.get(name).is_some_and(|f| matches!(f.per, Per::Item | Per::Global));
        if own && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

impl Plan {
    /// `own`: as [`own_statistics`] gave them.
    pub fn compile(
        spec: &PipelineSpec,
        model: &spec::Model,
        schema: &Schema,
        own: &[&str],
    ) -> Result<Self, CompileError> {
        let names: Vec<&str> = schema.columns.iter().map(|c| c.name.as_str()).chain(own.iter().copied()).collect();
        let of_name = |name: &String| -> Result<Vec<usize>, CompileError> {
            let found: Vec<usize> = (0..names.len()).filter(|i| names[*i] == name).collect();
            if found.is_empty() { Err(CompileError::Column(name.clone())) } else { Ok(found) }
        };
        for name in &model.features {
            of_name(name)?;
        }
        let columns = names.iter().map(|name| Column {
            seed: seed("column", name),
            main: model.features.iter().any(|f| f == name),
            bag: spec.features.get(*name).is_some_and(|f| f.last_n.is_some()),
        });
        let mut crosses = Vec::with_capacity(model.crosses.len());
        for cross in &model.crosses {
            if !(2..=3).contains(&cross.len()) {
                return Err(CompileError::Cross(cross.join(" x ")));
            }
            let factors = cross.iter().map(of_name).collect::<Result<_, _>>()?;
            crosses.push(Cross { seed: seed("cross", &cross.join("\0")), factors });
        }
        let shift = 64 - model.learner.ftrl.bits;
        Ok(Self {
            shift,
            columns: columns.collect(),
            crosses,
            position_seed: (model.position == spec::Position::TrainOnly).then(|| seed("position", "")),
            log1p: (0..TABLE).map(|n| libm::log1p(n as f64)).collect(),
        })
    }

    /// Replaces `out` by the features of these values. `position`: in training only, -1: none.
    pub fn features(&self, values: &[FeatureValue], position: i32, out: &mut Vec<Entry>) {
        out.clear();
        for (column, value) in self.columns.iter().zip(values) {
            if column.main
                && let Some(term) = self.term(column, value)
            {
                out.push(self.entry(mix(term.hash), term.value));
            }
        }
        if let Some(seed) = self.position_seed
            && position >= 0
        {
            out.push(self.entry(mix(seed ^ position as u64), 1.0));
        }
        for cross in &self.crosses {
            self.cross(&cross.factors, values, Term { hash: cross.seed, value: 1.0 }, out);
        }
    }

    fn cross(&self, factors: &[Vec<usize>], values: &[FeatureValue], so_far: Term, out: &mut Vec<Entry>) {
        let Some((columns, rest)) = factors.split_first() else {
            out.push(self.entry(mix(so_far.hash), so_far.value));
            return;
        };
        for column in columns {
            if let Some(term) = self.term(&self.columns[*column], &values[*column]) {
                let hash = mix(so_far.hash ^ mix(term.hash));
                self.cross(rest, values, Term { hash, value: so_far.value * term.value }, out);
            }
        }
    }

    #[inline]
    fn entry(&self, hash: u64, value: f64) -> Entry {
        Entry { index: (hash >> self.shift) as u32, value }
    }

    /// None where nothing is added: a number that is 0, a place in a bag that is empty.
    #[inline]
    fn term(&self, column: &Column, value: &FeatureValue) -> Option<Term> {
        match *value {
            FeatureValue::Category(category) => Some(Term { hash: column.seed ^ category, value: 1.0 }),
            FeatureValue::Number(x) if !x.is_nan() => {
                let value = self.shrunk(x);
                (value != 0.0).then_some(Term { hash: column.seed ^ NUMBER, value })
            }
            _ => (!column.bag).then_some(Term { hash: column.seed ^ MISSING, value: 1.0 }),
        }
    }

    /// sign(x) ln(1 + |x|); infinities as the greatest number.
    #[inline]
    fn shrunk(&self, x: f64) -> f64 {
        let size = x.abs().min(f64::MAX);
        let whole = size as usize;
        let log = match self.log1p.get(whole) {
            Some(log) if whole as f64 == size => *log,
            _ => libm::log1p(size),
        };
        log.copysign(x)
    }
}

fn seed(kind: &str, name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), xxhash_rust::xxh3::xxh3_64(kind.as_bytes()))
}

/// SplitMix64's finalizer (Steele, Lea, Flood 2014).
#[inline]
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}
