//! Frames, their records and the merge end, whatever the bytes: damage is an error, and what was accepted is written and
//! read back the same.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use millrace_engine::{
    codec::Reader,
    dead_letter::DeadLetter,
    event::Event,
    example::Example,
    frame::{Frame, FrameError, Kind},
    order::Merge,
};

const CHECKSUM: std::ops::Range<usize> = 16..24;

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
    let kind = [Kind::Events, Kind::Examples, Kind::DeadLetters][usize::from(*choice) % 3];
    let frames = frames(bytes, kind);
    frames.iter().for_each(|frame| read_records(frame, kind));
    merge(&frames, kind);
    drop(Frame::read(bytes, kind));
    read_event(bytes);
});
