//! Looking at any time: Robbins' normal mixture.
//!
//! A statistic whose standardised value is z after an information V (1 / its squared standard error) moves, as information
//! comes in, like a Brownian motion divided by its time. Mixing the likelihood ratios of all effects with a N(0, τ²) gives
//! a martingale, so by Ville's inequality the chance that it *ever* reaches 1 / α without an effect is at most α. That
//! this holds for means of anything with finite variance, once there is enough of it, is shown by Waudby-Smith, Arbour,
//! Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics
//! 2024 (their ρ² is τ² here, their t σ⁻² is V). With a proportion of a known mean it is the mixture sequential
//! probability ratio test of Johari, Koomen, Pekelis, Walsh, "Always Valid Inference", Operations Research 2022.

/// A mixture over effects of about τ, in the statistic's unit. Any τ is valid; the interval is narrowest, relative to
/// a fixed-horizon one, once the standard error has come down to about a third of τ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormalMixture {
    pub tau: f64,
}

impl NormalMixture {
    /// How much more likely the data are under the mixture than without an effect (logarithm). `variance`: of `estimate`.
    pub fn log_evidence(&self, estimate: f64, variance: f64) -> f64 {
        let k = self.tau * self.tau / variance;
        0.5 * (estimate * estimate / variance * (k / (1.0 + k)) - libm::log1p(k))
    }

    /// Always-valid p value: the chance that evidence without an effect ever gets this strong is at most this.
    pub fn p_value(&self, estimate: f64, variance: f64) -> f64 {
        libm::exp(-self.log_evidence(estimate, variance)).min(1.0)
    }

    /// Half the width of the interval that covers the effect at all times with a chance of at least 1 - `alpha`.
    pub fn half_width(&self, variance: f64, alpha: f64) -> f64 {
        let k = self.tau * self.tau / variance;
        let squared = (1.0 + 1.0 / k) * (libm::log1p(k) - 2.0 * libm::log(alpha));
        (variance * squared).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::tests::random::Random;

    #[test]
    fn interval_and_p_value_agree() {
        let mixture = NormalMixture { tau: 0.1 };
        for variance in [1.0, 1e-2, 1e-3, 1e-5] {
            let width = mixture.half_width(variance, 0.05);
            assert!((mixture.p_value(width, variance) - 0.05).abs() < 1e-9);
            assert!(mixture.p_value(width * 1.01, variance) < 0.05);
            assert!(width > 1.96 * variance.sqrt(), "an interval that holds for ever is wider");
        }
        assert_eq!(mixture.p_value(0.0, 1e-3), 1.0);
    }

    /// Waudby-Smith et al., equation (9), with σ = 1, ρ = .5, t = 100, α = .1.
    #[test]
    fn the_boundary_is_the_papers() {
        let (rho, t, alpha) = (0.5f64, 100.0f64, 0.1);
        let scale = t * rho * rho + 1.0;
        let paper = (2.0 * scale / (t * t * rho * rho) * libm::log(scale.sqrt() / alpha)).sqrt();
        let found = NormalMixture { tau: rho }.half_width(1.0 / t, alpha);
        assert!((found - paper).abs() < 1e-12, "{found} for {paper}");
    }

    /// 2,000 random walks of 5,000 steps, looked at after every step: nearly α ever leave, and no more.
    #[test]
    fn walks_without_drift_leave_as_seldom_as_said() {
        let (mixture, mut random) = (NormalMixture { tau: 0.3 }, Random(11));
        let bounds: Vec<f64> =
            (1..=5_000).map(|t| mixture.half_width(1.0 / f64::from(t), 0.1) * f64::from(t)).collect();
        let leaves = |random: &mut Random| {
            let mut sum = 0.0;
            bounds.iter().any(|bound| {
                sum += random.normal();
                sum.abs() > *bound
            })
        };
        let left = (0..2_000).filter(|_| leaves(&mut random)).count();
        assert!((80..=200).contains(&left), "{left} of 2,000 for at most 200");
    }
}
