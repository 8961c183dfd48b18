//! What serving sees: the row as it will be.

use proptest::prelude::*;

use super::{
    decisions::{pipeline, user},
    *,
};

/// That of the decisions, where what was bought is kept.
fn bought_pipeline() -> String {
    let pipeline =
        pipeline().replace("exposeWithin: 5s}", "exposeWithin: 5s, exclude: {boughtWithin: 1d, event: click}}");
    // Much waits.
    pipeline.replace("maxOutOfOrderness: 100ms", "maxOutOfOrderness: 1000s")
}

/// The row as bytes, its sets among them.
fn encoded(row: Option<crate::feature::RowRef<'_>>) -> Option<Vec<u8>> {
    row.map(|row| {
        let mut out = Vec::new();
        row.encode(&mut out);
        out
    })
}

fn row_of(rig: &Rig, name: &str) -> Option<Vec<u8>> {
    encoded(rig.profile.users().find(user(name)).map(|slot| rig.profile.users().row(slot)))
}

fn viewed(rig: &mut Rig, name: &str) -> (bool, Option<Vec<u8>>) {
    let view = rig.profile.view(user(name));
    (view.consented, encoded(view.row))
}

#[derive(Clone, Debug)]
struct Small {
    user: u8,
    time: i64,
    kind: u8,
    item: u8,
    id: u8,
}

impl Small {
    fn record(&self) -> String {
        let Small { user, time, kind, item, id } = self;
        let of = format!(r#""u":"{user}","t":{time}"#);
        match kind {
            0 => format!(r#"{{"type":"consent",{of},"ok":true}}"#),
            1 => format!(r#"{{"type":"consent",{of},"ok":false}}"#),
            2 => format!(r#"{{"type":"view",{of},"item":"i{item}","cat":"c{item}"}}"#),
            // Retries have the same id and time; ids are a user's own.
            _ => format!(r#"{{"type":"click",{of},"item":"i{item}","cat":"c{item}","id":"{user}-{id}"}}"#),
        }
    }
}

fn small() -> impl Strategy<Value = Small> {
    let kind = prop_oneof![3 => Just(0u8), 1 => Just(1u8), 8 => Just(2u8), 12 => Just(3u8)];
    (0u8..3, 1_000i64..2_000, kind, 0u8..6, 0u8..30).prop_map(|(user, time, kind, item, id)| Small {
        user,
        time,
        kind,
        item,
        id,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// What was read waits; releasing it leads to just what the view said before.
    #[test]
    fn the_view_is_the_row_after_the_release(
        released in proptest::collection::vec(small(), 0..30),
        waiting in proptest::collection::vec(small(), 1..60),
    ) {
        let mut rig = rig_of(&bought_pipeline());
        rig.read(&["{\"type\":\"consent\",\"u\":\"0\",\"t\":1,\"ok\":true}"]);
        let mut released = released;
        released.iter_mut().for_each(|s| s.time -= 1_000);
        for small in &released {
            rig.read(&[&small.record()]);
        }
        // The watermark passes what is to be released, and nothing else.
        rig.read(&[r#"{"type":"view","u":"z","t":1001002}"#]);
        let mut ahead = waiting.clone();
        ahead.iter_mut().for_each(|s| s.time += 1_000_000);
        for small in &ahead {
            rig.read(&[&small.record()]);
        }
        let views: Vec<_> = (0..3).map(|u| viewed(&mut rig, &u.to_string())).collect();
        rig.end();
        for (user, (consented, row)) in views.into_iter().enumerate() {
            let last_word = ahead.iter().filter(|s| usize::from(s.user) == user && s.kind < 2).max_by_key(|s| (s.time, s.kind));
            if last_word.is_some_and(|s| s.kind == 1) {
                prop_assert_eq!((consented, row), (false, None), "a withdrawal is the last word");
            } else {
                prop_assert_eq!(&row, &row_of(&rig, &user.to_string()));
                prop_assert_eq!(consented, row.is_some());
            }
        }
    }
}

#[test]
fn a_click_is_seen_at_once_and_a_retry_once() {
    let mut rig = rig_of(&bought_pipeline());
    rig.read(&[GRANT]);
    assert_eq!(viewed(&mut rig, "b"), (false, None));
    let (consented, before) = viewed(&mut rig, "a");
    assert!(consented && rig.profile.users().is_empty(), "the grant itself waits");
    rig.read(&[CLICK]);
    let (_, once) = viewed(&mut rig, "a");
    assert_ne!(once, before);
    rig.read(&[CLICK]);
    assert_eq!(viewed(&mut rig, "a").1, once);
    let ring = rig.plan.features.bought_ring(rig.plan.names.event("click").unwrap()).unwrap();
    let bought: Vec<_> = rig.profile.view(user("a")).row.unwrap().bought(ring).collect();
    assert_eq!(bought, [(crate::event::category_of_text("i1"), Time(3_000_000))]);
}

#[test]
fn a_withdrawal_ends_serving_when_it_is_read() {
    let withdrawal = |t: i64| format!(r#"{{"type":"consent","u":"a","t":{t},"ok":false}}"#);
    // On time, late and from the future: (stated, served afterwards).
    for (stated, served) in [(3_000, false), (1_500, false), (900, true), (999_999_999, false)] {
        let mut rig = rig_of(&pipeline());
        rig.read(&[GRANT, VIEW, LATER, &withdrawal(stated)]);
        assert_eq!(viewed(&mut rig, "a").0, served, "{stated}");
    }
    // A grant that is stated later stands, though it waits.
    let mut rig = rig_of(&bought_pipeline());
    rig.read(&[GRANT, CLICK, &withdrawal(4_000), r#"{"type":"consent","u":"a","t":5000,"ok":true}"#]);
    let (consented, row) = viewed(&mut rig, "a");
    rig.end();
    assert!(consented);
    assert_eq!(row, row_of(&rig, "a"), "without what was before the withdrawal");
}

#[test]
fn of_many_waiting_events_the_newest_count_and_all_that_change_consent() {
    let mut rig = rig_of(&bought_pipeline());
    let click = |t: i64| format!(r#"{{"type":"click","u":"a","t":{t},"item":"i{t}","cat":"c"}}"#);
    rig.read(&[GRANT]);
    for t in 0..400 {
        rig.read(&[&click(2_000 + t)]);
    }
    let mut newest = rig_of(&bought_pipeline());
    newest.read(&[GRANT]);
    for t in 400 - 256..400 {
        newest.read(&[&click(2_000 + t)]);
    }
    let (seen, expected) = (viewed(&mut rig, "a"), viewed(&mut newest, "a"));
    assert!(seen.0 && seen == expected, "the grant counts, though older");
    for _ in 0..256 {
        rig.read(&[r#"{"type":"consent","u":"a","t":9000,"ok":true}"#]);
    }
    assert_eq!(viewed(&mut rig, "a"), (false, None), "too many changes of mind: closed");
}

#[test]
fn views_survive_restarts_and_releases() {
    let mut rig = rig_of(&bought_pipeline());
    rig.read(&[GRANT, VIEW, CLICK]);
    let before = viewed(&mut rig, "a");
    let base = rig.profile.checkpoint(Extent::Base);
    rig.restart(&[&base]);
    assert_eq!(viewed(&mut rig, "a"), before);
    rig.end();
    assert_eq!(viewed(&mut rig, "a"), before, "nothing waits any more");
}
