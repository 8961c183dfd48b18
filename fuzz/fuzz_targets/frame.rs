//! Frames, their records and the merge end, whatever the bytes: damage is an error, and what was accepted is written and
//! read back the same.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use millrace_engine::{
    codec::Reader,
    dead_letter::DeadLetter,
    event::{Event, Seq, Time},
    example::{Example, ExampleHead, FeatureValue, write_example},
    feature::mix,
    frame::{Frame, FrameError, Kind, Origin, Progress, outbox::Outbox},
    names::Names,
    order::Merge,
};

const CHECKSUM: std::ops::Range<usize> = 16..24;

/// A frame of each kind, without its head: bytes to change.
static SAMPLES: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let names = Names::of(&mix::spec().expect("the mix is right"));
    let mut events = mix::Events::new(3, &names).with_ids();
    let example = |out: &mut Vec<u8>, seq| {
        let (time, impression) = (Time(seq as i64), Time(1));
        let (placement, platform, item) = ("home", "web", "sku");
        let seq = Seq { offset: seq, index: 0 };
        let head = ExampleHead {
            seq,
            time,
            impression,
            label: true,
            position: 1,
            propensity: 0.5,
            placement,
            platform,
            item,
            schema: 1,
            ..ExampleHead::default()
        };
        write_example(out, &head, &[FeatureValue::Missing, FeatureValue::Number(1.0), FeatureValue::Category(7)]);
    };
    let letter = |out: &mut Vec<u8>, seq| {
        let seq = Seq { offset: seq, index: 0 };
        DeadLetter { seq, reason: "late", source: 0, partition: 0, offset: 1, time: Time(1), sample: "{}" }.write(out);
    };
    [
        sample(Kind::Events, |out, _| events.write(out)),
        sample(Kind::Examples, example),
        sample(Kind::DeadLetters, letter),
    ]
});

/// Sections of two origins with three records each.
fn sample(kind: Kind, mut write: impl FnMut(&mut Vec<u8>, u64)) -> Vec<u8> {
    let mut outbox = Outbox::new(1, &[kind]);
    for origin in 0..2 {
        let handle = outbox.register(Origin::of_source(0, origin), 1, Seq::START, &[0]);
        for seq in 1..=3 {
            outbox.record(&handle, 0, |out| write(out, seq));
        }
        outbox.advance(
            &handle,
            Seq::end_of(9),
            Progress { watermark: Time(2), highest: Time(3), ..Progress::default() },
        );
    }
    outbox.cut(0).expect("records")
}

/// A sample with bytes changed, cut off or put in: place (u16), how, byte.
fn changed(sample: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for edit in edits.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len().max(1);
        match edit[2] % 8 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, edit[3]),
            2 => bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = edit[3]),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= edit[3]),
        }
    }
    bytes
}

/// Frames that follow each other, each led by its length (u16).
fn frames(mut bytes: &[u8], kind: Kind) -> Vec<Arc<[u8]>> {
    let mut frames = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let (body, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
        frames.push(sealed(body, kind));
        bytes = rest;
    }
    frames
}

/// With the head that a frame has and the right checksum, so that more than the head is tried.
fn sealed(body: &[u8], kind: Kind) -> Arc<[u8]> {
    let mut frame = body.to_vec();
    if frame.len() >= CHECKSUM.end {
        frame[..6].copy_from_slice(&[b'M', b'L', b'R', b'F', 1, kind as u8]);
        if let Err(FrameError::Checksum { computed, .. }) = Frame::read(&frame, kind) {
            frame[CHECKSUM].copy_from_slice(&computed.to_le_bytes());
        }
    }
    frame.into()
}

fn read_records(frame: &[u8], kind: Kind) {
    let Ok(frame) = Frame::read(frame, kind) else { return };
    for record in frame.sections().flatten().flat_map(|section| section.records()).flatten() {
        match kind {
            Kind::Events => read_event(record.bytes),
            Kind::Examples => drop(Example::read(record.bytes).map(|example| example.values().count())),
            Kind::DeadLetters => drop(DeadLetter::read(record.bytes)),
        }
    }
}

/// What was checked is there: as many items as it says.
fn read_event(bytes: &[u8]) {
    let Ok(event) = Event::read(bytes) else { return };
    assert_eq!(event.items().count(), usize::from(event.item_count));
    event.items().for_each(|item| assert_eq!(item.attributes().count(), item.attributes().raw().count()));
    assert_eq!(event.attributes().count(), event.attributes().raw().count());
}

fn merge(frames: &[Arc<[u8]>], kind: Kind) {
    let mut merge = Merge::new(kind, &[]);
    for frame in frames {
        if merge.accept(frame).is_err() {
            return;
        }
        let mut last = None;
        while let Some(released) = merge.release() {
            let place = (released.time, released.origin, released.seq);
            assert!(last.replace(place).is_none_or(|last| last <= place), "records are released in order");
        }
        let mut saved = Vec::new();
        merge.write(&mut saved);
        let mut restored = Merge::read(kind, &mut Reader::new(&saved)).expect("what was written is read");
        let mut again = Vec::new();
        restored.write(&mut again);
        assert_eq!(saved, again);
        assert_eq!(restored.release().is_some(), merge.release().is_some());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let nth = usize::from(*choice) % 3;
    let kind = [Kind::Events, Kind::Examples, Kind::DeadLetters][nth];
    let frames = match choice & 128 {
        0 => vec![sealed(&changed(&SAMPLES[nth], bytes), kind), sealed(&SAMPLES[nth], kind)],
        _ => frames(bytes, kind),
    };
    frames.iter().for_each(|frame| read_records(frame, kind));
    merge(&frames, kind);
    drop(Frame::read(bytes, kind));
    read_event(bytes);
});
