//! A training example: one exposed item and one outcome, as the examples log of a model holds it. No pseudonym.
//!
//! Encoded: sequence, time, impression time, label u8, position u32, propensity f64, placement, platform, item, schema u64,
//! number of values u16, values; then, since version 2 of the frame, variant, policy, model version u64, score f64,
//! generation u32. Without this tail a record is of version 1. Texts are led by their length (u8).

use crate::{
    codec::{Corrupt, Put, Reader},
    event::{Seq, Time, put_short, short},
};

/// One typed value of an example, hashed to weights only in the model task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FeatureValue {
    Missing,
    Number(f64),
    /// A stable 64-bit hash of the category, or the number of a bucket. Never 0 for text.
    Category(u64),
}

impl FeatureValue {
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        let (tag, bits) = match self {
            FeatureValue::Missing => (0, 0),
            FeatureValue::Number(n) => (1, n.to_bits()),
            FeatureValue::Category(c) => (2, *c),
        };
        let mut bytes = [tag; VALUE_BYTES];
        bytes[1..].copy_from_slice(&bits.to_le_bytes());
        out.put(&bytes);
    }
    pub fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let (tag, bits) = (r.u8("value type")?, r.u64("value")?);
        match tag {
            0 => Ok(FeatureValue::Missing),
            1 => Ok(FeatureValue::Number(f64::from_bits(bits))),
            2 => Ok(FeatureValue::Category(bits)),
            _ => Err(r.corrupt("value type")),
        }
    }
}

/// One column of a model's examples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name of the feature, attribute, or `item`, `placement`, `platform`. A `lastN` feature has `n` columns of one name.
    pub name: String,
}

/// What the profile task fills in for a model: its features, without those that the model task keeps itself
/// (`per: item | global`), then what only its crosses name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    pub columns: Vec<Column>,
}

impl Schema {
    /// Stable id: a hash of the columns' names in order.
    pub fn id(&self) -> u64 {
        let mut text = Vec::new();
        for column in &self.columns {
            text.put_str(&column.name);
        }
        xxhash_rust::xxh3::xxh3_64(&text)
    }
}

/// The part of an example besides its values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExampleHead<'a> {
    pub seq: Seq,
    /// Impression time + `within`: when it is learned, whatever its label.
    pub time: Time,
    pub impression: Time,
    pub label: bool,
    /// -1: absent.
    pub position: i32,
    /// NaN: absent.
    pub propensity: f64,
    pub placement: &'a str,
    pub platform: &'a str,
    pub item: &'a str,
    /// [`Schema::id`] of the values.
    pub schema: u64,
    /// `experiment/variant`; empty: absent.
    pub variant: &'a str,
    /// Of the decision; empty: absent.
    pub policy: &'a str,
    /// Of this model, as the decision used it: examples learned. 0: it did not.
    pub model_version: u64,
    /// By which the decision ranked the item. NaN: absent.
    pub score: f64,
    /// Of the pipeline that emitted it. 0: before there were any.
    pub generation: u32,
}

impl Default for ExampleHead<'_> {
    fn default() -> Self {
        Self {
            seq: Seq::START,
            time: Time(0),
            impression: Time(0),
            label: false,
            position: -1,
            propensity: f64::NAN,
            placement: "",
            platform: "",
            item: "",
            schema: 0,
            variant: "",
            policy: "",
            model_version: 0,
            score: f64::NAN,
            generation: 0,
        }
    }
}

impl ExampleHead<'_> {
    /// It comes of a decision, not only of an impression.
    pub fn is_decided(&self) -> bool {
        !self.policy.is_empty()
    }
}

/// An example over the bytes of its frame.
#[derive(Clone, Copy, Debug)]
pub struct Example<'a> {
    pub head: ExampleHead<'a>,
    values: &'a [u8],
}

/// Of an encoded value.
pub const VALUE_BYTES: usize = 9;

/// Appends an example, led by its length (u32).
pub fn write_example(out: &mut Vec<u8>, head: &ExampleHead<'_>, values: &[FeatureValue]) {
    let mut encoded = Vec::with_capacity(values.len() * VALUE_BYTES);
    values.iter().for_each(|value| value.write(&mut encoded));
    write_example_of(out, head, &encoded);
}

/// Likewise, of values that are encoded already.
pub fn write_example_of(out: &mut Vec<u8>, head: &ExampleHead<'_>, values: &[u8]) {
    let start = out.len();
    out.put_u32(0);
    out.put_u64(head.seq.offset);
    out.put_u32(head.seq.index);
    out.put_i64(head.time.0);
    out.put_i64(head.impression.0);
    out.put_u8(u8::from(head.label));
    out.put_u32(head.position as u32);
    out.put_f64(head.propensity);
    for text in [head.placement, head.platform, head.item] {
        put_short(out, text);
    }
    out.put_u64(head.schema);
    out.put_u16((values.len() / VALUE_BYTES) as u16);
    out.put(values);
    put_short(out, head.variant);
    put_short(out, head.policy);
    out.put_u64(head.model_version);
    out.put_f64(head.score);
    out.put_u32(head.generation);
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

/// Are the types of encoded values known ones?
pub(crate) fn check_values(values: &[u8]) -> bool {
    values.chunks_exact(VALUE_BYTES).all(|v| v[0] <= 2)
}

/// What version 1 did not have.
fn read_tail<'a>(r: &mut Reader<'a>, head: ExampleHead<'a>) -> Result<ExampleHead<'a>, Corrupt> {
    let (variant, policy) = (short(r)?, short(r)?);
    let (model_version, score) = (r.u64("model version")?, r.f64("score")?);
    let generation = r.u32("generation")?;
    if !r.is_empty() {
        return Err(r.corrupt("end of an example"));
    }
    Ok(ExampleHead { variant, policy, model_version, score, generation, ..head })
}

impl<'a> Example<'a> {
    /// Reads one example, without the length before it, and checks all of it.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        let mut r = Reader::new(bytes);
        let seq = Seq { offset: r.u64("offset")?, index: r.u32("index")? };
        let (time, impression) = (Time(r.i64("time")?), Time(r.i64("impression time")?));
        let label = match r.u8("label")? {
            0 => false,
            1 => true,
            _ => return Err(r.corrupt("label")),
        };
        let position = r.u32("position")? as i32;
        let propensity = r.f64("propensity")?;
        let (placement, platform, item) = (short(&mut r)?, short(&mut r)?, short(&mut r)?);
        let schema = r.u64("schema")?;
        let count = r.u16("value count")? as usize;
        let values = r.take(count * VALUE_BYTES, "values")?;
        if !check_values(values) {
            return Err(r.corrupt("values"));
        }
        let head = ExampleHead {
            seq,
            time,
            impression,
            label,
            position,
            propensity,
            placement,
            platform,
            item,
            schema,
            ..ExampleHead::default()
        };
        let head = if r.is_empty() { head } else { read_tail(&mut r, head)? };
        Ok(Self { head, values })
    }

    /// The values as written.
    pub fn value_bytes(&self) -> &'a [u8] {
        self.values
    }

    pub fn values(&self) -> impl ExactSizeIterator<Item = FeatureValue> + Clone + 'a {
        // Checked when it was read.
        self.values
            .chunks_exact(VALUE_BYTES)
            .map(|v| FeatureValue::read(&mut Reader::new(v)).unwrap_or(FeatureValue::Missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: ExampleHead<'_> = ExampleHead {
        seq: Seq { offset: 3, index: 1 },
        time: Time(20),
        impression: Time(10),
        label: true,
        position: 2,
        propensity: 0.5,
        placement: "home",
        platform: "web",
        item: "sku-1",
        schema: 0x0102_0304_0506_0708,
        variant: "ranking/personal",
        policy: "softmax",
        model_version: 1_000,
        score: 0.25,
        generation: 7,
    };
    const VALUES: [FeatureValue; 3] = [FeatureValue::Missing, FeatureValue::Number(1.5), FeatureValue::Category(9)];

    fn written() -> Vec<u8> {
        let mut out = Vec::new();
        write_example(&mut out, &HEAD, &VALUES);
        out
    }

    /// Examples of version 2 lie in logs: these bytes never change.
    #[test]
    fn golden_version_2() {
        let hex: String = written().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("example_v2.hex").trim());
        let bytes = written();
        let read = Example::read(&bytes[4..]).unwrap();
        assert_eq!(read.head, HEAD);
        assert!(read.values().eq(VALUES));
    }

    /// Those of version 1 do, too: what they do not say is absent.
    #[test]
    fn version_1_is_still_read() {
        let hex = include_str!("example_v1.hex").trim();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let read = Example::read(&bytes[4..]).unwrap();
        assert_eq!((read.head.item, read.head.schema, read.head.propensity), (HEAD.item, HEAD.schema, 0.5));
        assert!(read.values().eq(VALUES));
        assert!(!read.head.is_decided() && read.head.score.is_nan());
        assert_eq!((read.head.variant, read.head.model_version, read.head.generation), ("", 0, 0));
    }

    #[test]
    fn what_is_cut_is_refused_except_where_version_1_ended() {
        let bytes = &written()[4..];
        let tail = 1 + HEAD.variant.len() + 1 + HEAD.policy.len() + 8 + 8 + 4;
        let readable: Vec<usize> = (0..=bytes.len()).filter(|len| Example::read(&bytes[..*len]).is_ok()).collect();
        assert_eq!(readable, [bytes.len() - tail, bytes.len()]);
    }
}
