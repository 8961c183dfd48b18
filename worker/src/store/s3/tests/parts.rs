//! Large objects, whose writes are several requests.

use std::sync::{Arc, Mutex};

use millrace_e2e::s3::{Fault, Request};

use super::{faults::behind, *};

/// Two whole parts and a rest.
fn content() -> Vec<u8> {
    (0..11 * MIB).map(|i| (i % 251) as u8).collect()
}

/// The requests of a write in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begin,
    Part,
    Complete,
    Abort,
    Other,
}

fn step(request: &Request) -> Step {
    match request.method.as_str() {
        "POST" if request.target.contains("uploadId=") => Step::Complete,
        "POST" => Step::Begin,
        "PUT" if request.target.contains("uploadId=") => Step::Part,
        "DELETE" if request.target.contains("uploadId=") => Step::Abort,
        _ => Step::Other,
    }
}

/// A large object's write in which the first so many of these requests go wrong: its end, and how often each step was made.
fn written(site: &Site, prefix: &str, wrong: Step, times: usize, fault: Fault) -> (Outcome, [usize; 4]) {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = steps.clone();
    let decide = move |request: &Request| {
        let mut seen = seen.lock().unwrap();
        seen.push(step(request));
        let so_far = seen.iter().filter(|step| **step == wrong).count();
        if step(request) == wrong && so_far <= times { fault.clone() } else { Fault::None }
    };
    let (store, _proxy) = behind(site, prefix, decide, Duration::from_secs(60));
    let outcome = store.put("large", &content());
    let steps = steps.lock().unwrap();
    let count = |step| steps.iter().filter(|seen| **seen == step).count();
    (outcome, [Step::Begin, Step::Part, Step::Complete, Step::Abort].map(count))
}

#[test]
fn how_writes_in_parts_end() {
    const ALWAYS: usize = usize::MAX;
    let site = Site::new();
    // What goes wrong; whether it is done, and how; how often each step is made: begin, part, complete, abort.
    let cases = [
        (Step::Other, 0, Fault::None, "Done", true, [1, 3, 1, 0]),
        (Step::Begin, 1, Fault::Lost, "Done", true, [2, 3, 1, 0]),
        (Step::Begin, ALWAYS, Fault::Lost, "Failed", false, [3, 0, 0, 0]),
        (Step::Begin, ALWAYS, Fault::Instead(403, "AccessDenied"), "Failed", false, [1, 0, 0, 0]),
        (Step::Part, 1, Fault::DoneAndLost, "Done", true, [1, 4, 1, 0]),
        (Step::Part, 2, Fault::Instead(500, "InternalError"), "Done", true, [1, 5, 1, 0]),
        (Step::Complete, 1, Fault::Instead(409, "ConditionalRequestConflict"), "Done", true, [2, 6, 2, 1]),
        (Step::Complete, ALWAYS, Fault::Instead(409, "ConditionalRequestConflict"), "Failed", false, [3, 9, 3, 3]),
        (Step::Complete, 1, Fault::Instead(412, "PreconditionFailed"), "Conflict", false, [1, 3, 1, 1]),
        (Step::Complete, 1, Fault::Instead(200, "PreconditionFailed"), "Conflict", false, [1, 3, 1, 1]),
        (Step::Complete, 1, Fault::Instead(403, "AccessDenied"), "Failed", false, [1, 3, 1, 1]),
        (Step::Complete, 1, Fault::Instead(404, "NoSuchUpload"), "Unknown", false, [1, 3, 1, 1]),
        // The answer has begun with 200 long before it is known how it ends.
        (Step::Complete, 1, Fault::DoneBut(200, "InternalError"), "Unknown", true, [1, 3, 1, 1]),
        (Step::Complete, 1, Fault::DoneBut(500, "InternalError"), "Unknown", true, [1, 3, 1, 1]),
        (Step::Complete, 1, Fault::DoneAndLost, "Unknown", true, [1, 3, 1, 1]),
        (Step::Complete, 1, Fault::Lost, "Unknown", false, [1, 3, 1, 1]),
        (Step::Complete, 1, Fault::Short(10), "Unknown", true, [1, 3, 1, 1]),
    ];
    for (number, (wrong, times, fault, end, is_done, steps)) in cases.into_iter().enumerate() {
        let what = format!("{wrong:?} {fault:?} {times}");
        let prefix = format!("case-{number}");
        let (outcome, made) = written(&site, &prefix, wrong, times, fault);
        assert!(format!("{outcome:?}").starts_with(end), "{what}: {outcome:?}");
        assert_eq!(made, steps, "{what}: {outcome:?}");
        let found = open(&place(&site.server.endpoint(), &prefix)).digest("large").unwrap();
        assert_eq!(found, is_done.then(|| Digest::of(&content())), "{what}");
    }
}

/// However often a part fails, there is no object, and no room is taken.
#[test]
fn a_part_that_never_comes_leaves_nothing() {
    let site = Site::new();
    let (outcome, [begun, _, completed, aborted]) =
        written(&site, "p", Step::Part, usize::MAX, Fault::Instead(500, "InternalError"));
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    assert_eq!((begun, completed, aborted), (1, 0, 1));
    assert_eq!(open(&place(&site.server.endpoint(), "p")).list(""), Ok(vec![]));
}

#[test]
fn large_objects_are_replaced_on_a_condition() {
    let site = Site::new();
    let store = site.store();
    let (first, second) = (content(), vec![7; 6 * MIB]);
    let one = version(store.swap("large", None, &first));
    assert_eq!(store.get("large").unwrap().unwrap().version, one, "as it was written");
    assert_eq!(store.swap("large", None, &second), Outcome::Conflict);
    let two = version(store.swap("large", Some(&one), &second));
    assert_eq!(store.swap("large", Some(&one), &first), Outcome::Conflict);
    let three = version(store.swap("large", Some(&two), b"small again"));
    assert_eq!(store.swap("large", Some(&two), &first), Outcome::Conflict);
    version(store.swap("large", Some(&three), &first));
    assert_eq!(store.get("large").unwrap().unwrap().bytes, first);
}
