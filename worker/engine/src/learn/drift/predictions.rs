//! Bets against a model's predictions.
//!
//! *No drift* is: whatever came before, the chance of a positive is within p (1 ± tolerance) and, as a function of the log-odds
//! m, has a slope of 1 ± slope tolerance about their running mean. Four detectors bet on the contrary. Each makes of an
//! example an amount x >= -1 whose expectation is at most 0 without drift:
//!
//! - too low: `y - p (1 + t)`; too high: `p (1 - t) - y`;
//! - too flat: `h (y - p) - s`; too steep: `- h (y - p) - s`, with h the centred log-odds in units of two standard
//!   deviations, cut at ±1, and `s = |h| p (t + u (1 - p) |m - mean|)` what both tolerances (t, u) allow to first order.
//!
//! The excess of log loss over its expectation is -(y - p) m, so the last two are bets on the loss, less its part that is
//! calibration.
//!
//! Evidence is of the kind of Shiryaev and Roberts: `M <- (M + 1) (1 + b x)`, for several bets b, averaged. M minus the number
//! of examples is a supermartingale without drift (an e-detector: Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric
//! framework for sequential change detection", 2022), so the mean number of examples until M reaches A is at least A,
//! whatever p does. With A = 4 times the run length for each of four detectors, the first alarm of any is that rare.
//! M lies between 1 - b and A times at most 2, so nothing over- or underflows, and no logarithm is needed.

use super::{DriftAlarm, DriftKind, DriftSettings, PredictionDrift};
use crate::{
    codec::{Corrupt, Put, Reader},
    learn::validation::Prediction,
};

/// Shares of M that are bet: best against rates that are off by about these, relatively.
const BETS: [f64; 5] = [0.05, 0.1, 0.2, 0.4, 0.8];
const KINDS: [DriftKind; 4] =
    [DriftKind::PredictsTooLow, DriftKind::PredictsTooHigh, DriftKind::TooSteep, DriftKind::TooFlat];
/// Mean and spread of log-odds are of about so many of the last examples.
const MEMORY: f64 = 10_000.0;
/// Examples between two computations of the spread's root.
const REFRESH: u64 = 256;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Detector {
    /// M, for each bet.
    evidence: [f64; BETS.len()],
    alarms: u64,
    /// 0: none yet.
    last_alarm: u64,
}

impl Detector {
    /// `amount` is at least -1.
    #[inline]
    fn bet(&mut self, amount: f64) {
        for (evidence, bet) in self.evidence.iter_mut().zip(BETS) {
            *evidence = (*evidence + 1.0) * (1.0 + bet * amount);
        }
    }

    #[inline]
    fn total(&self) -> f64 {
        self.evidence.iter().sum()
    }
}

#[derive(Clone, Debug)]
pub struct Predictions {
    tolerance: f64,
    slope_tolerance: f64,
    /// Of the sum over bets.
    threshold: f64,
    seen: u64,
    mean: f64,
    variance: f64,
    /// 1 / two standard deviations.
    scale: f64,
    detectors: [Detector; KINDS.len()],
}

impl Predictions {
    pub fn new(settings: &DriftSettings) -> Self {
        Self {
            tolerance: settings.tolerance,
            slope_tolerance: settings.slope_tolerance,
            threshold: settings.run_length_examples * (KINDS.len() * BETS.len()) as f64,
            seen: 0,
            mean: 0.0,
            variance: 0.0,
            scale: 0.0,
            detectors: Default::default(),
        }
    }

    /// Unless `judged`, only mean and spread of the log-odds are learned.
    #[inline]
    pub fn learn(
        &mut self,
        prediction: &Prediction,
        label: bool,
        judged: bool,
        example: u64,
        alarms: &mut Vec<DriftAlarm>,
    ) {
        let centred = prediction.margin - self.mean;
        if judged {
            let amounts = self.amounts(prediction.probability, centred, f64::from(u8::from(label)));
            for (n, amount) in amounts.into_iter().enumerate() {
                let detector = &mut self.detectors[n];
                detector.bet(amount);
                if detector.total() >= self.threshold {
                    *detector = Detector {
                        evidence: [0.0; BETS.len()],
                        alarms: detector.alarms.saturating_add(1),
                        last_alarm: example,
                    };
                    alarms.push(DriftAlarm { kind: KINDS[n], column: None, psi: None, example });
                }
            }
        }
        self.centre(centred);
    }

    /// In the order of [`KINDS`].
    #[inline]
    fn amounts(&self, p: f64, centred: f64, y: f64) -> [f64; KINDS.len()] {
        let (t, u) = (self.tolerance, self.slope_tolerance);
        let h = (centred * self.scale).clamp(-1.0, 1.0);
        let allowed = h.abs() * p * (t + u * (1.0 - p) * centred.abs());
        let slope = h * (y - p);
        // Where more than 1 is allowed, both outcomes' amounts are below 0, and cutting them at -1 leaves them so.
        let cut = |amount: f64| amount.max(-1.0);
        [y - (p * (1.0 + t)).min(1.0), p * (1.0 - t) - y, cut(-slope - allowed), cut(slope - allowed)]
    }

    #[inline]
    fn centre(&mut self, centred: f64) {
        self.seen = self.seen.saturating_add(1);
        let rate = 1.0 / (self.seen as f64).min(MEMORY);
        self.mean += rate * centred;
        self.variance += rate * (centred * centred - self.variance);
        if self.seen.is_multiple_of(REFRESH) {
            self.scale = if self.variance > 1e-12 { 0.5 / self.variance.sqrt() } else { 0.0 };
        }
    }

    pub fn evidence(&self) -> f64 {
        let most = self.detectors.iter().map(Detector::total).fold(0.0, f64::max);
        most / self.threshold
    }

    pub fn summary(&self) -> Vec<PredictionDrift> {
        let summary = |(kind, detector): (&DriftKind, &Detector)| PredictionDrift {
            kind: *kind,
            evidence: detector.total() / self.threshold,
            alarms: detector.alarms,
            last_alarm: (detector.last_alarm > 0).then_some(detector.last_alarm),
        };
        KINDS.iter().zip(&self.detectors).map(summary).collect()
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.seen);
        [self.mean, self.variance, self.scale].iter().for_each(|x| out.put_f64(*x));
        for detector in &self.detectors {
            detector.evidence.iter().for_each(|x| out.put_f64(*x));
            out.put_u64(detector.alarms);
            out.put_u64(detector.last_alarm);
        }
    }

    pub fn load(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        self.seen = r.u64("examples seen")?;
        for x in [&mut self.mean, &mut self.variance, &mut self.scale] {
            *x = r.f64("log-odds")?;
        }
        let mut sound = self.mean.is_finite() && self.variance.is_finite() && self.scale.is_finite();
        sound &= self.variance >= 0.0 && self.scale >= 0.0;
        for detector in &mut self.detectors {
            for x in &mut detector.evidence {
                *x = r.f64("evidence")?;
                sound &= x.is_finite() && *x >= 0.0;
            }
            (detector.alarms, detector.last_alarm) = (r.u64("alarms")?, r.u64("last alarm")?);
        }
        if sound { Ok(()) } else { Err(r.corrupt("drift of predictions")) }
    }
}
