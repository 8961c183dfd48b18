//! `millrace run`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;

use super::{
    CliError, Output,
    hosting::{Hosting, signalled},
    parse_source, print, sources,
};
use crate::{
    data::Data,
    host::{HostConfig, Tasks, Work, peers::Peers},
    pipeline::Pipeline,
    serve::{Prepared, PreparedPages, Timeouts},
    summary::Summary,
};

#[derive(Args)]
pub struct RunArgs {
    /// The pipeline's YAML file.
    pipeline: PathBuf,
    /// Read the sources to their ends, close what is open, save, print a summary and exit.
    #[arg(long)]
    until_end: bool,
    /// Read at most so many records a second, over all sources.
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    max_rate: Option<f64>,
    /// Read a source from another place than the pipeline says: a file, a folder or a pattern (in quotes).
    #[arg(long, value_name = "NAME=PATH", value_parser = parse_source)]
    source: Vec<(String, PathBuf)>,
    /// Folder of the log and the checkpoints.
    #[arg(long, default_value = "millrace-data", env = "MILLRACE_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Answer the API and serve the page there. Default, for a pipeline with placements or http sources: 127.0.0.1:8080.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Serve /metrics, /healthz and /readyz there: an IP address and a port, such as 127.0.0.1:9090.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_address: Option<SocketAddr>,
    /// Engine threads. Default: one for each core. Results do not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Size at which a frame of the log is cut. Results do not depend on it.
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    frame_bytes: u32,
    /// Read the sources' files in another order, which this seeds. Results do not depend on it: for tests.
    #[arg(long, value_name = "SEED", hide = true)]
    read_order: Option<u64>,
    /// No progress view.
    #[arg(long)]
    quiet: bool,
}

pub fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("must be above 0".into()) }
}

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

impl RunArgs {
    /// The port of the API, for a pipeline that has one.
    fn api(&self, pipeline: &Pipeline) -> Result<Option<Prepared>, CliError> {
        let spec = pipeline.spec();
        let serves = !spec.placements.is_empty() || spec.sources.iter().any(|source| source.http.is_some());
        // A run to the end of files has nobody to wait for.
        let Some(address) = self.listen.or((serves && !self.until_end).then_some(LISTEN)) else { return Ok(None) };
        let beside = self.pipeline.parent().unwrap_or(Path::new("."));
        Ok(Some(Prepared::new(&spec.serving, beside, address, Timeouts::default())?))
    }

    fn host_config(&self) -> HostConfig {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        HostConfig {
            threads: self.threads.map_or(cores, usize::from),
            frame_bytes: self.frame_bytes as usize,
            max_rate: self.max_rate,
            until_end: self.until_end,
            read_order: self.read_order,
        }
    }
}

pub fn run(args: &RunArgs, output: Output) -> Result<(), CliError> {
    let pipeline = Arc::new(Pipeline::load(&args.pipeline, &sources(&args.source))?);
    // The ports first: nothing is to be claimed by a run that cannot start.
    let pages = args.metrics_address.map(PreparedPages::new).transpose()?;
    let api = args.api(&pipeline)?;
    let data = Data::open(&args.data, &args.pipeline, &pipeline)?;
    let partitions = data.partitions(&pipeline)?;
    if let Some(api) = &api {
        data.tell_address(api.address())?;
    }
    let work = Work {
        pipeline: pipeline.clone(),
        configuration: data.configuration().clone(),
        partitions,
        log: data.log(),
        fetcher: data.fetcher(),
        store: data.store(),
        member: None,
        elsewhere: None,
        claimant: data.claimant().clone(),
    };
    let hosting =
        Hosting { tasks: Tasks::All, config: args.host_config(), pages, api, quiet: args.quiet, stop: signalled()? };
    let finished = hosting.host(work, Peers::default(), |_| Ok(()))?;
    let summary = Summary::of(&pipeline, finished);
    match output {
        Output::Text => print(summary.to_string()),
        Output::Json => print(serde_json::to_string(&summary).map_err(|e| CliError::Other(e.to_string()))?),
    }
    Ok(())
}
