//! No identity in anything that is written, no trace of users who have not agreed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
};

use common::{Ended, Run, files_below};
use millrace_e2e::{
    oracle::Oracle,
    trace::{MARK, TraceConfig, user_id, write_trace},
};

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What of a text's base64 does not depend on what stands around it, when it starts so many bytes after a triple.
fn base64(text: &str, shift: usize) -> Vec<u8> {
    let bits: String = "0"
        .repeat(8 * shift)
        .chars()
        .chain(text.bytes().flat_map(|b| format!("{b:08b}").chars().collect::<Vec<_>>()))
        .collect();
    let first = (8 * shift).div_ceil(6);
    let sixes = bits.as_bytes().chunks_exact(6).skip(first);
    sixes.map(|six| BASE64[usize::from_str_radix(std::str::from_utf8(six).unwrap(), 2).unwrap()]).collect()
}

/// The mark in every form in which it might be written.
fn forms() -> Vec<Vec<u8>> {
    let hex: String = MARK.bytes().map(|b| format!("{b:02x}")).collect();
    let wide: Vec<u8> = MARK.bytes().flat_map(|b| [b, 0]).collect();
    let mut forms = vec![MARK.into(), MARK.to_lowercase().into(), hex.to_uppercase().into(), hex.into(), wide];
    forms.extend((0..3).map(|shift| base64(MARK, shift)));
    forms
}

fn holds(bytes: &[u8], form: &[u8]) -> bool {
    bytes.windows(form.len()).any(|window| window == form)
}

fn assert_clean(what: &str, bytes: &[u8]) {
    for form in forms() {
        assert!(!holds(bytes, &form), "{what} holds {}", String::from_utf8_lossy(&form));
    }
}

#[test]
fn the_search_finds_every_form() {
    assert_eq!(base64("IDMARK", 0), b"SURNQVJL");
    // "aIDMARK" is YUlETUFSSw==, "abIDMARK" is YWJJRE1BUks=.
    assert!(holds(b"YUlETUFSSw==", &base64("IDMARK", 1)) && holds(b"YWJJRE1BUks=", &base64("IDMARK", 2)));
    assert!(forms().iter().all(|form| form.len() >= 6));
}

fn trace(folder: &Path) -> Run {
    write_trace(folder, &TraceConfig { seed: 9, events: 60_000, users: 2_000, ..TraceConfig::default() }).unwrap();
    Run::new(&folder.join("pipeline.yaml"), &folder.join("data"))
}

fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn no_byte_written_holds_an_identity() {
    let folder = tempfile::tempdir().unwrap();
    let run = trace(folder.path());
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let slow = run.clone().with(&["--max-rate", "20000", "--metrics-address", &address]);
    let mut running = slow.start();
    let mut metrics = String::new();
    running.until("metrics tell of rejects", || {
        metrics = get(&address, "/metrics").unwrap_or_default();
        metrics.contains("malformed")
    });
    assert_clean("metrics", metrics.as_bytes());
    // Killed, so that a journal and half-written files are searched as well.
    let killed = running.kill();
    let search = || {
        let files = files_below(&run.data);
        files.iter().for_each(|file| assert_clean(&file.display().to_string(), &fs::read(file).unwrap()));
        files
    };
    search();
    let ended = run.finish();
    ended.summary();
    let files = search();
    // Nothing is compressed or encrypted: what may be written is found.
    assert!(files.iter().any(|file| holds(&fs::read(file).unwrap(), b"search")), "the search is blind");
    for (what, said) in [("killed", killed), ("ended", ended)] {
        assert_clean(what, said.stdout.as_bytes());
        assert_clean(what, said.stderr.as_bytes());
    }
    let commands =
        ["dead-letters --limit 100000", "checkpoints list", "checkpoints show profile/0", "replay", "examples"];
    let mut all: Vec<(&str, Ended)> = commands.map(|c| (c, run.other(&c.split(' ').collect::<Vec<_>>()))).into();
    all.extend(["explain", "validate"].map(|c| (c, run.of_file(c))));
    for (command, said) in all {
        assert_clean(command, said.stdout.as_bytes());
        assert_clean(command, said.stderr.as_bytes());
        assert!(said.status.success() && !said.stdout.is_empty(), "{command}: {}", said.stderr);
    }
}

#[test]
fn only_users_who_agree_have_a_row_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let run = trace(folder.path());
    let oracle = Oracle::open(&run.pipeline, &BTreeMap::new()).unwrap().with_values().run().unwrap();
    run.summary();
    for _restart in 0..2 {
        let (mut with, mut without) = (0, 0);
        for user in (0..2_000).step_by(40).map(user_id) {
            let shown = run.other(&["profile", "show", &user]);
            assert_clean("a profile", shown.stdout.as_bytes());
            let agreed = oracle.profiles.contains_key(&user);
            assert_eq!(shown.status.success(), agreed, "{user}: {}{}", shown.stdout, shown.stderr);
            if agreed { with += 1 } else { without += 1 }
        }
        assert!(with > 5 && without > 5, "{with} with, {without} without");
        run.summary();
    }
}
