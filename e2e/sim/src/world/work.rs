//! What a node does, and how it ends.

use std::time::Duration;

use millrace::{
    host::{
        HostError,
        station::{Command, Now},
    },
    log::{Log, ReadError},
    store::{Answer, Store, checkpoint::Restored},
};
use millrace_lifecycle::{
    keys::{self, TaskId},
    manifest::Manifest,
};

use super::{Event, World};
use crate::{
    check::{self, Violation},
    node::{Work, is_expected},
};

impl World<'_> {
    /// Something comes to a node that lives.
    pub(super) fn hears(&mut self, node: usize, event: Event) -> Result<(), Violation> {
        let now = self.now(node);
        if let Event::Orders { generations, .. } = &event {
            let learned = self.nodes[node].learn(self.ground, *generations);
            self.allowed(node, learned)?;
        }
        let Some(Work { station, claimant, is_appending, .. }) = &mut self.nodes[node].work else { return Ok(()) };
        let result = match event {
            Event::Appended { ok: false, .. } => {
                self.crash(node);
                return Ok(());
            }
            Event::Appended { ticket, .. } => {
                *is_appending = false;
                station.appended(ticket).map_err(HostError::from)
            }
            Event::Answered { id, answer, .. } => {
                if let Answer::Got(Ok(Some(found))) = &answer
                    && let Ok(manifest) = Manifest::decode(&found.bytes)
                {
                    self.checks.ledger.read(&claimant.owner, &manifest);
                }
                station.answered(id, answer, now)
            }
            Event::Orders { orders, .. } => station.obey(&orders, claimant, now),
            _ => Ok(()),
        };
        self.allowed(node, result)?;
        self.dispatch(node)
    }

    pub(super) fn now(&self, node: usize) -> Now {
        let unix_ms = self.tick as i64 + self.nodes[node].clock_ahead_ms;
        Now { since_start: Duration::from_millis(self.tick), unix_ms }
    }

    /// What a store or another owner did to us is no violation; anything else is. A log that cannot be read ends a worker.
    pub(super) fn allowed(&mut self, node: usize, result: Result<(), HostError>) -> Result<(), Violation> {
        match result {
            Err(HostError::Read(ReadError::Disk { .. })) => {
                self.crash(node);
                Ok(())
            }
            Err(error)
                if !is_expected(&error)
                    && !self.checks.is_overtaken(&error)
                    && !self.is_of_another_generation(node, &error) =>
            {
                let what = format!("{}: {error}", self.nodes[node].member);
                Err(Violation { check: check::NOTHING_STOPS, what })
            }
            _ => Ok(()),
        }
    }

    /// A node that has not heard of the pipeline as it is, or of whose tasks it has none any more.
    fn is_of_another_generation(&self, node: usize, error: &HostError) -> bool {
        let is_behind = self.nodes[node].generation < self.record.generation;
        match error {
            HostError::Configure(_) => is_behind,
            HostError::NoTask { task } => is_behind || !self.checks.tasks().iter().any(|t| t.to_string() == *task),
            _ => false,
        }
    }

    pub(super) fn wake(&mut self, node: usize) -> Result<(), Violation> {
        let Some(work) = &self.nodes[node].work else { return Ok(()) };
        let seats = work.station.seats.len();
        let paused_for = self.nodes[node].paused_until.saturating_sub(self.tick);
        if paused_for > 0 {
            self.after(paused_for, Event::Wake { node });
            return Ok(());
        }
        if self.rng.per_mille(self.faults.crash) {
            self.crash(node);
            return Ok(());
        }
        if self.rng.per_mille(self.faults.pause) {
            self.nodes[node].paused_until = self.tick + self.rng.below(300);
        }
        let now = self.now(node);
        for at in 0..seats {
            let budget = 1 + self.rng.below(20) as usize;
            let Some(work) = &mut self.nodes[node].work else { return Ok(()) };
            let is_late = self.rng.per_mille(self.faults.lag);
            if work.station.seats.get(at).is_some_and(|seat| seat.is_owner() || !is_late) {
                let stepped = work.station.step(at, budget, now).map(|_| ());
                self.allowed(node, stepped)?;
            }
        }
        if let Some(work) = &mut self.nodes[node].work {
            let ticked = work.station.tick(now);
            self.allowed(node, ticked)?;
        }
        self.dispatch(node)?;
        let rest = 1 + self.rng.below(4);
        self.after(rest, Event::Wake { node });
        Ok(())
    }

    /// Sends what a station wants done on its way.
    pub(super) fn dispatch(&mut self, node: usize) -> Result<(), Violation> {
        loop {
            let life = self.nodes[node].life;
            let Some(work) = &mut self.nodes[node].work else { return Ok(()) };
            let Some(command) = work.station.command() else { break };
            if self.rng.per_mille(self.faults.crash) {
                self.crash(node);
                return Ok(());
            }
            let Some(work) = &mut self.nodes[node].work else { return Ok(()) };
            match command {
                Command::Append { ticket, appends } => {
                    self.checks.ledger.cut(&work.claimant.owner, &appends)?;
                    work.outbound.push_back((ticket, appends));
                }
                Command::Ask { id, op } => {
                    let (delay, fate) = (self.delay(), self.fate_of(&op));
                    self.after(delay, Event::Ask { node, life, id, op, fate });
                }
                Command::Make { id, task, restored } => {
                    let delay = self.delay();
                    self.after(delay, Event::Make { node, life, id, task, restored });
                }
                Command::LetGo { .. } => {}
                Command::Trim { partition, before } => {
                    self.checks.trimmed(&partition, before)?;
                    // What is gone by now is gone.
                    let _ = self.log.trim(&partition, before);
                }
            }
        }
        let Some(work) = &mut self.nodes[node].work else { return Ok(()) };
        if !work.is_appending
            && let Some((ticket, appends)) = work.outbound.pop_front()
        {
            work.is_appending = true;
            let life = self.nodes[node].life;
            let (delay, fate) = (self.delay(), self.fate_of_append());
            self.after(delay, Event::Append { node, life, ticket, appends, fate });
        }
        Ok(())
    }

    /// A task is made from its checkpoint, which has taken a while.
    pub(super) fn make(
        &mut self,
        node: usize,
        id: u64,
        task: &TaskId,
        restored: Option<Restored>,
    ) -> Result<(), Violation> {
        let Some(work) = &mut self.nodes[node].work else { return Ok(()) };
        match work.maker.make(task, restored.as_ref()) {
            Ok(made) => work.station.made(id, made),
            Err(error) => {
                work.station.not_made(id, &error);
                if !self.is_outdated(task, restored.as_ref()) {
                    self.allowed(node, Err(error))?;
                }
            }
        }
        self.dispatch(node)
    }

    /// Has somebody else saved the task since?
    pub(super) fn is_outdated(&self, task: &TaskId, restored: Option<&Restored>) -> bool {
        let found = self.store.get(&keys::manifest(task)).ok().flatten();
        let manifest = found.and_then(|found| Manifest::decode(&found.bytes).ok());
        let newest = manifest.and_then(|manifest| manifest.checkpoints.first().map(|c| c.position.clone()));
        newest != restored.map(|restored| restored.checkpoint.position.clone())
    }

    /// Everything that it has not sent is gone; what is on its way arrives, or half of it does not.
    pub(super) fn crash(&mut self, node: usize) {
        let seats = self.nodes[node].work.take().map_or(0, |work| work.station.seats.len());
        self.report.crashes += 1;
        self.report.task_crashes += seats as u64;
        let (life, lost) = (self.nodes[node].life, self.rng.per_mille(500));
        let is_its = |event: &Event| match event {
            Event::Append { node: n, life: l, .. } | Event::Ask { node: n, life: l, .. } => (*n, *l) == (node, life),
            _ => false,
        };
        if lost {
            self.queue.retain(|_, event| !is_its(event));
        }
        let back = 1 + self.rng.below(200);
        self.after(back, Event::Start { node });
    }
}
