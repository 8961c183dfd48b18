//! What is kept of an experiment: of each user four integers, of each variant sums over its users.
//!
//! All are integers, so a variant's sums do not depend on the order of events or on how users are spread over partitions.

use crate::codec::{Corrupt, Put, Reader};

use super::ratio::RatioSums;

/// Revenue is counted in millionths of its currency's unit.
pub const MICROS: f64 = 1e6;
/// Largest absolute revenue of one user: 9 billion units. Keeps squares of 2 million such users within 128 bits.
pub const MAX_REVENUE_MICROS: i64 = 1 << 53;

/// A count or sum would leave its range. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} of an experiment are out of range: not counted")]
pub struct OutOfRange(pub &'static str);

/// What a user did since the first exposure. A user without an impression is not in the experiment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserSums {
    pub impressions: u32,
    pub clicks: u32,
    pub orders: u32,
    /// In millionths; refunds are negative. Within ±[`MAX_REVENUE_MICROS`].
    pub revenue_micros: i64,
}

impl UserSums {
    /// Bytes of a user's sums, little-endian, in the order of the fields.
    pub const BYTES: usize = 20;

    /// `cells` must be [`Self::BYTES`] long.
    pub fn read(cells: &[u8]) -> Result<Self, Corrupt> {
        let mut r = Reader::new(cells);
        let (impressions, clicks) = (r.u32("impressions of a user")?, r.u32("clicks of a user")?);
        let (orders, revenue_micros) = (r.u32("orders of a user")?, r.i64("revenue of a user")?);
        if !r.is_empty() || revenue_micros.unsigned_abs() > MAX_REVENUE_MICROS.unsigned_abs() {
            return Err(r.corrupt("sums of a user"));
        }
        Ok(Self { impressions, clicks, orders, revenue_micros })
    }

    pub fn write(&self) -> [u8; Self::BYTES] {
        let mut cells = [0; Self::BYTES];
        cells[..4].copy_from_slice(&self.impressions.to_le_bytes());
        cells[4..8].copy_from_slice(&self.clicks.to_le_bytes());
        cells[8..12].copy_from_slice(&self.orders.to_le_bytes());
        cells[12..].copy_from_slice(&self.revenue_micros.to_le_bytes());
        cells
    }

    /// Both together.
    pub fn plus(&self, more: &UserSums) -> Result<Self, OutOfRange> {
        let count = |a: u32, b: u32, what| a.checked_add(b).ok_or(OutOfRange(what));
        let in_range = |r: &i64| r.unsigned_abs() <= MAX_REVENUE_MICROS.unsigned_abs();
        let revenue = self.revenue_micros.checked_add(more.revenue_micros).filter(in_range);
        Ok(Self {
            impressions: count(self.impressions, more.impressions, "impressions")?,
            clicks: count(self.clicks, more.clicks, "clicks")?,
            orders: count(self.orders, more.orders, "orders")?,
            revenue_micros: revenue.ok_or(OutOfRange("revenue"))?,
        })
    }

    pub fn is_exposed(&self) -> bool {
        self.impressions > 0
    }

    /// What one user adds to [`VariantSums`]; nothing before the first exposure.
    fn terms(&self) -> [i128; TERMS] {
        if !self.is_exposed() {
            return [0; TERMS];
        }
        let (i, c, o) = (i128::from(self.impressions), i128::from(self.clicks), i128::from(self.orders));
        let r = i128::from(self.revenue_micros);
        [1, c.min(1), o.min(1), i, i * i, c, c * c, c * i, o, o * o, r, r * r, r * o]
    }
}

const TERMS: usize = 13;
// Places in `VariantSums::sums`.
const USERS: usize = 0;
const CLICKERS: usize = 1;
const BUYERS: usize = 2;
const IMPRESSIONS: usize = 3;
const IMPRESSIONS_2: usize = 4;
const CLICKS: usize = 5;
const CLICKS_2: usize = 6;
const CLICKS_IMPRESSIONS: usize = 7;
const ORDERS: usize = 8;
const ORDERS_2: usize = 9;
const REVENUE: usize = 10;
const REVENUE_2: usize = 11;
const REVENUE_ORDERS: usize = 12;

const VERSION: u8 = 1;

/// A variant's sums over its users: counts, sums, squares and products, exact.
///
/// Bytes, version 1: version (u8), then 13 sums (i128, little-endian): users, those who clicked, those who ordered;
/// impressions i, i², clicks c, c², ci; orders o, o², revenue r, r², ro.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariantSums {
    sums: [i128; TERMS],
}

impl VariantSums {
    /// A user's sums were `old` and are now `new`. `UserSums::default()` is a user not seen before.
    pub fn replace(&mut self, old: &UserSums, new: &UserSums) -> Result<(), OutOfRange> {
        let (old, new) = (old.terms(), new.terms());
        self.change(|n| new[n] - old[n])
    }

    /// Adds another partition's.
    pub fn add(&mut self, other: &VariantSums) -> Result<(), OutOfRange> {
        self.change(|n| other.sums[n])
    }

    fn change(&mut self, by: impl Fn(usize) -> i128) -> Result<(), OutOfRange> {
        let mut sums = self.sums;
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = sum.checked_add(by(n)).ok_or(OutOfRange("sums of a variant"))?;
        }
        self.sums = sums;
        Ok(())
    }

    /// Users with an exposure.
    pub fn users(&self) -> u64 {
        self.count(USERS)
    }
    pub fn impressions(&self) -> u64 {
        self.count(IMPRESSIONS)
    }
    pub fn clicks(&self) -> u64 {
        self.count(CLICKS)
    }
    pub fn orders(&self) -> u64 {
        self.count(ORDERS)
    }
    pub fn revenue_micros(&self) -> i128 {
        self.sums[REVENUE]
    }

    fn count(&self, n: usize) -> u64 {
        u64::try_from(self.sums[n]).unwrap_or(0)
    }

    /// Clicks per impression.
    pub fn ctr(&self) -> RatioSums {
        let [x, xx, y, yy, xy] = self.of([CLICKS, CLICKS_2, IMPRESSIONS, IMPRESSIONS_2, CLICKS_IMPRESSIONS]);
        RatioSums { users: self.users(), with_outcome: self.count(CLICKERS), x, xx, y, yy, xy }
    }

    /// Revenue, in units, per user.
    pub fn revenue_per_user(&self) -> RatioSums {
        let [users, r, rr] = self.of([USERS, REVENUE, REVENUE_2]);
        let (x, xx) = (r / MICROS, rr / (MICROS * MICROS));
        RatioSums { users: self.users(), with_outcome: self.count(BUYERS), x, xx, y: users, yy: users, xy: x }
    }

    /// Revenue, in units, per order.
    pub fn revenue_per_basket(&self) -> RatioSums {
        let [r, rr, y, yy, ro] = self.of([REVENUE, REVENUE_2, ORDERS, ORDERS_2, REVENUE_ORDERS]);
        let (x, xx, xy) = (r / MICROS, rr / (MICROS * MICROS), ro / MICROS);
        RatioSums { users: self.users(), with_outcome: self.count(BUYERS), x, xx, y, yy, xy }
    }

    fn of<const N: usize>(&self, which: [usize; N]) -> [f64; N] {
        which.map(|n| self.sums[n] as f64)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        self.sums.iter().for_each(|sum| out.put_u128(*sum as u128));
    }

    pub fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let unknown = r.corrupt("version of a variant's sums (this engine reads version 1)");
        if r.u8("version of a variant's sums")? != VERSION {
            return Err(unknown);
        }
        let mut sums = [0; TERMS];
        for sum in &mut sums {
            *sum = r.u128("sum of a variant")? as i128;
        }
        let counts = [USERS, CLICKERS, BUYERS, IMPRESSIONS, CLICKS, ORDERS];
        let squares = [IMPRESSIONS_2, CLICKS_2, ORDERS_2, REVENUE_2, CLICKS_IMPRESSIONS];
        let counted = counts.iter().all(|n| u64::try_from(sums[*n]).is_ok());
        let fewer = sums[CLICKERS].max(sums[BUYERS]) <= sums[USERS] && sums[USERS] <= sums[IMPRESSIONS];
        if counted && fewer && squares.iter().all(|n| sums[*n] >= 0) {
            Ok(Self { sums })
        } else {
            Err(r.corrupt("sums of a variant"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::tests::random::Random;

    fn user(random: &mut Random) -> UserSums {
        UserSums {
            impressions: random.below(50) as u32,
            clicks: random.below(5) as u32,
            orders: random.below(3) as u32,
            revenue_micros: random.below(90_000_000) as i64 - 10_000_000,
        }
    }

    /// The sums by their definition.
    fn naive(users: &[UserSums]) -> VariantSums {
        let mut sums = VariantSums::default();
        for user in users {
            sums.replace(&UserSums::default(), user).unwrap();
        }
        sums
    }

    #[test]
    fn changes_in_any_order_and_partition_give_the_same_sums() {
        let mut random = Random(3);
        let mut users = vec![UserSums::default(); 40];
        let mut parts = [VariantSums::default(), VariantSums::default(), VariantSums::default()];
        for _ in 0..2_000 {
            let n = random.below(40) as usize;
            let new = user(&mut random);
            parts[n % 3].replace(&users[n], &new).unwrap();
            users[n] = new;
        }
        let mut whole = VariantSums::default();
        parts.iter().for_each(|part| whole.add(part).unwrap());
        assert_eq!(whole, naive(&users));
        users.reverse();
        assert_eq!(whole, naive(&users));
        let exposed = users.iter().filter(|u| u.impressions > 0);
        assert_eq!(whole.users() as usize, exposed.clone().count());
        assert_eq!(whole.clicks(), exposed.clone().map(|u| u64::from(u.clicks)).sum::<u64>());
        assert_eq!(whole.revenue_micros(), exposed.map(|u| i128::from(u.revenue_micros)).sum::<i128>());
    }

    #[test]
    fn users_are_counted_from_their_first_exposure() {
        let mut sums = VariantSums::default();
        let before = UserSums { clicks: 1, orders: 1, revenue_micros: 5, ..UserSums::default() };
        sums.replace(&UserSums::default(), &before).unwrap();
        assert_eq!(sums, VariantSums::default());
        let exposed = UserSums { impressions: 1, ..UserSums::default() };
        sums.replace(&before, &exposed).unwrap();
        assert_eq!((sums.users(), sums.clicks(), sums.impressions()), (1, 0, 1));
    }

    #[test]
    fn nothing_is_cut_off_silently() {
        let most = UserSums { impressions: u32::MAX, ..UserSums::default() };
        let one = UserSums { impressions: 1, ..UserSums::default() };
        assert_eq!(most.plus(&one), Err(OutOfRange("impressions")));
        let rich = UserSums { impressions: 1, revenue_micros: MAX_REVENUE_MICROS, ..UserSums::default() };
        let cent = UserSums { revenue_micros: 10_000, ..UserSums::default() };
        assert_eq!(rich.plus(&cent), Err(OutOfRange("revenue")));
        let mut sums = VariantSums { sums: [i128::MAX; TERMS] };
        assert!(sums.replace(&UserSums::default(), &rich).is_err());
        assert_eq!(sums, VariantSums { sums: [i128::MAX; TERMS] });
    }

    #[test]
    fn users_cells_are_golden() {
        let user = UserSums { impressions: 1, clicks: 0x0203, orders: 4, revenue_micros: -2 };
        let cells = [1, 0, 0, 0, 3, 2, 0, 0, 4, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(user.write(), cells);
        assert_eq!(UserSums::read(&cells), Ok(user));
        (0..UserSums::BYTES).for_each(|n| assert!(UserSums::read(&cells[..n]).is_err()));
        let beyond = UserSums { revenue_micros: MAX_REVENUE_MICROS + 1, ..user };
        assert!(UserSums::read(&beyond.write()).is_err());
    }

    #[test]
    fn variants_sums_are_golden_and_damage_is_told() {
        let user = UserSums { impressions: 3, clicks: 2, orders: 1, revenue_micros: -7 };
        let sums = naive(&[user]);
        let mut bytes = Vec::new();
        sums.encode(&mut bytes);
        let expected: [i128; TERMS] = [1, 1, 1, 3, 9, 2, 4, 6, 1, 1, -7, 49, -7];
        let golden: Vec<u8> = std::iter::once(1).chain(expected.iter().flat_map(|v| v.to_le_bytes())).collect();
        assert_eq!(bytes, golden);
        assert_eq!(VariantSums::read(&mut Reader::new(&bytes)), Ok(sums));
        (0..bytes.len()).for_each(|n| assert!(VariantSums::read(&mut Reader::new(&bytes[..n])).is_err()));
        for (at, value) in [(0, 2), (16, 0x80), (1, 0)] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            assert!(VariantSums::read(&mut Reader::new(&damaged)).is_err(), "byte {at}");
        }
    }
}
