//! Over a real server that speaks S3 (`make versitygw`), and with faults between.

mod faults;
mod parts;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use aws_config::BehaviorVersion;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError, future::ProvideCredentials as Provided},
};
use millrace_e2e::s3::{ACCESS_KEY, BUCKET, REGION, SECRET_KEY, Server};
use tempfile::TempDir;

use super::*;
use crate::store::{
    check::{Effort, check},
    tests::lineage,
};

const MIB: usize = 1 << 20;

/// A server of a test's own.
struct Site {
    _folder: TempDir,
    server: Server,
    prefixes: AtomicUsize,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path()).unwrap();
        Self { _folder: folder, server, prefixes: AtomicUsize::new(0) }
    }

    /// Empty.
    fn store(&self) -> S3Store {
        let number = self.prefixes.fetch_add(1, Ordering::Relaxed);
        open(&place(&self.server.endpoint(), &format!("p{number}")))
    }
}

fn place(endpoint: &str, prefix: &str) -> S3 {
    S3 {
        bucket: BUCKET.to_owned(),
        prefix: Some(prefix.to_owned()),
        region: Some(REGION.to_owned()),
        endpoint: Some(endpoint.to_owned()),
        path_style: true,
    }
}

/// Everything small, but for the time that is given: tests are to fail for other reasons.
fn tuning() -> Tuning {
    Tuning {
        tries: 3,
        pause: Duration::from_millis(1),
        whole_bytes: 5 * MIB,
        part_bytes: 5 * MIB,
        page_objects: 10,
        ..Tuning::default()
    }
}

fn with_key(id: &str, secret: &str) -> ConfigLoader {
    let credentials = Credentials::new(id, secret, None, None, "tests");
    aws_config::defaults(BehaviorVersion::latest()).credentials_provider(credentials)
}

fn open(place: &S3) -> S3Store {
    open_tuned(place, tuning())
}

fn open_tuned(place: &S3, tuning: Tuning) -> S3Store {
    S3Store::open_in(place, tuning, with_key(ACCESS_KEY, SECRET_KEY)).unwrap()
}

fn version(outcome: Outcome) -> Version {
    match outcome {
        Outcome::Done(version) => version,
        other => panic!("{other:?}"),
    }
}

fn cause<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_bucket_keeps_its_promises() {
    let site = Site::new();
    let clients: Vec<S3Store> = (0..8).map(|_| open(&place(&site.server.endpoint(), "check"))).collect();
    let clients: Vec<&dyn Store> = clients.iter().map(|client| client as &dyn Store).collect();
    let effort = Effort { updates: 100, creations: 20, looks: 20, objects: 25, large_bytes: 12 * MIB };
    let report = check(&clients, "1", &effort);
    assert!(!report.is_broken() && report.failed.is_none() && report.left.is_none(), "{report:?}");
    assert_eq!(clients[0].list(""), Ok(vec![]));
}

#[test]
fn checkpoints_are_kept_in_a_bucket() {
    let site = Site::new();
    for (name, case) in lineage::CASES {
        println!("{name}");
        case(&|| Box::new(site.store()));
    }
}

#[test]
fn a_prefix_is_a_place_of_its_own() {
    let site = Site::new();
    let endpoint = site.server.endpoint();
    let [a, ab, bare] = ["a", "a-b", ""].map(|prefix| {
        let prefix = Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty());
        open(&S3 { prefix, ..place(&endpoint, "") })
    });
    // As escaped names have them.
    let key = "tasks/model/%2e.%2f%c3%a4/base-1";
    version(a.put(key, b"of a"));
    version(ab.put(key, b""));
    assert_eq!(a.get(key).unwrap().unwrap().bytes, b"of a");
    assert_eq!(ab.digest(key).unwrap().unwrap(), Digest::of(b""));
    assert_eq!(a.list(""), Ok(vec![Listed { key: key.to_owned(), size_bytes: 4 }]));
    let keys = |store: &S3Store| store.list("").unwrap().into_iter().map(|listed| listed.key).collect::<Vec<_>>();
    assert_eq!(keys(&bare), [format!("a-b/{key}"), format!("a/{key}")]);
    assert_eq!((a.delete(key), keys(&ab)), (Ok(()), vec![key.to_owned()]));
    for bad in ["", "/x", "../x", "a/../b", "a//b", "a/"] {
        assert!(matches!(a.put(bad, b"x"), Outcome::Failed(_)), "{bad}");
        assert!(a.get(bad).is_err() && a.delete(bad).is_err() && a.digest(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_server_that_was_killed_is_asked_again() {
    let mut site = Site::new();
    let store = site.store();
    let one = version(store.swap("tasks/x", None, b"one"));
    site.server.kill().unwrap();
    for _ in 0..3 {
        let outcome = store.swap("tasks/x", Some(&one), b"two");
        assert!(matches!(outcome, Outcome::Failed(_) | Outcome::Unknown(_)), "{outcome:?}");
    }
    let Outcome::Failed(error) = store.put("tasks/y", b"y") else { panic!("not failed") };
    assert!(error.to_string().contains("no connection could be made"), "{error}");
    assert!(store.get("tasks/x").is_err() && store.digest("tasks/x").is_err());
    assert!(store.list("").is_err() && store.delete("tasks/x").is_err());
    site.server.start_again().unwrap();
    assert_eq!(store.get("tasks/x").unwrap().unwrap().bytes, b"one");
    version(store.swap("tasks/x", Some(&one), b"two"));
}

/// Nobody is told that there is nothing, because he may not look.
#[test]
fn a_store_that_lets_nobody_in_is_not_empty() {
    let site = Site::new();
    let there = place(&site.server.endpoint(), "p");
    let open_with = |place: &S3, environment| S3Store::open_in(place, tuning(), environment).unwrap();
    let without = aws_config::defaults(BehaviorVersion::latest()).credentials_provider(Nobody);
    let elsewhere = S3 { bucket: "not-there".to_owned(), ..there.clone() };
    let cases = [
        (open_with(&there, with_key("stranger", "secret-of-a-stranger")), "XAdminUserNotFound", "check them"),
        (open_with(&there, with_key(ACCESS_KEY, "secret-of-a-stranger")), "SignatureDoesNotMatch", "check them"),
        (open_with(&there, without), "nobody gave any", "AWS_ACCESS_KEY_ID"),
        (open_with(&elsewhere, with_key(ACCESS_KEY, SECRET_KEY)), "NoSuchBucket", "create the bucket"),
    ];
    for (store, what, advice) in cases {
        let Outcome::Failed(error) = store.put("tasks/x", b"x") else { panic!("{what}: not failed") };
        let Outcome::Failed(_) = store.swap("tasks/x", Some(&Version("0".to_owned())), b"x") else { panic!("{what}") };
        let causes = [
            cause(store.get("tasks/x")),
            cause(store.digest("tasks/x")),
            cause(store.list("")),
            cause(store.delete("a")),
        ];
        for cause in causes.into_iter().chain([error.to_string()]) {
            assert!(cause.contains(what) && cause.contains(advice), "{what}: {cause}");
            assert!(cause.contains("s3://") && cause.contains(&site.server.endpoint()), "{cause}");
            assert!(!cause.contains("secret-of"), "{cause}");
        }
    }
}

/// Of a machine without credentials.
#[derive(Debug)]
struct Nobody;

impl ProvideCredentials for Nobody {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        Provided::ready(Err(CredentialsError::not_loaded("nobody gave any")))
    }
}

#[test]
fn it_may_be_asked_and_dropped_in_a_thread_that_drives_tasks() {
    let site = Site::new();
    let store = site.store();
    let runtime = Builder::new_current_thread().build().unwrap();
    let found = runtime.block_on(async move {
        version(store.put("tasks/x", b"x"));
        store.get("tasks/x").unwrap().unwrap().bytes
    });
    assert_eq!(found, b"x");
    let store = site.store();
    runtime.block_on(async { store.list("").unwrap() });
    std::thread::spawn(move || drop(store)).join().unwrap();
}
