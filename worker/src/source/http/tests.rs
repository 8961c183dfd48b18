use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Condvar,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::*;
use crate::log::{AppendError, Cause, LogStatus, ReadError, Record, TrimError, memory::MemoryLog};

const PIPELINE: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: t}
spec:
  partitions: 2
  privacy:
    pseudonymKeys: {file: keys.txt, active: demo}
    user: {field: user}
    consent: {event: consent, grantedIf: {ok: true}}
  sources:
  - name: shop
    http: {partitions: 3}
    format: Json
    eventTime: {field: ts}
    events:
    - {name: consent, when: {type: consent}}
    - {name: click, when: {type: click}, fields: {items: sku}}
"#;

fn pipeline() -> Pipeline {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pipeline.yaml");
    fs::write(&file, PIPELINE).unwrap();
    fs::write(dir.path().join("keys.txt"), format!("demo: {}", "a".repeat(32))).unwrap();
    Pipeline::load(&file, &BTreeMap::new()).unwrap()
}

fn click(user: usize) -> String {
    format!(r#"{{"type":"click","user":"user-{user}","ts":1000,"sku":"a"}}"#)
}

fn posted(log: Arc<dyn Log>) -> (Posted, JoinHandle<()>, Arc<AtomicUsize>) {
    let (woken, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let wake = woken.clone();
    let wake = Arc::new(move || {
        wake.fetch_add(1, Ordering::SeqCst);
    });
    let fail = failed.clone();
    let (posted, thread) = Posted::start(&pipeline(), log, wake, move || {
        fail.fetch_add(1, Ordering::SeqCst);
    })
    .unwrap();
    (posted, thread, failed)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn a_users_records_have_one_partition_and_no_identity() {
    let (posted, ..) = posted(Arc::new(MemoryLog::default()));
    assert_eq!((posted.find(None), posted.find(Some("shop")), posted.find(Some("else"))), (Some(0), Some(0), None));
    let records: Vec<String> = (0..60).map(|n| click(n % 20)).collect();
    let batch = posted.decode(0, &records, Time(7));
    assert!(batch.rejected.is_empty());
    let mut partitions = BTreeMap::new();
    for (n, (partition, bytes)) in batch.appends.iter().enumerate() {
        assert_eq!(*partitions.entry(n % 20).or_insert(partition), partition);
        assert!(!bytes.windows(5).any(|w| w == b"user-"));
        let mut decoded = Decoded::default();
        assert_eq!(record::read(bytes, &mut decoded), Ok(Time(7)));
        assert_eq!(decoded.events.len(), 1);
    }
    let used: std::collections::BTreeSet<_> = partitions.values().map(|p| p.partition).collect();
    assert_eq!(used.into_iter().collect::<Vec<_>>(), [0, 1, 2], "20 users are spread over 3 partitions");
}

#[test]
fn what_cannot_be_read_is_told_and_kept_for_the_dead_letters() {
    let (posted, ..) = posted(Arc::new(MemoryLog::default()));
    let consent = |ok| format!(r#"{{"type":"consent","user":"u","ts":5,"ok":{ok}}}"#);
    let else_what = r#"{"type":"else","user":"u"}"#.into();
    let bad_time = click(2).replace("1000", "\"now\"");
    let records = [click(1), "{".into(), else_what, bad_time, consent(true), consent(false)];
    let batch = posted.decode(0, &records, Time(7));
    assert_eq!(batch.rejected, [(1, Reason::Malformed), (3, Reason::BadTime)]);
    assert_eq!(batch.appends.len(), records.len());
    assert_eq!(batch.withdrawn, [(pipeline().keys.user_of("u"), Time(5_000))]);
}

#[test]
fn what_was_answered_is_in_the_log() {
    let log = Arc::new(MemoryLog::default());
    let (posted, thread, failed) = posted(log.clone());
    let batch = posted.decode(0, &[click(1), click(2), click(1)], Time(7));
    let expected = batch.appends.clone();
    block_on(posted.append(batch)).unwrap();
    for partition in 0..3 {
        let partition = logs::http("shop", partition);
        let kept: Vec<Vec<u8>> = log.read(&partition, 1, 1 << 20).unwrap().into_iter().map(|(_, b)| b).collect();
        let sent: Vec<Vec<u8>> = expected.iter().filter(|(p, _)| *p == partition).map(|(_, b)| b.clone()).collect();
        assert_eq!(kept, sent);
    }
    drop(posted);
    thread.join().unwrap();
    assert_eq!(failed.load(Ordering::SeqCst), 0);
}

/// Appends when it is let go, and says how many batches came at once.
#[derive(Default)]
struct Gate {
    open: Mutex<Option<bool>>,
    opened: Condvar,
    appends: Mutex<Vec<usize>>,
}

impl Gate {
    fn let_go(&self, well: bool) {
        *self.open.lock().unwrap() = Some(well);
        self.opened.notify_all();
    }
}

impl Log for Gate {
    fn append(&self, batch: &[(LogPartition, Vec<u8>)]) -> Result<Vec<u64>, AppendError> {
        self.appends.lock().unwrap().push(batch.len());
        let open = self.opened.wait_while(self.open.lock().unwrap(), |open| open.is_none()).unwrap();
        match *open {
            Some(true) => Ok(vec![1; batch.len()]),
            _ => Err(AppendError::Unknown(Cause::Storage("gone".into()))),
        }
    }
    fn read(&self, _: &LogPartition, _: u64, _: usize) -> Result<Vec<Record>, ReadError> {
        Ok(Vec::new())
    }
    fn end(&self, _: &LogPartition) -> Result<u64, ReadError> {
        Ok(1)
    }
    fn start(&self, _: &LogPartition) -> Result<u64, ReadError> {
        Ok(1)
    }
    fn trim(&self, _: &LogPartition, _: u64) -> Result<(), TrimError> {
        Ok(())
    }
    fn status(&self) -> LogStatus {
        LogStatus::default()
    }
}

async fn post(posted: Posted) -> Result<(), NotAppended> {
    let batch = posted.decode(0, &[click(1)], Time(7));
    posted.append(batch).await
}

#[test]
fn requests_that_wait_are_appended_together_and_each_is_answered() {
    let log = Arc::new(Gate::default());
    let (posted, ..) = posted(log.clone());
    block_on(async {
        let requests: Vec<_> = (0..50).map(|_| tokio::spawn(post(posted.clone()))).collect();
        tokio::task::yield_now().await; // each has handed its batch over
        log.let_go(true);
        for request in requests {
            request.await.unwrap().unwrap();
        }
    });
    let appends = log.appends.lock().unwrap().clone();
    assert_eq!(appends.iter().sum::<usize>(), 50);
    assert!(appends.len() <= 50 / 2, "{appends:?}");
}

#[test]
fn too_much_at_once_is_refused_and_forgotten() {
    let log = Arc::new(Gate::default());
    let (posted, ..) = posted(log.clone());
    let large = || Batch { appends: vec![(logs::http("shop", 0), vec![0; 40 << 20])], rejected: Vec::new(), withdrawn: Vec::new() };
    block_on(async {
        let (first, batch) = (posted.clone(), large());
        let first = tokio::spawn(async move { first.append(batch).await });
        tokio::task::yield_now().await;
        assert_eq!(posted.append(large()).await, Err(NotAppended::Busy));
        log.let_go(true);
        first.await.unwrap().unwrap();
        assert_eq!(posted.append(large()).await, Ok(()), "there is room again");
    });
}

#[test]
fn a_log_that_fails_is_told_to_all_and_takes_no_more() {
    let log = Arc::new(Gate::default());
    let (posted, thread, failed) = posted(log.clone());
    log.let_go(false);
    assert!(matches!(block_on(post(posted.clone())), Err(NotAppended::Failed(cause)) if cause.contains("gone")));
    thread.join().unwrap();
    assert_eq!(failed.load(Ordering::SeqCst), 1);
    assert_eq!(block_on(post(posted)), Err(NotAppended::Stopped));
}
