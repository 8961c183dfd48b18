//! What becomes of what is asked of log and store.

use millrace::log::Log;
use millrace::store::{Answer, Op, Outcome, Store, StoreError};
use millrace_lifecycle::{
    keys::{self, Named},
    manifest::Manifest,
};

use super::{Event, Fate, World};
use crate::{
    check::{self, Violation},
    faults::Faults,
    node::Frames,
};

impl World<'_> {
    pub(super) fn fate_of_append(&mut self) -> Fate {
        let Faults { append_fails, append_unknown, append_twice, .. } = self.faults;
        match () {
            () if self.rng.per_mille(append_fails) => Fate::Failed,
            () if self.rng.per_mille(append_unknown) => match self.unknown() {
                // Whoever appends waits for the end, or ends: nothing of it comes later.
                Fate::LateUnknown => Fate::LostUnknown,
                fate => fate,
            },
            () if self.rng.per_mille(append_twice) => Fate::Twice,
            () => Fate::Done,
        }
    }

    pub(super) fn fate_of(&mut self, op: &Op) -> Fate {
        let Faults { store_fails, store_unknown, list_lacks, .. } = self.faults;
        match op {
            _ if self.rng.per_mille(store_fails) => Fate::Failed,
            Op::Put { .. } | Op::Swap { .. } if self.rng.per_mille(store_unknown) => self.unknown(),
            Op::List { .. } if self.rng.per_mille(list_lacks) => Fate::Lacks,
            _ => Fate::Done,
        }
    }

    pub(super) fn unknown(&mut self) -> Fate {
        match () {
            () if self.rng.per_mille(self.faults.store_late) => Fate::LateUnknown,
            () if self.rng.per_mille(500) => Fate::DoneUnknown,
            () => Fate::LostUnknown,
        }
    }

    pub(super) fn append(
        &mut self,
        node: usize,
        life: u64,
        ticket: u64,
        appends: Frames,
        fate: Fate,
    ) -> Result<(), Violation> {
        let process = self.nodes[node].process(life);
        let times = match fate {
            Fate::Failed | Fate::LostUnknown => 0,
            Fate::Twice => 2,
            _ => 1,
        };
        for _ in 0..times {
            // A log in memory takes every record of this size.
            let _ = self.log.inner.append(&appends);
            self.checks.ledger.appended(&process, &appends)?;
        }
        let delay = self.delay();
        let ok = matches!(fate, Fate::Done | Fate::Twice);
        self.after(delay, Event::Appended { node, life, ticket, ok });
        Ok(())
    }

    pub(super) fn ask(&mut self, node: usize, life: u64, id: u64, op: Op, fate: Fate) -> Result<(), Violation> {
        let key = op.key().to_owned();
        let error = || StoreError::new(&key, "the simulated store does not feel well");
        let is_write = matches!(op, Op::Put { .. } | Op::Swap { .. });
        let (is_swap, is_file) = (matches!(op, Op::Swap { .. }), matches!(op, Op::Put { .. }));
        let is_unknown = matches!(fate, Fate::DoneUnknown | Fate::LostUnknown | Fate::LateUnknown);
        self.checks.asked(&self.nodes[node].process(life), &op, is_unknown)?;
        let answer = match fate {
            Fate::Failed => match op {
                Op::Get { .. } => Answer::Got(Err(error())),
                Op::Digest { .. } => Answer::Digested(Err(error())),
                Op::Put { .. } | Op::Swap { .. } => Answer::Wrote(Outcome::Failed(error())),
                Op::List { .. } => Answer::Listed(Err(error())),
                Op::Delete { .. } => Answer::Deleted(Err(error())),
            },
            Fate::LostUnknown => Answer::Wrote(Outcome::Unknown(error())),
            Fate::LateUnknown => {
                let much_later = self.rng.below(200);
                self.after(much_later, Event::Ask { node, life: 0, id: 0, op, fate: Fate::Done });
                Answer::Wrote(Outcome::Unknown(error()))
            }
            _ => self.store.answer(&op),
        };
        if is_file && matches!(answer, Answer::Wrote(Outcome::Done(_))) && self.rng.per_mille(self.faults.file_damaged)
        {
            let later = 50 + self.rng.below(300);
            self.after(later, Event::Damage { key: key.clone() });
        }
        if is_swap && matches!(answer, Answer::Wrote(Outcome::Done(_))) {
            self.manifest_written(&key)?;
        }
        let answer = match (fate, answer) {
            (Fate::DoneUnknown, _) if is_write => Answer::Wrote(Outcome::Unknown(error())),
            (Fate::Lacks, Answer::Listed(Ok(mut listed))) => {
                listed.pop();
                Answer::Listed(Ok(listed))
            }
            (_, answer) => answer,
        };
        let delay = self.delay();
        self.after(delay, Event::Answered { node, life, id, answer });
        Ok(())
    }

    /// Bits rot, and files get lost; but not all that there is of a task.
    pub(super) fn damage(&mut self, key: &str) {
        let Some(Named::File { task, .. }) = keys::parse(key) else { return };
        if !self.checks.may_damage(&task, key, &self.store) {
            return;
        }
        let gone = self.rng.per_mille(300);
        let mut objects = self.store.objects();
        let Some(bytes) = objects.get_mut(key).filter(|bytes| !bytes.is_empty()) else { return };
        if gone {
            objects.remove(key);
        } else {
            let at = self.rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.rng.below(8);
        }
    }

    pub(super) fn manifest_written(&mut self, key: &str) -> Result<(), Violation> {
        let Some(Named::Manifest(task)) = keys::parse(key) else { return Ok(()) };
        let damaged = |what: String| Violation { check: check::FILES_ARE_THERE, what: format!("{task}: {what}") };
        let found = self.store.get(key).map_err(|error| damaged(error.to_string()))?;
        let found = found.ok_or_else(|| damaged("no manifest after it was written".to_owned()))?;
        let manifest = Manifest::decode(&found.bytes).map_err(|error| damaged(error.to_string()))?;
        self.checks.manifest(&manifest, &self.store)
    }
}
