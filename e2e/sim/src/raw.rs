//! The examples that a world must give, computed from what people sent by an oracle that shares no code with decoding at
//! receipt, frames, dedupe, merge, joins and ingest.

use std::{collections::BTreeMap, fs, path::PathBuf};

use millrace_e2e::oracle::Oracle;
use millrace_engine::example::Example;

use crate::{
    check::{EXAMPLES_ARE_THE_ORACLES, Violation, violation},
    ground::PIPELINE,
    ledger::Ledger,
};

/// The lines of each source's partitions, in order.
pub type Lines = BTreeMap<(String, u32), Vec<String>>;

/// Time, impression, item, position, label.
type Head = (i64, i64, String, i32, bool);

/// Compares what was told of until the watermark that all profile tasks have told.
pub fn compare(ledger: &Ledger, lines: &Lines) -> Result<(), Violation> {
    let wrong = |what: String| violation(EXAMPLES_ARE_THE_ORACLES, what);
    let wanted = oracle(lines).map_err(|error| wrong(format!("there is no oracle: {error}")))?;
    let until = ledger.told_until().0;
    for model in ledger.models() {
        let mut found = Vec::new();
        for bytes in ledger.examples(model) {
            let Example { head, .. } = Example::read(bytes).map_err(|error| wrong(error.to_string()))?;
            found.push((head.time.0, head.impression.0, head.item.to_owned(), head.position, head.label));
        }
        let sorted = |mut all: Vec<Head>| {
            all.retain(|head| head.0 <= until);
            all.sort();
            all
        };
        let (found, wanted) = (sorted(found), sorted(wanted.get(model).cloned().unwrap_or_default()));
        if found != wanted {
            let missing = wanted.iter().find(|head| !found.contains(head));
            let added = found.iter().find(|head| !wanted.contains(head));
            let (n, of) = (found.len(), wanted.len());
            return Err(wrong(format!("{model}: {n} examples for {of}; missing {missing:?}, too many {added:?}")));
        }
    }
    Ok(())
}

fn oracle(lines: &Lines) -> Result<BTreeMap<String, Vec<Head>>, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let mut sources: BTreeMap<String, PathBuf> = BTreeMap::new();
    for ((source, partition), lines) in lines {
        let place = folder.path().join(source);
        fs::create_dir_all(&place)?;
        fs::write(place.join(format!("{partition:03}.jsonl")), lines.join("\n"))?;
        sources.insert(source.clone(), place);
    }
    let pipeline = folder.path().join("pipeline.yaml");
    fs::write(&pipeline, PIPELINE)?;
    let result = Oracle::open(&pipeline, &sources)?.run()?;
    let head = |e: millrace_e2e::oracle::OracleExample| (e.time, e.impression, e.item, e.position, e.label);
    Ok(result.examples.into_iter().map(|(model, all)| (model, all.into_iter().map(head).collect())).collect())
}
