//! Examples per CPU-second of the learner, on one thread.
//!
//!     bench_learn text [--predictions] < stream.tsv   FTRL from text, set up as Vowpal Wabbit is in e2e/peers/learners
//!     bench_learn memory < stream.tsv                 FTRL alone, examples parsed before
//!     bench_learn model [--drift] < stream.tsv        the whole model task: hashing, statistics, validation, leaks, drift
//!
//! `stream.tsv`: label (0 or 1), a tab, indices below 2^18 separated by spaces. Prints one JSON object; with
//! `--predictions` a probability a line instead. CPU time is the kernel's of this thread (Linux).

use std::io::{BufRead, Write};

use millrace_crds::spec;
use millrace_engine::{
    event::{Seq, Time},
    example::{Column, Example, ExampleHead, FeatureValue, Schema, write_example},
    learn::{
        Model,
        ftrl::{Entry, Ftrl},
        validation::Prediction,
    },
};

/// As in bench.py.
const SETTINGS: spec::Ftrl = spec::Ftrl { alpha: 0.2, beta: 1.0, l1: 0.0, l2: 0.0, bits: 18, half_life_examples: None };
/// Where Vowpal Wabbit puts its constant.
const CONSTANT: u32 = 11_650_396;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let predictions = arguments.iter().any(|a| a == "--predictions");
    match arguments.first().map(String::as_str) {
        Some("text") => text(predictions),
        Some("memory") => memory(),
        Some("model") => model(arguments.iter().any(|a| a == "--drift")),
        _ => Err("bench_learn text|memory|model < stream.tsv".into()),
    }
}

fn cpu_seconds() -> Result<f64, Failure> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let on_cpu_ns: f64 = schedstat.split(' ').next().unwrap_or_default().parse()?;
    Ok(on_cpu_ns / 1e9)
}

fn report(mode: &str, examples: usize, cpu_s: f64, loss: f64) {
    println!(
        r#"{{"learner": "millrace", "mode": "{mode}", "n": {examples}, "cpu_s": {cpu_s:.4}, "examples_per_cpu_s": {:.0}, "log_loss": {:.5}}}"#,
        examples as f64 / cpu_s,
        loss / examples as f64,
    );
}

/// The label; its features, the constant last, replace `entries`. None for a line that is not as it should be.
fn parse(line: &[u8], entries: &mut Vec<Entry>) -> Option<bool> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (label, mut rest) = match line {
        [b'0', b'\t', rest @ ..] => (false, rest),
        [b'1', b'\t', rest @ ..] => (true, rest),
        _ => return None,
    };
    entries.clear();
    while !rest.is_empty() {
        let (index, length) = number(rest)?;
        entries.push(Entry { index, value: 1.0 });
        rest = match rest.get(length) {
            Some(b' ') => &rest[length + 1..],
            Some(_) => return None,
            None => &[],
        };
    }
    entries.push(Entry { index: CONSTANT, value: 1.0 });
    Some(label)
}

/// The number of at most seven digits at the beginning, and its length. Eight bytes at once: a loop over digits would
/// mispredict the end of nearly every number.
#[inline]
fn number(text: &[u8]) -> Option<(u32, usize)> {
    let mut eight = [b' '; 8];
    match text.first_chunk::<8>() {
        Some(chunk) => eight = *chunk,
        None => eight[..text.len()].copy_from_slice(text),
    }
    // 0 to 9 where a digit was; adding 0x76 sets the highest bit of every other byte.
    let digits = u64::from_le_bytes(eight) ^ 0x3030_3030_3030_3030;
    let others = (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080;
    let length = others.trailing_zeros() / 8;
    if length == 0 || length == 8 {
        return None;
    }
    let digits = digits << (64 - 8 * length);
    let pairs = (digits.wrapping_mul(10 << 8 | 1) >> 8) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs.wrapping_mul(100 << 16 | 1) >> 16) & 0x0000_FFFF_0000_FFFF;
    let all = fours.wrapping_mul(10_000 << 32 | 1) >> 32;
    Some((all as u32, length as usize))
}

/// Calls `each` with every line; lines are cut out of the reader's buffer, and copied only where it ends.
fn lines(mut each: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut input = std::io::BufReader::with_capacity(1 << 18, std::io::stdin().lock());
    let mut cut = Vec::new();
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return if cut.is_empty() { Ok(()) } else { each(&cut) };
        }
        let mut rest = buffer;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end + 1);
            if cut.is_empty() {
                each(line)?;
            } else {
                cut.extend_from_slice(line);
                each(&cut)?;
                cut.clear();
            }
            rest = after;
        }
        cut.extend_from_slice(rest);
        let consumed = buffer.len();
        input.consume(consumed);
    }
}

fn step(ftrl: &mut Ftrl, weights: &mut Vec<f64>, entries: &[Entry], label: bool) -> Prediction {
    let prediction = Prediction::of(0.0, ftrl.margin(entries, weights));
    ftrl.learn(entries, weights, prediction.probability - f64::from(u8::from(label)));
    prediction
}

fn text(predictions: bool) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let start = cpu_seconds()?;
    let (mut ftrl, mut weights, mut entries) = (Ftrl::new(&SETTINGS), Vec::new(), Vec::new());
    let (mut examples, mut loss) = (0, 0.0);
    lines(|line| {
        let label = parse(line, &mut entries).ok_or("not a line of stream.tsv")?;
        let prediction = step(&mut ftrl, &mut weights, &entries, label);
        if predictions {
            writeln!(out, "{:.8}", prediction.probability)?;
        }
        loss += prediction.loss(label);
        examples += 1;
        Ok(())
    })?;
    if !predictions {
        report("text", examples, cpu_seconds()? - start, loss);
    }
    Ok(())
}

fn memory() -> Result<(), Failure> {
    let (mut entries, mut all, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    lines(|line| {
        labels.push(parse(line, &mut entries).ok_or("not a line of stream.tsv")?);
        all.extend_from_slice(&entries);
        Ok(())
    })?;
    let start = cpu_seconds()?;
    let (mut ftrl, mut weights, mut loss) = (Ftrl::new(&SETTINGS), Vec::new(), 0.0);
    for (entries, label) in all.chunks_exact(all.len() / labels.len()).zip(&labels) {
        loss += step(&mut ftrl, &mut weights, entries, *label).loss(*label);
    }
    report("memory", labels.len(), cpu_seconds()? - start, loss);
    Ok(())
}

fn model(is_watched: bool) -> Result<(), Failure> {
    let (mut entries, mut bytes, mut values, mut number) = (Vec::new(), Vec::new(), Vec::new(), 0u64);
    let columns = (0..20).map(|n| Column { name: format!("column{n}") }).collect();
    let schema = Schema { columns };
    lines(|line| {
        let label = parse(line, &mut entries).ok_or("not a line of stream.tsv")?;
        values.clear();
        values.extend(entries[..20].iter().map(|e| FeatureValue::Category(u64::from(e.index))));
        number += 1;
        let time = Time(number as i64 * 10_000);
        let head = ExampleHead {
            seq: Seq { offset: number, index: 0 },
            time,
            impression: time,
            label,
            position: (number % 3) as i32,
            propensity: f64::NAN,
            placement: "home",
            platform: "web",
            item: ["a", "b", "c", "d"][number as usize % 4],
            schema: schema.id(),
            ..ExampleHead::default()
        };
        write_example(&mut bytes, &head, &values);
        Ok(())
    })?;
    let features: Vec<&String> = schema.columns.iter().map(|c| &c.name).collect();
    let spec = serde_json::from_value(serde_json::json!({
        "partitions": 1,
        "privacy": {"pseudonymKeys": {"active": "k"}, "user": {"rowNumber": true}, "consent": {"assumed": "synthetic"}},
        "sources": [],
        "outcomes": {"click": {"event": "click", "join": "item", "within": "1m"}},
        "models": [{"name": "m", "drift": is_watched.then(|| serde_json::json!({"answer": "fallBackToPrevious"})), "outcome": "click", "features": features,
            "learner": {"ftrl": {"alpha": 0.2, "beta": 1, "l1": 0, "l2": 0, "bits": 18}}}],
    }))?;
    let spec: spec::PipelineSpec = spec;
    let start = cpu_seconds()?;
    let mut model = Model::compile(&spec, &spec.models[0], &schema)?;
    let mut rest = bytes.as_slice();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (example, next) = after.split_at(u32::from_le_bytes(*length) as usize);
        model.learn(&Example::read(example)?)?;
        rest = next;
    }
    let cpu_s = cpu_seconds()? - start;
    let total = model.summary().validation.total;
    report("model", total.examples as usize, cpu_s, total.log_loss.unwrap_or(f64::NAN) * total.examples as f64);
    Ok(())
}
