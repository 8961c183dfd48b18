//! A file as an ingest task reads it.

use std::path::{Path, PathBuf};

use millrace_engine::{
    checkpoint::CheckpointError,
    codec::{Put, Reader},
    decode::Decoder,
    ingest::Input,
};

use crate::{
    host::HostError,
    source::lines::{Fingerprint, Lines, Next, fingerprint, length},
};

/// Which file it was, as a checkpoint holds it.
#[derive(Clone, Copy, Debug, Default)]
pub struct KnownFile {
    pub fingerprint: Fingerprint,
    /// Where the file's bytes broke, so that it is told only once.
    pub broken_at: Option<u64>,
}

impl KnownFile {
    pub fn read(r: &mut Reader<'_>) -> Result<Self, CheckpointError> {
        let fingerprint = Fingerprint { bytes: r.u64("fingerprint")?, hash: r.u64("fingerprint")? };
        let broken_at = Some(r.u64("broken at")?).filter(|at| *at != u64::MAX);
        Ok(Self { fingerprint, broken_at })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.fingerprint.bytes);
        out.put_u64(self.fingerprint.hash);
        out.put_u64(self.broken_at.unwrap_or(u64::MAX));
    }
}

pub struct FileReader {
    path: PathBuf,
    lines: Lines,
    known: KnownFile,
    /// Why the file's bytes broke.
    cause: String,
}

/// Longer beginnings do not change a fingerprint.
const FINGERPRINT_BYTES: u64 = 4096;

impl FileReader {
    /// Opens a file at a byte of its content. A header, if the decoders want one, is read anew each time.
    ///
    /// # Errors
    /// It cannot be read, is not the file that `known` was taken of, or has no header that will do for all.
    pub fn open<'d>(
        source_name: &str,
        path: PathBuf,
        byte: u64,
        known: Option<KnownFile>,
        decoders: impl Iterator<Item = &'d mut Decoder>,
    ) -> Result<Self, HostError> {
        let mut lines = Lines::open(&path, 0, known.map(|known| known.fingerprint))?;
        read_header(source_name, &path, &mut lines, decoders)?;
        if byte > lines.byte() {
            lines = Lines::open(&path, byte, None)?;
        }
        Ok(Self { path, lines, known: known.unwrap_or_default(), cause: String::new() })
    }

    /// The header, if these decoders want one.
    pub fn tell_header<'d>(
        &self,
        source_name: &str,
        decoders: impl Iterator<Item = &'d mut Decoder>,
    ) -> Result<(), HostError> {
        read_header(source_name, &self.path, &mut Lines::open(&self.path, 0, None)?, decoders)
    }

    /// From now on the file is taken to grow.
    pub fn follow(&mut self) {
        self.lines.follow();
    }

    /// Its length. What a compressed file holds is known only once it has been read, and of one that was moved away nothing more
    /// is known: they count as endless.
    pub fn end(&self) -> Result<u64, HostError> {
        Ok(if self.lines.is_compressed() { u64::MAX } else { length(&self.path).unwrap_or(u64::MAX) })
    }

    pub fn is_broken(&self) -> bool {
        self.known.broken_at.is_some()
    }

    /// The next record, and where the one after it begins.
    pub fn next(&mut self) -> Option<(Input<'_>, u64)> {
        let next = self.lines.advance();
        let next_byte = self.lines.byte();
        let input = match next {
            Next::Record(range) => Input::Record(self.lines.record(range)),
            Next::TooLong(len) => Input::TooLong(len),
            Next::Broken(cause) if self.known.broken_at.is_none() => {
                self.known.broken_at = Some(next_byte);
                self.cause = cause;
                Input::Unreadable(&self.cause)
            }
            Next::Broken(_) | Next::End => return None,
        };
        Some((input, next_byte))
    }

    /// The file as it is known once it was read up to `byte`.
    pub fn known_up_to(&mut self, byte: u64) -> &KnownFile {
        let known = &mut self.known.fingerprint;
        if known.bytes < FINGERPRINT_BYTES && byte > known.bytes {
            match fingerprint(&self.path, byte) {
                Ok(newer) => *known = newer,
                // It is open and can still be read to its end.
                Err(error) => tracing::warn!(%error, "a file that is being read was removed or renamed"),
            }
        }
        &self.known
    }
}

/// Reads the first line, if the decoders want it.
fn read_header<'d>(
    source_name: &str,
    path: &Path,
    lines: &mut Lines,
    decoders: impl Iterator<Item = &'d mut Decoder>,
) -> Result<(), HostError> {
    let mut decoders = decoders.filter(|decoder| decoder.wants_header()).peekable();
    if decoders.peek().is_none() {
        return Ok(());
    }
    let read = match lines.advance() {
        Next::Record(header) => {
            let header = lines.record(header);
            decoders.try_for_each(|decoder| decoder.header(header).map_err(|error| error.to_string()))
        }
        Next::End => Err("there is no header line".into()),
        Next::TooLong(_) => Err("its header line is too long".into()),
        Next::Broken(cause) => Err(cause),
    };
    read.map_err(|cause| {
        let file = path.display().to_string();
        HostError::Header { source_name: source_name.to_owned(), file, cause }
    })
}
