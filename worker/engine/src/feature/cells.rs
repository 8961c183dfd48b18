//! Cells in a row's bytes: little-endian, unaligned, and such that zero bytes are the empty cell.

/// Places of a table of categories in a count `by`.
pub(crate) const KEYED_PLACES: usize = 16;
/// A place of a table: the category's tag (u32) and its weight (f32) or count (u32).
pub(crate) const PLACE_BYTES: usize = 8;

#[inline]
fn get<const N: usize>(row: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&row[at..at + N]);
    out
}

#[inline]
fn put<const N: usize>(row: &mut [u8], at: usize, bytes: [u8; N]) {
    row[at..at + N].copy_from_slice(&bytes);
}

macro_rules! cell {
    ($get:ident, $put:ident, $type:ty) => {
        #[inline]
        pub(crate) fn $get(row: &[u8], at: usize) -> $type {
            <$type>::from_le_bytes(get(row, at))
        }
        #[inline]
        pub(crate) fn $put(row: &mut [u8], at: usize, v: $type) {
            put(row, at, v.to_le_bytes());
        }
    };
}

cell!(get_u32, put_u32, u32);
cell!(get_u64, put_u64, u64);
cell!(get_u128, put_u128, u128);
cell!(get_f32, put_f32, f32);
cell!(get_f64, put_f64, f64);

/// A time, or the start of a bucket, in microseconds. Empty: `i64::MIN`, which no event has.
#[inline]
pub(crate) fn get_time(row: &[u8], at: usize) -> i64 {
    get_u64(row, at) as i64 ^ i64::MIN
}

#[inline]
pub(crate) fn put_time(row: &mut [u8], at: usize, micros: i64) {
    put_u64(row, at, (micros ^ i64::MIN) as u64);
}

/// A finite number, or nothing: its bits are stored inverted, so that zero bytes are a NaN.
#[inline]
pub(crate) fn get_optional(row: &[u8], at: usize) -> Option<f64> {
    let number = f64::from_bits(!get_u64(row, at));
    if number.is_nan() { None } else { Some(number) }
}

#[inline]
pub(crate) fn put_optional(row: &mut [u8], at: usize, number: f64) {
    put_u64(row, at, !number.to_bits());
}

/// Adds to a count, which stays at its greatest value instead of starting anew.
#[inline]
pub(crate) fn count_one(row: &mut [u8], at: usize) {
    put_u32(row, at, get_u32(row, at).saturating_add(1));
}

/// Adds to a sum, which stays finite.
#[inline]
pub(crate) fn add(row: &mut [u8], at: usize, term: f64) {
    put_f64(row, at, finite(get_f64(row, at) + term));
}

#[inline]
pub(crate) fn finite(sum: f64) -> f64 {
    sum.clamp(f64::MIN, f64::MAX)
}

/// The 32 bits by which a table tells categories apart; never 0, which marks an empty place.
#[inline]
pub(crate) fn tag_of(category: u64) -> u32 {
    ((category >> 32) as u32).max(1)
}

/// What a place of a table holds besides the tag.
pub(crate) trait Weight: Copy + PartialOrd {
    fn get(row: &[u8], at: usize) -> Self;
    fn put(self, row: &mut [u8], at: usize);
    fn plus(self, other: Self) -> Self;
}

impl Weight for u32 {
    fn get(row: &[u8], at: usize) -> Self {
        get_u32(row, at)
    }
    fn put(self, row: &mut [u8], at: usize) {
        put_u32(row, at, self);
    }
    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }
}

impl Weight for f32 {
    fn get(row: &[u8], at: usize) -> Self {
        get_f32(row, at)
    }
    fn put(self, row: &mut [u8], at: usize) {
        put_f32(row, at, self);
    }
    fn plus(self, other: Self) -> Self {
        (self + other).min(f32::MAX)
    }
}

/// Adds `weight` to a category. A table stands in the order in which its categories came; if all `places` are taken,
/// the smallest one (of equal ones the first come) makes room, and what it had is forgotten.
pub(crate) fn table_add<W: Weight>(row: &mut [u8], at: usize, places: usize, tag: u32, weight: W) {
    let mut smallest: Option<(usize, W)> = None;
    for place in 0..places {
        let here = at + place * PLACE_BYTES;
        match get_u32(row, here) {
            0 => return put_place(row, here, tag, weight),
            found if found == tag => return W::get(row, here + 4).plus(weight).put(row, here + 4),
            _ => {}
        }
        let held = W::get(row, here + 4);
        if smallest.is_none_or(|(_, least)| held < least) {
            smallest = Some((here, held));
        }
    }
    if let Some((here, _)) = smallest {
        let end = at + places * PLACE_BYTES;
        row.copy_within(here + PLACE_BYTES..end, here);
        put_place(row, end - PLACE_BYTES, tag, weight);
    }
}

fn put_place<W: Weight>(row: &mut [u8], at: usize, tag: u32, weight: W) {
    put_u32(row, at, tag);
    weight.put(row, at + 4);
}

/// The taken places of a table: (tag, weight), in the order in which they came.
pub(crate) fn table<W: Weight>(row: &[u8], at: usize, places: usize) -> impl Iterator<Item = (u32, W)> + '_ {
    row[at..at + places * PLACE_BYTES]
        .chunks_exact(PLACE_BYTES)
        .map(|place| (get_u32(place, 0), W::get(place, 4)))
        .take_while(|(tag, _)| *tag != 0)
}
