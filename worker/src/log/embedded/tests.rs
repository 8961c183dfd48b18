//! The contract on disk, and what happens when the disk or the process fails.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::*;
use crate::log::suite::{self, bytes, events, read_all};
use crate::log::{Loss, OpenError};
use crate::store::disk::{DiskError, LockError};

/// So small that a few records fill segments and memtables.
fn small() -> Options {
    Options { segment_bytes: 2_000, write_buffer_bytes: 1_000, cache_bytes: 1 << 20 }
}

fn open(folder: &Path) -> EmbeddedLog {
    EmbeddedLog::open(folder, small()).unwrap()
}

/// The record that every test here appends at an offset.
fn record(partition: &LogPartition, offset: u64) -> Vec<u8> {
    let seed = offset * 10 + u64::from(partition.partition);
    bytes(seed, 50 + seed as usize * 37 % 300)
}

/// Appends the next records of some partitions in one batch.
fn append_next(log: &dyn Log, partitions: &[LogPartition]) -> Result<(), AppendError> {
    let batch: Vec<_> = partitions.iter().map(|p| (p.clone(), record(p, log.end(p).unwrap()))).collect();
    log.append(&batch).map(|_| ())
}

/// Every partition holds exactly the records from its start to its end.
fn check_records(log: &dyn Log) -> Result<(), ReadError> {
    for status in log.status().partitions {
        let expected: Vec<_> =
            (status.start..status.end).map(|offset| (offset, record(&status.partition, offset))).collect();
        assert!(read_all(log, &status.partition, 700)? == expected, "{}", status.partition);
    }
    Ok(())
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
        Box::new(Scratch { log: open(folder.path()), _folder: folder })
    });
    let folder = tempfile::tempdir().unwrap();
    suite::any_partition(&open(folder.path()));
}

#[test]
fn all_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let log = open(folder.path());
        check_records(&log).unwrap();
        assert_eq!(log.end(&events(0)), Ok(1 + round * 30));
        for _ in 0..30 {
            append_next(&log, &[events(0), events(1), LogPartition::new("examples.ctr", 0)]).unwrap();
        }
        log.trim(&events(1), round * 30).unwrap();
        let status = log.status();
        drop(log);
        assert_eq!(open(folder.path()).status().partitions, status.partitions);
    }
    assert!(open(folder.path()).start(&events(1)).unwrap() > 1);
}

#[test]
fn trimming_frees_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    for _ in 0..100 {
        append_next(&log, &[events(0)]).unwrap();
    }
    let keyspaces = || std::fs::read_dir(folder.path().join("fjall/keyspaces")).unwrap().count();
    let before = keyspaces();
    log.trim(&events(0), 101).unwrap();
    drop(log);
    drop(open(folder.path()));
    assert!(before > 5, "{before}");
    assert_eq!(keyspaces(), 2, "the storage's own and the last segment");
}

#[test]
fn bytes_are_stored_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let words = b"the same words over and over, ".repeat(200);
    for _ in 0..10 {
        log.append(&[(events(0), words.clone())]).unwrap();
    }
    drop(log);
    let holds = |(path, file): (&std::path::PathBuf, &Saved)| {
        let found = file.bytes.windows(words.len()).any(|window| window == words);
        found.then(|| path.extension().is_some_and(|e| e == "jnl"))
    };
    let found: Vec<bool> = save(folder.path()).iter().filter_map(holds).collect();
    assert!(found.contains(&true) && found.contains(&false), "in the journal and in a table: {found:?}");
}

#[test]
fn a_second_opener_is_refused_and_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let refused = EmbeddedLog::open(folder.path(), small()).err();
    let holder = std::process::id().to_string();
    assert_eq!(refused, Some(LockError::Held { folder: folder.path().to_owned(), holder }.into()));
    append_next(&log, &[events(0)]).unwrap();
    drop(log);
    check_records(&open(folder.path())).unwrap();
}

#[test]
fn a_process_killed_before_its_first_mark_leaves_no_damage() {
    let folder = TempDir::new().unwrap();
    drop(open(folder.path()));
    for name in ["end.0", "end.1"] {
        std::fs::write(folder.path().join(name), b"").unwrap();
    }
    append_next(&open(folder.path()), &[events(0)]).unwrap();
    for name in ["end.0", "end.1"] {
        std::fs::write(folder.path().join(name), b"").unwrap();
    }
    let lost = EmbeddedLog::open(folder.path(), small()).err();
    assert!(matches!(lost, Some(OpenError::Mark { .. })), "with records there was a mark: {lost:?}");
}

#[test]
fn creation_that_was_cut_off_starts_over() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("fjall.new/keyspaces")).unwrap();
    std::fs::write(folder.path().join("fjall.new/0.jnl"), b"").unwrap();
    let log = open(folder.path());
    append_next(&log, &[events(0)]).unwrap();
    check_records(&log).unwrap();
}

/// A file's bytes, without the zeros at its end, and its length.
struct Saved {
    bytes: Vec<u8>,
    len: u64,
}

type Folder = BTreeMap<std::path::PathBuf, Saved>;

fn save(folder: &Path) -> Folder {
    let (mut folders, mut saved) = (vec![folder.to_owned()], Folder::new());
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut bytes = std::fs::read(&path).unwrap();
            let len = bytes.len() as u64;
            bytes.truncate(bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1));
            saved.insert(path.strip_prefix(folder).unwrap().to_owned(), Saved { bytes, len });
        }
    }
    saved
}

fn restore(saved: &Folder) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, file) in saved {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &file.bytes).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(file.len).unwrap();
    }
    folder
}

/// A folder with tables, a journal that is needed, and a trimmed partition; and where its partitions end.
fn sample() -> (Folder, Vec<PartitionStatus>) {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    for _ in 0..12 {
        append_next(&log, &[events(0), events(1)]).unwrap();
    }
    log.trim(&events(1), 8).unwrap();
    append_next(&log, &[events(0), events(1)]).unwrap();
    let partitions = log.status().partitions;
    drop(log);
    (save(folder.path()), partitions)
}

/// Opens a folder that was tampered with: an error, or exactly what was appended.
fn error_or_everything(folder: &Path, expected: &[PartitionStatus]) -> Option<String> {
    let log = match EmbeddedLog::open(folder, small()) {
        Ok(log) => log,
        Err(error) => return Some(error.to_string()),
    };
    if let Err(error) = check_records(&log) {
        return Some(error.to_string());
    }
    assert_eq!(log.status().partitions, expected);
    None
}

#[test]
fn a_flipped_bit_anywhere_is_an_error_or_harmless() {
    let (saved, expected) = sample();
    let mut errors = 0;
    for (path, file) in &saved {
        for trial in 0..4u64 {
            let random = u64::from_le_bytes(bytes(trial * 1_000 + file.len, 8).try_into().unwrap());
            let at = random % (file.bytes.len() as u64 + 8).min(file.len.max(1));
            let folder = restore(&saved);
            let mut tampered = file.bytes.clone();
            tampered.resize(tampered.len().max(at as usize + 1), 0);
            tampered[at as usize] ^= 1 << (random >> 32 & 7);
            use std::os::unix::fs::FileExt;
            let open = File::options().write(true).open(folder.path().join(path)).unwrap();
            open.write_all_at(&tampered, 0).unwrap();
            let error = error_or_everything(folder.path(), &expected);
            println!("{} byte {at}: {}", path.display(), error.as_deref().unwrap_or("harmless"));
            errors += usize::from(error.is_some());
        }
    }
    assert!(errors > saved.len(), "most of them are found: {errors}");
}

#[test]
fn a_file_cut_short_or_gone_is_an_error_or_harmless() {
    let (saved, expected) = sample();
    for (path, file) in &saved {
        for part in [0, 1, 2, 3, 4] {
            let folder = restore(&saved);
            let path = folder.path().join(path);
            match part {
                4 => std::fs::remove_file(&path).unwrap(),
                part => {
                    let open = File::options().write(true).open(&path).unwrap();
                    open.set_len(file.bytes.len() as u64 * part / 4).unwrap();
                }
            }
            let error = error_or_everything(folder.path(), &expected);
            println!("{} {part}/4: {}", path.display(), error.as_deref().unwrap_or("harmless"));
        }
    }
}

/// Where the journal holds the last record of the given partition.
fn damage_journal_at(folder: &Path, needle: &[u8]) {
    let journal = std::fs::read_dir(folder.join("fjall")).unwrap().map(|e| e.unwrap().path());
    let path = journal.filter(|p| p.extension().is_some_and(|e| e == "jnl")).max().unwrap();
    let mut all = std::fs::read(&path).unwrap();
    let at = all.windows(needle.len()).position(|window| window == needle).unwrap();
    // The tag before the item: what follows is not taken for a batch any more.
    all[at - 40..at].fill(0xff);
    std::fs::write(&path, all).unwrap();
}

#[test]
fn a_lost_tail_is_named_and_can_be_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::default;
    let log = EmbeddedLog::open(folder.path(), options()).unwrap();
    for _ in 0..10 {
        append_next(&log, &[events(0)]).unwrap();
    }
    append_next(&log, &[events(1)]).unwrap();
    drop(log);
    damage_journal_at(folder.path(), &record(&events(0), 7));
    let loss = |partition: u32, from, to| Loss { partition: events(partition), from, to };
    let losses = vec![loss(0, 7, 10), loss(1, 1, 1)];
    let lost = OpenError::Lost { folder: folder.path().to_owned(), losses: losses.clone() };
    for _ in 0..2 {
        // It stays an error however often the storage is opened.
        let error = EmbeddedLog::open(folder.path(), options()).err();
        assert_eq!(error, Some(lost.clone()));
    }
    assert!(lost.to_string().contains("events/0 offsets 7 to 10, events/1 offsets 1 to 1"), "{lost}");
    assert_eq!(repair(folder.path(), options()), Ok(losses));
    let log = EmbeddedLog::open(folder.path(), options()).unwrap();
    assert_eq!((log.end(&events(0)), log.end(&events(1))), (Ok(7), Ok(1)));
    assert_eq!(log.read(&events(0), 9, 1), Err(ReadError::BeyondEnd { partition: events(0), from: 9, end: 7 }));
    append_next(&log, &[events(0), events(1)]).unwrap();
    check_records(&log).unwrap();
    drop(log);
    check_records(&open(folder.path())).unwrap();
}

#[test]
fn the_mark_survives_in_one_file_and_is_missed_without_both() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    for _ in 0..5 {
        append_next(&log, &[events(0)]).unwrap();
    }
    drop(log);
    for name in ["end.0", "end.1"] {
        std::fs::write(folder.path().join(name), b"MRLM and then nothing sensible").unwrap();
        check_records(&open(folder.path())).unwrap();
    }
    let both = |tamper: &dyn Fn(&Path)| ["end.0", "end.1"].map(|name| tamper(&folder.path().join(name)));
    let error = |what| Some(OpenError::Mark { folder: folder.path().to_owned(), what });
    both(&|path| std::fs::write(path, b"MRLM and then nothing sensible").unwrap());
    assert_eq!(EmbeddedLog::open(folder.path(), small()).err(), error("damaged"));
    both(&|path| std::fs::write(path, b"").unwrap());
    assert_eq!(EmbeddedLog::open(folder.path(), small()).err(), error("missing"));
    both(&|path| std::fs::remove_file(path).unwrap());
    assert_eq!(EmbeddedLog::open(folder.path(), small()).err(), error("missing"));
    assert_eq!(repair(folder.path(), small()), Ok(vec![]));
    let log = open(folder.path());
    assert_eq!(log.end(&events(0)), Ok(6));
    check_records(&log).unwrap();
}

#[test]
fn a_folder_whose_storage_is_gone_has_lost_everything() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    append_next(&log, &[events(0)]).unwrap();
    append_next(&log, &[events(0)]).unwrap();
    drop(log);
    std::fs::remove_dir_all(folder.path().join("fjall")).unwrap();
    let losses = vec![Loss { partition: events(0), from: 1, to: 2 }];
    let error = EmbeddedLog::open(folder.path(), small()).err();
    assert_eq!(error, Some(OpenError::Lost { folder: folder.path().to_owned(), losses }));
}

const CHILD_FOLDER: &str = "MILLRACE_TEST_LOG_FOLDER";

/// Not a test of its own: what [`kill_9_loses_nothing_and_alarms_nobody`] kills. Says after each append what was
/// acknowledged, until it is killed.
#[test]
fn child_that_appends() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let log = open(Path::new(&folder));
    let partitions = [events(0), events(1), LogPartition::new("examples.ctr", 0)];
    for round in 0u64.. {
        append_next(&log, &partitions[..1 + round as usize % 3]).unwrap();
        let ends = partitions.clone().map(|p| log.end(&p).unwrap().to_string());
        println!("\nends {}", ends.join(" "));
        if round % 20 == 19 {
            log.trim(&events(1), log.end(&events(1)).unwrap() - 5).unwrap();
        }
    }
}

#[test]
fn kill_9_loses_nothing_and_alarms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut total = 0;
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::embedded::tests::child_that_appends", "--nocapture", "--test-threads=1"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ends = lines.map_while(Result::ok).filter(|line| line.starts_with("ends "));
        // The first round is killed at once, while it creates the folder, the others after some appends.
        let appends = round * round * 7 % 90;
        let seen = ends.by_ref().take(appends as usize).last();
        child.kill().unwrap();
        let acknowledged = ends.last().or(seen);
        child.wait().unwrap();
        let log = open(folder.path());
        check_records(&log).unwrap();
        if let Some(acknowledged) = acknowledged {
            let ends: Vec<u64> = acknowledged[5..].split(' ').map(|end| end.parse().unwrap()).collect();
            for (partition, end) in [events(0), events(1), LogPartition::new("examples.ctr", 0)].iter().zip(ends) {
                assert!(log.end(partition).unwrap() >= end, "round {round}: {partition} was acknowledged up to {end}");
                total += 1;
            }
        }
    }
    assert!(total >= 30, "children did append: {total}");
}

/// A small file system of its own, if this process may mount one.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        disk.run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).then_some(disk)
    }
    fn run(&self, program: &str, args: &[&str]) -> bool {
        let done = Command::new(program).args(args).arg(self.0.path()).stderr(Stdio::null()).status();
        let done = done.is_ok_and(|status| status.success());
        if !done {
            println!("skipped: {program} is not permitted here");
        }
        done
    }
    fn log(&self) -> std::path::PathBuf {
        self.0.path().join("log")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.run("umount", &[]);
    }
}

/// Appends until the disk is full. How the last append ended, and the end before it.
fn fill(log: &EmbeddedLog) -> (AppendError, u64) {
    loop {
        let end = log.end(&events(0)).unwrap();
        let batch: Vec<_> = (end..end + 4).map(|i| (events(0), bytes(i, 60_000))).collect();
        if let Err(error) = log.append(&batch) {
            return (error, end);
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_reopening_works_once_there_is_space() {
    // Small write buffers meet the end of the disk while they write tables, great ones in the journal.
    for write_buffer_bytes in [1 << 20, 1 << 30] {
        let Some(disk) = SmallDisk::mount("40m") else { return };
        let options = || Options { write_buffer_bytes, ..Options::default() };
        let ballast = disk.0.path().join("ballast");
        std::fs::write(&ballast, vec![1; 24 << 20]).unwrap();
        let log = EmbeddedLog::open(&disk.log(), options()).unwrap();
        let (error, end) = fill(&log);
        println!("{error}");
        assert!(matches!(error.cause(), Cause::Disk(DiskError::Full { .. })), "{error}");
        let again = log.append(&[(events(0), vec![1])]).unwrap_err();
        assert!(matches!(again, AppendError::Failed(Cause::Broken(_))), "{again}");
        assert_eq!(log.end(&events(0)), Ok(end), "what is not acknowledged is not seen");
        assert_eq!(log.read(&events(0), end - 1, 1), Ok(vec![(end - 1, bytes(end - 1, 60_000))]));
        drop(log);
        std::fs::remove_file(&ballast).unwrap();
        let log = EmbeddedLog::open(&disk.log(), options()).unwrap();
        let found = read_all(&log, &events(0), 1 << 20).unwrap();
        assert!(found == (1..=found.len() as u64).map(|i| (i, bytes(i, 60_000))).collect::<Vec<_>>());
        let expected = match error {
            AppendError::Failed(_) => vec![end],
            AppendError::Unknown(_) => vec![end, end + 4],
        };
        assert!(expected.contains(&log.end(&events(0)).unwrap()), "{expected:?}");
        log.append(&[(events(0), vec![1])]).unwrap();
    }
}

#[test]
fn a_full_disk_refuses_a_new_log() {
    let Some(disk) = SmallDisk::mount("64k") else { return };
    let filled = std::fs::write(disk.0.path().join("ballast"), vec![1; 128 << 10]);
    assert!(filled.is_err());
    std::fs::create_dir(disk.log()).unwrap_or_default();
    let error = EmbeddedLog::open(&disk.log(), small()).err();
    assert!(
        matches!(
            error,
            Some(OpenError::Disk(DiskError::Full { .. }) | OpenError::Lock(LockError::Disk(DiskError::Full { .. })))
        ),
        "{error:?}"
    );
}

#[test]
fn a_read_only_folder_is_an_error() {
    let Some(disk) = SmallDisk::mount("24m") else { return };
    let log = open(&disk.log());
    append_next(&log, &[events(0)]).unwrap();
    drop(log);
    if !disk.run("mount", &["-o", "remount,ro"]) {
        return;
    }
    let error = EmbeddedLog::open(&disk.log(), small()).err();
    assert!(matches!(error, Some(OpenError::Lock(LockError::Disk(DiskError::NotWritable { .. })))), "{error:?}");
    assert!(disk.run("mount", &["-o", "remount,rw"]));
    check_records(&open(&disk.log())).unwrap();
}
