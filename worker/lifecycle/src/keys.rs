//! Every key of the store is built, and taken apart, here.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    Ingest,
    Profile,
    Model,
}

impl TaskKind {
    const ALL: [Self; 3] = [Self::Ingest, Self::Profile, Self::Model];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Profile => "profile",
            Self::Model => "model",
        }
    }
}

/// One task of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    pub kind: TaskKind,
    /// Ingest: `SOURCE-PARTITION`; profile: the partition; model: the model's name.
    pub name: String,
}

impl TaskId {
    pub fn new(kind: TaskKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

/// It is not `KIND/NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task is called KIND/NAME, with a kind of ingest, profile or model")]
pub struct NoTaskId;

impl FromStr for TaskId {
    type Err = NoTaskId;

    /// As it is displayed.
    fn from_str(text: &str) -> Result<Self, NoTaskId> {
        let (kind, name) = text.split_once('/').ok_or(NoTaskId)?;
        let kind = TaskKind::ALL.into_iter().find(|known| known.name() == kind).ok_or(NoTaskId)?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
            return Err(NoTaskId);
        }
        Ok(Self::new(kind, name))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.name(), self.name)
    }
}

/// A full copy of a task's state, or what changed since the file before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    Base,
    Delta,
}

/// Of the record of which shard owns which task. Beside the tasks, not of one.
pub const PLACEMENT: &str = "placement";

/// Of what the workers of a fleet have in common: whose state it is, and under which pipelines it was. Likewise.
pub const PIPELINE: &str = "pipeline";

/// Under which all tasks are.
pub const TASKS: &str = "tasks/";

/// Under which a check of the store keeps its objects, until it ends. No task's are there.
pub fn checks(run: &str) -> String {
    format!("check/{}/", escape(run))
}

/// One object of a check.
pub fn check(run: &str, name: &str) -> String {
    format!("{}{}", checks(run), escape(name))
}

/// Under which a task's objects are.
pub fn task(task: &TaskId) -> String {
    format!("{TASKS}{}/{}/", task.kind.name(), escape(&task.name))
}

pub fn manifest(id: &TaskId) -> String {
    format!("{}manifest", task(id))
}

/// A checkpoint file: the `number`-th written under the epoch, in digits that sort as numbers do.
pub fn file(id: &TaskId, kind: FileKind, epoch: u64, number: u64) -> String {
    let kind = match kind {
        FileKind::Base => "base",
        FileKind::Delta => "delta",
    };
    format!("{}{kind}-{epoch:010}-{number:010}", task(id))
}

/// What a key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    Manifest(TaskId),
    File { task: TaskId, kind: FileKind, epoch: u64, number: u64 },
}

/// `None` for a key that was not built here.
pub fn parse(key: &str) -> Option<Named> {
    let mut parts = key.strip_prefix(TASKS)?.split('/');
    let (kind, name, object) = (parts.next()?, parts.next()?, parts.next()?);
    let kind = TaskKind::ALL.into_iter().find(|k| k.name() == kind)?;
    let id = TaskId::new(kind, unescape(name)?);
    let named = if object == "manifest" {
        Named::Manifest(id)
    } else {
        let mut parts = object.splitn(3, '-');
        let kind = match parts.next()? {
            "base" => FileKind::Base,
            "delta" => FileKind::Delta,
            _ => return None,
        };
        let (epoch, number) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Named::File { task: id, kind, epoch, number }
    };
    let same = match &named {
        Named::Manifest(task) => manifest(task) == key,
        Named::File { task, kind, epoch, number } => file(task, *kind, *epoch, *number) == key,
    };
    same.then_some(named)
}

/// Letters, digits, `-`, `_` and dots inside stay; any other byte becomes `%` and two hexadecimal digits.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (i, byte) in name.bytes().enumerate() {
        match byte {
            b'.' if i > 0 => out.push('.'),
            b'-' | b'_' => out.push(byte as char),
            _ if byte.is_ascii_alphanumeric() => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_keys() {
        let task = TaskId::new(TaskKind::Ingest, "events-0");
        assert_eq!(manifest(&task), "tasks/ingest/events-0/manifest");
        assert_eq!(file(&task, FileKind::Base, 3, 12), "tasks/ingest/events-0/base-0000000003-0000000012");
        assert_eq!(file(&task, FileKind::Delta, 3, 13), "tasks/ingest/events-0/delta-0000000003-0000000013");
        assert_eq!(manifest(&TaskId::new(TaskKind::Model, "../ä")), "tasks/model/%2e.%2f%c3%a4/manifest");
        assert_eq!((PLACEMENT, parse(PLACEMENT)), ("placement", None));
        assert_eq!((PIPELINE, parse(PIPELINE)), ("pipeline", None));
        let of_check = check("5e1f", "large/1");
        assert_eq!((of_check.as_str(), parse(&of_check)), ("check/5e1f/large%2f1", None));
        assert!(of_check.starts_with(&checks("5e1f")) && !of_check.starts_with(TASKS));
        for bad in
            ["", "tasks/", "tasks/x/a/manifest", "tasks/model/a/base-1-2", "tasks/model/a/b/c", "tasks/model/a/x"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn keys_can_be_taken_apart(name in ".{0,20}", epoch: u64, number: u64) {
            let task = TaskId::new(TaskKind::Profile, name);
            prop_assert_eq!(parse(&manifest(&task)), Some(Named::Manifest(task.clone())));
            let key = file(&task, FileKind::Delta, epoch, number);
            prop_assert!(key.split('/').all(|part| part != "." && part != ".."));
            prop_assert_eq!(parse(&key), Some(Named::File { task, kind: FileKind::Delta, epoch, number }));
        }
        #[test]
        fn other_keys_are_refused(key in "tasks/(model|ingest)/[a%0-9.]{0,6}/(base|delta|manifest)[-0-9]{0,24}") {
            if let Some(named) = parse(&key) {
                let built = match &named {
                    Named::Manifest(task) => manifest(task),
                    Named::File { task, kind, epoch, number } => file(task, *kind, *epoch, *number),
                };
                prop_assert_eq!(built, key);
            }
        }
    }
}
