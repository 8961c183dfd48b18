//! Sets of categories for `distinct`: exact to 32 members, then a HyperLogLog sketch (Flajolet et al. 2007, with the HIP
//! estimator of Ting 2014). They lie beside the flat rows, which hold their size and a handle.

use datasketches::hll::{HllSketch, HllType};

use crate::codec::{Corrupt, Put, Reader};

/// Members up to which a set is exact.
pub const EXACT_MAX: usize = 32;
/// 2^10 registers of a byte: a relative standard error of 2.6 %.
const SKETCH_LOG2_REGISTERS: u8 = 10;
const REGISTERS: usize = 1 << SKETCH_LOG2_REGISTERS;

/// Names a set of [`Sets`]; [`NO_SET`] is the empty set.
pub(crate) type Handle = u32;
pub(crate) const NO_SET: Handle = 0;

/// Every set of a table of users. Places of removed sets are used again.
#[derive(Debug, Default)]
pub struct Sets {
    sets: Vec<Set>,
    free: Vec<Handle>,
}

#[derive(Clone, Debug)]
enum Set {
    /// In the order in which they came.
    Exact(Vec<u64>),
    Sketch(Box<HllSketch>),
}

impl Default for Set {
    fn default() -> Self {
        Set::Exact(Vec::new())
    }
}

impl Set {
    fn insert(&mut self, category: u64) {
        match self {
            Set::Exact(members) if members.contains(&category) => {}
            Set::Exact(members) if members.len() < EXACT_MAX => members.push(category),
            Set::Exact(members) => {
                // Never an error: the number of registers is within the crate's range.
                if let Ok(mut sketch) = HllSketch::new(SKETCH_LOG2_REGISTERS, HllType::Hll8) {
                    members.iter().for_each(|member| sketch.update(*member));
                    sketch.update(category);
                    *self = Set::Sketch(Box::new(sketch));
                }
            }
            Set::Sketch(sketch) => sketch.update(category),
        }
    }

    /// Number of members: exact to [`EXACT_MAX`], then estimated and rounded.
    fn size(&self) -> u32 {
        match self {
            Set::Exact(members) => members.len() as u32,
            Set::Sketch(sketch) => libm::round(sketch.estimate()) as u32,
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Set::Exact(members) => members.capacity() * 8,
            Set::Sketch(sketch) => size_of::<HllSketch>() + sketch.estimated_size(),
        }
    }
}

impl Sets {
    /// Adds a member to the set of `handle`, which is made if there is none yet. Returns its size.
    pub(crate) fn insert(&mut self, handle: &mut Handle, category: u64) -> u32 {
        if *handle == NO_SET {
            *handle = self.adopt(Set::default());
        }
        self.sets.get_mut(*handle as usize - 1).map_or(0, |set| {
            set.insert(category);
            set.size()
        })
    }

    fn adopt(&mut self, set: Set) -> Handle {
        match self.free.pop() {
            Some(handle) => {
                self.sets[handle as usize - 1] = set;
                handle
            }
            None => {
                self.sets.push(set);
                self.sets.len() as Handle
            }
        }
    }

    /// Forgets a set.
    pub(crate) fn remove(&mut self, handle: Handle) {
        if handle != NO_SET {
            self.sets[handle as usize - 1] = Set::default();
            self.free.push(handle);
        }
    }

    fn get(&self, handle: Handle) -> Option<&Set> {
        handle.checked_sub(1).and_then(|at| self.sets.get(at as usize))
    }

    /// A copy of another table's set.
    pub(crate) fn copy(&mut self, from: &Sets, handle: Handle) -> Handle {
        from.get(handle).map_or(NO_SET, |set| self.adopt(set.clone()))
    }

    /// Bytes that are equal for equal histories: a tag (0: exact, 1: sketch) and a length (u16), then members or the
    /// sketch's image.
    pub(crate) fn encode(&self, handle: Handle, out: &mut Vec<u8>) {
        match self.get(handle) {
            None => out.put(&[0, 0, 0]),
            Some(Set::Exact(members)) => {
                out.put_u8(0);
                out.put_u16(members.len() as u16);
                members.iter().for_each(|member| out.put_u64(*member));
            }
            Some(Set::Sketch(sketch)) => {
                let image = canonical(sketch.serialize());
                out.put_u8(1);
                out.put_u16(image.len() as u16);
                out.put(&image);
            }
        }
    }

    /// Reads what `encode` wrote. Refuses everything that `insert` cannot lead to: the crate would panic on it later.
    pub(crate) fn decode(&mut self, r: &mut Reader<'_>) -> Result<(Handle, u32), Corrupt> {
        let set = match r.u8("kind of set")? {
            0 => Set::Exact(decode_exact(r)?),
            1 => Set::Sketch(Box::new(decode_sketch(r)?)),
            _ => return Err(r.corrupt("kind of set")),
        };
        let size = set.size();
        Ok((if size == 0 { NO_SET } else { self.adopt(set) }, size))
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let held: usize = self.sets.iter().map(Set::memory_bytes).sum();
        held + self.sets.capacity() * size_of::<Set>() + self.free.capacity() * size_of::<Handle>()
    }
}

fn decode_exact(r: &mut Reader<'_>) -> Result<Vec<u64>, Corrupt> {
    let len = usize::from(r.u16("members")?);
    if len > EXACT_MAX {
        return Err(r.corrupt("members"));
    }
    let mut members = Vec::with_capacity(len);
    for _ in 0..len {
        let member = r.u64("member")?;
        if members.contains(&member) {
            return Err(r.corrupt("member"));
        }
        members.push(member);
    }
    Ok(members)
}

fn decode_sketch(r: &mut Reader<'_>) -> Result<HllSketch, Corrupt> {
    let corrupt = r.corrupt("sketch");
    let len = usize::from(r.u16("sketch")?);
    let image = r.take(len, "sketch")?;
    if !(is_coupon_image(image) || is_register_image(image)) {
        return Err(corrupt);
    }
    let sketch = HllSketch::deserialize(image).map_err(|_| corrupt.clone())?;
    if sketch.lg_config_k() != SKETCH_LOG2_REGISTERS || canonical(sketch.serialize()) != image {
        return Err(corrupt);
    }
    Ok(sketch)
}

// The image's layout (Apache DataSketches, serial version 1): 8 bytes of preamble, whose byte 3 is log2 of the registers,
// byte 4 log2 of the coupons' table, byte 7 the mode in its low 2 bits. Then either a count (u32) and so many
// coupons (u32), or 3 f64 (estimate, sums of inverse powers of registers below and from 32), number of zero registers
// (u32), 0 (u32), registers.
const MODE_AT: usize = 7;
const MODE_COUPONS: u8 = 1;
const MODE_REGISTERS: u8 = 2;
const COUPONS_AT: usize = 12;
const REGISTERS_AT: usize = 40;
const REGISTER_MAX: u8 = 63;

/// Coupons stand in the order of a hash table that depends on its past: sorted, they do not.
fn canonical(mut image: Vec<u8>) -> Vec<u8> {
    if image.get(MODE_AT).is_some_and(|mode| mode & 3 == MODE_COUPONS) {
        let mut coupons: Vec<u32> = image[COUPONS_AT..].chunks_exact(4).map(|c| super::cells::get_u32(c, 0)).collect();
        coupons.sort_unstable();
        image.truncate(COUPONS_AT);
        coupons.iter().for_each(|coupon| image.put_u32(*coupon));
    }
    image
}

/// The coupons' table is never more than three quarters full, and each coupon has a register's value.
fn is_coupon_image(image: &[u8]) -> bool {
    let max_log2_table = SKETCH_LOG2_REGISTERS - 3;
    if image.len() < COUPONS_AT || image[MODE_AT] & 3 != MODE_COUPONS || image[4] > max_log2_table {
        return false;
    }
    let coupons = image[COUPONS_AT..].chunks_exact(4).map(|c| super::cells::get_u32(c, 0));
    coupons.len() * 4 <= (3 << image[4])
        && coupons.clone().is_sorted_by(|a, b| a < b)
        && coupons.clone().all(|coupon| coupon >> 26 != 0)
}

/// What the crate derives from the registers must agree with them.
fn is_register_image(image: &[u8]) -> bool {
    if image.len() != REGISTERS_AT + REGISTERS || image[MODE_AT] & 3 != MODE_REGISTERS {
        return false;
    }
    let registers = &image[REGISTERS_AT..];
    let f64_at = |at| super::cells::get_f64(image, at);
    let zeros = registers.iter().filter(|register| **register == 0).count();
    let mut sums = [0.0, 0.0];
    for register in registers {
        sums[usize::from(*register >= 32)] += 1.0 / (1u64 << (*register).min(REGISTER_MAX)) as f64;
    }
    registers.iter().all(|register| *register <= REGISTER_MAX)
        && super::cells::get_u32(image, REGISTERS_AT - 8) as usize == zeros
        && f64_at(16).to_bits() == sums[0].to_bits()
        && f64_at(24).to_bits() == sums[1].to_bits()
        && (1.0..f64::from(u32::MAX)).contains(&f64_at(8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(i: u64) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes())
    }

    fn encoded(sets: &Sets, handle: Handle) -> Vec<u8> {
        let mut out = Vec::new();
        sets.encode(handle, &mut out);
        out
    }

    #[test]
    fn exact_to_32_then_within_the_sketchs_error() {
        let (mut sets, mut handle) = (Sets::default(), NO_SET);
        for i in 1..=20_000u64 {
            let size = sets.insert(&mut handle, member(i));
            assert_eq!(sets.insert(&mut handle, member(i)), size, "a member counts once");
            if i <= 32 {
                assert_eq!(u64::from(size), i);
            } else {
                let error = (f64::from(size) - i as f64).abs() / i as f64;
                assert!(error < 0.13, "{size} for {i}: five standard errors");
            }
        }
    }

    #[test]
    fn a_restored_set_goes_on_as_the_live_one() {
        for cut in [0, 1, 5, 31, 32, 33, 40, 60, 95, 96, 97, 98, 150, 1_500] {
            let (mut live, mut handle) = (Sets::default(), NO_SET);
            (0..cut).for_each(|i| {
                live.insert(&mut handle, member(i));
            });
            let bytes = encoded(&live, handle);
            let mut restored = Sets::default();
            let (mut there, _) = restored.decode(&mut Reader::new(&bytes)).unwrap();
            assert_eq!(encoded(&restored, there), bytes);
            for i in cut..cut + 200 {
                assert_eq!(live.insert(&mut handle, member(i)), restored.insert(&mut there, member(i)));
                assert_eq!(encoded(&restored, there), encoded(&live, handle));
            }
        }
    }

    #[test]
    fn a_removed_sets_place_is_used_again_and_empty() {
        let (mut sets, mut a, mut b) = (Sets::default(), NO_SET, NO_SET);
        sets.insert(&mut a, 1);
        sets.insert(&mut a, 2);
        sets.remove(a);
        assert_eq!(sets.insert(&mut b, 2), 1);
        assert_eq!(a, b);
    }

    proptest! {
        #[test]
        fn corrupt_sets_are_refused_or_harmless(
            n in 0u64..300, flips in proptest::collection::vec((any::<usize>(), 0u8..8), 1..4), cut in any::<usize>()
        ) {
            let (mut sets, mut handle) = (Sets::default(), NO_SET);
            (0..n).for_each(|i| { sets.insert(&mut handle, member(i)); });
            let mut bytes = encoded(&sets, handle);
            for (at, bit) in flips {
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
            }
            if cut % 4 == 0 {
                bytes.truncate(cut % (bytes.len() + 1));
            }
            let mut restored = Sets::default();
            if let Ok((mut there, _)) = restored.decode(&mut Reader::new(&bytes)) {
                (0..500).for_each(|i| { restored.insert(&mut there, member(i * 7)); });
                encoded(&restored, there);
            }
        }
    }
}
