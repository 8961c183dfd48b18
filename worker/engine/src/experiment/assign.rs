//! Which variant a user is in.

use crate::event::Pseudonym;

/// The index of the user's variant: `xxh3(user, seed = xxh3(salt))` is uniform over 2^64 values, cut into one range for
/// each weight, in their order and in proportion. The same for ever for the same salt, user and weights; between salts
/// it is independent. A change of weights moves only users between neighbouring ranges.
///
/// Without a positive weight everyone is in variant 0.
pub fn variant_of(salt: &str, user: Pseudonym, weights: &[u32]) -> usize {
    let seed = xxhash_rust::xxh3::xxh3_64(salt.as_bytes());
    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&user.0.to_le_bytes(), seed);
    let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
    let point = ((u128::from(hash) * u128::from(total)) >> 64) as u64;
    let mut upto = 0;
    let below = |w: &u32| {
        upto += u64::from(*w);
        point < upto
    };
    weights.iter().position(below).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{distributions::chi_square_upper, experiment::tests::random::Random};

    fn user(random: &mut Random) -> Pseudonym {
        Pseudonym(u128::from(random.bits()) << 64 | u128::from(random.bits()))
    }

    /// A p value of counts that should be in these proportions.
    fn p_of(counts: &[f64], shares: &[f64]) -> f64 {
        let n: f64 = counts.iter().sum();
        let distance = counts.iter().zip(shares).map(|(c, s)| (c - n * s) * (c - n * s) / (n * s)).sum();
        chi_square_upper(distance, counts.len() as f64 - 1.0)
    }

    #[test]
    fn assignment_is_fixed_for_ever() {
        // Golden, as computed by python-xxhash: another value would move users of a running experiment to other variants.
        let found: Vec<usize> = (0..24).map(|n| variant_of("launch", Pseudonym(n << 64 | n), &[50, 30, 20])).collect();
        assert_eq!(found, [2, 1, 0, 0, 1, 2, 2, 1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0]);
    }

    #[test]
    fn shares_are_the_weights() {
        let mut random = Random(1);
        let mut counts = [0.0; 4];
        for _ in 0..200_000 {
            counts[variant_of("shares", user(&mut random), &[1, 0, 6, 3])] += 1.0;
        }
        assert_eq!(counts[1], 0.0);
        let p = p_of(&[counts[0], counts[2], counts[3]], &[0.1, 0.6, 0.3]);
        assert!(p > 0.001, "{counts:?}: p {p}");
    }

    #[test]
    fn ids_one_apart_are_no_less_random() {
        let mut counts = [0.0; 2];
        (0..100_000).for_each(|n| counts[variant_of("counting", Pseudonym(n), &[1, 1])] += 1.0);
        let p = p_of(&counts, &[0.5, 0.5]);
        assert!(p > 0.001, "{counts:?}: p {p}");
    }

    #[test]
    fn experiments_are_independent() {
        for (seed, salts) in [("launch", "launch2"), ("a", "b"), ("", "x")].iter().enumerate() {
            let mut random = Random(seed as u64 + 7);
            let mut cells = [0.0; 4];
            for _ in 0..100_000 {
                let user = user(&mut random);
                cells[2 * variant_of(salts.0, user, &[1, 1]) + variant_of(salts.1, user, &[1, 1])] += 1.0;
            }
            let p = p_of(&cells, &[0.25; 4]);
            assert!(p > 0.001, "{salts:?} {cells:?}: p {p}");
        }
    }

    #[test]
    fn no_weights_is_variant_zero() {
        assert_eq!(variant_of("x", Pseudonym(1), &[]), 0);
        assert_eq!(variant_of("x", Pseudonym(1), &[0, 0]), 0);
    }
}
