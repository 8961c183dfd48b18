//! Checkpoints that are encoded while the task goes on.

use proptest::prelude::*;

use super::{
    decisions::{decision, pipeline, user},
    *,
};
use crate::control::{Configure, Erase};

#[derive(Clone, Debug)]
enum Step {
    /// Kind, user, item, milliseconds since the record before, late by so many.
    Record(u8, u8, u8, i64, i64),
    Decide(u8),
    Erase(u8),
    Configure,
    Begin(Extent),
    GoOn(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u8..9, 0u8..6, 0u8..4, 0i64..400, 0i64..120).prop_map(|(k, u, i, t, l)| Step::Record(k, u, i, t, l)),
        1 => (0u8..6).prop_map(Step::Decide),
        1 => (0u8..6).prop_map(Step::Erase),
        1 => Just(Step::Configure),
        3 => prop_oneof![1 => Just(Extent::Base), 2 => Just(Extent::Changes)].prop_map(Step::Begin),
        6 => (1usize..5).prop_map(Step::GoOn),
    ]
}

/// Applies everything, and knows what time it is.
struct Live {
    rig: Rig,
    ms: i64,
    records: u64,
    generation: u32,
}

impl Live {
    fn new() -> Self {
        Self { rig: rig_of(&pipeline()), ms: 10_000, records: 0, generation: 1 }
    }

    fn apply(&mut self, step: &Step) {
        self.records += 1;
        let (n, control) = (self.records, |user_of: u8| ["a", "b", "c", "d", "e", "f"][usize::from(user_of)]);
        match *step {
            Step::Record(kind, of, item, later, late) => {
                self.ms += later;
                let (of, t) = (control(of), self.ms - late);
                let what = match kind {
                    0..3 => r#""type":"consent","ok":true"#.to_owned(),
                    3 => r#""type":"consent","ok":false"#.to_owned(),
                    4..7 => format!(r#""type":"view","item":"i{item}","cat":"c{item}","d":"d{n}","p":"home""#),
                    _ => format!(r#""type":"click","item":"i{item}","cat":"c{item}","id":"e{n}""#),
                };
                self.rig.read(&[&format!(r#"{{"u":"{of}","t":{t},{what}}}"#)]);
            }
            Step::Decide(of) => {
                let decided = decision(&self.rig, &format!("d{}", n + 1), control(of), self.ms, "banner", &["i1"]);
                self.rig.control(&Control::Decision(decided));
            }
            Step::Erase(of) => {
                let erase = Erase { user: user(control(of)), time: Time(self.ms * 1000) };
                self.rig.control(&Control::Erase(erase));
            }
            Step::Configure => {
                self.generation += 1;
                let spec = serde_json::to_string(load(&pipeline()).unwrap().spec()).unwrap();
                self.rig.control(&Control::Configure(Configure { generation: self.generation, spec }));
            }
            Step::Begin(_) | Step::GoOn(_) => {}
        }
    }
}

/// What a checkpoint is to be.
struct Expected {
    bytes: Vec<u8>,
    digest: u128,
    extent: Extent,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// A task that takes its checkpoints little by little against one that takes them at once.
    #[test]
    fn a_checkpoint_under_way_is_the_one_of_its_beginning(steps in proptest::collection::vec(any_step(), 1..150)) {
        let (mut live, mut at_once) = (Live::new(), Live::new());
        let mut under_way: Option<Expected> = None;
        let mut chain: Vec<Vec<u8>> = Vec::new();
        let end = [Step::GoOn(usize::MAX), Step::Begin(Extent::Changes), Step::GoOn(usize::MAX)];
        for step in steps.iter().chain(&end) {
            live.apply(step);
            at_once.apply(step);
            match *step {
                Step::Begin(extent) if under_way.is_none() => {
                    let wants_base = live.rig.profile.wants_base() || chain.is_empty();
                    let extent = if wants_base { Extent::Base } else { extent };
                    let bytes = at_once.rig.profile.checkpoint(extent);
                    under_way = Some(Expected { bytes, digest: at_once.rig.profile.digest(), extent });
                    live.rig.profile.begin_checkpoint(extent);
                }
                Step::GoOn(budget) if under_way.is_some() => match live.rig.profile.continue_checkpoint(budget) {
                    Slice::More => {}
                    Slice::Cancelled => {
                        prop_assert!(live.rig.profile.wants_base());
                        under_way = None;
                    }
                    Slice::Done { bytes, digest } => {
                        prop_assert_eq!(digest, xxhash_rust::xxh3::xxh3_64(&bytes));
                        let expected = under_way.take().unwrap();
                        prop_assert!(bytes == expected.bytes, "byte for byte");
                        if expected.extent == Extent::Base {
                            chain.clear();
                        }
                        chain.push(bytes);
                        let parts: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
                        let mut restored = Profile::restore(live.rig.plan.clone(), &parts).unwrap();
                        prop_assert_eq!(restored.digest(), expected.digest);
                        prop_assert_eq!(restored.offset() <= live.rig.profile.offset(), true);
                    }
                },
                _ => {}
            }
            prop_assert_eq!(live.rig.profile.digest(), at_once.rig.profile.digest());
        }
        prop_assert!(under_way.is_none() && !chain.is_empty());
    }
}

const OTHERS: &str = r#"{"type":"consent","u":"b","t":2000,"ok":true}"#;

fn begun() -> Rig {
    let mut rig = rig_of(&pipeline());
    rig.read(&[GRANT, VIEW, OTHERS, CLICK, LATER]);
    rig.profile.begin_checkpoint(Extent::Base);
    assert_eq!(rig.profile.continue_checkpoint(1), Slice::More);
    rig
}

fn erase(rig: &mut Rig, of: &str) {
    rig.control(&Control::Erase(Erase { user: user(of), time: Time(9_000_000) }));
}

#[test]
fn an_erasure_cancels_and_the_next_base_holds_everything_else() {
    let mut rig = begun();
    erase(&mut rig, "a");
    assert_eq!(rig.profile.continue_checkpoint(usize::MAX), Slice::Cancelled);
    assert!(rig.profile.wants_base());
    let base = rig.profile.checkpoint(Extent::Base);
    let digest = rig.profile.digest();
    rig.restart(&[&base]);
    assert_eq!((rig.profile.digest(), rig.has_row("a"), rig.has_row("b")), (digest, false, true));
}

#[test]
fn erasures_that_keep_coming_do_not_keep_checkpoints_away() {
    let mut rig = begun();
    erase(&mut rig, "a");
    let digest = rig.profile.digest();
    rig.profile.begin_checkpoint(Extent::Base);
    erase(&mut rig, "b");
    let Slice::Done { bytes: base, .. } = rig.profile.continue_checkpoint(usize::MAX) else { panic!("it goes on") };
    assert!(rig.profile.wants_base(), "it holds b, as of before");
    assert_eq!(Profile::restore(rig.plan.clone(), &[&base]).unwrap().digest(), digest);
    rig.profile.begin_checkpoint(Extent::Base);
    erase(&mut rig, "c");
    assert_eq!(rig.profile.continue_checkpoint(usize::MAX), Slice::Cancelled, "the next is cancelled again");
}

#[test]
fn who_withdraws_is_in_the_checkpoint_under_way_and_goes_with_the_next() {
    let mut rig = begun();
    let digest = rig.profile.digest();
    rig.read(&[r#"{"type":"consent","u":"a","t":9500,"ok":false}"#, r#"{"type":"view","u":"c","t":99000}"#]);
    assert!(!rig.has_row("a"));
    let Slice::Done { bytes: base, .. } = rig.profile.continue_checkpoint(usize::MAX) else { panic!("it goes on") };
    let changes = rig.profile.checkpoint(Extent::Changes);
    let now = rig.profile.digest();
    rig.restart(&[&base]);
    assert_eq!((rig.profile.digest(), rig.has_row("a")), (digest, true));
    rig.restart(&[&base, &changes]);
    assert_eq!((rig.profile.digest(), rig.has_row("a")), (now, false));
}
