//! The bytes of a task's checkpoint: a head, then tagged sections with a checksum each.
//!
//! Version 3: `"MLRC"`, version u8, task u8, base 0 or changes 1 u8, 0 u8, engine version u32; then for each section
//! tag u8, length u64, xxh3 u64, bytes. Earlier versions are laid out alike; some sections had less or more in
//! them, or were not there.

use xxhash_rust::xxh3::Xxh3;

use crate::codec::{Corrupt, Put, Reader};

pub const VERSION: u8 = 3;
const MAGIC: &[u8; 4] = b"MLRC";
/// Tag, length, checksum.
const SECTION_HEAD_BYTES: usize = 1 + 8 + 8;

/// Whose state it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TaskKind {
    Ingest = 1,
    Profile = 2,
    Model = 3,
}

/// All of the state, or what changed since the checkpoint before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Extent {
    Base = 0,
    Changes = 1,
}

/// Why state cannot be restored from these bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("checkpoint of format version {found}; this engine reads up to {VERSION}: upgrade before going on")]
    Version { found: u8 },
    #[error("checkpoint section {tag} is damaged")]
    Damaged { tag: u8 },
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Writes one checkpoint, or some of its sections.
pub struct CheckpointWriter {
    bytes: Vec<u8>,
    open: Option<OpenSection>,
}

struct OpenSection {
    /// Where its length stands.
    at: usize,
    sum: Box<Xxh3>,
}

impl CheckpointWriter {
    pub fn new(task: TaskKind, extent: Extent) -> Self {
        let mut sections = Self::sections();
        sections.bytes.put(MAGIC);
        let version = match (task, extent) {
            (TaskKind::Profile, Extent::Changes) => VERSION,
            // What has not changed since is read by earlier engines, too.
            _ => 2,
        };
        sections.bytes.put(&[version, task as u8, extent as u8, 0]);
        sections.bytes.put_u32(crate::ENGINE_VERSION);
        sections
    }
    /// Without a head: what comes behind other sections.
    pub fn sections() -> Self {
        Self { bytes: Vec::new(), open: None }
    }
    pub fn section(&mut self, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
        self.begin_section(tag, 0);
        self.write(write);
        self.end_section();
    }
    /// Begins a section of about so many bytes.
    pub fn begin_section(&mut self, tag: u8, bytes: usize) {
        self.bytes.reserve(SECTION_HEAD_BYTES + bytes);
        self.bytes.put_u8(tag);
        self.open = Some(OpenSection { at: self.bytes.len(), sum: Box::default() });
        self.bytes.put_u64(0);
        self.bytes.put_u64(0);
    }
    /// Goes on with the section that was begun. `write` appends.
    pub fn write<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let from = self.bytes.len();
        let written = write(&mut self.bytes);
        if let Some(open) = &mut self.open {
            open.sum.update(&self.bytes[from..]);
        }
        written
    }
    pub fn end_section(&mut self) {
        let Some(OpenSection { at, sum }) = self.open.take() else { return };
        let body = at + SECTION_HEAD_BYTES - 1;
        let len = (self.bytes.len() - body) as u64;
        self.bytes[at..at + 8].copy_from_slice(&len.to_le_bytes());
        self.bytes[at + 8..body].copy_from_slice(&sum.digest().to_le_bytes());
    }
    pub fn written(&self) -> &[u8] {
        &self.bytes
    }
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// A checkpoint whose checksums were verified.
pub struct Checkpoint<'a> {
    pub version: u8,
    pub extent: Extent,
    pub engine_version: u32,
    sections: Vec<(u8, &'a [u8])>,
}

impl<'a> Checkpoint<'a> {
    pub fn read(bytes: &'a [u8], task: TaskKind) -> Result<Self, CheckpointError> {
        let mut r = Reader::new(bytes);
        if r.take(4, "checkpoint magic")? != MAGIC {
            return Err(Corrupt { what: "checkpoint magic", at: 0 }.into());
        }
        let version = r.u8("checkpoint version")?;
        if !(1..=VERSION).contains(&version) {
            return Err(CheckpointError::Version { found: version });
        }
        if r.u8("checkpoint task")? != task as u8 {
            return Err(r.corrupt("checkpoint task").into());
        }
        let extent = match r.u8("checkpoint extent")? {
            0 => Extent::Base,
            1 => Extent::Changes,
            _ => return Err(r.corrupt("checkpoint extent").into()),
        };
        r.u8("reserved")?;
        let engine_version = r.u32("engine version")?;
        let mut sections = Vec::new();
        while !r.is_empty() {
            let (tag, len, sum) = (r.u8("tag")?, r.u64("section length")?, r.u64("section checksum")?);
            let body = r.take(usize::try_from(len).unwrap_or(usize::MAX), "section")?;
            if xxhash_rust::xxh3::xxh3_64(body) != sum {
                return Err(CheckpointError::Damaged { tag });
            }
            sections.push((tag, body));
        }
        Ok(Self { version, extent, engine_version, sections })
    }
    pub fn section(&self, tag: u8) -> Result<&'a [u8], Corrupt> {
        let found = self.sections.iter().find(|(t, _)| *t == tag);
        found.map(|(_, body)| *body).ok_or(Corrupt { what: "checkpoint without a section", at: usize::from(tag) })
    }
}
