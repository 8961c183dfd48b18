//! `millrace store`: whether a pipeline's checkpoints are safe where they are to be.

use std::{
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{CliError, Output, print};
use crate::{
    pipeline,
    store::{
        Store,
        check::{self, Effort, Finding, Report},
        keys,
        s3::{S3Store, Tuning},
    },
};

/// Clients with connections of their own.
const CLIENTS: usize = 8;

#[derive(Subcommand)]
pub enum StoreCommand {
    /// Find out whether the store of a pipeline's checkpoints keeps what they need, above all under races.
    ///
    /// Eight clients write, replace, list and delete objects of their own below the prefix, and remove them at the end.
    #[command(
        after_help = "Exit code 3: the store breaks a promise, and must not hold checkpoints. 1: it could not be found out.\n\n\
        Examples:\n  millrace store check pipeline.yaml\n  millrace store check pipeline.yaml --updates 2000 --output json"
    )]
    Check {
        /// The pipeline's YAML file.
        pipeline: PathBuf,
        /// Versions of one object that all clients want to replace at once.
        #[arg(long, default_value_t = Effort::default().updates, value_name = "N")]
        updates: usize,
    },
}

pub fn store(command: &StoreCommand, output: Output) -> Result<(), CliError> {
    match command {
        StoreCommand::Check { pipeline, updates } => check(pipeline, *updates, output),
    }
}

fn check(path: &Path, updates: usize, output: Output) -> Result<(), CliError> {
    let validated = pipeline::validate(path)?;
    let Some(place) = &validated.spec().checkpoints.s3 else {
        return Err(CliError::NoStore { path: path.to_owned() });
    };
    let clients = (0..CLIENTS).map(|_| S3Store::open(place, Tuning { page_objects: 10, ..Tuning::default() }));
    let clients = clients.collect::<Result<Vec<_>, _>>()?;
    let clients: Vec<&dyn Store> = clients.iter().map(|client| client as &dyn Store).collect();
    let run = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
    let report = check::check(&clients, &run, &Effort { updates, ..Effort::default() });
    print(match output {
        Output::Json => json(&place.to_string(), &run, &report).to_string(),
        Output::Text => text(&place.to_string(), &run, &report),
    });
    match (report.is_broken(), report.failed.or(report.left)) {
        (true, _) => Err(CliError::FOUND),
        (false, Some(error)) => Err(CliError::Other(error.to_string())),
        (false, None) => Ok(()),
    }
}

fn text(place: &str, run: &str, report: &Report) -> String {
    let mut out = format!("{place}, {CLIENTS} clients\n");
    for Finding { promise, kept } in &report.findings {
        match kept {
            Ok(how) => out.push_str(&format!("  kept    {}: {how}\n", promise.what())),
            Err(what) => {
                out.push_str(&format!("  BROKEN  {}: {what}\n          {}\n", promise.what(), promise.otherwise()));
            }
        }
    }
    if report.left.is_some() {
        out.push_str(&format!("Objects of this check may be left under {}: delete them.\n", keys::checks(run)));
    }
    out.push_str(match (report.is_broken(), &report.failed) {
        (true, _) => "It must not hold checkpoints.",
        (false, Some(_)) => "It is not known whether it may hold checkpoints: it failed.",
        (false, None) => "It keeps what checkpoints need.",
    });
    out
}

fn json(place: &str, run: &str, report: &Report) -> Value {
    let promises = report.findings.iter().map(|Finding { promise, kept }| {
        let found = kept.as_ref().unwrap_or_else(|what| what);
        let mut promise_json =
            json!({"promise": promise, "what": promise.what(), "kept": kept.is_ok(), "found": found});
        if kept.is_err() {
            promise_json["otherwise"] = promise.otherwise().into();
        }
        promise_json
    });
    let (failed, left) = (&report.failed, &report.left);
    json!({
        "formatVersion": 1,
        "place": place,
        "clients": CLIENTS,
        "kept": !report.is_broken() && failed.is_none(),
        "promises": promises.collect::<Vec<_>>(),
        "error": failed.as_ref().map(ToString::to_string),
        "left": left.as_ref().map(|_| keys::checks(run)),
    })
}
