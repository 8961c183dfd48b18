//! The shop, live: the world in real time, talking to a worker over HTTP.
//!
//! One thread moves the world, one sends its events, a few ask for decisions. While the worker is away the shop goes on with
//! its best sellers and keeps its events; when it can keep no more, its world stands still until they are taken.

pub mod asker;
pub mod http;
pub mod probe;
pub mod report;
pub mod sender;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::world::{
    Act, Answer, Ask, Micros, World,
    catalog::item_of_sku,
    settings::{SECOND, Settings},
};
use asker::Outcome;
use report::{Asked, Report};
use sender::Record;

/// Told from outside that it is enough.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why nothing was driven.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    #[error("no worker serves at {address} ({trouble}); start one with `millrace run`, or give another --address")]
    NoWorker { address: SocketAddr, trouble: String },
    #[error("a thread of the driver has failed")]
    Thread,
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What to drive.
#[derive(Clone, Debug)]
pub struct Drive {
    pub address: SocketAddr,
    pub settings: Settings,
    /// World time after which the shop closes; none: when it is told to.
    pub duration: Option<Duration>,
    /// How long it may take until the worker serves.
    pub patience: Duration,
    /// Probes of freshness a second; none: there are none.
    pub probes_per_second: Option<f64>,
}

const ASKERS: usize = 4;
/// Requests that may wait for one asker; what does not fit gets no answer, as a page would not wait.
const ASKS_WAITING: usize = 32;
/// Events that the shop's gateway keeps while nobody takes them.
const RECORDS_WAITING: usize = 20_000;
const POLL: Duration = Duration::from_millis(100);
/// A wait for the gateway below this is none.
const STANDSTILL: Duration = Duration::from_millis(50);

/// Runs the shop until its time is over or `stop` is set.
pub fn drive(drive: &Drive, stop: &Stop) -> Result<Report, DriveError> {
    await_worker(drive, stop)?;
    let (records, gateway) = sync_channel(RECORDS_WAITING);
    let sender = sender::Sender::new(drive.address, stop.clone());
    let sender = spawn("gateway", move || sender.run(&gateway))?;
    let (tell, outcomes) = channel();
    let mut askers = Vec::new();
    let mut asks = Vec::new();
    for n in 0..ASKERS {
        let (ask, waiting) = sync_channel(ASKS_WAITING);
        let (address, tell) = (drive.address, tell.clone());
        askers.push(spawn(&format!("asker-{n}"), move || asker::run(address, &waiting, &tell))?);
        asks.push(ask);
    }
    let prober = drive.probes_per_second.map(|rate| {
        let (address, closed) = (drive.address, Stop::default());
        let told = closed.clone();
        Ok::<_, DriveError>((closed, spawn("prober", move || probe::run(address, rate, &told))?))
    });
    let prober = prober.transpose()?;
    let until = drive.duration.map_or(Micros::MAX, |d| Micros::try_from(d.as_micros()).unwrap_or(Micros::MAX));
    let mut shop = Shop {
        world: World::new(drive.settings.clone()),
        begun: Instant::now(),
        stood: Duration::ZERO,
        records,
        asks,
        outcomes,
        _tell: tell,
        asked: Asked::default(),
    };
    shop.run(until, stop);
    let probed = prober.map(|(closed, prober)| {
        closed.set();
        prober.join().map_err(|_| DriveError::Thread)
    });
    let Shop { world, stood, records, asks, asked, outcomes, _tell, .. } = shop;
    drop((records, asks, outcomes, _tell));
    for asker in askers {
        asker.join().map_err(|_| DriveError::Thread)?;
    }
    let sent = sender.join().map_err(|_| DriveError::Thread)?;
    let settings = world.settings();
    let mut report = Report::new(settings.scenario, settings.seed, sent, asked, world.tallies());
    report.seconds = world.now() as f64 / SECOND as f64;
    report.postponed_seconds = stood.as_secs_f64();
    report.visits = world.visits();
    report.freshness = probed.transpose()?;
    Ok(report)
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>, DriveError> {
    Ok(thread::Builder::new().name(name.to_owned()).spawn(run)?)
}

/// Until it says that it is ready.
fn await_worker(drive: &Drive, stop: &Stop) -> Result<(), DriveError> {
    let mut connection = http::Connection::new(drive.address, Duration::from_secs(2));
    let begun = Instant::now();
    loop {
        let trouble = match connection.get("/readyz") {
            Ok(reply) if reply.status == 200 => return Ok(()),
            Ok(reply) => format!("HTTP {} at /readyz", reply.status),
            Err(error) => error.kind().to_string(),
        };
        if begun.elapsed() > drive.patience || stop.is_set() {
            return Err(DriveError::NoWorker { address: drive.address, trouble });
        }
        thread::sleep(POLL);
    }
}

struct Shop {
    world: World,
    begun: Instant,
    /// How long the world stood still.
    stood: Duration,
    records: SyncSender<Record>,
    asks: Vec<SyncSender<Ask>>,
    outcomes: Receiver<Outcome>,
    /// Keeps the outcomes open.
    _tell: Sender<Outcome>,
    asked: Asked,
}

impl Shop {
    /// World time that it should be.
    fn elapsed(&self) -> Micros {
        let elapsed = self.begun.elapsed().saturating_sub(self.stood);
        Micros::try_from(elapsed.as_micros()).unwrap_or(Micros::MAX)
    }

    fn run(&mut self, until: Micros, stop: &Stop) {
        while !stop.is_set() {
            let now = self.elapsed();
            while let Ok(outcome) = self.outcomes.try_recv() {
                self.answer(outcome);
            }
            if self.world.next_at() <= now.min(until) {
                self.act();
            } else if now >= until {
                return;
            } else {
                let wait = Duration::from_micros(self.world.next_at().saturating_sub(now).unsigned_abs()).min(POLL);
                match self.outcomes.recv_timeout(wait) {
                    Ok(outcome) => self.answer(outcome),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
                }
            }
        }
    }

    fn act(&mut self) {
        let action = self.world.next();
        match action.what {
            Act::Event(json) => self.send(Record::Event(json)),
            Act::Product(json) => self.send(Record::Product(json)),
            Act::Ask(ask) => {
                self.asked.asked += 1;
                let token = ask.token;
                let asker = token as usize % self.asks.len();
                if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.asks[asker].try_send(ask) {
                    self.asked.fail("too many are waiting".to_owned());
                    self.world.answer(token, action.at, None);
                }
            }
        }
    }

    /// Waits while the gateway is full; the world does not go on meanwhile.
    fn send(&mut self, record: Record) {
        let begun = Instant::now();
        // It fails only when the gateway's thread is gone, which `drive` tells.
        let _ = self.records.send(record);
        let waited = begun.elapsed();
        if waited > STANDSTILL {
            self.stood += waited;
            self.world.postpone(Micros::try_from(waited.as_micros()).unwrap_or(0));
        }
    }

    fn answer(&mut self, outcome: Outcome) {
        let at = self.elapsed();
        match outcome.decided {
            Ok(decided) => {
                self.asked.answer(&decided.reason, outcome.took);
                let items: Vec<_> = decided.items.iter().filter_map(|shown| item_of_sku(&shown.id)).collect();
                let (decision, variant) = (Some(decided.decision.as_str()), decided.variant.as_deref());
                self.world.answer(outcome.token, at, Some(&Answer { decision, variant, items: &items }));
            }
            Err(error) => {
                self.asked.fail(error);
                self.world.answer(outcome.token, at, None);
            }
        }
    }
}

#[cfg(test)]
mod tests;
