//! What the world itself counts, beside whatever the pipeline believes.

use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    pub decisions: u64,
    /// Items that were seen.
    pub exposed: u64,
    pub clicks: u64,
    /// The sum of the true probabilities: clicks without their noise.
    pub expected_clicks: f64,
}

impl Tally {
    /// Clicks per item seen; 0 of nothing.
    pub fn ctr(&self) -> f64 {
        self.clicks as f64 / self.exposed.max(1) as f64
    }
    pub fn expected_ctr(&self) -> f64 {
        self.expected_clicks / self.exposed.max(1) as f64
    }
    pub fn add(&mut self, other: &Tally) {
        self.decisions += other.decisions;
        self.exposed += other.exposed;
        self.clicks += other.clicks;
        self.expected_clicks += other.expected_clicks;
    }
    /// What came since an earlier tally.
    pub fn since(&self, earlier: &Tally) -> Tally {
        Tally {
            decisions: self.decisions - earlier.decisions,
            exposed: self.exposed - earlier.exposed,
            clicks: self.clicks - earlier.clicks,
            expected_clicks: self.expected_clicks - earlier.expected_clicks,
        }
    }
}

/// By variant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tallies(BTreeMap<String, Tally>);

impl Tallies {
    /// Nothing, for a variant that was never shown.
    pub fn of(&self, variant: &str) -> Tally {
        self.0.get(variant).copied().unwrap_or_default()
    }
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tally)> {
        self.0.iter().map(|(name, tally)| (name.as_str(), tally))
    }
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.0.values().for_each(|tally| total.add(tally));
        total
    }
    pub fn add(&mut self, variant: &str, tally: &Tally) {
        match self.0.get_mut(variant) {
            Some(sum) => sum.add(tally),
            None => drop(self.0.insert(variant.to_owned(), *tally)),
        }
    }
}
