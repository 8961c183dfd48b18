//! A tiny seeded generator and the distributions that the shop needs: the same numbers on every machine, for ever
//! (`libm`, and no order of evaluation that a compiler may change).

/// splitmix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

/// Its finalizer: spreads any number over 64 bits.
pub fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The generator of one thing (`number`) of a kind (`stream`), whatever else has been drawn.
    pub fn of(seed: u64, stream: u64, number: u64) -> Self {
        Self { state: mix(mix(seed ^ mix(stream)) ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) }
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// Uniform in (0, 1): never 0, so that its logarithm is finite.
    pub fn unit(&mut self) -> f64 {
        ((self.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// 0 <= result < n, and 0 for n = 0. Its bias (below n / 2^64) does not matter here.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Standard normal (Box, Muller 1958; one of the pair is enough here).
    pub fn normal(&mut self) -> f64 {
        libm::sqrt(-2.0 * libm::log(self.unit())) * libm::cos(std::f64::consts::TAU * self.unit())
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(self.unit())
    }

    /// Median and sigma of the logarithm.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * libm::exp(sigma * self.normal())
    }

    /// At least 1; P(X > x) = x^-shape.
    pub fn pareto(&mut self, shape: f64) -> f64 {
        libm::pow(self.unit(), -1.0 / shape)
    }

    /// How many successes come before the first failure, with this mean.
    pub fn geometric(&mut self, mean: f64) -> usize {
        libm::floor(libm::log(self.unit()) / libm::log(mean / (1.0 + mean))) as usize
    }

    /// An index, each in proportion to its step in these ascending sums. They must not be empty.
    pub fn weighted(&mut self, sums: &[f64]) -> usize {
        let total = sums.last().copied().unwrap_or(0.0);
        let at = self.unit() * total;
        sums.partition_point(|sum| *sum <= at).min(sums.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_numbers_are_the_published_ones() {
        let mut rng = Rng::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut rng = Rng::new(1);
        let n = 200_000;
        let mut mean = |draw: &mut dyn FnMut(&mut Rng) -> f64| (0..n).map(|_| draw(&mut rng)).sum::<f64>() / n as f64;
        assert!(mean(&mut |r| r.normal()).abs() < 0.01);
        assert!((mean(&mut |r| r.normal().powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(&mut |r| r.exponential(3.0)) - 3.0).abs() < 0.05);
        assert!((mean(&mut |r| r.geometric(2.5) as f64) - 2.5).abs() < 0.05);
        assert!((mean(&mut |r| f64::from(r.pareto(1.5) > 4.0)) - 0.125).abs() < 0.005, "P(X > 4) = 4^-1.5");
        assert!((mean(&mut |r| f64::from(r.log_normal(2.0, 0.8) > 2.0)) - 0.5).abs() < 0.01);
    }

    #[test]
    fn weighted_draws_follow_their_weights() {
        let (mut rng, sums) = (Rng::new(7), [1.0, 1.0, 4.0, 10.0]);
        let mut seen = [0u32; 4];
        for _ in 0..10_000 {
            seen[rng.weighted(&sums)] += 1;
        }
        assert!((900..1_100).contains(&seen[0]) && seen[1] == 0 && (2_800..3_200).contains(&seen[2]), "{seen:?}");
    }
}
