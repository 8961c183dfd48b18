//! A training example: one exposed item and one outcome, as the examples log of a model holds it. No pseudonym.

use crate::{
    codec::{Corrupt, Put, Reader},
    event::{Seq, Time},
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
        out.put_u8(text.len() as u8);
        out.put(text.as_bytes());
    }
    out.put_u64(head.schema);
    out.put_u16((values.len() / VALUE_BYTES) as u16);
    out.put(values);
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
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
        let mut text = || -> Result<&'a str, Corrupt> {
            let len = r.u8("text length")? as usize;
            std::str::from_utf8(r.take(len, "text")?).map_err(|_| r.corrupt("text"))
        };
        let (placement, platform, item) = (text()?, text()?, text()?);
        let schema = r.u64("schema")?;
        let count = r.u16("value count")? as usize;
        let values = r.take(count * VALUE_BYTES, "values")?;
        if !r.is_empty() || values.chunks_exact(VALUE_BYTES).any(|v| v[0] > 2) {
            return Err(r.corrupt("values"));
        }
        let head =
            ExampleHead { seq, time, impression, label, position, propensity, placement, platform, item, schema };
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
