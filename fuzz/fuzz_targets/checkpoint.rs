//! Restoring ends, whatever the checkpoint's bytes: damage is an error, and a task that was restored goes on.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use millrace_engine::{
    checkpoint::{Checkpoint, CheckpointWriter, Extent, TaskKind},
    codec::Reader,
    event::{Event, Seq, Time},
    feature::mix,
    frame::{
        Kind, Origin, OriginState, Progress,
        outbox::{Handle, Outbox},
    },
    ingest::Position,
    model::ModelTask,
    order::Merge,
    plan::Plan,
    profile::Profile,
};

const EVENTS: u64 = 80;
const USERS: u64 = 5;
/// Tags are below.
const TAGS: u8 = 10;

static PLAN: LazyLock<Arc<Plan>> = LazyLock::new(|| {
    let mut spec = mix::spec().expect("the mix is right");
    // Few weights: a quarter of a million would leave time for little else.
    spec.models[0].learner = serde_json::from_str(r#"{"ftrl": {"bits": 10}}"#).expect("as the spec has it");
    Arc::new(Plan::compile(&spec).expect("compiles"))
});

/// A frame of events, whose last ones wait for the watermark; and what the profile task makes of it.
struct Sample {
    events: Arc<[u8]>,
    examples: Arc<[u8]>,
    profile: Vec<u8>,
    model: Vec<u8>,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let events = events();
    let mut profile = Profile::new(PLAN.clone(), &[Origin::of_source(0, 0)]);
    let (mut outbox, handle) = outbox();
    apply(&mut profile, 1, &events, &mut outbox, &handle);
    let examples: Arc<[u8]> = outbox.cut(0).expect("a watermark at least").into();
    let mut model = ModelTask::new(&PLAN, 0);
    model.accept(1, &examples).expect("as written");
    while !model.drain(100, |_, _| {}).expect("as written") {}
    let (profile, model) = (profile.checkpoint(Extent::Base), model.checkpoint(Extent::Base));
    Sample { events, examples, profile, model }
});

fn events() -> Arc<[u8]> {
    let mut outbox = Outbox::new(1, &[Kind::Events]);
    let handle = outbox.register(Origin::of_source(0, 0), 1, Seq::START, &[0]);
    let mut events = mix::Events::new(USERS, &PLAN.names).with_ids();
    for _ in 0..EVENTS {
        let mut record = Vec::new();
        events.write(&mut record);
        let head = Event::read(&record[4..]).expect("as written").head;
        outbox.record(&handle, 0, |out| out.extend_from_slice(&record));
        let watermark = Time(head.time.0 - 200_000);
        outbox.advance(&handle, head.seq, Progress { watermark, highest: head.time, state: OriginState::Active });
    }
    outbox.cut(0).expect("events").into()
}

fn outbox() -> (Outbox, Handle) {
    let mut outbox = Outbox::new(1, &[Kind::Examples, Kind::DeadLetters]);
    let handle = outbox.register(Origin::of_profile(0), 1, Seq::START, &[0, 1]);
    (outbox, handle)
}

fn apply(profile: &mut Profile, offset: u64, frame: &Arc<[u8]>, outbox: &mut Outbox, out: &Handle) {
    if profile.accept(offset, frame, outbox, out).is_ok() {
        while let Ok(false) = profile.drain(100, outbox, out) {}
    }
}

/// The sample's sections, with some bytes changed; or sections of any bytes. Checksums are right.
fn checkpoint(task: TaskKind, sample: &[u8], changes_sample: bool, extent: Extent, bytes: &[u8]) -> Vec<u8> {
    let mut w = CheckpointWriter::new(task, extent);
    if !changes_sample {
        let parts = bytes.split(|byte| *byte == 0xA7);
        parts.zip(1..TAGS).for_each(|(part, tag)| w.section(tag, |out| out.extend_from_slice(part)));
        return w.finish();
    }
    let sample = Checkpoint::read(sample, task).expect("as written");
    for tag in 1..TAGS {
        let Ok(section) = sample.section(tag) else { continue };
        let mut section = section.to_vec();
        for edit in bytes.chunks_exact(4).filter(|edit| edit[0] % TAGS == tag) {
            let at = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % section.len().max(1);
            match edit[0] >> 6 {
                0 => section.truncate(at),
                1 => section.insert(at, edit[3]),
                _ => section.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= edit[3]),
            }
        }
        w.section(tag, |out| out.extend_from_slice(&section));
    }
    w.finish()
}

fn restore_profile(parts: &[&[u8]]) {
    let Ok(mut profile) = Profile::restore(PLAN.clone(), parts) else { return };
    let digest = profile.digest();
    let again = profile.checkpoint(Extent::Base);
    let mut restored = Profile::restore(PLAN.clone(), &[&again]).expect("what was written is read");
    assert_eq!(restored.digest(), digest);
    let (mut outbox, handle) = outbox();
    apply(&mut profile, 2, &SAMPLE.events, &mut outbox, &handle);
    profile.digest();
}

fn restore_model(parts: &[&[u8]]) {
    let Ok(mut model) = ModelTask::restore(&PLAN, 0, parts) else { return };
    let digest = model.digest();
    let again = model.checkpoint(Extent::Base);
    let mut restored = ModelTask::restore(&PLAN, 0, &[&again]).expect("what was written is read");
    assert_eq!(restored.digest(), digest);
    if model.accept(2, &SAMPLE.examples).is_ok() {
        while let Ok(false) = model.drain(100, |_, _| {}) {}
    }
    model.digest();
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let (changes_sample, extent) = (choice & 8 == 0, if choice & 16 == 0 { Extent::Base } else { Extent::Changes });
    match choice % 4 {
        0 => {
            let part = checkpoint(TaskKind::Profile, &SAMPLE.profile, changes_sample, extent, bytes);
            restore_profile(&[&part]);
            restore_profile(&[&SAMPLE.profile, &part]);
        }
        1 => {
            let part = checkpoint(TaskKind::Model, &SAMPLE.model, changes_sample, extent, bytes);
            restore_model(&[&part]);
            restore_model(&[&SAMPLE.model, &part]);
        }
        2 => drop(Position::read(&mut Reader::new(bytes))),
        _ => {
            for kind in [Kind::Events, Kind::Examples] {
                drop(Merge::read(kind, &mut Reader::new(bytes)));
                drop(Checkpoint::read(bytes, TaskKind::Profile).map(|c| c.extent));
            }
        }
    }
});
