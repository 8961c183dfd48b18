//! What experiments count: of each user in cells of the row, of each variant in sums over its users.
//!
//! A user belongs to a variant by hash alone and is compared as assigned (intention to treat): every item shown to a known
//! user at a placement of the experiment counts, whether or not its decision is known or the variant's policy could be
//! followed. Whatever keeps decisions from being made or kept, a lost record or a model that fell back, would
//! otherwise remove other impressions from one variant than from the others.
//!
//! Sums of variants are anonymous and stay as they are when a user withdraws or is erased. Who comes back is another user.

use crate::{
    codec::{Corrupt, Put, Reader},
    event::Event,
    experiment::{
        UserSums, VariantSums,
        sums::{MAX_REVENUE_MICROS, MICROS},
    },
    feature::RowMut,
    join::Joins,
    plan::ExperimentPlan,
};

#[derive(Default)]
pub struct Experiments {
    /// By experiment and variant.
    totals: Vec<Vec<VariantSums>>,
    /// What would have left the range of a sum, and was not counted.
    pub out_of_range: u64,
}

impl Experiments {
    pub fn new(plans: &[ExperimentPlan]) -> Self {
        Self { totals: plans.iter().map(|p| vec![VariantSums::default(); p.variants.len()]).collect(), out_of_range: 0 }
    }

    /// Goes over to other experiments: those that are the same keep their sums.
    pub fn migrate(&mut self, old: &[ExperimentPlan], new: &[ExperimentPlan]) {
        let totals = std::mem::replace(&mut self.totals, Self::new(new).totals);
        for (plan, sums) in old.iter().zip(totals) {
            if let Some(same) = new.iter().position(|p| p.identity == plan.identity) {
                self.totals[same] = sums;
            }
        }
    }

    pub fn of(&self, experiment: usize) -> &[VariantSums] {
        &self.totals[experiment]
    }

    /// Counts what an event of a known user says. `joins` has just labelled what it is an outcome of; `is_impression`: it
    /// shows its items.
    pub fn count(
        &mut self,
        plans: &[ExperimentPlan],
        row: &mut RowMut<'_>,
        event: &Event<'_>,
        joins: &Joins,
        is_impression: bool,
    ) {
        for (n, plan) in plans.iter().enumerate() {
            let is_click = |outcome| plan.click == Some(outcome);
            let labelled = joins.labelled().filter(|(placement, l)| is_click(l.outcome) && plan.is_at(placement));
            let mut more = UserSums { clicks: labelled.map(|(_, l)| l.items).sum(), ..UserSums::default() };
            if is_impression && plan.is_at(event.placement) {
                more.impressions = u32::from(event.item_count);
            }
            if plan.order == Some(event.head.event_type) {
                (more.orders, more.revenue_micros) = (1, micros(event.head.value));
            }
            if more != UserSums::default() {
                self.add(n, plan, row, &more);
            }
        }
    }

    fn add(&mut self, n: usize, plan: &ExperimentPlan, row: &mut RowMut<'_>, more: &UserSums) {
        let old = row.as_ref().experiment(n);
        if !old.is_exposed() && more.impressions == 0 {
            return;
        }
        let variant = plan.variant_of(row.as_ref().pseudonym());
        let counted = old.plus(more).and_then(|new| self.totals[n][variant].replace(&old, &new).map(|()| new));
        match counted {
            Ok(new) => row.set_experiment(n, &new),
            Err(_) => self.out_of_range += 1,
        }
    }

    /// 0 without experiments.
    pub fn digest(&self) -> u128 {
        if self.totals.is_empty() {
            return 0;
        }
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.out_of_range);
        out.put_u32(self.totals.len() as u32);
        for variants in &self.totals {
            out.put_u32(variants.len() as u32);
            variants.iter().for_each(|sums| sums.encode(out));
        }
    }

    /// Reads what `write` wrote, under the same plans.
    pub fn read(plans: &[ExperimentPlan], r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let mut read = Self::new(plans);
        read.out_of_range = r.u64("experiments out of range")?;
        if r.count(4, "experiments")? != read.totals.len() {
            return Err(r.corrupt("experiments"));
        }
        for variants in &mut read.totals {
            if r.count(1, "variants")? != variants.len() {
                return Err(r.corrupt("variants"));
            }
            for sums in variants {
                *sums = VariantSums::read(r)?;
            }
        }
        Ok(read)
    }
}

/// Revenue in millionths; none where the event says none.
fn micros(value: f64) -> i64 {
    let most = MAX_REVENUE_MICROS as f64;
    if value.is_nan() { 0 } else { libm::round(value * MICROS).clamp(-most, most) as i64 }
}
