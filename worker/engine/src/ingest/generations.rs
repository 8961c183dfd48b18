//! Under which generation of the pipeline each record of a source partition is read.
//!
//! A source record is read under one generation, whoever reads it and however often: read under another one, the same
//! record might go to another events partition, whose readers do not know it yet. So a task goes on under the old generation
//! up to a *switch*, which lies at or above all that anybody has told; and it goes beyond only once the newest checkpoint names
//! the switch, and the one before as well, which is gone back to if the newest is damaged. A place is where a record begins
//! (files: byte; topics: offset).

use crate::codec::{Corrupt, Put, Reader};

/// The format that this engine writes, and the newest that it reads.
pub const VERSION: u8 = 1;

/// From this place on, records are read under this generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    pub generation: u32,
    pub from: u64,
}

/// What is known of a partition's generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generations {
    /// Ascending; the first one's place has been passed.
    switches: Vec<Switch>,
    /// The newest two checkpoints name the switches up to this generation.
    named: u32,
    /// Nobody before this owner has told of a record at or above this place.
    ceiling: Option<u64>,
}

impl Generations {
    /// Of a partition that nobody has saved yet, and that was first known in this generation.
    pub fn beginning(generation: u32) -> Self {
        Self::of_one(generation, Some(0))
    }

    /// Of a checkpoint without this section: everything behind it is read under its generation.
    pub fn unlisted(generation: u32) -> Self {
        Self::of_one(generation, None)
    }

    fn of_one(generation: u32, ceiling: Option<u64>) -> Self {
        Self { switches: vec![Switch { generation, from: 0 }], named: 0, ceiling }
    }

    /// Ascending; the first one's place has been passed.
    pub fn switches(&self) -> &[Switch] {
        &self.switches
    }

    /// Under which generation the record at this place is read.
    pub fn at(&self, place: u64) -> u32 {
        let passed = self.switches.iter().rev().find(|switch| switch.from <= place);
        passed.or(self.switches.first()).map_or(0, |switch| switch.generation)
    }

    /// The newest one that a switch is known to.
    pub fn newest(&self) -> u32 {
        self.switches.last().map_or(0, |switch| switch.generation)
    }

    /// May the record at this place be read, as far as checkpoints are concerned?
    pub fn may_read(&self, place: u64) -> bool {
        self.at(place) <= self.named || planted::is(planted::Bug::SwitchUsedBeforeSaved)
    }

    /// There is a switch that not both checkpoints name.
    pub fn wants_checkpoint(&self) -> bool {
        self.newest() > self.named
    }

    /// The task is owned. `is_quiet`: whoever had it before has told nothing that its checkpoint does not know of.
    /// `oldest`: see [`Self::saved`].
    pub fn owned(&mut self, is_quiet: bool, oldest: Option<u32>) {
        self.ceiling = self.ceiling.filter(|_| is_quiet);
        self.saved(oldest);
    }

    /// The oldest generation that one of the newest two checkpoints knows as its newest. Without any checkpoint everybody begins under
    /// the first generation.
    pub fn saved(&mut self, oldest: Option<u32>) {
        self.named = oldest.or(self.switches.first().map(|first| first.generation)).unwrap_or(0);
    }

    /// The source's end, as read after this owner's first frames were acknowledged in every output: from then on readers drop
    /// what anybody before it still tells.
    pub fn ends_at(&mut self, end: u64) {
        self.ceiling.get_or_insert(end);
    }
    pub fn knows_ceiling(&self) -> bool {
        self.ceiling.is_some()
    }

    /// Whether `newest`, the pipeline's newest generation, has no switch yet that could be decided. `next`: the first place
    /// that this owner has not read.
    pub fn decide(&mut self, newest: u32, next: u64) -> bool {
        let Some(ceiling) = self.ceiling.filter(|_| newest > self.newest()) else { return false };
        let last = self.switches.last().map_or(0, |switch| switch.from);
        let above = if planted::is(planted::Bug::SwitchBelowDeadOwners) { next } else { ceiling.max(next) };
        self.switches.push(Switch { generation: newest, from: above.max(last) });
        true
    }

    /// As of a checkpoint that goes on at `saved`; `next`: the first place that this owner has not read.
    pub fn write(&self, saved: u64, next: u64, out: &mut Vec<u8>) {
        let passed = self.switches.iter().rposition(|switch| switch.from <= saved).unwrap_or(0);
        out.put_u8(VERSION);
        out.put_u32((self.switches.len() - passed) as u32);
        for switch in &self.switches[passed..] {
            out.put_u32(switch.generation);
            out.put_u64(switch.from);
        }
        out.put_u8(u8::from(self.ceiling.is_some()));
        out.put_u64(self.ceiling.map_or(0, |ceiling| ceiling.max(next)));
    }

    /// Reads what `write` wrote.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        if r.u8("version of generations")? != VERSION {
            return Err(r.corrupt("version of generations"));
        }
        let mut switches: Vec<Switch> = Vec::new();
        for _ in 0..r.count(12, "switches")? {
            let switch = Switch { generation: r.u32("generation")?, from: r.u64("switch")? };
            if switches.last().is_some_and(|last| last.generation >= switch.generation || last.from > switch.from) {
                return Err(r.corrupt("order of switches"));
            }
            switches.push(switch);
        }
        let (is_known, ceiling) = (r.u8("ceiling")?, r.u64("ceiling")?);
        if switches.is_empty() || is_known > 1 || !r.is_empty() {
            return Err(r.corrupt("generations"));
        }
        Ok(Self { switches, named: 0, ceiling: (is_known == 1).then_some(ceiling) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restored(generations: &Generations, saved: u64, next: u64) -> Generations {
        let mut bytes = Vec::new();
        generations.write(saved, next, &mut bytes);
        Generations::read(&mut Reader::new(&bytes)).unwrap()
    }

    /// Of a task under generation 1 that was restored and crashed before.
    fn after_a_crash() -> Generations {
        let mut generations = Generations::unlisted(1);
        generations.owned(false, Some(1));
        generations
    }

    #[test]
    fn nothing_is_decided_before_nobody_else_can_tell_anything() {
        let mut generations = after_a_crash();
        assert!(!generations.decide(2, 50) && !generations.wants_checkpoint());
        generations.ends_at(100);
        assert!(generations.decide(2, 50) && generations.wants_checkpoint());
        assert_eq!((generations.at(99), generations.at(100), generations.newest()), (1, 2, 2));
        assert!(!generations.decide(2, 60), "decided once");
    }

    #[test]
    fn nothing_is_read_beyond_before_two_checkpoints_name_the_switch() {
        let mut generations = after_a_crash();
        generations.ends_at(100);
        generations.decide(2, 50);
        assert!(generations.may_read(99) && !generations.may_read(100));
        generations.saved(Some(1));
        assert!(!generations.may_read(100), "the one before would be gone back to");
        generations.saved(Some(2));
        assert!(generations.may_read(100) && !generations.wants_checkpoint());
    }

    #[test]
    fn a_second_crash_finds_the_switch_where_it_was() {
        let mut generations = after_a_crash();
        generations.ends_at(100);
        generations.decide(2, 50);
        let mut again = restored(&generations, 60, 60);
        again.owned(false, Some(2));
        again.ends_at(130);
        assert!(again.decide(3, 60));
        assert_eq!([99, 100, 129, 130].map(|place| again.at(place)), [1, 2, 2, 3], "they pile up");
        let passed = restored(&again, 110, 110);
        assert_eq!(passed.switches, [Switch { generation: 2, from: 100 }, Switch { generation: 3, from: 130 }]);
    }

    #[test]
    fn a_switch_at_the_place_of_the_checkpoint_is_not_taken_for_named() {
        let mut generations = after_a_crash();
        generations.ends_at(100);
        generations.decide(2, 100);
        let mut again = restored(&generations, 100, 100);
        again.owned(false, Some(1));
        assert!(!again.may_read(100) && again.wants_checkpoint());
    }

    #[test]
    fn after_a_release_the_switch_is_where_everybody_had_come_to() {
        let mut generations = after_a_crash();
        generations.ends_at(100);
        // Records up to 80 were read, the last one partly; somebody before had told of some up to 100.
        let mut released = restored(&generations, 70, 80);
        released.owned(true, Some(1));
        assert!(released.decide(2, 70));
        assert_eq!(released.switches[1], Switch { generation: 2, from: 100 });
        let mut further = restored(&generations, 150, 160);
        further.owned(true, Some(1));
        assert!(further.decide(2, 150));
        assert_eq!(further.switches[1], Switch { generation: 2, from: 160 });
        let mut crashed = restored(&generations, 150, 160);
        crashed.owned(false, Some(1));
        assert!(!crashed.decide(2, 150), "whoever came after the release is unknown");
    }

    #[test]
    fn what_nobody_ever_owned_goes_over_at_once_when_that_is_saved() {
        let mut generations = Generations::beginning(1);
        generations.owned(true, None);
        assert!(generations.may_read(0) && generations.decide(4, 0));
        assert!(!generations.may_read(0) && generations.at(0) == 4);
        let mut never = Generations::beginning(1);
        never.owned(false, None);
        assert!(!never.decide(4, 0), "somebody may have told something, and saved nothing");
    }

    /// These bytes lie in checkpoints: they never change.
    #[test]
    fn golden_version_1() {
        let mut generations = after_a_crash();
        generations.ends_at(0x64);
        generations.decide(2, 0x32);
        let mut bytes = Vec::new();
        generations.write(0x3c, 0x3d, &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "01",
            "02000000",
            "01000000",
            "0000000000000000",
            "02000000",
            "6400000000000000",
            "01",
            "6400000000000000"
        );
        assert_eq!(hex, expected);
    }

    #[test]
    fn damage_is_an_error() {
        let mut generations = after_a_crash();
        generations.ends_at(100);
        generations.decide(2, 50);
        let mut bytes = Vec::new();
        generations.write(60, 60, &mut bytes);
        (0..bytes.len()).for_each(|len| assert!(Generations::read(&mut Reader::new(&bytes[..len])).is_err()));
        for (at, to) in [(0, 2), (1, 0), (17, 1), (29, 2)] {
            let mut bad = bytes.clone();
            bad[at] = to;
            assert!(Generations::read(&mut Reader::new(&bad)).is_err(), "byte {at}");
        }
    }
}
