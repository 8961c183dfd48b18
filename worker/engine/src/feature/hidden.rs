//! Cells of a row that no feature asks for: what experiments sum of the user, and what the user bought last.

use std::ops::Range;

use millrace_crds::spec::{self, PipelineSpec};

use crate::{
    event::{Event, EventType, Time, category_of_text},
    experiment::UserSums,
    names::Names,
};

use super::{
    cells,
    row::{RowMut, RowRef},
};

/// Bought items that are kept of a user.
const BOUGHT: usize = 16;
/// Hash of the item's id (u64) and the time.
const BOUGHT_BYTES: usize = 16;
/// The event that means bought where a placement does not say.
const BOUGHT_EVENT: &str = "order";

/// Which of these cells there are, and where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hidden {
    /// What each experiment's sums are of, see [`identity`].
    pub experiments: Vec<u64>,
    pub experiments_at: usize,
    /// A ring for each event that means bought, with a hash of its name.
    pub bought: Vec<(EventType, u64)>,
    pub bought_at: usize,
}

/// The event that means bought at this placement, if it excludes what was bought.
pub(crate) fn bought_event(placement: &spec::Placement) -> Option<&str> {
    placement.exclude.bought_within?;
    Some(placement.exclude.event.as_deref().unwrap_or(BOUGHT_EVENT))
}

/// The salt that says who is in which variant.
pub(crate) fn salt(experiment: &spec::Experiment) -> &str {
    experiment.salt.as_deref().unwrap_or(&experiment.name)
}

/// Another one where sums kept so far would be of something else: another assignment, other placements or events.
pub(crate) fn identity(experiment: &spec::Experiment) -> u64 {
    let texts = [Some(experiment.name.as_str()), Some(salt(experiment))];
    let events = [experiment.click.as_deref(), experiment.order.as_deref()];
    let mut text = String::new();
    for part in texts.into_iter().chain(events).chain(experiment.placements.iter().map(|p| Some(p.as_str()))) {
        text.push_str(part.unwrap_or_default());
        text.push('\0');
    }
    for (name, variant) in &experiment.variants {
        text.push_str(name);
        text.push('\0');
        text.push_str(&variant.weight.to_string());
        text.push('\0');
    }
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

impl Hidden {
    pub(crate) fn of(spec: &PipelineSpec, names: &Names) -> Self {
        let ring = |event: &str| Some((names.event(event)?, category_of_text(event)));
        let mut bought: Vec<(EventType, u64)> =
            spec.placements.iter().filter_map(bought_event).filter_map(ring).collect();
        bought.sort_unstable();
        bought.dedup();
        Self { experiments: spec.experiments.iter().map(identity).collect(), bought, ..Self::default() }
    }

    /// Places the cells behind `at`; gives what comes behind them.
    pub(crate) fn place(&mut self, at: usize) -> usize {
        self.experiments_at = at;
        self.bought_at = at + self.experiments.len() * UserSums::BYTES;
        self.bought_at + self.bought.len() * BOUGHT * BOUGHT_BYTES
    }

    /// Appends what the cells are, for telling layouts apart.
    pub(crate) fn fingerprint(&self, out: &mut String) {
        for experiment in &self.experiments {
            out.push_str(&format!("experiment {experiment:016x}\n"));
        }
        for (_, name) in &self.bought {
            out.push_str(&format!("bought {name:016x}\n"));
        }
    }

    /// The ring of this event's items.
    pub(crate) fn ring(&self, event: EventType) -> Option<usize> {
        self.bought.iter().position(|(bought, _)| *bought == event)
    }

    /// What stays: bytes of the old row, and where they begin in the new one.
    pub(crate) fn moves(old: &Self, new: &Self) -> Vec<(Range<usize>, usize)> {
        let mut moves = Vec::new();
        for (n, identity) in old.experiments.iter().enumerate() {
            let same = new.experiments.iter().position(|e| e == identity);
            moves.extend(same.map(|same| (old.experiment(n), new.experiment(same).start)));
        }
        for (ring, (_, name)) in old.bought.iter().enumerate() {
            let same = new.bought.iter().position(|(_, n)| n == name);
            moves.extend(same.map(|same| (old.ring_cells(ring), new.ring_cells(same).start)));
        }
        moves
    }

    fn experiment(&self, n: usize) -> Range<usize> {
        let at = self.experiments_at + n * UserSums::BYTES;
        at..at + UserSums::BYTES
    }

    fn ring_cells(&self, ring: usize) -> Range<usize> {
        let at = self.bought_at + ring * BOUGHT * BOUGHT_BYTES;
        at..at + BOUGHT * BOUGHT_BYTES
    }
}

impl<'a> RowRef<'a> {
    /// What the `n`th experiment sums of the user.
    pub fn experiment(&self, n: usize) -> UserSums {
        // They were checked when the row was read.
        UserSums::read(&self.bytes[self.layout.hidden.experiment(n)]).unwrap_or_default()
    }

    /// Items of the ring's event, the newest first: hash of the id, see [`category_of_text`], and time.
    pub fn bought(&self, ring: usize) -> impl Iterator<Item = (u64, Time)> + use<'a> {
        let cells = self.bytes[self.layout.hidden.ring_cells(ring)].chunks_exact(BOUGHT_BYTES);
        let item = |cell: &[u8]| (cells::get_u64(cell, 0), Time(cells::get_time(cell, 8)));
        cells.map(item).take_while(|(item, _)| *item != 0)
    }

    /// Can the sums be such?
    pub(crate) fn hidden_is_sound(&self) -> bool {
        let hidden = &self.layout.hidden;
        (0..hidden.experiments.len()).all(|n| UserSums::read(&self.bytes[hidden.experiment(n)]).is_ok())
    }
}

impl RowMut<'_> {
    pub fn set_experiment(&mut self, n: usize, sums: &UserSums) {
        self.bytes[self.layout.hidden.experiment(n)].copy_from_slice(&sums.write());
    }

    /// Keeps the items of an event that means bought.
    pub(crate) fn buy(&mut self, event: &Event<'_>) {
        let Some(ring) = self.layout.hidden.ring(event.head.event_type) else { return };
        let cells = &mut self.bytes[self.layout.hidden.ring_cells(ring)];
        for item in event.items() {
            cells.copy_within(..(BOUGHT - 1) * BOUGHT_BYTES, BOUGHT_BYTES);
            cells::put_u64(cells, 0, category_of_text(item.id));
            cells::put_time(cells, 8, event.head.time.0);
        }
    }
}
