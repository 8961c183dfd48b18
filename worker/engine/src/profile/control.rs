//! What control records do.

use super::Profile;
use crate::{
    control::{Control, Decision, Erase},
    event::{ConsentChange, Event, EventType, EventWriter, Head, Item, Seq, Time},
    frame::Origin,
    order::OrderError,
    plan::EXPOSE_WITHIN_MICROS,
};

impl Profile {
    /// Acts at the record's place in the log: when its frame has been read.
    pub(super) fn control(&mut self, origin: Origin, record: &[u8]) -> Result<(), OrderError> {
        match Control::read(record)? {
            (seq, Control::Decision(decision)) => self.decide(origin, seq, &decision),
            (_, Control::Configure(configure)) => Ok(self.configure(configure)?),
            (_, Control::Erase(erase)) => {
                self.erase(&erase);
                Ok(())
            }
        }
    }

    /// Files a decision and, where it is the impression, lets that wait for its turn.
    fn decide(&mut self, origin: Origin, seq: Seq, decision: &Decision) -> Result<(), OrderError> {
        if self.erased.covers(decision.user, decision.time) {
            return Ok(());
        }
        let placement = self.plan.placement(&decision.placement);
        let expose_within = placement.map_or(EXPOSE_WITHIN_MICROS, |p| p.expose_within_micros);
        let is_impression = placement.is_some_and(|p| p.decision_is_impression);
        let shown = if is_impression { decision.time.max(self.merge.watermark()) } else { decision.time };
        let until = shown.plus(expose_within).plus(self.plan.longest_within_micros());
        if !self.decisions.file(decision, until) {
            return Ok(());
        }
        self.counts.decisions += 1;
        if let (true, Some(impression)) = (is_impression, self.plan.impression) {
            let event = impression_of(decision, seq, shown, impression);
            self.merge.insert(origin, &event)?;
        }
        Ok(())
    }

    /// Nothing of the user stays; what comes later of the time before is dropped.
    fn erase(&mut self, erase: &Erase) {
        let user = erase.user;
        // Only once: erasures that come all the time are not to keep every checkpoint from its end.
        if !self.was_cancelled {
            self.cancel_checkpoint();
        }
        if let Some(slot) = self.users.find(user) {
            self.joins.forget(slot.0);
            self.users.remove(user);
        }
        self.decisions.forget(user);
        let Self { merge, counts, .. } = self;
        merge.retain(|origin, record| {
            let keep = Event::user_and_stated(record).is_none_or(|(of, _)| of != user);
            counts.erased += u64::from(!keep && !origin.is_control());
            keep
        });
        self.erased.add(user, erase.time);
        self.wants_base = !planted::is(planted::Bug::ErasedStaysInBase);
    }
}

/// The decision as the event that shows its slots.
fn impression_of(decision: &Decision, seq: Seq, time: Time, event_type: EventType) -> Vec<u8> {
    let head = Head {
        seq,
        time,
        stated: time,
        user: decision.user,
        event_type,
        consent: ConsentChange::None,
        id: 0,
        decision: decision.id,
        session: decision.session,
        basket: 0,
        value: f64::NAN,
    };
    let mut bytes = Vec::new();
    let mut writer = EventWriter::new(&mut bytes, &head, &decision.placement, &decision.platform, "");
    for (position, slot) in decision.slots.iter().enumerate() {
        let mut item = Item::new(&slot.item);
        (item.position, item.propensity) = (position as i32, slot.propensity);
        writer.item(&item);
    }
    writer.attributes().finish();
    bytes.drain(..4);
    bytes
}
