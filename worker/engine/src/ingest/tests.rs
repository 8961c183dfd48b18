use millrace_crds::load;

use super::*;
use crate::{
    catalog::ItemRecord,
    decode::record,
    event::Event,
    frame::{Frame, Kind},
    plan::Plan,
    privacy::{Key, Pseudonymizer},
};

const PIPELINE: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: t}
spec:
  partitions: 1
  ordering: {maxSkew: 1s}
  privacy:
    pseudonymKeys: {file: k, active: k}
    user: {field: u}
    consent: {event: consent, grantedIf: {ok: true}}
  sources:
  - name: s
    file: {path: x}
    format: Json
    eventTime: {field: t, unit: ms, maxOutOfOrderness: 100ms, notAfter: "1970-01-02T00:00:00Z"}
    events:
    - {name: consent, when: {type: consent}}
    - {name: view, when: {type: view}}
    - {name: odd, when: {alias: bad}, fields: {items: item}}
"#;

/// The same source, posted to.
fn posted() -> String {
    let file = r#"    file: {path: x}
"#;
    assert_eq!(PIPELINE.matches(file).count(), 1);
    PIPELINE.replace(file, "    http: {}\n").replace(r#"notAfter: "1970-01-02T00:00:00Z""#, "maxAhead: 500ms")
}

fn keys() -> Pseudonymizer {
    Pseudonymizer::new(&Key::new("k", [7; 16]))
}

struct Rig {
    ingest: Ingest,
    outbox: Outbox,
    out: Handle,
}

fn rig_at(position: Position) -> Rig {
    rig_of(PIPELINE, position)
}

fn rig_of(pipeline: &str, position: Position) -> Rig {
    let valid = load(pipeline).unwrap();
    let plan = Plan::compile(valid.spec()).unwrap();
    let (ingest, decoder) = plan.ingest(valid.spec(), 0, valid.max_skew(), &keys()).unwrap();
    let mut outbox = Outbox::new(1, &[Kind::Events, Kind::DeadLetters]);
    let origin = Origin::of_source(0, 0);
    let out = outbox.register(origin, 1, Seq::end_of(position.offset), &[0, 1]);
    Rig { ingest: Ingest::new(ingest, origin, decoder, position), outbox, out }
}

fn rig() -> Rig {
    rig_at(Position::default())
}

impl Rig {
    fn read_when(&mut self, record: &str, lowest: Time) {
        let byte = self.ingest.position().byte + record.len() as u64 + 1;
        self.ingest.read(Input::Record(record.as_bytes()), byte, lowest, &mut self.outbox, &self.out);
    }
    fn read(&mut self, record: &str) {
        self.read_when(record, Time::MAX);
    }
    fn view(&mut self, ms: i64) {
        self.read(&format!(r#"{{"type":"view","u":"a","t":{ms}}}"#));
    }
    /// A record that was decoded when it was received, and kept in between.
    fn receive(&mut self, record: &str, received_ms: i64) {
        let valid = load(&posted()).unwrap();
        let plan = Plan::compile(valid.spec()).unwrap();
        let (_, mut decoder) = plan.ingest(valid.spec(), 0, valid.max_skew(), &keys()).unwrap();
        let (mut decoded, mut kept) = (Decoded::default(), Vec::new());
        decoder.decode(record.as_bytes(), Place { partition: 0, row: 0 }, &mut decoded);
        record::write(&decoded, Time(received_ms * 1000), &mut kept);
        let mut decoded = Decoded::default();
        let received = record::read(&kept, &mut decoded).unwrap();
        let input = Input::Decoded { received, decoded: &decoded };
        self.ingest.read(input, 0, Time::MAX, &mut self.outbox, &self.out);
    }
    /// What was sent since: (time in the merge, stated time) in ms, and the watermark.
    fn sent(&mut self) -> (Vec<(i64, i64)>, Time) {
        let bytes = self.outbox.cut(0).unwrap();
        let frame = Frame::read(&bytes, Kind::Events).unwrap();
        let section = frame.sections().next().unwrap().unwrap();
        let event = |bytes| {
            let event = Event::read(bytes).unwrap();
            (event.head.time.0.div_euclid(1000), event.head.stated.0 / 1000)
        };
        (section.records().map(|r| event(r.unwrap().bytes)).collect(), section.head.progress.watermark)
    }
    fn reasons(&mut self) -> Vec<String> {
        let Some(bytes) = self.outbox.cut(1) else { return Vec::new() };
        let frame = Frame::read(&bytes, Kind::DeadLetters).unwrap();
        let section = frame.sections().next().unwrap().unwrap();
        section.records().map(|r| DeadLetter::read(r.unwrap().bytes).unwrap().reason.to_owned()).collect()
    }
}

#[test]
fn lateness_is_judged_against_the_highest_time_before() {
    let mut rig = rig();
    [1_000, 900, 899, 2_000, 1_900, 1_899].into_iter().for_each(|ms| rig.view(ms));
    let (events, watermark) = rig.sent();
    assert_eq!(events, [(1_000, 1_000), (900, 900), (2_000, 2_000), (1_900, 1_900)]);
    assert_eq!(watermark, Time(1_900_000 - 1), "what is equally old still comes");
    assert_eq!((rig.ingest.position().counts.late, rig.reasons()), (2, vec!["late".into(), "late".into()]));
}

#[test]
fn users_who_stay_unknown_move_time_on() {
    let mut rig = rig();
    rig.view(1_000);
    rig.read(r#"{"type":"view","t":3000}"#);
    rig.read(r#"{"type":"view","t":86400001}"#);
    rig.view(2_899);
    assert_eq!(rig.sent(), (vec![(1_000, 1_000)], Time(2_899_999)));
    let counts = rig.ingest.position().counts;
    assert_eq!((counts.unconsented, counts.late), (2, 1));
}

#[test]
fn what_comes_from_the_future_moves_no_watermark() {
    let mut rig = rig();
    rig.view(1_000);
    rig.view(86_400_001);
    rig.view(950);
    let (events, watermark) = rig.sent();
    assert_eq!((events.len(), watermark), (2, Time(899_999)));
    assert_eq!((rig.ingest.position().counts.future, rig.reasons()), (1, vec!["future".into()]));
}

#[test]
fn a_withdrawal_is_neither_late_nor_from_the_future_and_a_grant_is_both() {
    for (stated, ok, sent) in
        [(10, false, true), (86_400_001, false, true), (10, true, false), (86_400_001, true, false)]
    {
        let mut rig = rig();
        rig.view(1_000);
        rig.read(&format!(r#"{{"type":"consent","u":"a","t":{stated},"ok":{ok}}}"#));
        let (events, watermark) = rig.sent();
        // It stands just above its origin's watermark, wherever that is read.
        let expected = [(1_000, 1_000), (900, stated)];
        assert_eq!(events, expected[..1 + usize::from(sent)], "{stated} {ok}");
        assert_eq!(watermark, Time(899_999), "and moves no watermark");
    }
}

#[test]
fn what_is_too_far_ahead_is_held_and_still_moves_its_own_watermark() {
    let mut rig = rig();
    rig.read_when(r#"{"type":"view","u":"a","t":5000}"#, Time(0));
    assert!(rig.ingest.is_holding());
    assert_eq!(rig.ingest.committed().offset, 0, "a checkpoint stands before it");
    assert_eq!(rig.sent(), (vec![], Time(4_899_999)), "so that two origins never wait for each other for ever");
    assert!(!rig.ingest.release(Time(3_999_999), &mut rig.outbox, &rig.out));
    assert!(rig.ingest.release(Time(4_000_000), &mut rig.outbox, &rig.out));
    assert_eq!(rig.sent().0, [(5_000, 5_000)]);
    assert_eq!(rig.ingest.committed().offset, 1);
}

/// The dead letter of a rejected element and the withdrawal that was saved from it have one sequence.
#[test]
fn a_withdrawal_from_a_rejected_element_is_not_covered_by_its_dead_letter() {
    let mut rig = rig();
    let record = r#"{"type":"consent","alias":"bad","u":"a","t":5000,"ok":false,"item":""}"#;
    rig.read_when(record, Time(0));
    let bytes = rig.outbox.cut(0).unwrap();
    let section = Frame::read(&bytes, Kind::Events).unwrap().sections().next().unwrap().unwrap();
    assert!(rig.ingest.is_holding());
    assert!(section.head.to < Seq { offset: 1, index: 0 }, "nothing of the record has gone on: {:?}", section.head.to);
    assert!(rig.ingest.release(Time(5_000_000), &mut rig.outbox, &rig.out));
    assert_eq!(rig.sent().0, [(5_000, 5_000)]);
    assert_eq!(rig.reasons(), ["emptyId"]);
}

/// Against the time of receipt, and otherwise just as records of files.
#[test]
fn what_was_received_is_judged_as_what_is_read() {
    let (mut received, mut read) = (rig_of(&posted(), Position::default()), rig());
    let view = |ms| format!(r#"{{"type":"view","u":"a","t":{ms}}}"#);
    let records = [
        view(1_000),
        r#"{"type":"view","t":3000}"#.into(),
        view(2_899),
        r#"{"type":"consent","u":"a","t":10,"ok":false}"#.into(),
        r#"{"alias":"bad","u":"a","t":3100,"item":""}"#.into(),
        view(2_950),
    ];
    for record in &records {
        received.receive(record, 3_000);
        read.read(record);
    }
    assert_eq!(received.sent(), read.sent());
    assert_eq!(
        (received.reasons(), received.ingest.position().counts),
        (read.reasons(), read.ingest.position().counts)
    );
    assert_eq!(received.ingest.position().offset, records.len() as u64);

    let mut rig = rig_of(&posted(), Position::default());
    rig.receive(&view(3_500), 3_000);
    rig.receive(&view(3_501), 3_000);
    rig.receive(r#"{"type":"view","t":3501}"#, 3_000);
    rig.receive(&view(3_501), 3_001);
    assert_eq!(rig.sent(), (vec![(3_500, 3_500), (3_501, 3_501)], Time(3_400_999)), "also of users who stay unknown");
    assert_eq!((rig.ingest.position().counts.future, rig.reasons()), (1, vec!["future".into()]));
}

/// The sequence is that of the topic, which receipt could not know.
#[test]
fn what_was_received_has_its_place_in_the_topic() {
    let mut rig = rig_of(&posted(), Position { offset: 41, ..Position::default() });
    rig.receive(r#"{"type":"view","u":"a","t":1000}"#, 1_000);
    let bytes = rig.outbox.cut(0).unwrap();
    let section = Frame::read(&bytes, Kind::Events).unwrap().sections().next().unwrap().unwrap();
    let record = section.records().next().unwrap().unwrap();
    assert_eq!(record.seq, Seq { offset: 42, index: 1 });
    assert_eq!((section.head.from, section.head.to), (Seq::end_of(41), Seq::end_of(42)));
}

#[test]
fn a_restart_judges_as_before() {
    let records: Vec<i64> = (0..60).map(|n| (n * 7_919) % 997 + n * 20).collect();
    let mut whole = rig();
    records.iter().for_each(|ms| whole.view(*ms));
    let expected = whole.sent();
    for cut in 0..records.len() {
        let mut first = rig();
        records[..cut].iter().for_each(|ms| first.view(*ms));
        let mut events = if cut > 0 { first.sent().0 } else { Vec::new() };
        let mut saved = Vec::new();
        first.ingest.committed().write(&mut saved);
        let mut second = rig_at(Position::read(&mut Reader::new(&saved)).unwrap());
        records[cut..].iter().for_each(|ms| second.view(*ms));
        let (rest, watermark) = second.sent();
        events.extend(rest);
        assert_eq!((events, watermark), expected, "cut at {cut}");
        assert_eq!(second.ingest.position(), whole.ingest.position());
    }
}

const TABLE: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: t}
spec:
  partitions: 3
  privacy:
    pseudonymKeys: {file: k, active: k}
    user: {field: u}
    consent: {event: consent, grantedIf: {ok: true}}
    allowedAttributes: [item.colour]
  catalog: {source: goods, item: sku, attributes: [colour]}
  sources:
  - name: goods
    file: {path: x}
    table: true
    format: Json
    eventTime: {field: t, unit: ms, notAfter: "1970-01-02T00:00:00Z"}
  - name: s
    file: {path: x}
    format: Json
    eventTime: {field: t, unit: ms, notAfter: "1970-01-02T00:00:00Z"}
    events:
    - {name: consent, when: {type: consent}}
"#;

/// What each partition of the events log gets: times and places of the items.
fn broadcast(snapshot_bytes: u64, records: &[(&str, u64)]) -> Vec<Vec<(Time, Seq)>> {
    let valid = load(TABLE).unwrap();
    let plan = Plan::compile(valid.spec()).unwrap();
    let (mut ingest, decoder) = plan.ingest(valid.spec(), 0, valid.max_skew(), &keys()).unwrap();
    ingest.table = Some(TablePlan { snapshot_bytes });
    let origin = Origin::of_source(0, 0);
    let mut ingest = Ingest::new(ingest, origin, decoder, Position::default());
    let mut outbox = Outbox::new(1, &[Kind::Events, Kind::Events, Kind::Events, Kind::DeadLetters]);
    let out = outbox.register(origin, 1, Seq::START, &[0, 1, 2, 3]);
    for (record, next_byte) in records {
        ingest.read(Input::Record(record.as_bytes()), *next_byte, Time::MIN, &mut outbox, &out);
    }
    assert_eq!(ingest.position().counts.rejected.iter().sum::<u64>(), 0);
    let items = |partition| {
        let frame = outbox.cut(partition).unwrap();
        let frame = Frame::read(&frame, Kind::Events).unwrap();
        let section = frame.sections().next().unwrap().unwrap();
        let item = |bytes| ItemRecord::read(bytes).map(|item| (item.time, item.seq)).unwrap();
        section.records().map(|record| item(record.unwrap().bytes)).collect()
    };
    (0..3).map(items).collect()
}

#[test]
fn items_go_everywhere_and_the_snapshot_is_older_than_all() {
    let records = [
        (r#"{"sku":"a","t":5,"colour":"red"}"#, 40),
        (r#"{"sku":"b","t":7,"colour":"red"}"#, 80),
        (r#"{"sku":"a","t":9,"colour":"blue"}"#, 120),
        (r#"{"sku":"c","t":3,"colour":"blue"}"#, 160),
    ];
    let of = |times: [Time; 4]| -> Vec<(Time, Seq)> {
        let seqs = (1..=4).map(|offset| Seq { offset, index: 0 });
        times.into_iter().zip(seqs).collect()
    };
    // The file had the first two when the pipeline was first started.
    let sent = broadcast(80, &records);
    assert_eq!(sent, vec![of([Time::MIN, Time::MIN, Time(9_000), Time(3_000)]); 3], "none is late, none waits");
    assert_eq!(broadcast(u64::MAX, &records), vec![of([Time::MIN; 4]); 3]);
    assert_eq!(broadcast(0, &records)[0], of([5_000, 7_000, 9_000, 3_000].map(Time)));
}
