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

/// What a column's value adds, before it is crossed and hashed into an index. None where nothing is added: a number that
/// is 0, a place in a bag that is empty.
pub type Term = Option<Factor>;

/// A mixed hash, and the value that it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor {
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
    whole: Part,
}

/// Some of a plan's features: columns that are features themselves, and crosses, by index.
#[derive(Clone, Debug, Default)]
pub struct Part {
    mains: Vec<usize>,
    crosses: Vec<usize>,
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
        let columns: Vec<Column> = names
            .iter()
            .map(|name| Column {
                seed: seed("column", name),
                main: model.features.iter().any(|f| f == name),
                bag: spec.features.get(*name).is_some_and(|f| f.last_n.is_some()),
            })
            .collect();
        let mut crosses = Vec::with_capacity(model.crosses.len());
        for cross in &model.crosses {
            if !(2..=3).contains(&cross.len()) {
                return Err(CompileError::Cross(cross.join(" x ")));
            }
            let factors = cross.iter().map(of_name).collect::<Result<_, _>>()?;
            crosses.push(Cross { seed: seed("cross", &cross.join("\0")), factors });
        }
        let shift = 64 - model.learner.ftrl.bits;
        let mains = (0..columns.len()).filter(|i| columns[*i].main).collect();
        let whole = Part { mains, crosses: (0..crosses.len()).collect() };
        Ok(Self {
            shift,
            columns,
            crosses,
            whole,
            position_seed: (model.position == spec::Position::TrainOnly).then(|| seed("position", "")),
            log1p: (0..TABLE).map(|n| libm::log1p(n as f64)).collect(),
        })
    }

    /// The features that are the same for all candidates of a decision, and those that are not. `of_item`: of each
    /// column, whether its value may differ.
    pub fn split(&self, of_item: &[bool]) -> (Part, Part) {
        let depends = |cross: &usize| self.crosses[*cross].factors.iter().flatten().any(|column| of_item[*column]);
        let (own_mains, mains) = self.whole.mains.iter().partition(|column| of_item[**column]);
        let (own_crosses, crosses) = self.whole.crosses.iter().partition(|cross| depends(cross));
        (Part { mains, crosses }, Part { mains: own_mains, crosses: own_crosses })
    }

    /// Replaces `out` by the features of these values. `position`: in training only, -1: none. `terms` is scratch space.
    pub fn features(&self, values: &[FeatureValue], position: i32, terms: &mut Vec<Term>, out: &mut Vec<Entry>) {
        terms.clear();
        terms.extend(values.iter().enumerate().map(|(column, value)| self.term(column, value)));
        out.clear();
        self.mains(&self.whole, terms, out);
        if let Some(seed) = self.position_seed
            && position >= 0
        {
            out.push(self.entry(mix(seed ^ position as u64), 1.0));
        }
        self.crosses(&self.whole, terms, out);
    }

    /// Replaces `out` by a part of the features of these terms, without a position.
    pub fn part(&self, part: &Part, terms: &[Term], out: &mut Vec<Entry>) {
        out.clear();
        self.mains(part, terms, out);
        self.crosses(part, terms, out);
    }

    fn mains(&self, part: &Part, terms: &[Term], out: &mut Vec<Entry>) {
        let present = part.mains.iter().filter_map(|column| terms[*column]);
        out.extend(present.map(|factor| self.entry(factor.hash, factor.value)));
    }

    fn crosses(&self, part: &Part, terms: &[Term], out: &mut Vec<Entry>) {
        for cross in part.crosses.iter().map(|cross| &self.crosses[*cross]) {
            self.cross(&cross.factors, terms, Factor { hash: cross.seed, value: 1.0 }, out);
        }
    }

    fn cross(&self, factors: &[Vec<usize>], terms: &[Term], so_far: Factor, out: &mut Vec<Entry>) {
        let Some((columns, rest)) = factors.split_first() else {
            out.push(self.entry(mix(so_far.hash), so_far.value));
            return;
        };
        for factor in columns.iter().filter_map(|column| terms[*column]) {
            let hash = mix(so_far.hash ^ factor.hash);
            self.cross(rest, terms, Factor { hash, value: so_far.value * factor.value }, out);
        }
    }

    #[inline]
    fn entry(&self, hash: u64, value: f64) -> Entry {
        Entry { index: (hash >> self.shift) as u32, value }
    }

    /// What a value of this column adds.
    #[inline]
    pub fn term(&self, column: usize, value: &FeatureValue) -> Term {
        let column = &self.columns[column];
        let (hash, value) = match *value {
            FeatureValue::Category(category) => (column.seed ^ category, 1.0),
            FeatureValue::Number(x) if !x.is_nan() => match self.shrunk(x) {
                0.0 => return None,
                value => (column.seed ^ NUMBER, value),
            },
            _ if column.bag => return None,
            _ => (column.seed ^ MISSING, 1.0),
        };
        Some(Factor { hash: mix(hash), value })
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
