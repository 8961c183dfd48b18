//! All that the log ever got, and what has to hold of it: read here once more, plainly, without the engine's merge.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace::{
    host::{
        logs,
        make::{ingest_task, model_task, profile_task},
    },
    log::LogPartition,
};
use millrace_engine::{
    control::{Control, Erase},
    event::{Seq, Time},
    frame::{Frame, Kind, Origin, SectionHead},
    order::Merge,
    plan::FIRST_GENERATION,
};
use millrace_lifecycle::{
    keys::{TaskId, TaskKind},
    manifest::Manifest,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::check::{
    A_LOST_FRAME_IS_NOTICED, A_SEQUENCE_IS_ONE_RECORD, AN_EPOCH_HAS_ONE_OWNER, COVERED_BEFORE_SAVED, COVERED_IS_TOLD,
    ONLY_OWNERS_TELL, Violation, WHO_LOST_A_TASK_STOPS, violation,
};
use crate::ground::Ground;

/// A process: its shard and which start of it.
pub type Process = String;

/// How far an origin covers a log partition, without holes; a writer of a lower epoch does not count.
#[derive(Clone, Copy, Debug)]
struct Covered {
    epoch: u64,
    to: Seq,
}

impl Covered {
    /// Whether the section joins on.
    fn add(&mut self, head: &SectionHead) -> bool {
        if head.epoch < self.epoch {
            return true;
        }
        // Numbers of control records begin anew with each epoch.
        if head.from > self.to && !head.origin.is_control() {
            return false;
        }
        (self.epoch, self.to) = (head.epoch, self.to.max(head.to));
        true
    }
}

const NOTHING: Covered = Covered { epoch: 0, to: Seq::START };

#[derive(Default)]
pub struct Ledger {
    sources: Vec<String>,
    /// Of each generation.
    models: Vec<BTreeSet<String>>,
    partitions: u32,
    frames: BTreeMap<LogPartition, Vec<Vec<u8>>>,
    covered: BTreeMap<(LogPartition, Origin), Covered>,
    /// The highest watermark that was told.
    watermarks: BTreeMap<(LogPartition, Origin), Time>,
    /// A digest of each record that readers take.
    pub records: BTreeMap<(LogPartition, Origin, Seq), u64>,
    examples: BTreeMap<String, Vec<Vec<u8>>>,
    /// Who owned a task under an epoch.
    owners: BTreeMap<(TaskId, u64), Process>,
    /// The highest epoch of a task that a process has read in its manifest.
    read: BTreeMap<(Process, TaskId), u64>,
    /// With the offset of its frame, and where.
    pub erased: Vec<(u32, u64, Erase)>,
}

fn kind_of(partition: &LogPartition) -> Option<Kind> {
    match partition.log.as_str() {
        "events" => Some(Kind::Events),
        "dead-letters" => Some(Kind::DeadLetters),
        log if log.starts_with("examples.") => Some(Kind::Examples),
        _ => None,
    }
}

impl Ledger {
    pub fn new(ground: &Ground) -> Self {
        let pipeline = ground.pipeline();
        Self {
            sources: pipeline.spec().sources.iter().map(|source| source.name.clone()).collect(),
            models: ground.models(),
            partitions: pipeline.plan.partitions,
            ..Self::default()
        }
    }

    /// Whose effects an origin's are, in this partition of a log.
    fn task_of(&self, partition: &LogPartition, origin: Origin) -> Option<TaskId> {
        match (origin.is_control(), partition.log.strip_prefix("examples.")) {
            (true, Some(model)) => Some(model_task(model)),
            (true, None) => Some(profile_task(partition.partition)),
            (false, _) if origin == Origin::of_profile(origin.partition) => Some(profile_task(origin.partition)),
            (false, _) => Some(ingest_task(self.sources.get(usize::from(origin.source))?, origin.partition)),
        }
    }

    /// Which task reads it.
    pub fn reader_of(&self, partition: &LogPartition) -> Option<TaskId> {
        match partition.log.split_once('.') {
            Some(("examples", model)) => Some(model_task(model)),
            Some(("http", source)) => Some(ingest_task(source, partition.partition)),
            _ => (partition.log == "events").then(|| profile_task(partition.partition)),
        }
    }

    /// A process hands a batch to its writer.
    pub fn cut(&self, process: &Process, batch: &[(LogPartition, Vec<u8>)]) -> Result<(), Violation> {
        self.sections(batch, |partition, head, _| {
            let Some(task) = self.task_of(partition, head.origin) else { return Ok(()) };
            match self.read.get(&(process.clone(), task.clone())) {
                Some(epoch) if *epoch > head.epoch => {
                    let what = format!("{process} has read of epoch {epoch} of {task}, and tells under {}", head.epoch);
                    Err(violation(WHO_LOST_A_TASK_STOPS, what))
                }
                _ => Ok(()),
            }
        })
    }

    fn sections(
        &self,
        batch: &[(LogPartition, Vec<u8>)],
        mut each: impl FnMut(&LogPartition, &SectionHead, &[(Seq, Vec<u8>)]) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        for (partition, bytes) in batch {
            let Some(kind) = kind_of(partition) else { continue };
            let damaged = |what: String| violation(ONLY_OWNERS_TELL, format!("a frame in {partition}: {what}"));
            let frame = Frame::read(bytes, kind).map_err(|error| damaged(error.to_string()))?;
            for section in frame.sections() {
                let section = section.map_err(|error| damaged(error.to_string()))?;
                let records = section.records().map(|record| record.map(|r| (r.seq, r.bytes.to_vec())));
                let records: Vec<_> = records.collect::<Result<_, _>>().map_err(|error| damaged(error.to_string()))?;
                each(partition, &section.head, &records)?;
            }
        }
        Ok(())
    }

    /// A batch of a process is in the log.
    pub fn appended(&mut self, process: &Process, batch: &[(LogPartition, Vec<u8>)]) -> Result<(), Violation> {
        let mut told = Vec::new();
        self.sections(batch, |partition, head, records| {
            told.push((partition.clone(), *head, records.to_vec()));
            Ok(())
        })?;
        for (partition, bytes) in batch {
            self.frames.entry(partition.clone()).or_default().push(bytes.clone());
        }
        told.into_iter().try_for_each(|(partition, head, records)| self.told(process, partition, &head, records))
    }

    fn told(
        &mut self,
        process: &Process,
        partition: LogPartition,
        head: &SectionHead,
        records: Vec<(Seq, Vec<u8>)>,
    ) -> Result<(), Violation> {
        if let Some(task) = self.task_of(&partition, head.origin) {
            let owner = self.owners.get(&(task.clone(), head.epoch));
            if owner != Some(process) {
                let what = format!("{process} tells of {task} under epoch {}, which is {owner:?}'s", head.epoch);
                return Err(violation(ONLY_OWNERS_TELL, what));
            }
        }
        let at = (partition.clone(), head.origin);
        let covered = self.covered.entry(at.clone()).or_insert(NOTHING);
        // Readers drop it: somebody took over, and was faster.
        let is_stale = head.epoch < covered.epoch;
        let before = covered.to;
        covered.add(head);
        let watermark = self.watermarks.entry(at).or_insert(Time::MIN);
        *watermark = head.progress.watermark.max(*watermark);
        let is_source = self.sources.len() > usize::from(head.origin.source);
        for (seq, bytes) in records {
            // What a stale owner reads is of its own generation.
            if is_stale && is_source {
                continue;
            }
            let (digest, key) = (xxh3_64(&bytes), (partition.clone(), head.origin, seq));
            match self.records.get(&key) {
                Some(known) if *known != digest => {
                    let what = format!("{seq:?} of {:?} in {partition} is two records", head.origin);
                    return Err(violation(A_SEQUENCE_IS_ONE_RECORD, what));
                }
                Some(_) => continue,
                None if is_stale && head.origin.is_control() => {}
                None if seq <= before && !head.origin.is_control() => {
                    let what = format!("{seq:?} of {:?} comes to {partition}, covered up to {before:?}", head.origin);
                    return Err(violation(COVERED_IS_TOLD, what));
                }
                None => self.new_record(&partition, head.origin, bytes),
            }
            self.records.insert(key, digest);
        }
        Ok(())
    }

    fn new_record(&mut self, partition: &LogPartition, origin: Origin, bytes: Vec<u8>) {
        let offset = self.frames.get(partition).map_or(0, Vec::len) as u64;
        match (origin.is_control(), partition.log.strip_prefix("examples.")) {
            (true, _) => {
                if let Ok((_, Control::Erase(erase))) = Control::read(&bytes) {
                    self.erased.push((partition.partition, offset, erase));
                }
            }
            (false, Some(model)) => self.examples.entry(model.to_owned()).or_default().push(bytes),
            (false, None) => {}
        }
    }

    /// A process has read a manifest.
    pub fn read(&mut self, process: &Process, manifest: &Manifest) {
        let epoch = self.read.entry((process.clone(), manifest.task.clone())).or_default();
        *epoch = manifest.epoch.max(*epoch);
    }

    /// A manifest stands: who owns the task under its epoch.
    pub fn owned(&mut self, manifest: &Manifest) -> Result<(), Violation> {
        let Manifest { task, epoch, owner, .. } = manifest;
        let first = self.owners.entry((task.clone(), *epoch)).or_insert_with(|| owner.clone());
        if first != owner {
            let what = format!("epoch {epoch} of {task} is {first}'s and {owner}'s");
            return Err(violation(AN_EPOCH_HAS_ONE_OWNER, what));
        }
        Ok(())
    }

    /// A checkpoint of the task stands at this offset, under this generation.
    pub fn saved(&self, task: &TaskId, offset: u64, generation: u32) -> Result<(), Violation> {
        let models = &self.models[(generation - FIRST_GENERATION) as usize];
        let source_of = |source: &String| task.name.strip_prefix(source.as_str())?.strip_prefix('-')?.parse().ok();
        let source = self.sources.iter().enumerate().find_map(|(n, source)| Some((n, source_of(source)?)));
        let (origin, outputs): (Origin, Vec<LogPartition>) = match (task.kind, source) {
            (TaskKind::Ingest, Some((source, partition))) => {
                (Origin::of_source(source, partition), (0..self.partitions).map(logs::events).collect())
            }
            (TaskKind::Profile, _) => {
                let partition = task.name.parse().unwrap_or_default();
                (Origin::of_profile(partition), models.iter().map(|model| logs::examples(model)).collect())
            }
            _ => return Ok(()),
        };
        let wanted = Seq::end_of(offset.saturating_sub(1));
        for output in outputs.into_iter().chain([logs::dead_letters()]) {
            let covered = self.covered.get(&(output.clone(), origin)).map_or(Seq::START, |covered| covered.to);
            if covered < wanted {
                let what = format!("{task} is saved at offset {offset}, and {output} is covered up to {covered:?}");
                return Err(violation(COVERED_BEFORE_SAVED, what));
            }
        }
        Ok(())
    }

    /// A reader of a log that has lost a frame says so, instead of going on.
    pub fn lost_frames(&self) -> Result<(), Violation> {
        for (partition, frames) in &self.frames {
            let Some(kind) = kind_of(partition).filter(|kind| *kind != Kind::DeadLetters) else { continue };
            let middle = frames.len() / 2;
            let Some(lost) = (middle..frames.len()).find(|lost| self.has_hole_without(partition, kind, *lost)) else {
                continue;
            };
            let mut merge = Merge::new(kind, &[]);
            let rest = frames.iter().enumerate().filter(|(n, _)| *n != lost);
            let noticed = rest.map(|(_, bytes)| Arc::from(bytes.as_slice())).any(|frame| {
                let accepted = merge.accept(&frame);
                while merge.release().is_some() {}
                accepted.is_err()
            });
            if !noticed {
                let what = format!("{partition} is read without its record at offset {}", lost + 1);
                return Err(violation(A_LOST_FRAME_IS_NOTICED, what));
            }
        }
        Ok(())
    }

    fn has_hole_without(&self, partition: &LogPartition, kind: Kind, lost: usize) -> bool {
        let mut covered: BTreeMap<Origin, Covered> = BTreeMap::new();
        let rest = self.frames[partition].iter().enumerate().filter(|(n, _)| *n != lost);
        let heads = rest
            .filter_map(|(_, bytes)| Frame::read(bytes, kind).ok())
            .flat_map(|frame| frame.sections().filter_map(Result::ok).map(|section| section.head).collect::<Vec<_>>());
        heads
            .filter(|head| !head.origin.is_control())
            .any(|head| !covered.entry(head.origin).or_insert(NOTHING).add(&head))
    }

    /// Each example of a model that any reader applies, once.
    pub fn examples(&self, model: &str) -> &[Vec<u8>] {
        self.examples.get(model).map_or(&[], Vec::as_slice)
    }

    /// Those that are in every generation.
    pub fn models(&self) -> Vec<&String> {
        let all = |model: &&String| self.models.iter().all(|models| models.contains(*model));
        self.models.iter().take(1).flatten().filter(all).collect()
    }

    /// Up to where all profile tasks have told their examples.
    pub fn told_until(&self) -> Time {
        let of = |(model, partition): (&String, u32)| {
            self.watermarks.get(&(logs::examples(model), Origin::of_profile(partition))).copied()
        };
        let all: BTreeSet<Option<Time>> =
            self.models().into_iter().flat_map(|model| (0..self.partitions).map(move |p| (model, p))).map(of).collect();
        all.into_iter().next().flatten().unwrap_or(Time::MIN)
    }
}
