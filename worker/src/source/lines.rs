//! Records of a file: one a line. Plain or gzip.

use std::{
    fs::File,
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

/// Longer lines are rejected without being held in memory.
pub const MAX_RECORD_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 256 << 10;
/// How much of the beginning tells one file from another.
const FINGERPRINT_BYTES: u64 = 4096;

/// The next thing in a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A line, without its end: see [`Lines::record`].
    Record(Range<usize>),
    /// Longer than [`MAX_RECORD_BYTES`]: how long.
    TooLong(u64),
    /// Nothing more for now.
    End,
    /// The bytes cannot be read on, such as a gzip file cut off. Nothing more will come.
    Broken(String),
}

/// What went wrong with a file, and which.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error(
        "{} is not the file that was read before: {why}. Give a replaced file another name, or start with an empty \
         data folder", path.display()
    )]
    Replaced { path: PathBuf, why: &'static str },
}

/// Hash of a file's first bytes, by which it is known again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    pub bytes: u64,
    pub hash: u64,
}

/// Reads lines from a position on.
pub struct Lines {
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Where `start` is within the (decompressed) content.
    byte: u64,
    /// Bytes of a line too long that were skipped so far.
    skipped: u64,
    broken: bool,
    compressed: bool,
    /// The last line is a record only once it has an end: its writer may be in the middle of it.
    following: bool,
}

fn open(path: &Path) -> Result<(Box<dyn Read + Send>, bool), FileError> {
    let file = File::open(path).map_err(|cause| FileError::Io { path: path.to_owned(), cause })?;
    let compressed = path.extension().is_some_and(|e| e == "gz");
    Ok(if compressed { (Box::new(MultiGzDecoder::new(file)), true) } else { (Box::new(file), false) })
}

/// Reads until `buffer` is full or the content ends. Tells how many bytes, and why it stopped early.
fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (filled, Some(e)),
        }
    }
    (filled, None)
}

/// The fingerprint of what was read of a file up to `byte`.
pub fn fingerprint(path: &Path, byte: u64) -> Result<Fingerprint, FileError> {
    let (mut input, _) = open(path)?;
    let mut start = vec![0; byte.min(FINGERPRINT_BYTES) as usize];
    let (filled, _) = fill(input.as_mut(), &mut start);
    Ok(Fingerprint { bytes: filled as u64, hash: xxhash_rust::xxh3::xxh3_64(&start[..filled]) })
}

/// In bytes, as it is now.
pub fn length(path: &Path) -> Result<u64, FileError> {
    let found = std::fs::metadata(path).map_err(|cause| FileError::Io { path: path.to_owned(), cause })?;
    Ok(found.len())
}

impl Lines {
    /// Opens a file at a byte of its (decompressed) content.
    ///
    /// # Errors
    /// If it cannot be read, or is not the file that `known` was taken of.
    pub fn open(path: &Path, byte: u64, known: Option<Fingerprint>) -> Result<Self, FileError> {
        let replaced = |why| FileError::Replaced { path: path.to_owned(), why };
        if let Some(known) = known.filter(|k| k.bytes > 0)
            && fingerprint(path, known.bytes)? != known
        {
            return Err(replaced("its beginning differs"));
        }
        let (input, compressed) = open(path)?;
        let mut lines = Self {
            input,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            byte: 0,
            skipped: 0,
            broken: false,
            compressed,
            following: false,
        };
        while lines.byte < byte {
            if lines.start == lines.end {
                match lines.refill() {
                    Some(Ok(())) => {}
                    None => return Err(replaced("it is shorter now")),
                    Some(Err(cause)) => return Err(FileError::Io { path: path.to_owned(), cause }),
                }
            }
            let step = (byte - lines.byte).min((lines.end - lines.start) as u64) as usize;
            lines.take(step);
        }
        Ok(lines)
    }

    /// Where the next line begins.
    pub fn byte(&self) -> u64 {
        self.byte
    }
    pub fn is_compressed(&self) -> bool {
        self.compressed
    }
    /// From now on the file is taken to grow.
    pub fn follow(&mut self) {
        self.following = true;
    }

    /// The bytes of the record that `advance` gave last.
    pub fn record(&self, range: Range<usize>) -> &[u8] {
        let line = &self.buffer[range];
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    fn take(&mut self, bytes: usize) {
        self.start += bytes;
        self.byte += bytes as u64;
    }

    /// Reads more behind what is there. `None`: there is no more.
    fn refill(&mut self) -> Option<Result<(), io::Error>> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => return None,
                Ok(n) => {
                    self.end += n;
                    return Some(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Some(Err(e)),
            }
        }
    }

    /// The next record. Lines of white space only are passed over.
    pub fn advance(&mut self) -> Next {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = memchr::memchr(b'\n', &unread[searched..]) {
                let len = searched + at;
                searched = 0;
                if self.skipped > 0 || len > MAX_RECORD_BYTES {
                    self.take(len + 1);
                    return Next::TooLong(std::mem::take(&mut self.skipped) + len as u64);
                }
                if self.buffer[self.start..self.start + len].trim_ascii().is_empty() {
                    self.take(len + 1);
                    continue;
                }
                let from = self.start;
                self.take(len + 1);
                return Next::Record(from..from + len);
            }
            searched = unread.len();
            if searched > MAX_RECORD_BYTES {
                self.skipped += searched as u64;
                self.take(searched);
                searched = 0;
            }
            match self.refill() {
                Some(Ok(())) => {}
                None => return self.last(),
                Some(Err(_)) if self.broken => return Next::End,
                Some(Err(e)) => {
                    self.broken = true;
                    return Next::Broken(broken_cause(&e, self.compressed, self.byte));
                }
            }
        }
    }

    /// A last line without an end is a record all the same, unless the file is followed.
    fn last(&mut self) -> Next {
        if self.following {
            return Next::End;
        }
        let len = self.end - self.start;
        let skipped = std::mem::take(&mut self.skipped);
        if skipped > 0 {
            self.take(len);
            return Next::TooLong(skipped + len as u64);
        }
        if self.buffer[self.start..self.end].trim_ascii().is_empty() {
            return Next::End;
        }
        let from = self.start;
        self.take(len);
        Next::Record(from..from + len)
    }
}

/// Names the kind of failure only: a decoder's message could quote content.
fn broken_cause(error: &io::Error, compressed: bool, byte: u64) -> String {
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof if compressed => "the gzip data is cut off".to_owned(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData if compressed => "the gzip data is damaged".to_owned(),
        kind => format!("reading failed: {kind}"),
    };
    format!("{what} after {byte} bytes of content")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn all(path: &Path, from: u64) -> Vec<(String, u64)> {
        let mut lines = Lines::open(path, from, None).unwrap();
        let mut seen = Vec::new();
        loop {
            let what = match lines.advance() {
                Next::Record(r) => String::from_utf8(lines.record(r).to_vec()).unwrap(),
                Next::TooLong(n) => format!("<{n}>"),
                Next::Broken(cause) => format!("broken: {cause}"),
                Next::End => return seen,
            };
            seen.push((what, lines.byte()));
        }
    }

    #[test]
    fn lines_blank_lines_and_a_last_line_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "one\r\n\n  \ntwo\nthree").unwrap();
        assert_eq!(all(&path, 0), [("one".into(), 5), ("two".into(), 13), ("three".into(), 18)]);
        assert_eq!(all(&path, 5), [("two".into(), 13), ("three".into(), 18)]);
    }

    #[test]
    fn a_file_that_grows_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "one\n").unwrap();
        let mut lines = Lines::open(&path, 0, None).unwrap();
        assert_eq!(lines.advance(), Next::Record(0..3));
        assert_eq!(lines.advance(), Next::End);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"two\n").unwrap();
        let Next::Record(two) = lines.advance() else { panic!("no second line") };
        assert_eq!(lines.record(two), b"two");
    }

    #[test]
    fn a_line_half_written_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "one\ntw").unwrap();
        let mut lines = Lines::open(&path, 0, None).unwrap();
        lines.follow();
        assert_eq!(lines.advance(), Next::Record(0..3));
        assert_eq!((lines.advance(), lines.byte()), (Next::End, 4));
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"o\n").unwrap();
        let Next::Record(two) = lines.advance() else { panic!("no second line") };
        assert_eq!(lines.record(two), b"two");
    }

    #[test]
    fn a_gzip_file_cut_off_before_the_position_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl.gz");
        let text: String = (0..200_000).map(|n| format!("line {}\n", n * 7919 % 10_007)).collect();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        let packed = gz.finish().unwrap();
        std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
        assert!(matches!(Lines::open(&path, text.len() as u64, None), Err(FileError::Io { .. })));
    }

    #[test]
    fn too_long_lines_are_skipped_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let long = "x".repeat(10 << 20);
        std::fs::write(&path, format!("a\n{long}\nb\n{long}")).unwrap();
        let seen: Vec<String> = all(&path, 0).into_iter().map(|(what, _)| what).collect();
        let skipped = format!("<{}>", long.len());
        assert_eq!(seen, ["a", &skipped, "b", &skipped]);
    }

    #[test]
    fn gzip_whole_and_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl.gz");
        let text: String = (0..20_000).map(|n| format!("line {}\n", n * 7919 % 10_007)).collect();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        let packed = gz.finish().unwrap();
        std::fs::write(&path, &packed).unwrap();
        let whole = all(&path, 0);
        assert_eq!(whole.len(), 20_000);
        assert_eq!(all(&path, whole[9_999].1), whole[10_000..]);
        std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
        let cut = all(&path, 0);
        let (last, good) = cut.split_last().unwrap();
        assert_eq!(good, &whole[..good.len()]);
        assert!(last.0.starts_with("broken: the gzip data is cut off"), "{}", last.0);
    }

    #[test]
    fn a_replaced_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let known = fingerprint(&path, 8).unwrap();
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert!(Lines::open(&path, 8, Some(known)).is_ok());
        std::fs::write(&path, "uno\ndos\ntres\n").unwrap();
        assert!(matches!(Lines::open(&path, 8, Some(known)), Err(FileError::Replaced { .. })));
        std::fs::write(&path, "one\n").unwrap();
        assert!(matches!(Lines::open(&path, 8, Some(known)), Err(FileError::Replaced { .. })));
    }
}
