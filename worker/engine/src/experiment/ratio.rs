//! Ratio metrics with the user as unit.
//!
//! Impressions of one user are not independent, so `clicks / impressions` has not the variance of a proportion. With the
//! user as unit the ratio R = Σx / Σy is linearised (delta method): R errs as the mean of z = x - R y does, over users,
//! divided by the mean of y. Deng, Knoblich, Lu, "Applying the Delta Method in Metric Analytics", KDD 2018. A mean per
//! user is the case y = 1.

/// Sums over a variant's users of what is counted (x) and per what (y).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RatioSums {
    pub users: u64,
    /// Users with x other than 0.
    pub with_outcome: u64,
    pub x: f64,
    pub xx: f64,
    pub y: f64,
    pub yy: f64,
    pub xy: f64,
}

impl RatioSums {
    /// One more user.
    pub fn add(&mut self, x: f64, y: f64) {
        self.users += 1;
        self.with_outcome += u64::from(x != 0.0);
        self.x += x;
        self.xx += x * x;
        self.y += y;
        self.yy += y * y;
        self.xy += x * y;
    }

    /// Σx / Σy. `None` without a denominator.
    pub fn value(&self) -> Option<f64> {
        (self.y > 0.0).then(|| self.x / self.y)
    }

    /// Variance of [`Self::value`]. `None` below two users.
    pub fn variance(&self) -> Option<f64> {
        let ratio = self.value()?;
        let n = self.users as f64;
        let squares = self.xx - 2.0 * ratio * self.xy + ratio * ratio * self.yy;
        (self.users >= 2).then(|| n / (n - 1.0) * squares.max(0.0) / (self.y * self.y))
    }

    /// Variance of the logarithm of [`Self::value`], to first order. `None` unless the value is above 0.
    pub fn log_variance(&self) -> Option<f64> {
        let value = self.value().filter(|v| *v > 0.0)?;
        self.variance().map(|v| v / (value * value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::tests::random::Random;

    fn sums(users: &[(f64, f64)]) -> RatioSums {
        let mut sums = RatioSums::default();
        users.iter().for_each(|(x, y)| sums.add(*x, *y));
        sums
    }

    #[test]
    fn per_user_it_is_the_variance_of_a_mean() {
        let x = [1.0, 4.0, 0.0, 7.0];
        let found = sums(&x.map(|x| (x, 1.0)));
        assert_eq!(found.value(), Some(3.0));
        assert!((found.variance().unwrap() - 10.0 / 4.0).abs() < 1e-12);
        assert_eq!(found.with_outcome, 3);
    }

    #[test]
    fn nothing_to_divide_by_is_none() {
        assert_eq!(RatioSums::default().value(), None);
        assert_eq!(sums(&[(1.0, 1.0)]).variance(), None);
        assert_eq!(sums(&[(0.0, 1.0), (0.0, 2.0)]).log_variance(), None);
        assert_eq!(sums(&[(-1.0, 1.0), (0.0, 1.0)]).log_variance(), None);
    }

    /// Over many repetitions the ratio errs as much as said: users differ in visits and in their own rates.
    #[test]
    fn the_ratio_varies_as_the_delta_method_says() {
        let mut random = Random(5);
        let (mut values, mut said, mut binomial) = (Vec::new(), 0.0, 0.0);
        for _ in 0..2_000 {
            let mut one = RatioSums::default();
            for _ in 0..400 {
                let visits = random.pareto(1.8).min(60.0).floor();
                let rate = 0.3 * random.unit();
                let clicks = (0..visits as u32).filter(|_| random.unit() < rate).count();
                one.add(clicks as f64, visits);
            }
            let value = one.value().unwrap();
            values.push(value);
            said += one.variance().unwrap() / 2_000.0;
            binomial += value * (1.0 - value) / one.y / 2_000.0;
        }
        let mean = values.iter().sum::<f64>() / 2_000.0;
        let found = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / 1_999.0;
        assert!((said / found - 1.0).abs() < 0.1, "said {said}, found {found}");
        assert!(binomial < 0.8 * found, "as if impressions were independent: {binomial}, found {found}");
    }
}
