//! What serving sees of a user: the row with all that was read and still waits for the watermark laid over it.

use crate::{
    event::{ConsentChange, Event, Pseudonym, Time},
    feature::RowRef,
};

use super::Profile;

/// Waiting events of a user that are laid over the row: those read last.
const OVERLAID: usize = 256;

/// A user as serving sees it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Without consent nothing may be kept or personalized.
    pub consented: bool,
    /// None: nothing is known of the user, or may be.
    pub row: Option<RowRef<'a>>,
}

impl View<'_> {
    /// Of a user who has not agreed.
    pub const CLOSED: View<'static> = View { consented: false, row: None };
}

impl Profile {
    /// The user's row as it will be once what was read is released: waiting events in their order, without client retries.
    /// A withdrawal counts from when it is read, wherever its time lies, unless a grant was stated later.
    ///
    /// Only for plans with placements; others index nothing by user, and see nobody. The ids of waiting events are compared
    /// with those of the user's own waiting events and with what was released.
    pub fn view(&mut self, user: Pseudonym) -> View<'_> {
        let slot = self.users.find(user);
        let by_event = self.plan.consent_by_event;
        let Some(waiting) = self.merge.waiting_of(user, OVERLAID) else { return View::CLOSED };
        if waiting.is_empty() {
            let row = slot.map(|slot| self.users.row(slot));
            return View { consented: row.is_some() || !by_event, row };
        }
        let mut known = slot.is_some();
        let mut granted = slot.map_or(Time::MIN, |slot| self.users.row(slot).granted());
        let events: Vec<Event<'_>> = waiting.into_iter().filter_map(|(_, bytes)| Event::read(bytes).ok()).collect();
        if is_withdrawn(granted, &events) {
            return View::CLOSED;
        }
        match slot {
            Some(slot) => self.scratch.copy_from(&self.users.row(slot)),
            None => self.scratch.clear(user),
        }
        let mut ids = Vec::new();
        for event in &events {
            let head = &event.head;
            match head.consent {
                ConsentChange::Grant => {
                    (known, granted) = (true, head.stated);
                    self.scratch.row_mut().set_granted(granted);
                }
                ConsentChange::Withdraw if granted > head.stated => {}
                ConsentChange::Withdraw => {
                    (known, granted) = (false, Time::MIN);
                    self.scratch.clear(user);
                }
                ConsentChange::None if !known && by_event => {}
                ConsentChange::None => {
                    known = true;
                    if head.id != 0 && (ids.contains(&head.id) || self.dedupe.has_seen(head.id, head.time)) {
                        continue;
                    }
                    ids.push(head.id);
                    self.plan.features.update(&mut self.scratch.row_mut(), event);
                }
            }
        }
        View { consented: known || !by_event, row: known.then(|| self.scratch.row()) }
    }
}

/// Is a withdrawal the last word, by what the events state?
fn is_withdrawn(granted: Time, events: &[Event<'_>]) -> bool {
    let last = |change| events.iter().filter(|e| e.head.consent == change).map(|e| e.head.stated).max();
    let granted = last(ConsentChange::Grant).map_or(granted, |waiting| waiting.max(granted));
    last(ConsentChange::Withdraw).is_some_and(|withdrawn| granted <= withdrawn)
}
