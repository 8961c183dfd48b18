use millrace_crds::load;

mod catalog;
mod configure;
mod decisions;
mod erase;
mod experiments;
mod under_way;
mod view;

use super::*;
use crate::{
    checkpoint::Extent,
    control::{self, Control},
    example::Example,
    frame::Frame,
    ingest::{Ingest, Input, Position},
    privacy::{Key, Pseudonymizer},
};

const PIPELINE: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: t}
spec:
  partitions: 1
  privacy:
    pseudonymKeys: {file: k, active: k}
    user: {field: u}
    consent: {event: consent, grantedIf: {ok: true}}
    allowedAttributes: [item.category]
  sources:
  - name: s
    file: {path: x}
    format: Json
    eventTime: {field: t, unit: ms, maxOutOfOrderness: 100ms, notAfter: "1970-01-02T00:00:00Z"}
    eventId: {field: id, dedupWithin: 1h}
    events:
    - {name: consent, when: {type: consent}}
    - {name: impression, when: {type: view}, fields: {items: item, attributes: {item.category: cat}}}
    - {name: click, when: {type: click}, fields: {items: item, attributes: {item.category: cat}}}
  features:
    clicks: {count: click}
    taste: {affinity: click, by: item.category, halfLife: 1h}
    kinds: {distinct: click, of: item.category}
  outcomes:
    click: {event: click, join: item, within: 10s}
  models:
  - {name: ctr, outcome: click, features: [clicks, taste, kinds, item]}
"#;

struct Rig {
    plan: Arc<Plan>,
    ingest: Ingest,
    events: Outbox,
    to_events: Handle,
    to_control: Handle,
    controls: u64,
    profile: Profile,
    examples: Outbox,
    to_examples: Handle,
    offset: u64,
}

fn pseudonymizer() -> Pseudonymizer {
    Pseudonymizer::new(&Key::new("k", [7; 16]))
}

fn rig() -> Rig {
    rig_of(PIPELINE)
}

fn rig_of(pipeline: &str) -> Rig {
    let valid = load(pipeline).unwrap();
    let plan = Arc::new(Plan::compile(valid.spec()).unwrap());
    let origin = Origin::of_source(0, 0);
    let (ingest, decoder) = plan.ingest(valid.spec(), 0, valid.max_skew(), &pseudonymizer()).unwrap();
    let mut events = Outbox::new(1, &[Kind::Events, Kind::DeadLetters]);
    let to_events = events.register(origin, 1, Seq::START, &[0, 1]);
    let to_control = events.register(Origin::control(0), 1, Seq::START, &[0]);
    let mut examples = Outbox::new(1, &[Kind::Examples, Kind::DeadLetters]);
    let to_examples = examples.register(Origin::of_profile(0), 1, Seq::START, &[0, 1]);
    let ingest = Ingest::new(ingest, origin, decoder, Position::default());
    let profile = Profile::new(plan.clone(), &[origin]);
    Rig { plan, ingest, events, to_events, to_control, controls: 0, profile, examples, to_examples, offset: 0 }
}

impl Rig {
    /// Reads records and applies what they release.
    fn read(&mut self, records: &[&str]) {
        for record in records {
            let byte = self.ingest.position().byte + record.len() as u64 + 1;
            self.ingest.read(Input::Record(record.as_bytes()), byte, Time::MAX, &mut self.events, &self.to_events);
        }
        self.apply();
    }
    /// Appends a control record.
    fn control(&mut self, control: &Control) {
        self.controls += 1;
        let seq = control::seq(1, self.controls);
        self.events.record(&self.to_control, 0, |out| control.write(out, seq));
        self.events.advance(&self.to_control, seq, Progress::default());
        self.apply();
    }
    fn end(&mut self) {
        self.ingest.at_end(OriginState::Ended, &mut self.events, &self.to_events);
        self.apply();
    }
    fn apply(&mut self) {
        let Some(frame) = self.events.cut(0) else { return };
        self.offset += 1;
        self.profile.accept(self.offset, &Arc::from(frame), &mut self.examples, &self.to_examples).unwrap();
        while !self.profile.drain(1, &mut self.examples, &self.to_examples).unwrap() {}
    }
    /// The examples since the last call.
    fn examples(&mut self) -> Vec<Vec<u8>> {
        let Some(bytes) = self.examples.cut(0) else { return Vec::new() };
        let frame = Frame::read(&bytes, Kind::Examples).unwrap();
        let records = frame.sections().flat_map(|section| section.unwrap().records());
        records.map(|record| record.unwrap().bytes.to_vec()).collect()
    }
    /// Goes on as a process that was killed: from its last checkpoint.
    fn restart(&mut self, parts: &[&[u8]]) {
        self.profile = Profile::restore(self.plan.clone(), parts).unwrap();
    }
    /// (impression in ms, label) of the examples since the last call.
    fn labels(&mut self) -> Vec<(i64, bool)> {
        let example =
            |bytes: Vec<u8>| Example::read(&bytes).map(|e| (e.head.impression.0 / 1000, e.head.label)).unwrap();
        self.examples().into_iter().map(example).collect()
    }
    fn has_row(&self, user: &str) -> bool {
        self.profile.users().find(pseudonymizer().user_of(user)).is_some()
    }
}

const GRANT: &str = r#"{"type":"consent","u":"a","t":1000,"ok":true}"#;
const VIEW: &str = r#"{"type":"view","u":"a","t":2000,"item":"i1","cat":"x"}"#;
const CLICK: &str = r#"{"type":"click","u":"a","t":3000,"item":"i1","cat":"x","id":"e1"}"#;
const LATER: &str = r#"{"type":"view","u":"b","t":9000}"#;

#[test]
fn a_click_labels_its_impression_and_a_retry_counts_once() {
    let mut rig = rig();
    rig.read(&[GRANT, VIEW, CLICK, CLICK]);
    rig.end();
    assert_eq!(rig.labels(), [(2_000, true)]);
    let counts = *rig.profile.counts();
    assert_eq!((counts.accepted, counts.duplicate, counts.unconsented), (3, 1, 0));
}

#[test]
fn that_sources_are_idle_is_no_reason_for_models_not_to_wait() {
    let mut rig = rig();
    rig.read(&[GRANT, VIEW, LATER]);
    rig.ingest.at_end(OriginState::Idle, &mut rig.events, &rig.to_events);
    rig.apply();
    assert_eq!(rig.profile.state(), OriginState::Idle);
    let frame = rig.examples.cut(0).unwrap();
    let section = Frame::read(&frame, Kind::Examples).unwrap().sections().next().unwrap().unwrap();
    // All that was seen is released, in every partition up to the same time.
    assert_eq!(section.head.progress.watermark, Time(9_000_000));
    assert_eq!(section.head.progress.state, OriginState::Active);
    rig.end();
    let frame = rig.examples.cut(0).unwrap();
    let section = Frame::read(&frame, Kind::Examples).unwrap().sections().next().unwrap().unwrap();
    assert_eq!(section.head.progress.state, OriginState::Ended);
}

#[test]
fn without_consent_nothing_is_kept() {
    let mut rig = rig();
    rig.read(&[VIEW, CLICK]);
    rig.end();
    assert_eq!((rig.labels(), rig.has_row("a"), rig.profile.users().len()), (vec![], false, 0));
    assert_eq!(rig.profile.counts().unconsented, 2);
}

#[test]
fn a_withdrawal_acts_at_its_time_late_ones_at_once_unless_a_later_grant_stands() {
    let withdrawal = |t: i64| format!(r#"{{"type":"consent","u":"a","t":{t},"ok":false}}"#);
    // On time: between view and click.
    let mut first = rig();
    first.read(&[GRANT, VIEW, &withdrawal(2_500), CLICK, LATER]);
    first.end();
    assert_eq!((first.labels(), first.has_row("a")), (vec![], false));
    assert_eq!(first.profile.counts().unconsented, 2, "the click comes after it; b never agreed");
    // Late, but after the grant: acts when it is read.
    let mut second = rig();
    second.read(&[GRANT, VIEW, CLICK, LATER, &withdrawal(1_500)]);
    second.end();
    assert_eq!((second.labels(), second.has_row("a")), (vec![], false));
    // Late, and the grant that stands is younger.
    let mut third = rig();
    third.read(&[GRANT, VIEW, CLICK, LATER, &withdrawal(900)]);
    third.end();
    assert_eq!((third.labels(), third.has_row("a")), (vec![(2_000, true)], true));
}

fn saved() -> (Rig, Vec<u8>) {
    let mut rig = rig();
    rig.read(&[GRANT, VIEW, CLICK, r#"{"type":"view","u":"a","t":3050,"item":"i2","cat":"y"}"#]);
    let bytes = rig.profile.checkpoint(Extent::Base);
    (rig, bytes)
}

#[test]
fn a_restored_profile_goes_on_as_the_saved_one() {
    let (mut rig, base) = saved();
    let mut restored = Profile::restore(rig.plan.clone(), &[&base]).unwrap();
    assert_eq!(restored.digest(), rig.profile.digest());
    assert_eq!(restored.waiting(), rig.profile.waiting());
    assert!(restored.waiting() > 0 && restored.open_joins() > 0, "there is something of everything");
    std::mem::swap(&mut rig.profile, &mut restored);
    rig.read(&[r#"{"type":"click","u":"a","t":5000,"item":"i2","cat":"y","id":"e2"}"#, CLICK, LATER]);
    let changes = rig.profile.checkpoint(Extent::Changes);
    let digest = rig.profile.digest();
    let mut again = Profile::restore(rig.plan.clone(), &[&base, &changes]).unwrap();
    assert_eq!(again.digest(), digest);
    rig.end();
    assert_eq!(rig.labels(), [(2_000, true), (3_050, true)]);
}

/// Checkpoints lie in stores: these bytes never change. Changes are of version 3, bases still of 2.
#[test]
fn golden_versions_2_and_3() {
    let (_, base, changes) = decisions::saved();
    for (bytes, golden) in
        [(base, include_str!("../golden_v2.hex")), (changes, include_str!("../golden_v3_changes.hex"))]
    {
        let (hex, golden): (String, &str) = (bytes.iter().map(|b| format!("{b:02x}")).collect(), golden.trim());
        // Bytes 8 to 11 name the engine's version, which rises.
        assert_eq!((&hex[..16], &hex[24..]), (&golden[..16], &golden[24..]));
    }
}

/// Checkpoints of earlier versions lie in stores: they stay readable.
#[test]
fn golden_earlier_versions() {
    let bytes = |golden: &str| -> Vec<u8> {
        let golden = golden.trim();
        (0..golden.len()).step_by(2).map(|i| u8::from_str_radix(&golden[i..i + 2], 16).unwrap()).collect()
    };
    let (mut rig, _) = saved();
    let version_1 = bytes(include_str!("../golden_v1.hex"));
    assert_eq!(Profile::restore(rig.plan.clone(), &[&version_1]).unwrap().digest(), rig.profile.digest());
    let (mut rig, ..) = decisions::saved();
    let (version_2, changes) =
        (bytes(include_str!("../golden_v2.hex")), bytes(include_str!("../golden_v2_changes.hex")));
    assert_eq!(Profile::restore(rig.plan.clone(), &[&version_2, &changes]).unwrap().digest(), rig.profile.digest());
}

#[test]
fn a_flipped_bit_is_found_or_changes_nothing() {
    let (rig, bytes) = saved();
    for bit in (0..bytes.len() * 8).step_by(7) {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // The head's engine version and reserved byte say nothing of the state.
        if !(7..12).contains(&(bit / 8)) {
            assert!(Profile::restore(rig.plan.clone(), &[&bad]).is_err(), "bit {bit}");
        }
    }
}
