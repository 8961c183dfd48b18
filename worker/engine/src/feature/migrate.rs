//! What of a row stays when the features change: the cells whose definition is the same. New ones begin empty.

use std::ops::Range;

use super::{
    cells,
    distinct::{Handle, Sets},
    hidden::Hidden,
    layout::{Cell, HEADER_BYTES, Kind, Layout},
};

/// From rows of one layout to rows of another.
pub(crate) struct Migration {
    /// Bytes of the old row, and where they begin in the new one.
    moves: Vec<(Range<usize>, usize)>,
    /// Where the handles of sets are, old and new.
    sets: Vec<(usize, usize)>,
    /// Of sets that nobody wants any more.
    dropped: Vec<usize>,
}

impl Migration {
    pub(crate) fn between(old: &Layout, new: &Layout) -> Self {
        let mut migration = Self { moves: Vec::new(), sets: Vec::new(), dropped: Vec::new() };
        migration.moves.push((old.local..old.local + HEADER_BYTES, new.local));
        if let (Some(from), Some(to)) = (old.session_at, new.session_at) {
            migration.moves.push((from..from + 8, to));
        }
        migration.moves.extend(Hidden::moves(&old.hidden, &new.hidden));
        for clock in &old.clocks {
            let same = new.clocks.iter().find(|c| c.step == clock.step && c.of_session == clock.of_session);
            migration.moves.extend(same.map(|same| (clock.at..clock.at + 8, same.at)));
        }
        for (identity, cell) in &old.cells {
            match new.cells.iter().find(|(same, _)| same == identity) {
                Some((_, same)) => migration.keep(cell, same),
                None if cell.kind == Kind::Distinct => migration.dropped.push(cell.handle_at),
                None => {}
            }
        }
        migration
    }

    fn keep(&mut self, old: &Cell, new: &Cell) {
        self.moves.push((old.at..old.at + old.kind.bytes() * usize::from(old.buckets), new.at));
        if old.kind == Kind::Distinct {
            self.sets.push((old.handle_at, new.handle_at));
        }
    }

    /// `new`: all zero.
    pub(crate) fn apply(&self, old: &[u8], new: &mut [u8], sets: &mut Sets) {
        for (from, to) in &self.moves {
            new[*to..to + from.len()].copy_from_slice(&old[from.clone()]);
        }
        for (from, to) in &self.sets {
            let handle: Handle = cells::get_u32(old, *from);
            cells::put_u32(new, *to, handle);
        }
        for from in &self.dropped {
            sets.remove(cells::get_u32(old, *from));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::LazyLock};

    use millrace_crds::spec::PipelineSpec;
    use proptest::prelude::*;

    use crate::{
        checkpoint::Extent,
        event::Event,
        example::FeatureValue,
        feature::{Context, Features, mix},
        names::Names,
        snapshot::Rows,
        users::Users,
    };

    /// They count the same events in one cell, which stays if any of them was there.
    const SHARED: [&str; 3] = ["clicks", "ctr", "orderRate"];

    static MIX: LazyLock<PipelineSpec> = LazyLock::new(|| mix::spec().unwrap());

    /// The mix with some of its features, compiled.
    struct Some {
        spec: PipelineSpec,
        features: Features,
    }

    impl Some {
        fn of(wanted: &[bool]) -> Self {
            let mut spec = MIX.clone();
            let mut wanted = wanted.iter();
            spec.features.retain(|_, _| *wanted.next().unwrap());
            spec.models[0].features = spec.features.keys().cloned().collect();
            let features = Features::compile(&spec, &Names::of(&spec)).unwrap();
            Self { spec, features }
        }

        /// What each feature says of a user, for a candidate of the event.
        fn read(&self, users: &Users, of: &Event<'_>) -> BTreeMap<String, Vec<FeatureValue>> {
            let names = Names::of(&self.spec);
            let model = &self.spec.models[0];
            let projection = self.features.projection(&self.spec, model, &names).unwrap();
            let row = users.find(of.head.user).map(|slot| users.row(slot));
            let context = Context { time: of.head.time, event: of, item: of.items().next() };
            let mut values = Vec::new();
            self.features.read(&projection, row, &context, &mut values);
            let mut read: BTreeMap<String, Vec<FeatureValue>> = BTreeMap::new();
            for (column, value) in self.features.schema(&self.spec, model).columns.into_iter().zip(values) {
                read.entry(column.name).or_default().push(value);
            }
            read
        }
    }

    fn update(users: &mut Users, features: &Features, event: &Event<'_>) {
        let slot = users.get_or_insert(event.head.user);
        features.update(&mut users.row_mut(slot), event);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Kept features say what they would have said anyway, new ones what they say of the events since.
        #[test]
        fn kept_features_know_all_events_and_new_ones_those_since(
            old in proptest::collection::vec(any::<bool>(), 20), new in proptest::collection::vec(any::<bool>(), 20),
            before in 0usize..80, after in 1usize..80,
        ) {
            let (old, new, all) = (Some::of(&old), Some::of(&new), Some::of(&[true; 20]));
            let (mut users, mut whole, mut fresh) =
                (Users::new(&old.features), Users::new(&all.features), Users::new(&all.features));
            let mut events = mix::Events::new(3, &Names::of(&MIX));
            let mut next = || {
                let mut bytes = Vec::new();
                events.write(&mut bytes);
                bytes
            };
            for _ in 0..before {
                let bytes = next();
                let event = Event::read(&bytes[4..]).unwrap();
                update(&mut users, &old.features, &event);
                update(&mut whole, &all.features, &event);
            }
            users.migrate(&new.features);
            for _ in 0..after {
                let bytes = next();
                let event = Event::read(&bytes[4..]).unwrap();
                update(&mut users, &new.features, &event);
                update(&mut whole, &all.features, &event);
                update(&mut fresh, &all.features, &event);
                let (of_whole, of_fresh) = (all.read(&whole, &event), all.read(&fresh, &event));
                for (name, values) in new.read(&users, &event) {
                    let is_old = |name: &str| old.spec.features.contains_key(name);
                    if !is_old(&name) && SHARED.contains(&name.as_str()) && SHARED.into_iter().any(is_old) {
                        continue;
                    }
                    let expected = if is_old(&name) { &of_whole } else { &of_fresh };
                    prop_assert_eq!(&values, &expected[&name], "{}", name);
                }
            }
            let base = |users: &mut Users| {
                let (mut base, mut all) = (Vec::new(), usize::MAX);
                users.begin(Extent::Base);
                assert!(users.go_on(&mut all, &mut base));
                base
            };
            let saved = base(&mut users);
            let again = base(&mut Users::load_all(&new.features, &saved).unwrap());
            prop_assert_eq!(again, saved, "what was migrated is saved and restored");
        }
    }
}
