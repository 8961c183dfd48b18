//! `millrace store check`, and what it says of stores: one that may hold checkpoints, and others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{fs, path::Path, process::Command};

use common::{Ended, Running, binary, example};
use millrace_e2e::s3::{ACCESS_KEY, BUCKET, Careless, Fault, Proxy, REGION, SECRET_KEY, Server};
use rcgen::generate_simple_self_signed;
use serde_json::Value;

/// A pipeline whose checkpoints are there, with a key file beside it.
fn pipeline(folder: &Path, endpoint: &str) -> std::path::PathBuf {
    let tour = fs::read_to_string(example("tour")).unwrap();
    let s3 = format!(
        "  checkpoints: {{s3: {{bucket: {BUCKET}, prefix: tour, region: {REGION}, endpoint: \"{endpoint}\", pathStyle: true}}}}"
    );
    let yaml = tour.replacen("spec:\n", &format!("spec:\n{s3}\n"), 1);
    assert_ne!(yaml, tour);
    let path = folder.join("pipeline.yaml");
    fs::write(&path, yaml).unwrap();
    path
}

fn check(pipeline: &Path, secret_key: &str, more: &[&str], environment: &[(&str, &Path)]) -> Ended {
    let mut command = Command::new(binary());
    command.args(["store", "check"]).arg(pipeline).args(["--updates", "20"]).args(more);
    // The environment of whoever runs the tests says nothing here.
    for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"] {
        command.env_remove(name);
    }
    // Only the pipeline says where the store is.
    command.env("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1");
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", secret_key);
    Running::start(command.envs(environment.iter().copied())).finish()
}

fn objects(folder: &Path) -> usize {
    let files = common::files_below(&folder.join("buckets").join(BUCKET));
    files.iter().filter(|file| file.to_string_lossy().contains("check/")).count()
}

#[test]
fn a_good_store_passes_and_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).unwrap();
    let pipeline = pipeline(folder.path(), &server.endpoint());
    let report = check(&pipeline, SECRET_KEY, &["--output", "json"], &[]).summary();
    let kept: Vec<&Value> = report["promises"].as_array().unwrap().iter().filter(|p| p["kept"] == true).collect();
    assert_eq!((kept.len(), &report["kept"], &report["error"]), (7, &Value::Bool(true), &Value::Null), "{report}");
    assert_eq!(objects(folder.path()), 0);
    let ended = check(&pipeline, SECRET_KEY, &[], &[]);
    assert!(ended.stdout.contains("It keeps what checkpoints need."), "{ended:?}");
}

/// A certificate that no store of certificates has, but the one that is named.
#[test]
fn a_store_is_reached_by_tls_and_its_certificate_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = Server::start_with(folder.path(), Some((certificate.clone(), key))).unwrap();
    let endpoint = format!("https://localhost:{}", server.address().port());
    let pipeline = pipeline(folder.path(), &endpoint);
    check(&pipeline, SECRET_KEY, &["--output", "json"], &[("SSL_CERT_FILE", &certificate)]).summary();
    let ended = check(&pipeline, SECRET_KEY, &[], &[]);
    ended.refused(&["no connection could be made", "certificate", &endpoint]);
    assert_eq!(ended.status.code(), Some(1));
}

#[test]
fn a_store_without_conditional_writes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Careless::start().unwrap();
    let pipeline = pipeline(folder.path(), &store.endpoint());
    let ended = check(&pipeline, SECRET_KEY, &["--output", "json"], &[]);
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let broken: Vec<&str> = report["promises"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| p["kept"] == false)
        .map(|p| p["promise"].as_str().unwrap())
        .collect();
    for promise in ["conditions", "creation", "succession"] {
        assert!(broken.contains(&promise), "{report}");
    }
    let ended = check(&pipeline, SECRET_KEY, &[], &[]);
    assert!(ended.stdout.contains("two owners could both believe that they own a task"), "{ended:?}");
    assert_eq!(ended.status.code(), Some(3));
}

#[test]
fn a_store_that_cannot_be_asked_is_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path()).unwrap();
    let there = pipeline(folder.path(), &server.endpoint());
    let ended = check(&there, "secret-of-a-stranger", &[], &[]);
    ended.refused(&["SignatureDoesNotMatch", "check them"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(!ended.stdout.contains("secret-of") && !ended.stderr.contains("secret-of"));
    server.kill().unwrap();
    let ended = check(&there, SECRET_KEY, &["--output", "json"], &[]);
    ended.refused(&["no connection could be made"]);
    assert_eq!(ended.status.code(), Some(1));
}

/// A store that fails in the middle: what was written is removed nevertheless.
#[test]
fn a_check_that_is_cut_short_tidies_up() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).unwrap();
    let proxy = Proxy::start(server.address(), |request| {
        if request.is("PUT", "create-3") { Fault::Instead(403, "AccessDenied") } else { Fault::None }
    });
    let proxy = proxy.unwrap();
    let ended = check(&pipeline(folder.path(), &proxy.endpoint()), SECRET_KEY, &[], &[]);
    ended.refused(&["AccessDenied", "allow s3:GetObject"]);
    assert_eq!((ended.status.code(), objects(folder.path())), (Some(1), 0));
}

#[test]
fn a_pipeline_without_a_store_is_told_so() {
    let ended = check(&example("tour"), SECRET_KEY, &[], &[]);
    ended.refused(&["spec.checkpoints.s3 names no bucket"]);
    assert_eq!(ended.status.code(), Some(2));
}
