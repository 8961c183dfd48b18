use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::codec::Put;
use crate::frame::{FrameWriter, SectionHead, put_seq};

fn record(seq: Seq, time: i64) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32(20);
    put_seq(&mut out, seq);
    out.put_i64(time);
    out
}

/// A section: partition, epoch, (from, to], watermark, state, and (offset, time) of its records.
struct Part<'a>(u32, u64, u64, u64, i64, OriginState, &'a [(u64, i64)]);

fn frame(parts: &[Part<'_>]) -> Arc<[u8]> {
    let mut w = FrameWriter::new(Kind::Events, 1, 0);
    for Part(partition, epoch, from, to, watermark, state, records) in parts {
        let bytes: Vec<u8> = records.iter().flat_map(|(o, t)| record(Seq { offset: *o, index: 0 }, *t)).collect();
        let highest = records.iter().map(|r| Time(r.1)).max().unwrap_or(Time::MIN);
        let progress = Progress { watermark: Time(*watermark), highest, state: *state };
        let origin = Origin::of_source(0, *partition);
        let (from, to) = (Seq::end_of(*from), Seq::end_of(*to));
        w.section(&SectionHead { origin, epoch: *epoch, from, to, progress }, &bytes);
    }
    Arc::from(w.finish())
}

fn merge_of(partitions: u32) -> Merge {
    Merge::new(Kind::Events, &(0..partitions).map(|p| Origin::of_source(0, p)).collect::<Vec<_>>())
}

fn drain(merge: &mut Merge) -> Vec<(i64, u32, u64)> {
    std::iter::from_fn(|| merge.release().map(|r| (r.time.0, r.origin.partition, r.seq.offset))).collect()
}

use OriginState::{Active, Ended, Idle};

#[test]
fn waits_for_every_origin_and_orders_ties_by_origin_then_sequence() {
    let mut m = merge_of(2);
    m.accept(&frame(&[Part(1, 1, 0, 3, 100, Active, &[(1, 10), (2, 10), (3, 5)])])).unwrap();
    assert_eq!(drain(&mut m), [], "origin 0 has said nothing");
    m.accept(&frame(&[Part(0, 1, 0, 2, 10, Active, &[(1, 10), (2, 11)])])).unwrap();
    assert_eq!(drain(&mut m), [(5, 1, 3), (10, 0, 1), (10, 1, 1), (10, 1, 2)]);
    assert_eq!(m.waiting(), 1);
}

#[test]
fn an_idle_origin_holds_nothing_up_and_what_it_then_sends_below_is_late() {
    let mut m = merge_of(2);
    m.accept(&frame(&[Part(0, 1, 0, 1, 50, Active, &[(1, 50)]), Part(1, 1, 0, 0, i64::MIN, Idle, &[])])).unwrap();
    assert_eq!(drain(&mut m), [(50, 0, 1)]);
    let late = m.accept(&frame(&[Part(1, 1, 0, 2, 60, Active, &[(1, 49), (2, 61)])])).unwrap();
    assert_eq!(late.late.len(), 1);
    assert_eq!(drain(&mut m), [], "origin 0 stands at 50");
}

#[test]
fn when_all_are_idle_or_ended_everything_seen_is_released() {
    for state in [Idle, Ended] {
        let mut m = merge_of(2);
        m.accept(&frame(&[Part(0, 1, 0, 1, 1, state, &[(1, 50)]), Part(1, 1, 0, 1, 2, state, &[(1, 70)])])).unwrap();
        assert_eq!(drain(&mut m), [(50, 0, 1), (70, 1, 1)]);
        assert_eq!(m.watermark(), Time(70), "and the watermark stays there");
        assert_eq!(m.all_ended(), state == Ended);
    }
}

#[test]
fn a_repeated_frame_of_a_restarted_writer_changes_nothing() {
    let mut m = merge_of(1);
    m.accept(&frame(&[Part(0, 1, 0, 3, 30, Ended, &[(1, 10), (3, 30)])])).unwrap();
    assert_eq!(drain(&mut m).len(), 2);
    m.accept(&frame(&[Part(0, 1, 0, 2, 10, Active, &[(1, 10)])])).unwrap();
    assert!(m.all_ended(), "older input says nothing new of the state");
    m.accept(&frame(&[Part(0, 2, 0, 2, 10, Active, &[(1, 10)])])).unwrap();
    assert!(!m.all_ended(), "a new writer may have more, and holds up what comes meanwhile");
    m.accept(&frame(&[Part(0, 2, 2, 2, 10, Ended, &[])])).unwrap();
    assert!(!m.all_ended(), "it has not come to where the old one was");
    m.accept(&frame(&[Part(0, 2, 2, 3, 30, Ended, &[(3, 30)])])).unwrap();
    assert!(m.all_ended());
    assert_eq!((drain(&mut m).len(), m.watermark()), (0, Time(30)));
    m.accept(&frame(&[Part(0, 1, 3, 9, 99, Active, &[(4, 40)])])).unwrap();
    assert_eq!(m.waiting(), 0, "the stale writer is not heard");
}

#[test]
fn a_hole_is_refused() {
    let mut m = merge_of(1);
    m.accept(&frame(&[Part(0, 1, 0, 3, 30, Active, &[])])).unwrap();
    let error = m.accept(&frame(&[Part(0, 1, 4, 6, 40, Active, &[(5, 50)])])).unwrap_err();
    assert!(matches!(error, OrderError::Gap(_)), "{error}");
}

#[test]
fn an_origin_that_is_added_joins_where_the_log_shows_it() {
    let mut m = merge_of(1);
    m.accept(&frame(&[Part(0, 1, 0, 2, 20, Active, &[(1, 10), (2, 30)])])).unwrap();
    assert_eq!(drain(&mut m).len(), 1);
    let late = m.accept(&frame(&[Part(1, 1, 0, 2, 25, Active, &[(1, 15), (2, 28)])])).unwrap();
    assert_eq!(late.late.len(), 1, "15 is below the merged watermark");
    m.accept(&frame(&[Part(0, 1, 2, 3, 40, Active, &[])])).unwrap();
    assert_eq!(drain(&mut m), [], "origin 1 stands at 25");
    m.accept(&frame(&[Part(1, 1, 2, 3, 40, Active, &[])])).unwrap();
    assert_eq!(drain(&mut m), [(28, 1, 2), (30, 0, 2)]);
}

#[test]
fn frames_are_let_go() {
    let mut m = merge_of(1);
    for n in 0..100u64 {
        m.accept(&frame(&[Part(0, 1, n, n + 1, n as i64, Active, &[(n + 1, n as i64 + 1)])])).unwrap();
        drain(&mut m);
    }
    assert!(m.frames.len() <= 3, "{}", m.frames.len());
}

/// The naive merge: everything at once in a sorted map.
fn oracle(origins: &[Vec<i64>]) -> Vec<(i64, u32, u64)> {
    let all = origins
        .iter()
        .enumerate()
        .flat_map(|(p, times)| times.iter().enumerate().map(move |(i, t)| ((*t, p as u32, i as u64 + 1), ())));
    all.collect::<BTreeMap<_, _>>().into_keys().collect()
}

proptest! {
    /// Any cut into frames, any interleaving of origins, saved and restored anywhere: the order is the oracle's.
    #[test]
    fn order_does_not_depend_on_frames(
        origins in proptest::collection::vec(proptest::collection::vec(0i64..5_000_000, 1..60), 1..4),
        choices in proptest::collection::vec((0usize..4, 1usize..9, any::<bool>()), 300),
    ) {
        let mut m = merge_of(origins.len() as u32);
        let mut at = vec![0; origins.len()];
        let mut seen = Vec::new();
        for (pick, size, restore) in choices {
            let p = pick % origins.len();
            let times = &origins[p];
            let to = (at[p] + size).min(times.len());
            let records: Vec<(u64, i64)> = (at[p]..to).map(|i| (i as u64 + 1, times[i])).collect();
            // The best watermark that is true: just below what is still to come.
            let watermark = times[to..].iter().min().map_or(i64::MAX - 1, |t| t - 1);
            let state = if to == times.len() { Ended } else { Active };
            m.accept(&frame(&[Part(p as u32, 1, at[p] as u64, to as u64, watermark, state, &records)])).unwrap();
            at[p] = to;
            seen.extend(drain(&mut m));
            if restore {
                let mut bytes = Vec::new();
                m.write(&mut bytes);
                m = Merge::read(Kind::Events, &mut Reader::new(&bytes)).unwrap();
            }
        }
        let complete = at.iter().zip(&origins).all(|(a, o)| *a == o.len());
        let expected = oracle(&origins);
        if complete {
            prop_assert_eq!(seen, expected);
        } else {
            prop_assert_eq!(&seen[..], &expected[..seen.len()]);
        }
    }
}

/// Control records with these numbers, of a writer of `epoch`.
fn control(epoch: u64, from: u64, numbers: &[u64]) -> Arc<[u8]> {
    let mut w = FrameWriter::new(Kind::Events, 1, 0);
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| record(crate::control::seq(epoch, *n), 0)).collect();
    let seq = |n| crate::control::seq(epoch, n);
    let (from, to) = (seq(from), seq(*numbers.last().unwrap()));
    let progress = Progress { watermark: Time(999), highest: Time(999), ..Progress::default() };
    w.section(&SectionHead { origin: Origin::control(0), epoch, from, to, progress }, &bytes);
    Arc::from(w.finish())
}

/// Numbers of the control records that a frame hands on.
fn controls(m: &mut Merge, frame: &Arc<[u8]>) -> Vec<u64> {
    let number = |r: OwnRecord| Reader::new(&r.bytes).u64("number").unwrap() & 0xff_ffff;
    m.accept(frame).unwrap().control.into_iter().map(number).collect()
}

#[test]
fn control_records_stand_outside_of_watermarks_and_may_have_holes() {
    let mut m = merge_of(1);
    assert_eq!(controls(&mut m, &control(1, 0, &[1, 2])), [1, 2]);
    assert_eq!((m.state(), m.watermark()), (Active, Time::MIN), "no origin of the merge");
    m.accept(&frame(&[Part(0, 1, 0, 1, 50, Active, &[(1, 40)])])).unwrap();
    assert_eq!((drain(&mut m).len(), m.watermark()), (1, Time(50)), "and nobody waits for them");
    assert_eq!(controls(&mut m, &control(1, 1, &[2, 3])), [3], "what was applied is dropped");
    assert_eq!(controls(&mut m, &control(2, 7, &[8])), [8], "a new owner counts anew");
    assert_eq!(controls(&mut m, &control(1, 3, &[4])), [] as [u64; 0], "the old one is not heard");
    let mut saved = Vec::new();
    m.write(&mut saved);
    let mut restored = Merge::read(Kind::Events, &mut Reader::new(&saved)).unwrap();
    assert_eq!(controls(&mut restored, &control(2, 7, &[8, 9])), [9]);
    restored.accept(&frame(&[Part(0, 1, 1, 1, 60, Ended, &[])])).unwrap();
    assert!(restored.all_ended());
}

#[test]
fn an_inserted_record_waits_for_its_turn_and_for_the_end_at_most() {
    let mut m = merge_of(1);
    m.accept(&frame(&[Part(0, 1, 0, 2, 50, Active, &[(1, 40), (2, 80)])])).unwrap();
    for (n, time) in [(1, 60), (2, 20), (3, 500)] {
        m.insert(Origin::control(0), &record(crate::control::seq(1, n), time)[4..]).unwrap();
    }
    let times = |m: &mut Merge| drain(m).into_iter().map(|r| r.0).collect::<Vec<_>>();
    assert_eq!(times(&mut m), [20, 40]);
    m.accept(&frame(&[Part(0, 1, 2, 3, 100, Active, &[])])).unwrap();
    assert_eq!(times(&mut m), [60, 80]);
    m.accept(&frame(&[Part(0, 1, 3, 3, 100, Ended, &[])])).unwrap();
    assert_eq!((times(&mut m), m.watermark()), (vec![500], Time(100)));
}

#[test]
fn what_is_dropped_leaves_the_rest_in_order() {
    let mut m = merge_of(1);
    let second = 1 << 20;
    let records: Vec<(u64, i64)> = (1..=12).map(|n| (n, (n as i64 * 7 % 12) * second)).collect();
    m.accept(&frame(&[Part(0, 1, 0, 12, 2 * second, Active, &records)])).unwrap();
    assert!(m.peek().is_some());
    let odd = |_, bytes: &[u8]| Reader::new(bytes).u64("offset").unwrap() % 2 == 1;
    m.retain(odd);
    assert_eq!(m.waiting(), 6);
    m.accept(&frame(&[Part(0, 1, 12, 12, 99 * second, Active, &[])])).unwrap();
    let mut expected: Vec<(i64, u32, u64)> = records.iter().filter(|r| r.0 % 2 == 1).map(|r| (r.1, 0, r.0)).collect();
    expected.sort_unstable();
    assert_eq!(drain(&mut m), expected);
    m.accept(&frame(&[Part(0, 1, 12, 13, 100 * second, Active, &[])])).unwrap();
    assert!(m.frames.iter().all(Option::is_none), "frames are let go");
}
