//! The random numbers of one decision, from its seed.

/// xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 47, 2021), seeded by
/// SplitMix64 as they advise.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
    /// The second number of the last pair of normal ones.
    normal: Option<f64>,
}

impl Rng {
    pub fn new(seed: u64) -> Self {
        let mut at = seed;
        let state = [0; 4].map(|_: u64| {
            at = at.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let x = (at ^ at >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            x ^ x >> 31
        });
        Self { state, normal: None }
    }

    pub fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// In [0, 1), of 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// In (0, 1), for logarithms.
    fn open_unit(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) * (1.0 / (1u64 << 52) as f64)
    }

    /// One of 0..n, all alike (Lemire, "Fast random integer generation in an interval", ACM TOMACS 29, 2019); 0 of none.
    pub fn below(&mut self, n: u64) -> u64 {
        let mut product = u128::from(self.bits()) * u128::from(n);
        if (product as u64) < n {
            let uneven = n.wrapping_neg() % n;
            while (product as u64) < uneven {
                product = u128::from(self.bits()) * u128::from(n);
            }
        }
        (product >> 64) as u64
    }

    /// Of mean 0 and variance 1 (Marsaglia's polar method, 1964).
    pub fn normal(&mut self) -> f64 {
        if let Some(second) = self.normal.take() {
            return second;
        }
        loop {
            let (x, y) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                let factor = (-2.0 * libm::log(square) / square).sqrt();
                self.normal = Some(y * factor);
                return x * factor;
            }
        }
    }

    /// Gamma of this shape, at least 1, and scale 1 (Marsaglia and Tsang, "A simple method for generating gamma variables",
    /// ACM TOMS 26, 2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let root = 1.0 + c * x;
            if root <= 0.0 {
                continue;
            }
            let (v, u, square) = (root * root * root, self.open_unit(), x * x);
            if u < 1.0 - 0.0331 * square * square || libm::log(u) < 0.5 * square + d * (1.0 - v + libm::log(v)) {
                return d * v;
            }
        }
    }

    /// The logarithm of a Gamma of a shape below 1: that of shape + 1 times U^(1 / shape) (the same paper, section 6),
    /// which itself may be too small for a number.
    fn log_gamma(&mut self, shape: f64) -> f64 {
        if shape >= 1.0 {
            return libm::log(self.gamma(shape));
        }
        libm::log(self.gamma(shape + 1.0)) + libm::log(self.open_unit()) / shape
    }

    /// Beta, as the share of one of two Gammas; both parameters above 0.
    pub fn beta(&mut self, alpha: f64, beta: f64) -> f64 {
        if alpha >= 1.0 && beta >= 1.0 {
            let (x, y) = (self.gamma(alpha), self.gamma(beta));
            return x / (x + y);
        }
        let (x, y) = (self.log_gamma(alpha), self.log_gamma(beta));
        1.0 / (1.0 + libm::exp(y - x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference implementation's first outputs from this state, and SplitMix64's from seed 1234567.
    #[test]
    fn the_generators_are_the_published_ones() {
        let mut rng = Rng { state: [1, 2, 3, 4], normal: None };
        let expected = [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386];
        assert_eq!([0; 4].map(|_: u64| rng.bits()), expected);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
        ];
        assert_eq!(Rng::new(1_234_567).state, expected);
    }

    fn moments(draws: impl Iterator<Item = f64>) -> (f64, f64, f64) {
        let draws: Vec<f64> = draws.collect();
        let n = draws.len() as f64;
        let mean = draws.iter().sum::<f64>() / n;
        let central = |power: i32| draws.iter().map(|x| (0..power).fold(1.0, |p, _| p * (x - mean))).sum::<f64>() / n;
        (mean, central(2), central(3))
    }

    #[test]
    fn normal_and_beta_have_their_moments() {
        const N: usize = 400_000;
        let mut rng = Rng::new(5);
        let (mean, variance, third) = moments((0..N).map(|_| rng.normal()));
        assert!(
            mean.abs() < 0.008 && (variance - 1.0).abs() < 0.012 && third.abs() < 0.03,
            "{mean} {variance} {third}"
        );
        for (a, b) in [(1.0, 1.0), (2.5, 40.0), (0.3, 7.0), (0.2, 0.1), (300.0, 20_000.0)] {
            let (mean, variance, _) = moments((0..N).map(|_| rng.beta(a, b)));
            let (m, v) = (a / (a + b), a * b / ((a + b) * (a + b) * (a + b + 1.0)));
            assert!((mean - m).abs() < 5.0 * (v / N as f64).sqrt(), "Beta({a}, {b}): mean {mean} for {m}");
            assert!((variance / v - 1.0).abs() < 0.03, "Beta({a}, {b}): variance {variance} for {v}");
        }
    }

    #[test]
    fn extreme_parameters_stay_in_range() {
        let mut rng = Rng::new(6);
        for (a, b) in [(1e-9, 1e-9), (1e-300, 1.0), (1.0, 1e-300), (1e15, 1e-3), (1e-3, 1e15)] {
            assert!((0..1000).map(|_| rng.beta(a, b)).all(|x| (0.0..=1.0).contains(&x)), "Beta({a}, {b})");
        }
    }

    #[test]
    fn numbers_below_are_even() {
        let mut rng = Rng::new(7);
        let mut counts = [0u32; 7];
        (0..70_000).for_each(|_| counts[rng.below(7) as usize] += 1);
        let distance: f64 = counts.iter().map(|c| (f64::from(*c) - 1e4) * (f64::from(*c) - 1e4) / 1e4).sum();
        assert!(distance < 22.5, "chi square {distance} of 6 degrees: {counts:?}");
        assert_eq!((rng.below(1), rng.below(0)), (0, 0));
    }
}
