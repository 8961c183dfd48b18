//! What the source that is a file has to become: read once more from beginning to end, by one who is never disturbed, under
//! the generations that checkpoints have named.

use std::{collections::BTreeMap, fs};

use millrace::{host::logs, log::LogPartition};
use millrace_engine::{
    event::{Seq, Time},
    frame::{Frame, Kind, Origin, outbox::Outbox},
    ingest::{Ingest, Input, Position, generations::Switch},
    plan::FIRST_GENERATION,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    check::{READ_UNDER_ONE_GENERATION, Violation, violation},
    ground::Ground,
    ledger::Ledger,
};

/// A checkpoint lists these: its first one has been passed, and whatever else was known of it and of later ones is forgotten.
/// That was lost with a damaged checkpoint, before anybody used it.
pub fn note(known: &mut Vec<Switch>, listed: &[Switch]) {
    let Some(first) = listed.first() else { return };
    known.retain(|switch| switch.generation < first.generation);
    known.extend(listed);
}

/// Compares what was told of the file with what has to be told.
pub fn compare(ground: &Ground, ledger: &Ledger, switches: &[Switch]) -> Result<(), Violation> {
    let Some((source, _)) = ground.file() else { return Ok(()) };
    let origin = Origin::of_source(source, 0);
    let wanted = wanted(ground, source, switches).map_err(|what| violation(READ_UNDER_ONE_GENERATION, what))?;
    let told = ledger.records.iter().filter(|((_, of, _), _)| *of == origin);
    let told: BTreeMap<(LogPartition, Seq), u64> =
        told.map(|((partition, _, seq), digest)| ((partition.clone(), *seq), *digest)).collect();
    if told == wanted {
        return Ok(());
    }
    let missing = wanted.iter().find(|(at, digest)| told.get(at) != Some(digest));
    let added = told.iter().find(|(at, digest)| wanted.get(at) != Some(digest));
    let (n, of) = (told.len(), wanted.len());
    let what = format!("{n} records for {of}; missing {missing:?}, too many {added:?}; switches {switches:?}");
    Err(violation(READ_UNDER_ONE_GENERATION, what))
}

/// A digest of each record, by where it belongs.
fn wanted(ground: &Ground, source: usize, switches: &[Switch]) -> Result<BTreeMap<(LogPartition, Seq), u64>, String> {
    let plan = |generation: u32| {
        let pipeline = &ground.at(generation).pipeline;
        let plan = pipeline.plan.ingest(pipeline.spec(), source, pipeline.validated.max_skew(), &pipeline.keys);
        plan.map_err(|error| error.to_string())
    };
    let text = match ground.file() {
        Some((_, path)) => fs::read_to_string(path).map_err(|error| error.to_string())?,
        None => String::new(),
    };
    let partitions = ground.pipeline().plan.partitions;
    let mut outputs: Vec<LogPartition> = (0..partitions).map(logs::events).collect();
    let mut kinds = vec![Kind::Events; outputs.len()];
    outputs.push(logs::dead_letters());
    kinds.push(Kind::DeadLetters);
    let (mut outbox, origin) = (Outbox::new(FIRST_GENERATION, &kinds), Origin::of_source(source, 0));
    let handle = outbox.register(origin, 1, Seq::START, &(0..outputs.len()).collect::<Vec<_>>());
    let (first, decoder) = plan(FIRST_GENERATION)?;
    let mut ingest = Ingest::new(first, origin, decoder, Position::default());
    let (mut byte, mut generation) = (0, FIRST_GENERATION);
    for line in text.lines() {
        let passed = switches.iter().filter(|switch| switch.from <= byte).map(|switch| switch.generation).max();
        if let Some(newer) = passed.filter(|newer| *newer > generation) {
            generation = newer;
            let (plan, decoder) = plan(generation)?;
            ingest.configure(plan, decoder);
        }
        byte += line.len() as u64 + 1;
        ingest.read(Input::Record(line.as_bytes()), byte, Time::MAX, &mut outbox, &handle);
    }
    let mut wanted = BTreeMap::new();
    for (output, partition) in outputs.into_iter().enumerate() {
        let Some(bytes) = outbox.cut(output) else { continue };
        let frame = Frame::read(&bytes, kinds[output]).map_err(|error| error.to_string())?;
        for section in frame.sections() {
            let section = section.map_err(|error| error.to_string())?;
            for record in section.records() {
                let record = record.map_err(|error| error.to_string())?;
                wanted.insert((partition.clone(), record.seq), xxh3_64(record.bytes));
            }
        }
    }
    Ok(wanted)
}
