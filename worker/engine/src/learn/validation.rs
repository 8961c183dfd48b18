//! Progressive validation: every example is scored before it is learned, beside the running base rate.
//!
//! The area under the ROC curve ranks by what the model adds to the log-odds of the running base rate. That rate moves
//! with every label, and moves against them: it is highest after a positive and lowest before one, so it alone ranks
//! pure noise 1.4 standard errors *below* .5, however long the stream. Log loss and calibration judge all of the prediction.

use std::collections::VecDeque;

use serde::Serialize;

use super::ranking::Ranking;
use crate::codec::{Corrupt, Put, Reader};

/// Examples in a block of the window, and between two judgements of the worst ratio.
const BLOCK: u64 = 1_000;
/// The window: the last nine blocks and the one being filled.
const BLOCKS: usize = 10;
/// Placements, and positions, that are told apart; what comes later is counted under [`OTHER`].
const MAX_SEGMENTS: usize = 32;
const OTHER: &str = "(other)";
/// Bins of the ranking by margin over all examples, and of one placement or position.
const BINS: usize = 16_384;
const SEGMENT_BINS: usize = 4_096;
/// Margins beyond this are counted as this.
const MAX_MARGIN: f64 = 16.0;

/// The running base rate: (positives + 1/2) / (examples + 1), of what was seen *before* an example. The 1/2 is
/// Krichevsky and Trofimov's: over any sequence it costs at most ln(n)/2 + ln 2 more than the best constant.
#[derive(Clone, Debug)]
pub struct BaseRate {
    positives: f64,
    negatives: f64,
    /// What both counts are multiplied by with each example.
    keep: f64,
    ln_positives: f64,
    ln_negatives: f64,
}

impl BaseRate {
    /// With a half-life older examples count less.
    pub fn new(half_life_examples: Option<f64>) -> Self {
        let keep = half_life_examples.map_or(1.0, |h| libm::exp2(-1.0 / h));
        let mut rate = Self { positives: 0.0, negatives: 0.0, keep, ln_positives: 0.0, ln_negatives: 0.0 };
        rate.set(0.0, 0.0);
        rate
    }

    /// Goes on with the counts of another one, and its own half-life.
    pub fn take_over(&mut self, old: &BaseRate) {
        self.set(old.positives, old.negatives);
    }

    /// Cuts the evidence to a quarter, so that what comes counts more.
    pub fn discount(&mut self) {
        self.set(0.25 * self.positives, 0.25 * self.negatives);
    }

    /// Log-odds of the rate.
    pub fn margin(&self) -> f64 {
        self.ln_positives - self.ln_negatives
    }

    /// -ln of the probability that the rate gives to this label.
    pub fn loss(&self, label: bool) -> f64 {
        libm::log(self.positives + self.negatives + 1.0) - if label { self.ln_positives } else { self.ln_negatives }
    }

    pub fn learn(&mut self, label: bool) {
        if self.keep < 1.0 {
            let (positives, negatives) = (self.positives * self.keep, self.negatives * self.keep);
            self.set(positives + f64::from(u8::from(label)), negatives + f64::from(u8::from(!label)));
        } else if label {
            self.positives += 1.0;
            self.ln_positives = libm::log(self.positives + 0.5);
        } else {
            self.negatives += 1.0;
            self.ln_negatives = libm::log(self.negatives + 0.5);
        }
    }

    fn set(&mut self, positives: f64, negatives: f64) {
        (self.positives, self.negatives) = (positives, negatives);
        (self.ln_positives, self.ln_negatives) = (libm::log(positives + 0.5), libm::log(negatives + 0.5));
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_f64(self.positives);
        out.put_f64(self.negatives);
    }

    pub fn load(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        let (positives, negatives) = (r.f64("positives")?, r.f64("negatives")?);
        if !(positives.is_finite() && negatives.is_finite() && positives >= 0.0 && negatives >= 0.0) {
            return Err(r.corrupt("base rate"));
        }
        self.set(positives, negatives);
        Ok(())
    }
}

/// A prediction: log-odds, and what follows from them with one call of exp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    pub margin: f64,
    /// The part of the margin that is not the running base rate's.
    pub learned: f64,
    pub probability: f64,
    /// exp(-|margin|).
    tail: f64,
}

impl Prediction {
    #[inline]
    pub fn of(base: f64, learned: f64) -> Self {
        let margin = base + learned;
        let tail = libm::exp(-margin.abs());
        let probability = if margin < 0.0 { tail / (1.0 + tail) } else { 1.0 / (1.0 + tail) };
        Self { margin, learned, probability, tail }
    }

    /// -ln of the probability given to this label; from the margin, so that it is exact and finite far out too.
    #[inline]
    pub fn loss(&self, label: bool) -> f64 {
        let wrong = if label == (self.margin >= 0.0) { 0.0 } else { self.margin.abs() };
        libm::log1p(self.tail) + wrong
    }
}

/// Sums over scored examples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    examples: u64,
    positives: u64,
    loss: f64,
    base_loss: f64,
    probability: f64,
}

impl Sums {
    fn add(&mut self, other: &Sums) {
        self.examples += other.examples;
        self.positives += other.positives;
        self.loss += other.loss;
        self.base_loss += other.base_loss;
        self.probability += other.probability;
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.examples);
        out.put_u64(self.positives);
        for sum in [self.loss, self.base_loss, self.probability] {
            out.put_f64(sum);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let (examples, positives) = (r.u64("examples")?, r.u64("positives")?);
        let (loss, base_loss, probability) = (r.f64("loss")?, r.f64("base loss")?, r.f64("probability")?);
        if positives > examples || [loss, base_loss, probability].iter().any(|s| !s.is_finite()) {
            return Err(r.corrupt("validation sums"));
        }
        Ok(Self { examples, positives, loss, base_loss, probability })
    }

    fn summary(&self, ranking: &Ranking) -> Figures {
        let mean = |sum: f64| (self.examples > 0).then(|| sum / self.examples as f64);
        let auc = ranking.auc();
        Figures {
            examples: self.examples,
            positives: self.positives,
            auc: auc.map(|a| a.value),
            auc_bin_error: auc.map(|a| a.bin_error),
            auc_standard_error: auc.map(|a| a.standard_error()),
            log_loss: mean(self.loss),
            base_log_loss: mean(self.base_loss),
            calibration: (self.positives > 0).then(|| self.probability / self.positives as f64),
        }
    }
}

/// What validation found over some examples. `None` where there is nothing to divide by.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    pub examples: u64,
    pub positives: u64,
    /// Area under the ROC curve of what the model adds to the base rate; ties count half. The base rate's own is thus .5.
    pub auc: Option<f64>,
    /// The exact area is within this of `auc`, which counts what falls in the same bin as tied.
    pub auc_bin_error: Option<f64>,
    /// Hanley and McNeil's (1982).
    pub auc_standard_error: Option<f64>,
    /// Mean of -ln(probability given to the label), nats.
    pub log_loss: Option<f64>,
    /// The same of the running base rate, see [`BaseRate`].
    pub base_log_loss: Option<f64>,
    /// Sum of the predicted probabilities over the number of positives.
    pub calibration: Option<f64>,
}

/// The figures of one placement or position.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentFigures {
    pub key: String,
    #[serde(flatten)]
    pub figures: Figures,
}

/// All that validation knows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ValidationSummary {
    #[serde(flatten)]
    pub total: Figures,
    /// The greatest of log loss / base log loss, over all examples so far, judged after every 1,000.
    pub worst_ratio_to_base: Option<f64>,
    /// The last 9,001 to 10,000 examples.
    pub window: Figures,
    pub placements: Vec<SegmentFigures>,
    pub positions: Vec<SegmentFigures>,
}

#[derive(Clone, Debug)]
struct Segment {
    key: String,
    /// The key as a position.
    number: i32,
    sums: Sums,
    ranking: Ranking,
}

impl Segment {
    fn new(key: String, sums: Sums, ranking: Ranking) -> Self {
        Self { number: key.parse().unwrap_or(-1), key, sums, ranking }
    }
}

/// Placements or positions, in the order in which they appeared.
#[derive(Clone, Debug, Default)]
struct Segments(Vec<Segment>);

impl Segments {
    fn of(&mut self, is: impl Fn(&Segment) -> bool, key: impl FnOnce() -> String) -> &mut Segment {
        let found = self.0.iter().position(is);
        let at = found.unwrap_or_else(|| {
            if self.0.len() <= MAX_SEGMENTS {
                let key = if self.0.len() < MAX_SEGMENTS { key() } else { OTHER.to_owned() };
                self.0.push(Segment::new(key, Sums::default(), Ranking::new(SEGMENT_BINS)));
            }
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    fn summary(&self) -> Vec<SegmentFigures> {
        let figures = |s: &Segment| SegmentFigures { key: s.key.clone(), figures: s.sums.summary(&s.ranking) };
        self.0.iter().map(figures).collect()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.0.len() as u32);
        for segment in &self.0 {
            out.put_str(&segment.key);
            segment.sums.encode(out);
            segment.ranking.encode(out);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let count = r.count(48, "segments")?;
        if count > MAX_SEGMENTS + 1 {
            return Err(r.corrupt("segments"));
        }
        let mut segments = Vec::with_capacity(count);
        for _ in 0..count {
            let (key, sums) = (r.str("segment")?.to_owned(), Sums::read(r)?);
            segments.push(Segment::new(key, sums, Ranking::read(r, SEGMENT_BINS)?));
        }
        Ok(Self(segments))
    }
}

/// Up to [`BLOCK`] scored examples: their sums, and of each its bin and label (highest bit).
#[derive(Clone, Debug, Default)]
struct Block {
    sums: Sums,
    scored: Vec<u16>,
}

const LABEL_BIT: u16 = 1 << 15;

/// Validation of one model.
#[derive(Clone, Debug)]
pub struct Validation {
    sums: Sums,
    ranking: Ranking,
    window: VecDeque<Block>,
    worst_ratio_to_base: f64,
    placements: Segments,
    positions: Segments,
}

impl Default for Validation {
    fn default() -> Self {
        Self {
            sums: Sums::default(),
            ranking: Ranking::new(BINS),
            window: VecDeque::new(),
            worst_ratio_to_base: 0.0,
            placements: Segments::default(),
            positions: Segments::default(),
        }
    }
}

/// The bin of a margin among `bins`; monotone.
fn bin(margin: f64, bins: usize) -> usize {
    let scaled = (margin + MAX_MARGIN) * (bins as f64 / (2.0 * MAX_MARGIN));
    (scaled.max(0.0) as usize).min(bins - 1)
}

impl Validation {
    /// `base_loss`: [`BaseRate::loss`] before this example. A position of -1 is none.
    pub fn score(&mut self, prediction: &Prediction, base_loss: f64, label: bool, placement: &str, position: i32) {
        let positives = u64::from(label);
        let loss = prediction.loss(label);
        let one = Sums { examples: 1, positives, loss, base_loss, probability: prediction.probability };
        let fine = bin(prediction.learned, BINS);
        self.sums.add(&one);
        self.ranking.add(fine, label);
        let coarse = fine / (BINS / SEGMENT_BINS);
        let placement = self.placements.of(|s| s.key == placement, || placement.to_owned());
        placement.sums.add(&one);
        placement.ranking.add(coarse, label);
        if position >= 0 {
            let position = self.positions.of(|s| s.number == position, || position.to_string());
            position.sums.add(&one);
            position.ranking.add(coarse, label);
        }
        self.slide(&one, fine as u16 | if label { LABEL_BIT } else { 0 });
        if self.sums.examples.is_multiple_of(BLOCK) {
            self.worst_ratio_to_base = self.worst_ratio_to_base.max(self.sums.loss / self.sums.base_loss);
        }
    }

    fn slide(&mut self, one: &Sums, scored: u16) {
        if self.window.back().is_none_or(|block| block.sums.examples == BLOCK) {
            let mut block =
                if self.window.len() == BLOCKS { self.window.pop_front() } else { None }.unwrap_or_default();
            block.sums = Sums::default();
            block.scored.clear();
            self.window.push_back(block);
        }
        if let Some(block) = self.window.back_mut() {
            block.sums.add(one);
            block.scored.push(scored);
        }
    }

    pub fn summary(&self) -> ValidationSummary {
        let (mut sums, mut ranking) = (Sums::default(), Ranking::new(BINS));
        for block in &self.window {
            sums.add(&block.sums);
            for scored in &block.scored {
                ranking.add(usize::from(scored & !LABEL_BIT), scored & LABEL_BIT != 0);
            }
        }
        ValidationSummary {
            total: self.sums.summary(&self.ranking),
            worst_ratio_to_base: (self.sums.examples >= BLOCK).then_some(self.worst_ratio_to_base),
            window: sums.summary(&ranking),
            placements: self.placements.summary(),
            positions: self.positions.summary(),
        }
    }

    /// Examples scored.
    pub fn examples(&self) -> u64 {
        self.sums.examples
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        self.sums.encode(out);
        self.ranking.encode(out);
        out.put_f64(self.worst_ratio_to_base);
        out.put_u8(self.window.len() as u8);
        for block in &self.window {
            block.sums.encode(out);
            block.scored.iter().for_each(|scored| out.put_u16(*scored));
        }
        self.placements.encode(out);
        self.positions.encode(out);
    }

    pub fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let (sums, ranking) = (Sums::read(r)?, Ranking::read(r, BINS)?);
        let worst_ratio_to_base = r.f64("worst ratio")?;
        let blocks = r.u8("window")? as usize;
        if blocks > BLOCKS {
            return Err(r.corrupt("window"));
        }
        let mut window = VecDeque::with_capacity(blocks);
        for _ in 0..blocks {
            let sums = Sums::read(r)?;
            if sums.examples > BLOCK {
                return Err(r.corrupt("window"));
            }
            let scored = (0..sums.examples).map(|_| r.u16("scored example")).collect::<Result<Vec<_>, _>>()?;
            if scored.iter().any(|s| usize::from(s & !LABEL_BIT) >= BINS) {
                return Err(r.corrupt("scored example"));
            }
            window.push_back(Block { sums, scored });
        }
        let (placements, positions) = (Segments::read(r)?, Segments::read(r)?);
        Ok(Self { sums, ranking, window, worst_ratio_to_base, placements, positions })
    }
}
