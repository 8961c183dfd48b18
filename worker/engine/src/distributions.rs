//! Tail probabilities of the normal and the chi-square distribution.

/// The chance that a standard normal variable is at least `|z|` away from 0. NaN for NaN.
pub fn normal_two_sided(z: f64) -> f64 {
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// The chance that a chi-square variable reaches `x`. NaN unless `degrees` > 0 and `x` is a number.
pub fn chi_square_upper(x: f64, degrees: f64) -> f64 {
    if x.is_nan() || degrees.is_nan() || degrees <= 0.0 {
        return f64::NAN;
    }
    gamma_upper(degrees / 2.0, x.max(0.0) / 2.0)
}

/// Terms after which series and fraction are cut; both converge in some `sqrt(a)` terms.
const MOST_TERMS: usize = 100_000;
const PRECISION: f64 = 1e-15;

/// The regularised upper incomplete gamma function Q(a, x), a > 0, x >= 0: below a + 1 by the series of its complement,
/// above by Legendre's continued fraction (Lentz's method); Abramowitz and Stegun 6.5.29 and 6.5.31.
fn gamma_upper(a: f64, x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    if x.is_infinite() {
        return 0.0;
    }
    let front = libm::exp(a * libm::log(x) - x - libm::lgamma(a));
    if x < a + 1.0 { (1.0 - front * lower_series(a, x)).clamp(0.0, 1.0) } else { front * upper_fraction(a, x) }
}

fn lower_series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
    for _ in 0..MOST_TERMS {
        n += 1.0;
        term *= x / n;
        sum += term;
        if term < sum * PRECISION {
            break;
        }
    }
    sum
}

fn upper_fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / away_from_zero(b);
    let mut fraction = d;
    for n in 1..MOST_TERMS {
        let n = n as f64;
        let numerator = -n * (n - a);
        b += 2.0;
        d = 1.0 / away_from_zero(numerator * d + b);
        c = away_from_zero(b + numerator / c);
        fraction *= d * c;
        if (d * c - 1.0).abs() < PRECISION {
            break;
        }
    }
    fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} for {expected}");
    }

    /// Expected values from scipy 1.17: `scipy.stats.chi2.sf(x, degrees)`.
    #[test]
    fn chi_square_tails_are_scipys() {
        for (x, degrees, expected) in [
            (3.841_458_820_694_124, 1.0, 0.05),
            (10.827_566_170_662_733, 1.0, 0.001),
            (0.5, 3.0, 0.918_891_411_654_675_8),
            (20.0, 10.0, 0.029_252_688_076_961_127),
            (300.0, 5.0, 1.001_530_230_595_781_7e-62),
            (980.0, 1_000.0, 0.668_326_736_311_221_3),
        ] {
            close(chi_square_upper(x, degrees), expected);
        }
        assert_eq!(chi_square_upper(0.0, 2.0), 1.0);
        assert_eq!(chi_square_upper(f64::INFINITY, 2.0), 0.0);
        assert!(chi_square_upper(1.0, 0.0).is_nan() && chi_square_upper(f64::NAN, 1.0).is_nan());
    }

    #[test]
    fn normal_tails_are_chi_square_tails_of_one_degree() {
        for z in [0.1, 1.0, 1.959_963_984_540_054, 4.0, 8.0] {
            close(normal_two_sided(z), chi_square_upper(z * z, 1.0));
            assert_eq!(normal_two_sided(z), normal_two_sided(-z));
        }
    }
}
