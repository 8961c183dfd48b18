//! Room for connections. When it is full, whoever comes takes the place of one that waits, the longest waiting first, so
//! that connections that only wait, however many, keep nobody out. Whose place ([`State::give_one_up`]): first of those that
//! have waited for a second, then of those of a kind that fills more than its share. So a flood of connections takes places
//! from itself, and hardly from clients that ask again and again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// Who asks, sends a request or takes an answer in this time keeps the connection, as far as there is room.
const OLD: Duration = Duration::from_secs(1);

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Has not sent a whole request's headers yet.
    Fresh,
    /// Between two requests.
    Idle,
    /// Sends a body.
    Reading,
    /// Takes an answer.
    Writing,
    /// Waits for the engine: never given up.
    Answering,
}

impl Phase {
    /// Whether no request is under way.
    pub fn is_waiting(self) -> bool {
        matches!(self, Phase::Fresh | Phase::Idle)
    }
}

/// Places for connections.
pub struct Room {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: usize,
    next: u64,
    fresh: Queue,
    idle: Queue,
    stuck: Queue,
}

/// Who waits, and how to tell them: since when, and the place's number.
type Queue = BTreeMap<(Instant, u64), Arc<Notify>>;

impl State {
    /// Where one in this phase waits, unless it is never given up.
    fn queue(&mut self, phase: Phase) -> Option<&mut Queue> {
        match phase {
            Phase::Fresh => Some(&mut self.fresh),
            Phase::Idle => Some(&mut self.idle),
            Phase::Reading | Phase::Writing => Some(&mut self.stuck),
            Phase::Answering => None,
        }
    }
    fn give_one_up(&mut self, limit: usize, now: Instant) -> Option<Arc<Notify>> {
        let is_old = |queue: &Queue| {
            let oldest = queue.first_key_value();
            oldest.is_some_and(|((since, _), _)| now.saturating_duration_since(*since) >= OLD)
        };
        let queue = if is_old(&self.fresh) {
            &mut self.fresh
        } else if is_old(&self.stuck) || self.stuck.len() > limit - limit / 4 {
            &mut self.stuck
        } else if is_old(&self.idle) || self.fresh.len() <= (limit / 8).max(1) && !self.idle.is_empty() {
            &mut self.idle
        } else {
            &mut self.fresh
        };
        queue.pop_first().map(|(_, given_up)| given_up)
    }
}

impl Room {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default() })
    }

    /// A place, at the cost of another connection if need be; `None` if all are busy.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.open >= self.limit {
            state.give_one_up(self.limit, now)?.notify_one();
            state.open -= 1;
        }
        state.open += 1;
        state.next += 1;
        let (number, given_up) = (state.next, Arc::new(Notify::new()));
        state.fresh.insert((now, number), Arc::clone(&given_up));
        let at = Mutex::new(At { phase: Phase::Fresh, since: now, was_given_up: false });
        Some(Place { room: Arc::clone(self), number, given_up, at })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, until it is dropped.
pub struct Place {
    room: Arc<Room>,
    number: u64,
    given_up: Arc<Notify>,
    at: Mutex<At>,
}

struct At {
    phase: Phase,
    since: Instant,
    /// It is neither counted nor listed any more.
    was_given_up: bool,
}

impl At {
    /// Takes it from where it waits, and so learns whether it was given up.
    fn leave(&mut self, state: &mut State, number: u64) {
        if let Some(queue) = state.queue(self.phase) {
            self.was_given_up |= queue.remove(&(self.since, number)).is_none();
        }
    }
}

impl Place {
    pub fn phase(&self) -> Phase {
        self.at.lock().unwrap_or_else(PoisonError::into_inner).phase
    }

    pub fn set(&self, phase: Phase) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.room.lock();
        at.leave(&mut state, self.number);
        (at.phase, at.since) = (phase, Instant::now());
        if let (Some(queue), false) = (state.queue(phase), at.was_given_up) {
            queue.insert((at.since, self.number), Arc::clone(&self.given_up));
        }
    }

    /// Resolves when another connection has taken the place.
    pub async fn given_up(&self) {
        self.given_up.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let at = self.at.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.room.lock();
        at.leave(&mut state, self.number);
        if !at.was_given_up {
            state.open -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn is_given_up(place: &Place) -> bool {
        place.given_up().now_or_never().is_some()
    }

    /// As if it had come to what it does so much earlier.
    fn age(place: &Place, by: Duration) {
        let mut at = place.at.lock().unwrap();
        let mut state = place.room.lock();
        let queue = state.queue(at.phase).unwrap();
        let given_up = queue.remove(&(at.since, place.number)).unwrap();
        at.since -= by;
        queue.insert((at.since, place.number), given_up);
    }

    #[test]
    fn who_comes_takes_the_place_of_who_waits() {
        let room = Room::new(3);
        let [idle, fresh, answering] = [0; 3].map(|_| room.enter().unwrap());
        idle.set(Phase::Idle);
        answering.set(Phase::Answering);
        age(&fresh, OLD);
        let first = room.enter().unwrap();
        assert!(is_given_up(&fresh) && !is_given_up(&idle), "it has not asked for a second");
        let second = room.enter().unwrap();
        assert!(is_given_up(&idle) && !is_given_up(&first), "it came just now");
        first.set(Phase::Answering);
        second.set(Phase::Answering);
        assert!(room.enter().is_none() && !is_given_up(&answering), "all are busy");
        // Places of connections that were given up are counted once.
        drop((idle, fresh));
        assert!(room.enter().is_none());
        drop(answering);
        assert!(room.enter().is_some());
        drop((first, second));
        assert_eq!(room.lock().open, 0);
        assert!(room.lock().fresh.is_empty() && room.lock().idle.is_empty());
    }

    #[test]
    fn those_who_never_ask_do_not_drive_those_who_do_away() {
        let room = Room::new(8);
        let asked: Vec<Place> = (0..4).map(|_| room.enter().unwrap()).collect();
        asked.iter().for_each(|place| place.set(Phase::Idle));
        let silent: Vec<Place> = (0..100).map(|_| room.enter().unwrap()).collect();
        assert!(!asked.iter().any(is_given_up));
        let left: Vec<bool> = silent.iter().map(|place| !is_given_up(place)).collect();
        assert!(left[96..].iter().all(|left| *left) && !left[..96].contains(&true), "the last to come: {left:?}");
    }

    #[test]
    fn those_who_never_end_do_not_drive_those_who_do_away() {
        let room = Room::new(8);
        let asked = room.enter().unwrap();
        asked.set(Phase::Idle);
        let stuck: Vec<Place> = (0..100)
            .map(|_| {
                let place = room.enter().unwrap();
                place.set(Phase::Reading);
                place
            })
            .collect();
        assert!(!is_given_up(&asked));
        assert_eq!(stuck.iter().filter(|place| !is_given_up(place)).count(), 7);
    }

    #[test]
    fn who_was_given_up_does_not_come_back() {
        let room = Room::new(1);
        let old = room.enter().unwrap();
        let new = room.enter().unwrap();
        for phase in [Phase::Answering, Phase::Writing, Phase::Idle] {
            old.set(phase);
        }
        new.set(Phase::Answering);
        assert!(room.enter().is_none(), "the old one is no longer there to be given up");
        drop(old);
        assert_eq!(room.lock().open, 1);
    }

    #[test]
    fn a_request_on_its_way_is_given_up_only_when_it_is_stuck() {
        for phase in [Phase::Reading, Phase::Writing] {
            let room = Room::new(1);
            let place = room.enter().unwrap();
            place.set(phase);
            assert!(room.enter().is_none());
            age(&place, OLD);
            assert!(room.enter().is_some() && is_given_up(&place));
        }
    }
}
