//! Control records: what is appended to an events partition besides events, by whoever accepts it. They stand outside
//! watermarks and act at their place in the log.
//!
//! Encoded as a record of a section of [`Origin::control`]: length u32, sequence (u64, u32), then version 1: version u8,
//! kind u8 (1 decision, 2 erase, 3 configure) and
//!
//! ```text
//! decision:  id u64, user u128, time i64, session u64, placement, platform, experiment, variant (both empty without one),
//!            policy, models u16 (name, version u64, schema u64), slots u16 (item, propensity f64, score f64,
//!            values u32 in bytes, values)
//! erase:     user u128, time i64
//! configure: generation u32, spec (bytes u32, UTF-8)
//! ```
//!
//! Texts are led by their length (u8).

use crate::{
    codec::{Corrupt, Put, Reader},
    event::{Pseudonym, Seq, Time, put_short, short},
    example::{VALUE_BYTES, check_values},
    frame::{Origin, put_seq, read_seq},
};

/// The format that this engine writes, and the newest that it reads.
pub const VERSION: u8 = 1;
const DECISION: u8 = 1;
const ERASE: u8 = 2;
const CONFIGURE: u8 = 3;

/// The longest text of a decision, in bytes; longer ones are cut when they are written.
pub const TEXT_BYTES_MAX: usize = 255;

/// What is appended to an events partition besides events.
#[derive(Clone, Debug, PartialEq)]
pub enum Control {
    Decision(Decision),
    Erase(Erase),
    Configure(Configure),
}

/// What was decided, with all that it was decided by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Keyed hash of the id's text, as in [`crate::event::Head::decision`].
    pub id: u64,
    pub user: Pseudonym,
    pub time: Time,
    pub session: u64,
    pub placement: String,
    pub platform: String,
    /// Experiment and variant.
    pub experiment: Option<(String, String)>,
    pub policy: String,
    pub models: Vec<UsedModel>,
    /// By position.
    pub slots: Vec<Slot>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsedModel {
    pub name: String,
    /// Examples learned when the serving copy was made.
    pub version: u64,
    /// Id of the model's served schema: the profile's columns, then the model's own statistics.
    pub schema: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slot {
    pub item: String,
    /// Probability of this item in this slot, given the slots before.
    pub propensity: f64,
    pub score: f64,
    /// For each used model in order, its served columns; [`VALUE_BYTES`] each.
    pub values: Vec<u8>,
}

/// Everything that is kept of the user goes, and what arrives later of the time up to `time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erase {
    pub user: Pseudonym,
    pub time: Time,
}

/// From here on the pipeline is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configure {
    pub generation: u32,
    /// [`millrace_crds::Validated::result_digest_text`].
    pub spec: String,
}

/// Why a control record is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("control record of format version {found}; this engine reads up to {VERSION}: upgrade before going on")]
    Version { found: u8 },
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Control records of one epoch: at 10,000 decisions a second, three years of them.
const NUMBER_BITS: u32 = 40;

/// The sequence of the `number`th control record (from 1) that a holder of `epoch` appends.
pub fn seq(epoch: u64, number: u64) -> Seq {
    let epoch = if planted::is(planted::Bug::ControlWithoutEpoch) { 0 } else { epoch };
    Seq { offset: epoch << NUMBER_BITS | number, index: 0 }
}

impl Origin {
    /// Of the control records in a partition of a log. After all sources in any order of origins.
    pub fn control(partition: u32) -> Self {
        Self { source: u16::MAX - 1, topic: 0, partition, incarnation: 0 }
    }
    pub fn is_control(&self) -> bool {
        self.source == u16::MAX - 1
    }
}

impl Control {
    /// Appends the record, led by its length.
    pub fn write(&self, out: &mut Vec<u8>, seq: Seq) {
        let start = out.len();
        out.put_u32(0);
        put_seq(out, seq);
        out.put_u8(VERSION);
        match self {
            Control::Decision(decision) => {
                out.put_u8(DECISION);
                decision.write(out);
            }
            Control::Erase(erase) => {
                out.put_u8(ERASE);
                out.put_u128(erase.user.0);
                out.put_i64(erase.time.0);
            }
            Control::Configure(configure) => {
                out.put_u8(CONFIGURE);
                out.put_u32(configure.generation);
                out.put_str(&configure.spec);
            }
        }
        let len = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Reads one record, without the length before it, and checks all of it.
    pub fn read(bytes: &[u8]) -> Result<(Seq, Self), ControlError> {
        let mut r = Reader::new(bytes);
        let seq = read_seq(&mut r)?;
        let version = r.u8("control version")?;
        if version != VERSION {
            return Err(ControlError::Version { found: version });
        }
        let control = match r.u8("control kind")? {
            DECISION => Control::Decision(Decision::read(&mut r)?),
            ERASE => Control::Erase(Erase { user: Pseudonym(r.u128("user")?), time: Time(r.i64("time")?) }),
            CONFIGURE => {
                let generation = r.u32("generation")?;
                Control::Configure(Configure { generation, spec: r.str("spec")?.to_owned() })
            }
            _ => return Err(r.corrupt("control kind").into()),
        };
        if r.is_empty() { Ok((seq, control)) } else { Err(r.corrupt("end of a control record").into()) }
    }
}

impl Decision {
    /// Appends what stands behind version and kind.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.id);
        out.put_u128(self.user.0);
        out.put_i64(self.time.0);
        out.put_u64(self.session);
        let (experiment, variant) = self.experiment.as_ref().map_or(("", ""), |(e, v)| (e.as_str(), v.as_str()));
        for text in [&self.placement, &self.platform, experiment, variant, &self.policy] {
            put_cut(out, text);
        }
        let models = &self.models[..self.models.len().min(usize::from(u16::MAX))];
        out.put_u16(models.len() as u16);
        for model in models {
            put_cut(out, &model.name);
            out.put_u64(model.version);
            out.put_u64(model.schema);
        }
        let slots = &self.slots[..self.slots.len().min(usize::from(u16::MAX))];
        out.put_u16(slots.len() as u16);
        for slot in slots {
            put_cut(out, &slot.item);
            out.put_f64(slot.propensity);
            out.put_f64(slot.score);
            out.put_bytes(&slot.values);
        }
    }

    /// Reads what `write` wrote, and checks all of it.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let view = DecisionRef::read(r)?;
        Ok(Self {
            id: view.id,
            user: view.user,
            time: view.time,
            session: view.session,
            placement: view.placement.to_owned(),
            platform: view.platform.to_owned(),
            experiment: view.experiment.map(|(e, v)| (e.to_owned(), v.to_owned())),
            policy: view.policy.to_owned(),
            models: view
                .models()
                .map(|m| UsedModel { name: m.name.to_owned(), version: m.version, schema: m.schema })
                .collect(),
            slots: view
                .slots()
                .map(|s| Slot {
                    item: s.item.to_owned(),
                    propensity: s.propensity,
                    score: s.score,
                    values: s.values.to_vec(),
                })
                .collect(),
        })
    }
}

/// A decision over its bytes.
#[derive(Clone, Copy, Debug)]
pub struct DecisionRef<'a> {
    pub id: u64,
    pub user: Pseudonym,
    pub time: Time,
    pub session: u64,
    pub placement: &'a str,
    pub platform: &'a str,
    pub experiment: Option<(&'a str, &'a str)>,
    pub policy: &'a str,
    models: &'a [u8],
    slots: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub struct UsedModelRef<'a> {
    pub name: &'a str,
    pub version: u64,
    pub schema: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct SlotRef<'a> {
    pub item: &'a str,
    pub propensity: f64,
    pub score: f64,
    pub values: &'a [u8],
}

impl<'a> UsedModelRef<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, Corrupt> {
        Ok(Self { name: short(r)?, version: r.u64("model version")?, schema: r.u64("served schema")? })
    }
}

impl<'a> SlotRef<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, Corrupt> {
        let (item, propensity, score) = (short(r)?, r.f64("propensity")?, r.f64("score")?);
        Ok(Self { item, propensity, score, values: r.bytes("served values")? })
    }
}

impl<'a> DecisionRef<'a> {
    /// Reads what [`Decision::write`] wrote, and checks all of it.
    pub fn read(r: &mut Reader<'a>) -> Result<Self, Corrupt> {
        let (id, user) = (r.u64("decision")?, Pseudonym(r.u128("user")?));
        let (time, session) = (Time(r.i64("time")?), r.u64("session")?);
        let (placement, platform) = (short(r)?, short(r)?);
        let experiment = (short(r)?, short(r)?);
        let experiment = (!experiment.0.is_empty()).then_some(experiment);
        let policy = short(r)?;
        let models = counted(r, |r| UsedModelRef::read(r).map(|_| ()))?;
        let slots = counted(r, |r| {
            let slot = SlotRef::read(r)?;
            let whole = slot.values.len().is_multiple_of(VALUE_BYTES) && check_values(slot.values);
            if whole { Ok(()) } else { Err(r.corrupt("served values")) }
        })?;
        Ok(Self { id, user, time, session, placement, platform, experiment, policy, models, slots })
    }

    pub fn models(&self) -> impl Iterator<Item = UsedModelRef<'a>> + use<'a> {
        let mut r = Reader::new(self.models);
        std::iter::from_fn(move || UsedModelRef::read(&mut r).ok())
    }

    /// By position.
    pub fn slots(&self) -> impl Iterator<Item = SlotRef<'a>> + use<'a> {
        let mut r = Reader::new(self.slots);
        std::iter::from_fn(move || SlotRef::read(&mut r).ok())
    }
}

/// The bytes of so many things as a u16 before them says, each checked by `check`.
fn counted<'a>(
    r: &mut Reader<'a>,
    mut check: impl FnMut(&mut Reader<'a>) -> Result<(), Corrupt>,
) -> Result<&'a [u8], Corrupt> {
    let count = r.u16("count")?;
    let mut ahead = r.clone();
    for _ in 0..count {
        check(&mut ahead)?;
    }
    r.take(ahead.at() - r.at(), "counted")
}

fn put_cut(out: &mut Vec<u8>, text: &str) {
    put_short(out, cut(text));
}

/// As much of the text as may be written.
pub(crate) fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::example::FeatureValue;

    fn decision() -> Decision {
        let mut values = Vec::new();
        FeatureValue::Number(0.5).write(&mut values);
        FeatureValue::Category(7).write(&mut values);
        let slot = |item: &str, propensity| Slot { item: item.into(), propensity, score: 0.25, values: values.clone() };
        Decision {
            id: 0x0102_0304_0506_0708,
            user: Pseudonym(0xa5a5),
            time: Time(1_700_000_000_000_000),
            session: 11,
            placement: "home".into(),
            platform: "web".into(),
            experiment: Some(("ranking".into(), "personal".into())),
            policy: "softmax".into(),
            models: vec![UsedModel { name: "ctr".into(), version: 1_000, schema: 99 }],
            slots: vec![slot("sku-1", 0.75), slot("Grüße", 0.5)],
        }
    }

    fn samples() -> [Control; 3] {
        let erase = Erase { user: Pseudonym(0xa5a5), time: Time(-1) };
        let configure = Configure { generation: 2, spec: "{\"partitions\":1}".into() };
        [Control::Decision(decision()), Control::Erase(erase), Control::Configure(configure)]
    }

    fn bytes(control: &Control) -> Vec<u8> {
        let mut out = Vec::new();
        control.write(&mut out, seq(3, 5));
        out
    }

    #[test]
    fn what_is_written_is_read() {
        for control in samples() {
            let bytes = bytes(&control);
            assert_eq!(bytes[..4], (bytes.len() as u32 - 4).to_le_bytes());
            assert_eq!(Control::read(&bytes[4..]).unwrap(), (Seq { offset: 3 << 40 | 5, index: 0 }, control));
        }
    }

    /// Records of version 1 lie in logs: these bytes never change.
    #[test]
    fn golden_version_1() {
        let hex = |control: &Control| bytes(control).iter().map(|b| format!("{b:02x}")).collect::<String>();
        let lines: Vec<String> = samples().iter().map(hex).collect();
        assert_eq!(lines.join("\n"), include_str!("control_v1.hex").trim());
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut newer = bytes(&samples()[1]);
        newer[4 + 12] = 2;
        assert_eq!(Control::read(&newer[4..]).unwrap_err(), ControlError::Version { found: 2 });
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_where_a_character_ends() {
        let long = Decision { placement: format!("{}ü", "x".repeat(254)), ..decision() };
        let (_, read) = Control::read(&bytes(&Control::Decision(long))[4..]).unwrap();
        let Control::Decision(read) = read else { panic!("a decision") };
        assert_eq!((read.placement.len(), read.policy.as_str()), (254, "softmax"));
    }

    #[test]
    fn values_that_are_none_are_refused() {
        let mut bad = decision();
        bad.slots[0].values[0] = 3;
        assert!(Control::read(&bytes(&Control::Decision(bad))[4..]).is_err(), "no such type");
        let mut cut = decision();
        cut.slots[0].values.pop();
        assert!(Control::read(&bytes(&Control::Decision(cut))[4..]).is_err(), "not whole");
    }

    proptest! {
        #[test]
        fn damage_is_an_error_never_a_panic(which in 0usize..3, at: prop::sample::Index, to: u8, cut: prop::sample::Index) {
            let good = bytes(&samples()[which])[4..].to_vec();
            let mut bad = good.clone();
            bad[at.index(good.len())] = to;
            if let Ok((seq, control)) = Control::read(&bad) {
                let mut again = Vec::new();
                control.write(&mut again, seq);
                let (seq_again, control) = Control::read(&again[4..]).unwrap();
                let mut once_more = Vec::new();
                control.write(&mut once_more, seq_again);
                prop_assert_eq!(once_more, again);
            }
            prop_assert!(Control::read(&good[..cut.index(good.len())]).is_err());
        }
    }
}
