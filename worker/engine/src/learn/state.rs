//! A model's state in bytes, whole or as what changed, and its digest.
//!
//! Version 3: version (u16), kind (u8: 0 whole, 1 changes), layout (u64), hash of the contents (u128), examples learned
//! (u64), base rate, intercept (u8: 0 none, 1 follows), leak detector, validation, weights (FTRL) or counts (Beta-Bernoulli),
//! statistics, the watch for drift (its length u64, 0 without one); all little-endian. Changes hold the absolute values of the weight blocks and items that changed, and the rest
//! whole. Nothing in it depends on where in the log the examples stood.
//!
//! Versions 1 and 2 are read too: they have no watch, so it begins anew. Version 1 has no examples learned, which were all, and an intercept exactly with `halfLifeExamples`.

use millrace_crds::spec;

use super::{Learner, Model, Statistics, Validation, items::Rows, validation::BaseRate};
use crate::{
    codec::{Corrupt, Put, Reader},
    example::{Example, Schema},
};

const VERSION: u16 = 3;
const WHOLE: u8 = 0;
const CHANGES: u8 = 1;

impl Model {
    /// Over everything learned and every example in order; equal for equal histories, however they were cut into
    /// checkpoints. Weights and items that did not change since the last call are not hashed again.
    pub fn digest(&mut self) -> u128 {
        let mut bytes = Vec::new();
        self.encode_small(&mut bytes);
        bytes.put_u128(match &mut self.learner {
            Learner::Ftrl { weights, .. } => weights.digest(),
            Learner::Beta(beta) => beta.items.digest(),
        });
        self.statistics.digest(&mut bytes);
        if let Some(watch) = &self.watch {
            watch.encode(&mut bytes, false);
        }
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }

    /// Appends the whole state.
    pub fn encode_all(&self, out: &mut Vec<u8>) {
        self.encode(out, WHOLE);
    }

    /// Appends what changed since [`Model::mark_clean`], or since it was loaded.
    pub fn encode_changes(&self, out: &mut Vec<u8>) {
        self.encode(out, CHANGES);
    }

    pub fn mark_clean(&mut self) {
        match &mut self.learner {
            Learner::Ftrl { weights, .. } => weights.mark_clean(),
            Learner::Beta(beta) => beta.items.mark_clean(),
        }
        self.statistics.mark_clean();
        if let Some(watch) = &mut self.watch {
            watch.mark_clean();
        }
    }

    /// Takes over a whole state. Only a freshly compiled model can; after an error it is to be compiled anew.
    pub fn load_all(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        self.apply(bytes, WHOLE)
    }

    /// Takes over what changed after the state that was loaded. After an error the model is to be compiled anew.
    pub fn apply_changes(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        self.apply(bytes, CHANGES)
    }

    fn encode(&self, out: &mut Vec<u8>, kind: u8) {
        out.put_u16(VERSION);
        out.put_u8(kind);
        out.put_u64(self.layout);
        self.encode_small(out);
        let rows = if kind == CHANGES { Rows::Unsaved } else { Rows::All };
        match &self.learner {
            Learner::Ftrl { weights, .. } => weights.encode(out, kind == CHANGES),
            Learner::Beta(beta) => beta.items.encode(out, rows),
        }
        self.statistics.encode(out, rows);
        let length_at = out.len();
        out.put_u64(0);
        if let Some(watch) = &self.watch {
            watch.encode(out, kind == CHANGES);
            let length = (out.len() - length_at - 8) as u64;
            out[length_at..length_at + 8].copy_from_slice(&length.to_le_bytes());
        }
    }

    fn encode_small(&self, out: &mut Vec<u8>) {
        out.put_u128(self.contents);
        out.put_u64(self.learned);
        self.base.encode(out);
        out.put_u8(u8::from(self.intercept.is_some()));
        if let Some(intercept) = &self.intercept {
            intercept.encode(out);
        }
        self.leaks.encode(out);
        self.validation.encode(out);
    }

    fn apply(&mut self, bytes: &[u8], kind: u8) -> Result<(), Corrupt> {
        let mut r = Reader::new(bytes);
        let version = r.u16("version")?;
        if !(1..=VERSION).contains(&version) {
            return Err(Corrupt { what: "version of the model's state (this engine reads versions 1 to 3)", at: 0 });
        }
        if r.u8("kind")? != kind {
            return Err(Corrupt { what: "kind of the model's state", at: 2 });
        }
        if r.u64("layout")? != self.layout {
            return Err(Corrupt { what: "layout: the state is of a model with other columns or bits", at: 3 });
        }
        self.contents = r.u128("contents")?;
        let learned = if version == 1 { None } else { Some(r.u64("examples learned")?) };
        self.base.load(&mut r)?;
        let has_intercept = match version {
            1 => self.intercept.is_some(),
            _ => r.u8("intercept")? == 1,
        };
        match (has_intercept, &mut self.intercept) {
            (true, intercept) => intercept.get_or_insert_with(|| BaseRate::new(None)).load(&mut r)?,
            (false, None) => {}
            (false, Some(_)) => return Err(r.corrupt("intercept")),
        }
        self.leaks.apply(&mut r)?;
        self.validation = Validation::read(&mut r)?;
        self.learned = learned.unwrap_or(self.validation.examples());
        self.shipped = None;
        match &mut self.learner {
            Learner::Ftrl { weights, .. } => weights.apply(&mut r)?,
            Learner::Beta(beta) => beta.items.apply(&mut r, false)?,
        }
        self.statistics.apply(&mut r)?;
        if version >= 3 {
            self.apply_watch(&mut r)?;
        }
        if r.is_empty() { Ok(()) } else { Err(r.corrupt("end of the model's state")) }
    }

    /// One that is not declared any more is passed over.
    fn apply_watch(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        let length = usize::try_from(r.u64("watch for drift")?).unwrap_or(usize::MAX);
        let mut r = Reader::new(r.take(length, "watch for drift")?);
        let Some(watch) = self.watch.as_mut().filter(|_| length > 0) else { return Ok(()) };
        watch.apply(&mut r, &self.learner)?;
        if r.is_empty() { Ok(()) } else { Err(r.corrupt("end of the watch for drift")) }
    }
}

/// Of what a state cannot be read without.
pub fn layout(schema: &Schema, learner: &spec::Learner, statistics: &Statistics) -> u64 {
    let mut bytes = Vec::new();
    bytes.put_u64(schema.id());
    match &learner.beta_bernoulli {
        Some(_) => bytes.put_str("betaBernoulli"),
        None => {
            bytes.put_u32(learner.ftrl.bits);
            bytes.put_u8(u8::from(learner.ftrl.half_life_examples.is_some()));
        }
    }
    statistics.layout(&mut bytes);
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// The running hash after one more example: of all it says, but not of its place in the log.
pub fn chain(contents: u128, example: &Example<'_>, bytes: &mut Vec<u8>) -> u128 {
    let head = &example.head;
    bytes.clear();
    bytes.put_u128(contents);
    bytes.put_i64(head.time.0);
    bytes.put_i64(head.impression.0);
    bytes.put_u8(u8::from(head.label));
    bytes.put_u32(head.position as u32);
    bytes.put_f64(head.propensity);
    bytes.put_u64(head.schema);
    for text in [head.placement, head.platform, head.item] {
        bytes.put_str(text);
    }
    bytes.put(example.value_bytes());
    if head.is_decided() {
        bytes.put_str(head.variant);
        bytes.put_str(head.policy);
        bytes.put_u64(head.model_version);
        bytes.put_f64(head.score);
    }
    xxhash_rust::xxh3::xxh3_128(bytes)
}
