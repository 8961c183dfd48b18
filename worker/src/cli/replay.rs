//! `millrace replay`.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;

use super::{CliError, DataArgs, Output, print};
use crate::{data::Data, fleet::member::Common, pipeline::Pipeline, progress, replay::Replay};

#[derive(Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Of a fleet that has stopped: its pipeline's file, instead of a data folder.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "pipeline"])]
    fleet: Option<PathBuf>,
    /// Instead, report the loss that serving would have had: predicting by the model as it was at impression time.
    #[arg(long)]
    as_served: bool,
}

pub fn replay(args: &ReplayArgs, output: Output) -> Result<(), CliError> {
    if let Some(file) = &args.fleet {
        let pipeline = Pipeline::load(file, &BTreeMap::new())?;
        let Common { store, connected, configuration, partitions, .. } = Common::look(&pipeline)?;
        let (configuration, log) = (&configuration, connected.log);
        return compare(
            &Replay { pipeline: &pipeline, configuration, log, store, partitions: &partitions },
            args,
            output,
        );
    }
    let file = args.data.pipeline()?;
    let pipeline = Pipeline::load(&file, &BTreeMap::new())?;
    let data = Data::open_existing(&args.data.data, &pipeline)?;
    let partitions = data.registered(&pipeline)?;
    let configuration = data.configuration();
    let (log, store) = (data.log(), data.store());
    compare(&Replay { pipeline: &pipeline, configuration, log, store, partitions: &partitions }, args, output)
}

fn compare(replay: &Replay<'_>, args: &ReplayArgs, output: Output) -> Result<(), CliError> {
    if args.as_served {
        return as_served(replay, output);
    }
    let rebuilt = replay.rebuild(|task| tracing::info!("replaying {task}"))?;
    if rebuilt.is_empty() {
        return Err(CliError::Other("there are no checkpoints to compare with; run the pipeline first".into()));
    }
    let equal = rebuilt.iter().all(|r| r.equal);
    match output {
        Output::Json => print(serde_json::json!({"formatVersion": 1, "equal": equal, "tasks": rebuilt}).to_string()),
        Output::Text => {
            for r in &rebuilt {
                let verdict = if r.equal { "equal" } else { "DIFFERENT" };
                print(format!(
                    "{:<20} {verdict:<10} replayed offsets {}..{} from the {}",
                    r.task, r.from, r.to, r.since
                ));
                if !r.equal {
                    print(format!("  checkpoint {}\n  replay     {}", r.kept, r.replayed));
                }
                if let Some(e) = &r.examples {
                    print(format!("  examples: {} replayed, {} in the log, {} alike", e.replayed, e.in_log, e.alike));
                }
            }
            print(if equal { "The checkpoints are what the log says." } else { "Checkpoints and log DIFFER." });
        }
    }
    if equal { Ok(()) } else { Err(CliError::FOUND) }
}

fn as_served(replay: &Replay<'_>, output: Output) -> Result<(), CliError> {
    let models = replay.as_served()?;
    match output {
        Output::Json => print(serde_json::json!({"formatVersion": 1, "asServed": true, "models": models}).to_string()),
        Output::Text => {
            models.iter().for_each(|(name, f)| print(format!("as served: {}", progress::model(name, f))));
        }
    }
    Ok(())
}
