//! What is known of a request whose answer is lost, late, damaged or an error.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use millrace_e2e::{
    rng::Rng,
    s3::{Fault, Proxy, Request},
};

use super::*;
use crate::store::tests::faults::{restored_offset, work};

/// How a write ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Done,
    Conflict,
    Failed,
    Unknown,
}

fn ends(outcome: &Outcome) -> Ends {
    match outcome {
        Outcome::Done(_) => Ends::Done,
        Outcome::Conflict => Ends::Conflict,
        Outcome::Failed(_) => Ends::Failed,
        Outcome::Unknown(_) => Ends::Unknown,
    }
}

/// How often it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Once,
    Always,
}

/// A store whose requests of this kind go wrong, and the proxy that sees to it.
pub(super) fn behind(
    site: &Site,
    prefix: &str,
    fault: impl Fn(&Request) -> Fault + Send + Sync + 'static,
    answer: Duration,
) -> (S3Store, Proxy) {
    let proxy = Proxy::start(site.server.address(), fault).unwrap();
    let store = open_tuned(&place(&proxy.endpoint(), prefix), Tuning { answer, ..tuning() });
    (store, proxy)
}

/// The first of these requests, or all.
fn of(method: &'static str, fault: &Fault, times: Times) -> impl Fn(&Request) -> Fault + Send + Sync + 'static {
    let (fault, seen) = (fault.clone(), Arc::new(AtomicUsize::new(0)));
    move |request| {
        let is_due = request.method == method && (times == Times::Always || seen.fetch_add(1, Ordering::Relaxed) == 0);
        if is_due { fault.clone() } else { Fault::None }
    }
}

/// Short where nobody ever answers; otherwise nobody has to hurry.
fn patience(fault: &Fault) -> Duration {
    let is_silent = matches!(fault, Fault::Silent | Fault::DoneAndSilent);
    if is_silent { Duration::from_millis(500) } else { Duration::from_secs(60) }
}

/// Nobody waits for a write that is not answered, so it may be done a moment later.
fn in_time(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "not in time: {what}");
    }
}

#[test]
fn how_writes_end() {
    use Times::*;
    let site = Site::new();
    // Fault, how often, how the write ends, whether it was done, how many requests there were.
    let cases = [
        (Fault::None, Once, Ends::Done, true, 1),
        (Fault::Instead(409, "ConditionalRequestConflict"), Once, Ends::Done, true, 2),
        (Fault::Instead(409, "ConditionalRequestConflict"), Always, Ends::Failed, false, 3),
        (Fault::Instead(503, "SlowDown"), Once, Ends::Done, true, 2),
        (Fault::Instead(503, "SlowDown"), Always, Ends::Failed, false, 3),
        (Fault::Instead(400, "RequestTimeout"), Once, Ends::Done, true, 2),
        (Fault::Instead(412, "PreconditionFailed"), Always, Ends::Conflict, false, 1),
        (Fault::Instead(403, "AccessDenied"), Always, Ends::Failed, false, 1),
        (Fault::Instead(403, "RequestTimeTooSkewed"), Always, Ends::Failed, false, 1),
        (Fault::Instead(404, "NoSuchBucket"), Always, Ends::Failed, false, 1),
        (Fault::Instead(404, "Unheard"), Always, Ends::Failed, false, 1),
        (Fault::Instead(400, "InvalidRequest"), Always, Ends::Failed, false, 1),
        (Fault::Instead(301, "PermanentRedirect"), Always, Ends::Failed, false, 1),
        (Fault::Instead(501, "NotImplemented"), Always, Ends::Failed, false, 1),
        // Whether these did something, nobody says; so they are not sent again either.
        (Fault::Instead(500, "InternalError"), Once, Ends::Unknown, false, 1),
        (Fault::DoneBut(500, "InternalError"), Once, Ends::Unknown, true, 1),
        (Fault::DoneBut(503, "ServiceUnavailable"), Once, Ends::Unknown, true, 1),
        (Fault::DoneBut(504, "GatewayTimeout"), Once, Ends::Unknown, true, 1),
        (Fault::DoneBut(200, "InternalError"), Once, Ends::Unknown, true, 1),
        (Fault::Lost, Once, Ends::Unknown, false, 1),
        (Fault::DoneAndLost, Once, Ends::Unknown, true, 1),
        (Fault::Silent, Once, Ends::Unknown, false, 1),
        (Fault::DoneAndSilent, Once, Ends::Unknown, true, 1),
        (Fault::Short(20), Once, Ends::Unknown, true, 1),
        (Fault::Without("etag"), Once, Ends::Unknown, true, 1),
    ];
    for (number, (fault, times, expected, is_done, requests)) in cases.iter().enumerate() {
        let what = format!("{fault:?} {times:?}");
        let prefix = format!("case-{number}");
        let direct = open(&place(&site.server.endpoint(), &prefix));
        let before = version(direct.swap("manifest", None, b"before"));

        let (store, proxy) = behind(&site, &prefix, of("PUT", fault, *times), patience(fault));
        let outcome = store.put("file", b"content");
        assert_eq!((ends(&outcome), proxy.requests()), (*expected, *requests), "{what}: {outcome:?}");
        in_time(&what, || direct.get("file").unwrap().is_some() == *is_done);

        let (store, proxy) = behind(&site, &prefix, of("PUT", fault, *times), patience(fault));
        let outcome = store.swap("manifest", Some(&before), b"after");
        assert_eq!((ends(&outcome), proxy.requests()), (*expected, *requests), "{what}: {outcome:?}");
        let expected: &[u8] = if *is_done { b"after" } else { b"before" };
        in_time(&what, || direct.get("manifest").unwrap().unwrap().bytes == expected);
        let found = direct.get("manifest").unwrap().unwrap();
        if let Outcome::Done(version) = outcome {
            assert_eq!(found.version, version);
        }
    }
}

#[test]
fn nobody_is_patient_for_ever() {
    let site = Site::new();
    let fault = Fault::Instead(503, "SlowDown");
    let proxy = Proxy::start(site.server.address(), of("GET", &fault, Times::Always)).unwrap();
    let impatient = Tuning { patience: Duration::ZERO, ..tuning() };
    let store = open_tuned(&place(&proxy.endpoint(), "p"), impatient);
    assert!(store.get("x").is_err());
    assert_eq!(proxy.requests(), 1);
}

#[test]
fn what_is_not_there_cannot_be_replaced() {
    let site = Site::new();
    let fault = Fault::Instead(404, "NoSuchKey");
    let (store, proxy) = behind(&site, "p", of("PUT", &fault, Times::Always), patience(&fault));
    assert_eq!(store.swap("x", Some(&Version("0".to_owned())), b"x"), Outcome::Conflict);
    assert_eq!(proxy.requests(), 1);
    // No header can say this.
    let outcome = store.swap("x", Some(&Version("a\nb".to_owned())), b"x");
    assert_eq!((ends(&outcome), proxy.requests()), (Ends::Failed, 1), "{outcome:?}");
}

#[test]
fn what_is_read_is_whole_or_an_error() {
    let site = Site::new();
    let direct = open(&place(&site.server.endpoint(), "p"));
    let content = b"content that is long enough to be cut".repeat(1000);
    let written = version(direct.put("x", &content));
    let faults = [
        Fault::Short(1),
        Fault::Short(content.len()),
        Fault::Short(content.len() + 10),
        Fault::Flipped,
        Fault::With("content-length", "10"),
        Fault::With("content-length", "100000"),
        Fault::Without("etag"),
        Fault::Lost,
        Fault::Silent,
        Fault::Instead(500, "InternalError"),
        Fault::Instead(503, "SlowDown"),
        Fault::Instead(503, "ServiceUnavailable"),
    ];
    for fault in faults {
        let (store, proxy) = behind(&site, "p", of("GET", &fault, Times::Once), patience(&fault));
        let found = store.get("x").unwrap().unwrap();
        assert_eq!((found.bytes == content, &found.version), (true, &written), "{fault:?}");
        assert_eq!(proxy.requests(), 2, "{fault:?}");
        let (store, _proxy) = behind(&site, "p", of("GET", &fault, Times::Once), patience(&fault));
        assert_eq!(store.digest("x"), Ok(Some(Digest::of(&content))), "{fault:?}");

        let (store, proxy) = behind(&site, "p", of("GET", &fault, Times::Always), patience(&fault));
        assert!(store.get("x").is_err() && store.digest("x").is_err(), "{fault:?}");
        assert_eq!(proxy.requests(), 6, "{fault:?}");
    }
    for (status, code) in [(403, "AccessDenied"), (404, "NoSuchBucket"), (404, "Unheard"), (301, "PermanentRedirect")] {
        let fault = Fault::Instead(status, code);
        let (store, proxy) = behind(&site, "p", of("GET", &fault, Times::Always), patience(&fault));
        assert!(store.get("x").is_err() && store.digest("x").is_err() && store.list("").is_err(), "{code}");
        assert_eq!(proxy.requests(), 3, "{code}");
    }
}

/// A wrong ETag does no harm: nothing can be replaced by it.
#[test]
fn a_wrong_version_replaces_nothing() {
    let site = Site::new();
    let fault = Fault::With("etag", "\"another\"");
    let (store, _proxy) = behind(&site, "p", of("GET", &fault, Times::Always), patience(&fault));
    version(store.put("x", b"x"));
    let read = store.get("x").unwrap().unwrap();
    assert_eq!(read.version, Version("another".to_owned()));
    assert_eq!(store.swap("x", Some(&read.version), b"y"), Outcome::Conflict);
}

#[test]
fn listings_and_deletions_are_tried_again() {
    let site = Site::new();
    let direct = open(&place(&site.server.endpoint(), "p"));
    // Three pages.
    let keys: Vec<String> = (0..25).map(|i| format!("tasks/{i:02}")).collect();
    keys.iter().for_each(|key| drop(version(direct.put(key, b"x"))));
    let listed = |store: &S3Store| store.list("tasks/").map(|l| l.into_iter().map(|l| l.key).collect::<Vec<_>>());
    for fault in [Fault::Short(3), Fault::Lost, Fault::Silent, Fault::Instead(500, "InternalError")] {
        let (store, proxy) = behind(&site, "p", of("GET", &fault, Times::Once), patience(&fault));
        assert_eq!((listed(&store), proxy.requests()), (Ok(keys.clone()), 4), "{fault:?}");
        let (store, _proxy) = behind(&site, "p", of("GET", &fault, Times::Always), patience(&fault));
        assert!(listed(&store).is_err(), "{fault:?}");
    }
    for (i, fault) in [Fault::DoneAndLost, Fault::Lost, Fault::DoneBut(500, "InternalError")].into_iter().enumerate() {
        let (store, proxy) = behind(&site, "p", of("DELETE", &fault, Times::Once), patience(&fault));
        assert_eq!((store.delete(&keys[i]), proxy.requests()), (Ok(()), 2), "{fault:?}");
        assert_eq!(direct.get(&keys[i]), Ok(None));
        let (store, _proxy) = behind(&site, "p", of("DELETE", &fault, Times::Always), patience(&fault));
        assert!(store.delete(&keys[10 + i]).is_err(), "{fault:?}");
    }
}

/// An owner at work while one request in four goes wrong.
#[test]
fn checkpoints_survive_answers_that_are_lost() {
    let site = Site::new();
    for seed in 0..4 {
        for (number, fault) in
            [Fault::DoneAndLost, Fault::Lost, Fault::DoneBut(500, "InternalError")].into_iter().enumerate()
        {
            let (rng, this) = (Mutex::new(Rng::new(seed)), fault.clone());
            let wrong = move |_: &Request| if rng.lock().unwrap().below(4) == 0 { this.clone() } else { Fault::None };
            let prefix = format!("{seed}-{number}");
            let (store, _proxy) = behind(&site, &prefix, wrong, Duration::from_secs(60));
            assert_eq!(work(&store, 20), Ok((60, 60)), "{fault:?}, seed {seed}");
            assert_eq!(restored_offset(&open(&place(&site.server.endpoint(), &prefix))), 60);
        }
    }
}
