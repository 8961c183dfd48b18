//! What serving sees of a user: the row with all that was read and still waits for the watermark laid over it.

use crate::{
    catalog::Catalog,
    event::{ConsentChange, Event, Pseudonym, Time},
    feature::RowRef,
    users::Slot,
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

/// Where a view's row is.
enum From {
    Nowhere,
    Table(Slot),
    Scratch,
}

impl Profile {
    /// What serving sees of a user, see [`Profile::view`], and what it may show.
    pub fn view_and_catalog(&mut self, user: Pseudonym) -> (View<'_>, Option<&Catalog>) {
        let (consented, from) = self.overlay(user);
        let row = match from {
            From::Nowhere => None,
            From::Table(slot) => Some(self.users.row(slot)),
            From::Scratch => Some(self.scratch.row()),
        };
        (View { consented, row }, self.catalog())
    }

    /// The user's row as it will be once what was read is released: waiting events in their order, without client retries.
    /// A withdrawal counts from when it is read, wherever its time lies, unless a grant was stated later.
    ///
    /// Only for plans with placements; others index nothing by user, and see nobody. The ids of waiting events are compared
    /// with those of the user's own waiting events and with what was released.
    pub fn view(&mut self, user: Pseudonym) -> View<'_> {
        self.view_and_catalog(user).0
    }

    /// Whether the user consented, and where the row is. What waits is laid over a copy.
    fn overlay(&mut self, user: Pseudonym) -> (bool, From) {
        const CLOSED: (bool, From) = (false, From::Nowhere);
        let slot = self.users.find(user);
        let by_event = self.plan.consent_by_event;
        let Some(waiting) = self.merge.waiting_of(user, OVERLAID) else { return CLOSED };
        if waiting.is_empty() {
            return (slot.is_some() || !by_event, slot.map_or(From::Nowhere, From::Table));
        }
        let mut known = slot.is_some();
        let mut granted = slot.map_or(Time::MIN, |slot| self.users.row(slot).granted());
        let events: Vec<Event<'_>> = waiting.into_iter().filter_map(|(_, bytes)| Event::read(bytes).ok()).collect();
        if is_withdrawn(granted, &events) {
            return CLOSED;
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
                    let mut own = Vec::new();
                    let completed = self.catalogs.as_ref().and_then(|c| c.complete_waiting(*event, &mut own).ok());
                    self.plan.features.update(&mut self.scratch.row_mut(), &completed.unwrap_or(*event));
                }
            }
        }
        (known || !by_event, if known { From::Scratch } else { From::Nowhere })
    }
}

/// Is a withdrawal the last word, by what the events state?
fn is_withdrawn(granted: Time, events: &[Event<'_>]) -> bool {
    let last = |change| events.iter().filter(|e| e.head.consent == change).map(|e| e.head.stated).max();
    let granted = last(ConsentChange::Grant).map_or(granted, |waiting| waiting.max(granted));
    last(ConsentChange::Withdraw).is_some_and(|withdrawn| granted <= withdrawn)
}
