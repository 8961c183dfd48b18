//! What every implementation has to do. Each test gets an empty log.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{AppendError, Cause, FIRST_OFFSET, Log, LogPartition, MAX_LOG_NAME_BYTES, MAX_RECORD_BYTES, ReadError};

pub fn events(partition: u32) -> LogPartition {
    LogPartition::new("events", partition)
}

/// Bytes that differ from record to record, and of different lengths.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// All of a partition, read in steps of `max_bytes`.
pub fn read_all(log: &dyn Log, partition: &LogPartition, max_bytes: usize) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
    let (mut at, mut all) = (log.start(partition)?, Vec::new());
    loop {
        let some = log.read(partition, at, max_bytes)?;
        let Some((last, _)) = some.last() else { return Ok(all) };
        at = last + 1;
        all.extend(some);
    }
}

/// Runs the whole suite. `new` logs have at least four partitions of `events`.
pub fn run(new: &dyn Fn() -> Box<dyn Log>) {
    empty(&*new());
    offsets_and_order(&*new());
    read_ranges(&*new());
    batches_span_partitions(&*new());
    big_and_empty_records(&*new());
    refusals(&*new());
    trimming(&*new());
    concurrent(&*new());
    against_a_model(new);
}

fn empty(log: &dyn Log) {
    let partition = events(0);
    assert_eq!(log.append(&[]), Ok(vec![]));
    assert_eq!((log.start(&partition), log.end(&partition)), (Ok(FIRST_OFFSET), Ok(FIRST_OFFSET)));
    assert_eq!(log.read(&partition, FIRST_OFFSET, 100), Ok(vec![]));
    assert_eq!(log.trim(&partition, 10), Ok(()));
    assert_eq!(log.status().partitions, vec![]);
}

fn offsets_and_order(log: &dyn Log) {
    let partition = events(0);
    for i in 0..20u64 {
        let batch: Vec<_> = (0..3).map(|j| (partition.clone(), bytes(i * 3 + j, 10))).collect();
        assert_eq!(log.append(&batch), Ok(vec![i * 3 + 1, i * 3 + 2, i * 3 + 3]));
        assert_eq!(log.end(&partition), Ok(i * 3 + 4));
    }
    let expected: Vec<_> = (0..60).map(|i| (i + 1, bytes(i, 10))).collect();
    assert_eq!(read_all(log, &partition, 25), Ok(expected));
}

fn read_ranges(log: &dyn Log) {
    let partition = events(0);
    let batch: Vec<_> = (1..=10).map(|i| (partition.clone(), bytes(i, 10))).collect();
    log.append(&batch).unwrap();
    let offsets = |from, max| {
        log.read(&partition, from, max).map(|some| some.iter().map(|(offset, _)| *offset).collect::<Vec<_>>())
    };
    assert_eq!(offsets(1, 1 << 20), Ok((1..=10).collect()));
    assert_eq!(offsets(4, 30), Ok(vec![4, 5, 6]));
    assert!(offsets(4, 35).is_ok_and(|some| some.starts_with(&[4, 5, 6]) && some.len() <= 4), "about as much");
    assert_eq!(offsets(4, 0), Ok(vec![4]), "at least one");
    assert_eq!(offsets(10, 1), Ok(vec![10]));
    assert_eq!(offsets(11, 100), Ok(vec![]));
    assert_eq!(
        log.read(&partition, 12, 100),
        Err(ReadError::BeyondEnd { partition: partition.clone(), from: 12, end: 11 })
    );
    assert_eq!(log.read(&partition, 0, 100), Err(ReadError::Trimmed { partition, from: 0, oldest: 1 }));
}

fn batches_span_partitions(log: &dyn Log) {
    let (a, b) = (events(1), LogPartition::new("examples.ctr", 0));
    let batch = [(b.clone(), vec![1]), (a.clone(), vec![2]), (b.clone(), vec![3]), (a.clone(), vec![4])];
    assert_eq!(log.append(&batch), Ok(vec![1, 1, 2, 2]));
    assert_eq!(read_all(log, &a, 100), Ok(vec![(1, vec![2]), (2, vec![4])]));
    assert_eq!(read_all(log, &b, 100), Ok(vec![(1, vec![1]), (2, vec![3])]));
    let found: Vec<_> = log.status().partitions.into_iter().map(|p| (p.partition, p.start, p.end)).collect();
    assert_eq!(found, vec![(a, 1, 3), (b, 1, 3)]);
}

fn big_and_empty_records(log: &dyn Log) {
    let partition = events(0);
    let records = [vec![], bytes(1, 10 << 20), vec![], bytes(2, 3), bytes(3, 5 << 20)];
    for record in &records {
        log.append(&[(partition.clone(), record.clone())]).unwrap();
    }
    let expected: Vec<_> = (1..).zip(records).collect();
    assert!(read_all(log, &partition, 1 << 20) == Ok(expected));
}

fn refusals(log: &dyn Log) {
    let name = "x".repeat(MAX_LOG_NAME_BYTES + 1);
    for name in ["", &name] {
        let refused = log.append(&[(events(0), vec![1]), (LogPartition::new(name, 0), vec![1])]);
        assert!(matches!(refused, Err(AppendError::Failed(Cause::BadName(_)))), "{refused:?}");
    }
    let refused = log.append(&[(events(0), vec![1]), (events(0), vec![0; MAX_RECORD_BYTES + 1])]);
    assert_eq!(refused, Err(AppendError::Failed(Cause::TooLong(MAX_RECORD_BYTES + 1))));
    assert_eq!(log.end(&events(0)), Ok(1), "nothing was appended");
}

/// Where nobody has to say beforehand how many partitions there are.
pub fn any_partition(log: &dyn Log) {
    let longest = LogPartition::new("x".repeat(MAX_LOG_NAME_BYTES), u32::MAX);
    assert_eq!(log.append(&[(longest, vec![1])]), Ok(vec![1]));
}

fn trimming(log: &dyn Log) {
    let partition = events(0);
    for i in 1..=100 {
        log.append(&[(partition.clone(), bytes(i, 100)), (events(1), bytes(i, 100))]).unwrap();
    }
    log.trim(&partition, 71).unwrap();
    let start = log.start(&partition).unwrap();
    assert!((2..=71).contains(&start), "whole segments below 71 are gone, nothing above: {start}");
    assert_eq!(
        log.read(&partition, start - 1, 1),
        Err(ReadError::Trimmed { partition: partition.clone(), from: start - 1, oldest: start })
    );
    let expected: Vec<_> = (start..=100).map(|i| (i, bytes(i, 100))).collect();
    assert_eq!(read_all(log, &partition, 1000), Ok(expected));
    assert_eq!(log.trim(&partition, 5), Ok(()), "below the start");
    assert_eq!(log.trim(&partition, 1000), Ok(()), "beyond the end");
    assert_eq!(log.end(&partition), Ok(101));
    assert_eq!(log.append(&[(partition.clone(), vec![7])]), Ok(vec![101]));
    assert_eq!(log.read(&partition, 101, 10), Ok(vec![(101, vec![7])]));
    assert_eq!(read_all(log, &events(1), 1000).unwrap().len(), 100, "another partition keeps its records");
}

/// Writers of several partitions, readers that follow them and a trimmer, all at once.
fn concurrent(log: &dyn Log) {
    const WRITERS: u64 = 3;
    const APPENDS: u64 = 60;
    let barrier = Barrier::new(WRITERS as usize + 2);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    for i in 0..APPENDS {
                        let record = [&[writer as u8][..], &bytes(i, 50)].concat();
                        log.append(&[(events(0), record.clone()), (events(1), record)]).unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            barrier.wait();
            while !done.load(Ordering::Acquire) {
                log.trim(&events(1), log.end(&events(1)).unwrap().saturating_sub(10)).unwrap();
                std::thread::yield_now();
            }
        });
        let reader = scope.spawn(|| {
            barrier.wait();
            let (mut at, mut seen) = (FIRST_OFFSET, Vec::new());
            while at < FIRST_OFFSET + WRITERS * APPENDS {
                for (offset, record) in log.read(&events(0), at, 500).unwrap() {
                    assert_eq!(offset, at);
                    at += 1;
                    seen.push(record);
                }
                std::thread::yield_now();
            }
            seen
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Release);
        let seen = reader.join().unwrap();
        for writer in 0..WRITERS {
            let own: Vec<_> = seen.iter().filter(|r| r[0] == writer as u8).map(|r| r[1..].to_vec()).collect();
            assert_eq!(own, (0..APPENDS).map(|i| bytes(i, 50)).collect::<Vec<_>>(), "each writer's order is kept");
        }
    });
    let rest = read_all(log, &events(1), 500).unwrap();
    assert_eq!(rest.last().map(|(offset, _)| *offset), Some(WRITERS * APPENDS));
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Append(Vec<(u32, usize)>),
    Read { partition: u32, from: u64, max_bytes: usize },
    Trim { partition: u32, before: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec((0..3u32, 0..400usize), 1..6).prop_map(Step::Append),
        3 => (0..3u32, 0..40u64, 0..1000usize).prop_map(|(partition, from, max_bytes)| Step::Read { partition, from, max_bytes }),
        1 => (0..3u32, 0..40u64).prop_map(|(partition, before)| Step::Trim { partition, before }),
    ]
}

/// Random steps against vectors that are never trimmed.
fn against_a_model(new: &dyn Fn() -> Box<dyn Log>) {
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
    let steps = proptest::collection::vec(step(), 1..40);
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        let log = new();
        let mut model: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
        for step in steps {
            check_step(&*log, &mut model, step);
        }
        Ok(())
    });
    assert_eq!(outcome, Ok(()));
}

fn check_step(log: &dyn Log, model: &mut BTreeMap<u32, Vec<Vec<u8>>>, step: Step) {
    match step {
        Step::Append(records) => {
            let batch: Vec<_> =
                records.iter().enumerate().map(|(i, (p, len))| (events(*p), bytes(i as u64, *len))).collect();
            let expected: Vec<u64> = batch
                .iter()
                .map(|(p, record)| {
                    let records = model.entry(p.partition).or_default();
                    records.push(record.clone());
                    records.len() as u64
                })
                .collect();
            assert_eq!(log.append(&batch), Ok(expected));
        }
        Step::Trim { partition, before } => {
            let start = log.start(&events(partition)).unwrap();
            log.trim(&events(partition), before).unwrap();
            assert!((start..=before.max(start)).contains(&log.start(&events(partition)).unwrap()));
        }
        Step::Read { partition, from, max_bytes } => {
            let records = model.get(&partition).cloned().unwrap_or_default();
            let (start, end) = (log.start(&events(partition)).unwrap(), records.len() as u64 + 1);
            assert_eq!(log.end(&events(partition)), Ok(end));
            match log.read(&events(partition), from, max_bytes) {
                Ok(found) => {
                    assert!((start..=end).contains(&from));
                    assert_eq!(found.is_empty(), from == end);
                    let expected: Vec<_> =
                        (from..).zip(records[from as usize - 1..].iter().cloned()).take(found.len()).collect();
                    assert_eq!(found, expected);
                }
                Err(ReadError::Trimmed { oldest, .. }) => assert!(from < start && oldest == start),
                Err(ReadError::BeyondEnd { .. }) => assert!(from > end),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn memory_log_keeps_the_contract() {
    run(&|| Box::new(super::memory::MemoryLog::default()));
    any_partition(&super::memory::MemoryLog::default());
}
