use tempfile::TempDir;

use super::*;
use crate::log::suite;

fn small() -> Options {
    Options { segment_bytes: 2_000, write_buffer_bytes: 1_000, cache_bytes: 1 << 20 }
}

/// A log that goes with its folder.
struct Scratch {
    log: EmbeddedLog,
    _folder: TempDir,
}

impl Log for Scratch {
    fn append(&self, batch: &[(LogPartition, Vec<u8>)]) -> Result<Vec<u64>, AppendError> {
        self.log.append(batch)
    }
    fn read(&self, partition: &LogPartition, from: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        self.log.read(partition, from, max_bytes)
    }
    fn end(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        self.log.end(partition)
    }
    fn start(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        self.log.start(partition)
    }
    fn trim(&self, partition: &LogPartition, before: u64) -> Result<(), TrimError> {
        self.log.trim(partition, before)
    }
    fn status(&self) -> LogStatus {
        self.log.status()
    }
}

#[test]
fn embedded_log_keeps_the_contract() {
    suite::run(&|| {
        let folder = tempfile::tempdir().unwrap();
        Box::new(Scratch { log: EmbeddedLog::open(folder.path(), small()).unwrap(), _folder: folder })
    });
}
