//! Erasure.

use super::{
    decisions::{decision, pipeline, user},
    *,
};
use crate::control::Erase;

fn contains(bytes: &[u8], pattern: &[u8]) -> bool {
    bytes.windows(pattern.len()).any(|window| window == pattern)
}

/// Both byte orders of the pseudonym.
fn names(bytes: &[u8], of: Pseudonym) -> bool {
    contains(bytes, &of.0.to_le_bytes()) || contains(bytes, &of.0.to_be_bytes())
}

const GRANT_B: &str = r#"{"type":"consent","u":"b","t":1000,"ok":true}"#;
const VIEW_B: &str = r#"{"type":"view","u":"b","t":2000,"item":"i1","cat":"x"}"#;
const WAITING: &str = r#"{"type":"click","u":"a","t":3900,"item":"i1","cat":"rare"}"#;

/// User a has a row, an open join, a filed decision and a waiting event; b the same except the last.
fn full() -> Rig {
    let mut rig = rig_of(&pipeline());
    rig.read(&[GRANT, GRANT_B, VIEW, VIEW_B, CLICK, r#"{"type":"view","u":"b","t":4000,"item":"i2"}"#]);
    rig.control(&Control::Decision(decision(&rig, "d1", "a", 1_900, "home", &["i1"])));
    rig.control(&Control::Decision(decision(&rig, "d2", "b", 1_900, "home", &["i1"])));
    rig.read(&[WAITING]);
    rig
}

fn erase(rig: &mut Rig, of: &str, time_ms: i64) {
    rig.control(&Control::Erase(Erase { user: user(of), time: Time(time_ms * 1000) }));
}

#[test]
fn nothing_of_the_user_is_in_the_next_base() {
    let mut rig = full();
    let before = rig.profile.checkpoint(Extent::Base);
    let slot = rig.profile.users().find(user("a")).unwrap();
    let mut row = Vec::new();
    rig.profile.users().row(slot).encode(&mut row);
    // From behind the pseudonym to where only zeros are left.
    let content = row[16..].trim_ascii_end().strip_suffix(&[0]).unwrap_or(&row[16..]).to_vec();
    assert!(names(&before, user("a")) && contains(&before, &content), "it was there");
    assert!(!rig.profile.wants_base());
    erase(&mut rig, "a", 5_000);
    assert!(rig.profile.wants_base());
    let after = rig.profile.checkpoint(Extent::Base);
    assert!(!names(&after, user("a")) && !contains(&after, &content));
    assert!(names(&after, user("b")), "the other user stays");
    assert!(!rig.profile.wants_base());
    assert_eq!((rig.profile.users().len(), rig.profile.open_joins(), rig.profile.filed_decisions().0), (1, 1, 1));
    assert_eq!(rig.profile.counts().erased, 1, "the click that waited");
}

#[test]
fn what_comes_later_of_the_time_before_is_dropped() {
    let mut rig = full();
    erase(&mut rig, "a", 5_000);
    let consent = r#"{"type":"consent","u":"a","t":4500,"ok":true}"#;
    let click = r#"{"type":"click","u":"a","t":4600,"item":"i1"}"#;
    rig.read(&[consent, click]);
    rig.control(&Control::Decision(decision(&rig, "d3", "a", 4_900, "home", &["i1"])));
    let saved = rig.profile.checkpoint(Extent::Base);
    assert!(!names(&saved, user("a")), "not even while it would wait");
    assert_eq!((rig.profile.counts().erased, rig.profile.filed_decisions().0), (3, 1));
    // Who agrees again after that is a new user.
    rig.read(&[r#"{"type":"consent","u":"a","t":5001,"ok":true}"#, LATER]);
    assert!(rig.has_row("a"));
    let slot = rig.profile.users().find(user("a")).unwrap();
    assert_eq!(rig.profile.users().row(slot).last_event(), Time::MIN);
}

#[test]
fn an_older_checkpoint_and_the_log_bring_the_erasure_again() {
    let mut rig = full();
    let older = rig.profile.checkpoint(Extent::Base);
    erase(&mut rig, "a", 5_000);
    rig.read(&[LATER]);
    let digest = rig.profile.digest();
    let mut again = full();
    again.restart(&[&older]);
    assert!(again.has_row("a"));
    erase(&mut again, "a", 5_000);
    again.read(&[LATER]);
    assert_eq!((again.profile.digest(), again.has_row("a")), (digest, false));
    assert!(again.profile.wants_base());
}

#[test]
fn who_was_erased_is_known_after_a_restart_until_the_watermark_has_passed() {
    let mut rig = full();
    erase(&mut rig, "a", 5_000);
    let base = rig.profile.checkpoint(Extent::Base);
    rig.restart(&[&base]);
    rig.read(&[r#"{"type":"consent","u":"a","t":4500,"ok":true}"#]);
    assert_eq!(rig.profile.counts().erased, 2);
    rig.read(&[LATER]);
    assert!(!rig.has_row("a"));
    assert!(!rig.profile.erased.covers(user("a"), Time(0)), "the watermark is above");
}
