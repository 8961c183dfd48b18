//! The weights of before: copies of a calm model, to fall back to once it has drifted.
//!
//! A copy is made every so many examples as long as nothing speaks for a drift, and two are kept: the older one is from
//! before the last one by which the model was still calm, so a drift that took a while to be found is not in it. A copy holds
//! weights in single precision, as serving does, or the counts of items; statistics are inputs and go on for all.

use crate::{
    codec::{Corrupt, Put, Reader},
    learn::{
        Learner,
        beta::Beta,
        ftrl::{Entry, Served},
        items::Rows,
        validation::Prediction,
    },
};

/// What a model predicted with at some example.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Log-odds that predictions started from.
    pub base_margin: f64,
    /// Examples learned.
    pub learned: u64,
    weights: Weights,
}

#[derive(Clone, Debug)]
enum Weights {
    Ftrl(Served),
    Beta(Beta),
}

impl Snapshot {
    pub(in crate::learn) fn of(learner: &Learner, base_margin: f64, learned: u64) -> Self {
        let weights = match learner {
            Learner::Ftrl { weights, .. } => Weights::Ftrl(weights.served()),
            Learner::Beta(beta) => Weights::Beta(beta.clone()),
        };
        Self { base_margin, learned, weights }
    }

    /// What it would have predicted; `entries` of FTRL's features, `item` of Beta-Bernoulli's.
    pub fn predict(&self, entries: &[Entry], item: u64) -> Prediction {
        let base = self.base_margin;
        Prediction::of(
            base,
            match &self.weights {
                Weights::Ftrl(weights) => weights.margin(entries),
                Weights::Beta(beta) => beta.belief(item, Prediction::of(base, 0.0).probability).margin() - base,
            },
        )
    }

    /// For a serving delta: all weights, or that none changed.
    pub fn ship(&self, out: &mut Vec<u8>, all: bool) {
        match (&self.weights, all) {
            (Weights::Ftrl(weights), true) => weights.encode(out),
            (Weights::Ftrl(weights), false) => weights.encode_nothing(out),
            (Weights::Beta(beta), true) => beta.items.encode(out, Rows::All),
            (Weights::Beta(beta), false) => beta.without_items().items.encode(out, Rows::All),
        }
    }

    /// The same weights or counts, by the settings of a model that has as many. False: it has not.
    fn take_over(&mut self, learner: &Learner) -> bool {
        match (&mut self.weights, learner) {
            (Weights::Ftrl(served), Learner::Ftrl { weights, .. }) => served.take_over(weights),
            (Weights::Beta(kept), Learner::Beta(beta)) => {
                let items = std::mem::replace(kept, beta.without_items()).items;
                kept.items = items;
                true
            }
            _ => false,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_f64(self.base_margin);
        out.put_u64(self.learned);
        self.ship(out, true);
    }

    fn read(r: &mut Reader<'_>, learner: &Learner) -> Result<Self, Corrupt> {
        let (base_margin, learned) = (r.f64("base rate of a copy")?, r.u64("examples of a copy")?);
        if !base_margin.is_finite() {
            return Err(r.corrupt("base rate of a copy"));
        }
        let weights = match learner {
            Learner::Ftrl { weights, .. } => {
                let mut served = weights.serving();
                served.apply(r)?;
                Weights::Ftrl(served)
            }
            Learner::Beta(beta) => {
                let mut beta = beta.without_items();
                beta.items.apply(r, false)?;
                Weights::Beta(beta)
            }
        };
        Ok(Self { base_margin, learned, weights })
    }
}

/// Where the older copy comes from, as seen from the last checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Since {
    #[default]
    Unchanged,
    /// It was the newer one.
    WasNewer,
    Changed,
}

/// Two copies at most.
#[derive(Clone, Debug, Default)]
pub struct Snapshots {
    older: Option<Snapshot>,
    newer: Option<Snapshot>,
    older_since: Since,
    newer_changed: bool,
}

const NONE: u8 = 0;
const FOLLOWS: u8 = 1;
const UNCHANGED: u8 = 2;
const WAS_NEWER: u8 = 3;

impl Snapshots {
    /// A copy of the model as it is now. The one that has served stays beside the first one after it: should the drift have
    /// been a passing one after all, its end is a drift too.
    pub fn add(&mut self, snapshot: Snapshot) {
        if self.newer.is_some() {
            self.shift();
        }
        (self.newer, self.newer_changed) = (Some(snapshot), true);
    }

    fn shift(&mut self) {
        self.older = self.newer.take();
        self.older_since = if self.newer_changed { Since::Changed } else { Since::WasNewer };
        self.newer_changed = true;
    }

    /// Keeps the one that is to serve from now on, the older one if there are two. False: there is none.
    pub fn choose(&mut self) -> bool {
        if self.older.is_none() {
            self.shift();
        }
        (self.newer, self.newer_changed) = (None, true);
        self.older.is_some()
    }

    /// Which one serves after [`Snapshots::choose`].
    pub fn chosen(&self) -> Option<&Snapshot> {
        self.older.as_ref()
    }

    /// The same copies for another model; those that do not fit it go.
    pub(in crate::learn) fn take_over(&mut self, old: Snapshots, learner: &Learner) {
        let fitting = |kept: Option<Snapshot>| kept.and_then(|mut kept| kept.take_over(learner).then_some(kept));
        let (older, newer) = (fitting(old.older), fitting(old.newer));
        *self = Self { older, newer, older_since: Since::Changed, newer_changed: true };
    }

    pub fn mark_clean(&mut self) {
        (self.older_since, self.newer_changed) = (Since::Unchanged, false);
    }

    /// Both, or what changed since [`Snapshots::mark_clean`]. Of the older one, then the newer one: u8 (0 none, 1 follows,
    /// 2 as before, 3 what the newer one was before), then log-odds of its base rate f64, examples learned u64, weights or
    /// counts as in a serving delta.
    pub fn encode(&self, out: &mut Vec<u8>, changes_only: bool) {
        let put = |out: &mut Vec<u8>, kept: &Option<Snapshot>| {
            out.put_u8(if kept.is_some() { FOLLOWS } else { NONE });
            kept.iter().for_each(|snapshot| snapshot.encode(out));
        };
        match self.older_since {
            Since::Unchanged if changes_only => out.put_u8(UNCHANGED),
            Since::WasNewer if changes_only => out.put_u8(WAS_NEWER),
            _ => put(out, &self.older),
        }
        match changes_only && !self.newer_changed {
            true => out.put_u8(UNCHANGED),
            false => put(out, &self.newer),
        }
    }

    /// Takes over what [`Snapshots::encode`] wrote, for a model that learns so.
    pub(in crate::learn) fn apply(&mut self, r: &mut Reader<'_>, learner: &Learner) -> Result<(), Corrupt> {
        self.older = match r.u8("older copy")? {
            NONE => None,
            FOLLOWS => Some(Snapshot::read(r, learner)?),
            UNCHANGED => self.older.take(),
            WAS_NEWER => self.newer.take(),
            _ => return Err(r.corrupt("older copy")),
        };
        self.newer = match r.u8("newer copy")? {
            NONE => None,
            FOLLOWS => Some(Snapshot::read(r, learner)?),
            UNCHANGED => self.newer.take(),
            _ => return Err(r.corrupt("newer copy")),
        };
        self.mark_clean();
        Ok(())
    }
}
