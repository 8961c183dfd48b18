//! Good pipelines with one thing changed.
#![allow(dead_code)] // each test binary uses a part

use millrace_crds::{Problems, load};

/// (What of the good pipeline is replaced, by what, the problem's path, a phrase of its message.)
pub type Row = (&'static str, &'static str, &'static str, &'static str);

pub fn edited(good: &str, from: &str, to: &str) -> Problems {
    assert_eq!(good.matches(from).count(), 1, "`{from}` must stand in the good pipeline once");
    match load(&good.replace(from, to)) {
        Ok(_) => panic!("`{to}` instead of `{from}` was let through"),
        Err(problems) => problems,
    }
}

pub fn check(good: &str, rows: &[Row]) {
    for (from, to, path, phrase) in rows {
        let problems = edited(good, from, to);
        let found = problems.as_slice().iter().any(|p| p.path == *path && p.to_string().contains(phrase));
        assert!(found, "{from} -> {to}\nwanted {path}: {phrase}\ngot:\n{problems}");
        assert!(problems.as_slice().iter().all(|p| p.line.is_some()), "a problem without a line:\n{problems}");
    }
}
