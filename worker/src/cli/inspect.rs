//! `millrace profile`, `checkpoints`, `dead-letters` and `examples`: looking at what a run left.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use millrace_engine::{
    dead_letter::DeadLetter,
    event::Time,
    example::{Example, ExampleHead},
    frame::{
        Frame, Kind, Origin,
        coverage::{Admission, Coverage},
    },
    ingest::partition_of,
    order::Merge,
    plan::Plan,
    profile::Profile,
};
use serde_json::{Value, json};

use super::{CliError, DataArgs, Output, print};
use crate::{
    configuration::Configuration,
    data::{self, Data},
    host::{
        HostError, logs,
        make::{parts, profile_task},
    },
    log::{Log, LogPartition},
    pipeline::{self, Pipeline},
    progress,
    replay::for_each_record,
    store::{
        checkpoint,
        inspect::{self, TaskCheckpoints},
    },
    values,
};

#[derive(Subcommand)]
pub enum ProfileCommand {
    /// Show what is kept of a user, as of the newest checkpoint.
    #[command(after_help = "Example:\n  millrace profile show u-1234 --data millrace-data")]
    Show {
        /// The user's id as it stands in the events; it is turned into the pseudonym and kept nowhere.
        user: String,
        #[command(flatten)]
        data: DataArgs,
    },
}

#[derive(Subcommand)]
pub enum CheckpointsCommand {
    /// The newest checkpoint of every task; also while a run is going on.
    #[command(after_help = "Example:\n  millrace checkpoints list --data millrace-data")]
    List {
        #[command(flatten)]
        data: DataArgs,
    },
    /// All checkpoints of one task, with their files.
    #[command(after_help = "Example:\n  millrace checkpoints show profile/0")]
    Show {
        /// As `list` names it, such as profile/0.
        task: String,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Read every file of every checkpoint and compare its digest. Exit code 3: something is damaged.
    #[command(after_help = "Example:\n  millrace checkpoints verify --output json")]
    Verify {
        #[command(flatten)]
        data: DataArgs,
    },
}

#[derive(Args)]
pub struct DeadLettersArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Only those with this reason: late, future, unreadable, malformed, badTime, wrongType ...
    #[arg(long)]
    reason: Option<String>,
    /// At most so many, the oldest first.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

#[derive(Args)]
pub struct ExamplesArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Only this model's.
    #[arg(long)]
    model: Option<String>,
    /// At most so many of each model, in the order of learning. Default: all.
    #[arg(long)]
    limit: Option<usize>,
}

fn open(args: &DataArgs) -> Result<(Pipeline, Data), CliError> {
    let file = args.pipeline()?;
    let pipeline = Pipeline::load(&file, &BTreeMap::new())?;
    let data = Data::open_existing(&args.data, &pipeline)?;
    Ok((pipeline, data))
}

pub fn profile(command: &ProfileCommand, output: Output) -> Result<(), CliError> {
    let ProfileCommand::Show { user, data: args } = command;
    let pipeline = Pipeline::load(&args.pipeline()?, &BTreeMap::new())?;
    let (store, configuration) = data::checkpoints_of(&args.data, &pipeline)?;
    let pseudonym = pipeline.keys.user_of(user);
    let partition = partition_of(pseudonym, pipeline.plan.partitions) as u32;
    let task = profile_task(partition);
    let missing = || CliError::Other(format!("{task} has no checkpoint yet; try again after checkpoints.interval"));
    let restored = checkpoint::newest(store.as_ref(), &task)?.ok_or_else(missing)?;
    let failed = |cause| HostError::Restore { task: task.to_string(), cause };
    let profile = Profile::restore(configuration.first().clone(), &parts(&restored)).map_err(failed)?;
    let Some(slot) = profile.users().find(pseudonym) else {
        return Err(CliError::Other("nothing is kept of this user: never seen, not consented, or withdrawn".into()));
    };
    let row = profile.users().row(slot);
    let features = profile.plan().features.describe(row, profile.watermark());
    let consent = progress::time(row.granted());
    let last = progress::time(row.last_event());
    match output {
        Output::Json => {
            let features: BTreeMap<String, String> = features.into_iter().collect();
            let profile = json!({"formatVersion": 1, "partition": partition, "consentSince": consent,
                "lastEvent": last, "asOf": progress::time(profile.watermark()), "features": features});
            print(profile.to_string());
        }
        Output::Text => {
            print(format!("partition {partition}, consent since {consent}, last event {last}"));
            features.iter().for_each(|(name, value)| print(format!("  {name:<24} {value}")));
        }
    }
    Ok(())
}

fn task_json(t: &TaskCheckpoints) -> Value {
    match &t.manifest {
        Err(problem) => {
            json!({"task": t.task.to_string(), "storedBytes": t.stored_bytes, "problem": problem.to_string()})
        }
        Ok(m) => json!({"task": t.task.to_string(), "storedBytes": t.stored_bytes, "epoch": m.epoch, "owner": m.owner,
            "released": m.released, "engineVersion": m.engine_version, "checkpoints": m.checkpoints}),
    }
}

fn task_text(t: &TaskCheckpoints) -> String {
    let m = match &t.manifest {
        Err(problem) => return format!("{:<24} {problem}", t.task.to_string()),
        Ok(manifest) => manifest,
    };
    let newest = match m.checkpoints.first() {
        None => "no checkpoint yet".to_owned(),
        Some(c) => format!(
            "at offset {}, {} files, {} bytes, written {}",
            c.position.log_offset,
            c.files.len(),
            c.files.iter().map(|f| f.size_bytes).sum::<u64>(),
            progress::time(Time(c.position.written_at_unix_ms.saturating_mul(1000)))
        ),
    };
    let released = if m.released { ", released" } else { "" };
    format!("{:<24} epoch {}{released}; {} kept; newest {newest}", t.task.to_string(), m.epoch, m.checkpoints.len())
}

pub fn checkpoints(command: &CheckpointsCommand, output: Output) -> Result<(), CliError> {
    let args = match command {
        CheckpointsCommand::List { data }
        | CheckpointsCommand::Show { data, .. }
        | CheckpointsCommand::Verify { data } => data,
    };
    let store = data::checkpoints(&args.data, pipeline::validate(&args.pipeline()?)?.spec())?;
    let store_failed = |e: crate::store::StoreError| CliError::Other(e.to_string());
    match command {
        CheckpointsCommand::Verify { .. } => {
            let problems = inspect::verify(store.as_ref()).map_err(store_failed)?;
            let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
            match output {
                Output::Json => {
                    print(json!({"formatVersion": 1, "sound": found.is_empty(), "problems": found}).to_string())
                }
                Output::Text if found.is_empty() => print("All checkpoints are sound."),
                Output::Text => found.iter().for_each(|problem| print(format!("DAMAGED {problem}"))),
            }
            if found.is_empty() { Ok(()) } else { Err(CliError::FOUND) }
        }
        CheckpointsCommand::List { .. } => {
            let tasks = inspect::list(store.as_ref()).map_err(store_failed)?;
            match output {
                Output::Json => {
                    let tasks: Vec<Value> = tasks.iter().map(task_json).collect();
                    print(json!({"formatVersion": 1, "tasks": tasks}).to_string());
                }
                Output::Text => tasks.iter().for_each(|t| print(task_text(t))),
            }
            Ok(())
        }
        CheckpointsCommand::Show { task, .. } => {
            let tasks = inspect::list(store.as_ref()).map_err(store_failed)?;
            show(task, &tasks, output)
        }
    }
}

fn show(name: &str, tasks: &[TaskCheckpoints], output: Output) -> Result<(), CliError> {
    let named = |t: &&TaskCheckpoints| t.task.to_string() == name;
    let known = || tasks.iter().map(|t| t.task.to_string()).collect::<Vec<_>>().join(", ");
    let task =
        tasks.iter().find(named).ok_or_else(|| CliError::Other(format!("no task `{name}`; there is {}", known())))?;
    if output == Output::Json {
        print(json!({"formatVersion": 1, "task": task_json(task)}).to_string());
        return Ok(());
    }
    print(task_text(task));
    for c in task.manifest.iter().flat_map(|m| &m.checkpoints) {
        let written = progress::time(Time(c.position.written_at_unix_ms.saturating_mul(1000)));
        print(format!("  offset {}, epoch {}, written {written}", c.position.log_offset, c.epoch));
        c.files.iter().for_each(|f| print(format!("    {} {} bytes, digest {:016x}", f.key, f.size_bytes, f.digest)));
    }
    Ok(())
}

/// What an origin's frames cover can be followed from the beginning only.
fn whole(log: &dyn Log, partition: &LogPartition) -> Result<(), CliError> {
    let start = log.start(partition)?;
    let trimmed = || {
        format!(
            "{partition} begins at offset {start}: what lies before was trimmed, and the rest alone cannot \
        be listed; a longer spec.checkpoints.retain keeps more"
        )
    };
    if start > crate::log::FIRST_OFFSET { Err(CliError::Other(trimmed())) } else { Ok(()) }
}

/// All records of a log partition.
fn scan(
    log: &dyn Log,
    partition: &LogPartition,
    mut each: impl FnMut(u64, &std::sync::Arc<[u8]>) -> Result<(), HostError>,
) -> Result<(), HostError> {
    for_each_record(log, partition, log.start(partition)?, log.end(partition)?, |offset, bytes| each(offset, &bytes))
}

pub fn dead_letters(args: &DeadLettersArgs, output: Output) -> Result<(), CliError> {
    let (pipeline, data) = open(&args.data)?;
    let reads = logs::dead_letters();
    let mut coverage: BTreeMap<Origin, Coverage> = BTreeMap::new();
    let mut shown = 0;
    whole(data.log().as_ref(), &reads)?;
    scan(data.log().as_ref(), &reads, |offset, bytes| {
        let failed = |cause: String| HostError::Apply { partition: reads.clone(), offset, cause };
        let frame = Frame::read(bytes, Kind::DeadLetters).map_err(|e| failed(e.to_string()))?;
        for section in frame.sections() {
            let section = section.map_err(|e| failed(e.to_string()))?;
            let known = coverage.entry(section.head.origin).or_default();
            let Admission::Above(applied) = known.admit(&section.head).map_err(|e| failed(e.to_string()))? else {
                continue;
            };
            for record in section.records().flatten().filter(|r| r.seq > applied) {
                let letter = DeadLetter::read(record.bytes).map_err(|e| failed(e.to_string()))?;
                if args.reason.as_deref().is_none_or(|reason| reason == letter.reason) && shown < args.limit {
                    shown += 1;
                    print_letter(&letter, &pipeline, output);
                }
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn print_letter(letter: &DeadLetter<'_>, pipeline: &Pipeline, output: Output) {
    let source = pipeline.spec().sources.get(usize::from(letter.source)).map_or("?", |s| s.name.as_str());
    match output {
        Output::Json => print(
            json!({"reason": letter.reason, "source": source, "partition": letter.partition, "offset": letter.offset,
                "time": progress::time(letter.time), "sample": letter.sample})
            .to_string(),
        ),
        Output::Text => print(format!(
            "{:<16} {source}/{} record {}  time {}  {}",
            letter.reason,
            letter.partition,
            letter.offset,
            progress::time(letter.time),
            letter.sample
        )),
    }
}

pub fn examples(args: &ExamplesArgs, output: Output) -> Result<(), CliError> {
    let (pipeline, data) = open(&args.data)?;
    let plan = &pipeline.plan;
    if let Some(wanted) = &args.model
        && !plan.models.iter().any(|m| m.name == *wanted)
    {
        let known: Vec<&str> = plan.models.iter().map(|m| m.name.as_str()).collect();
        return Err(CliError::Other(format!("no model `{wanted}`; there is {}", known.join(", "))));
    }
    let origins: Vec<Origin> = (0..plan.partitions).map(Origin::of_profile).collect();
    for (n, model) in plan.models.iter().enumerate() {
        if args.model.as_deref().is_some_and(|wanted| wanted != model.name) {
            continue;
        }
        let reads = logs::examples(&model.name);
        whole(data.log().as_ref(), &reads)?;
        let (mut merge, mut shown) = (Merge::new(Kind::Examples, &origins), 0);
        scan(data.log().as_ref(), &reads, |offset, bytes| {
            merge.accept(bytes).map_err(|cause| HostError::order(&reads, offset, cause))?;
            while let Some(released) = merge.release() {
                let example = Example::read(released.bytes);
                let example = example.map_err(|e| HostError::order(&reads, offset, e.into()))?;
                if args.limit.is_none_or(|limit| shown < limit) {
                    shown += 1;
                    print_example(data.configuration(), plan, n, &example, output);
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// By what the item was shown, if that is known.
fn decided(head: &ExampleHead<'_>) -> String {
    let known = |name: &str, x: f64| if x.is_nan() { String::new() } else { format!(" {name} {x}") };
    let named = |name: &str, text: &str| if text.is_empty() { String::new() } else { format!(" {name} {text}") };
    let (variant, policy) = (named("variant", head.variant), named("policy", head.policy));
    let version = if head.is_decided() { format!(" model version {}", head.model_version) } else { String::new() };
    let (propensity, score) = (known("propensity", head.propensity), known("score", head.score));
    format!("{variant}{policy}{version}{propensity}{score}")
}

fn print_example(known: &Configuration, plan: &Plan, model: usize, example: &Example<'_>, output: Output) {
    let head = &example.head;
    let name = &plan.models[model].name;
    let schema = known.schema(name, head.schema).unwrap_or(&plan.models[model].schema);
    let values = values::by_column(schema, example.values());
    let number = |x: f64| if x.is_nan() { Value::Null } else { json!(x) };
    let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    let version = head.is_decided().then_some(head.model_version);
    match output {
        Output::Json => print(
            json!({"model": name, "time": head.time.0, "impression": head.impression.0,
                "item": head.item, "position": head.position, "label": head.label, "propensity": number(head.propensity),
                "placement": head.placement, "platform": head.platform, "variant": text(head.variant),
                "policy": text(head.policy), "modelVersion": version, "score": number(head.score),
                "generation": head.generation, "values": values})
            .to_string(),
        ),
        Output::Text => print(format!(
            "{} {} item {} position {} label {}{} {}",
            name,
            progress::time(head.impression),
            head.item,
            head.position,
            u8::from(head.label),
            decided(head),
            values.iter().map(|(name, v)| format!("{name}={v}")).collect::<Vec<_>>().join(" ")
        )),
    }
}
