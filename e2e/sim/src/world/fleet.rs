//! Those who control, what happens to nodes from outside, and messages between them.

use millrace::host::station::Seat;
use millrace_lifecycle::{
    keys::{TaskId, TaskKind},
    placement::Order,
};

use super::{CONTROL_EVERY, Event, World};
use crate::{
    control::{Heard, Written},
    erasure::erase,
    faults::Faults,
    node::Node,
};

fn generation_of(seat: &Seat) -> (TaskId, u32) {
    (seat.id.clone(), seat.task.generation())
}

impl World<'_> {
    /// Control looks at what it has heard, and tells; members say how they are.
    pub(super) fn control(&mut self, control: usize) {
        if self.rng.per_mille(self.faults.control_restarts) {
            self.controls[control].restart();
        }
        if self.rng.per_mille(self.faults.log_outage) {
            let until = self.tick + self.rng.below(100);
            self.log.goes_on_at(until);
        }
        if self.rng.per_mille(self.faults.rollout) {
            let template = format!("t{}", self.rng.below(3));
            self.controls.iter_mut().for_each(|control| control.settings.template.clone_from(&template));
        }
        (0..self.nodes.len()).for_each(|node| self.afflict(node));
        if self.tick < self.ticks
            && self.rng.per_mille(self.faults.erase)
            && let Some(user) = self.rng.pick(&self.users).copied()
        {
            let partitions = self.ground.pipeline().plan.partitions;
            let is_told = erase(&mut self.nodes, partitions, user, self.tick, self.night_ms);
            self.note(|_| format!("somebody is erased; an owner is told: {is_told}"));
        }
        if self.rng.per_mille(self.faults.second_control) {
            self.second_control();
        }
        for node in 0..self.nodes.len() {
            if let Some(heard) = self.heard_of(node) {
                self.message(Event::Heard { control, heard: Box::new(heard) });
            }
        }
        let fate = match () {
            () if !self.rng.per_mille(self.faults.record_unknown) => Written::Done,
            () if self.rng.per_mille(500) => Written::DoneUnknown,
            () => Written::LostUnknown,
        };
        let tasks = self.checks.tasks().into_iter().collect();
        self.controls[control].know(tasks);
        if self.controls[control].models_know(self.record.generation) {
            self.record.profiles = self.record.generation;
        }
        let Self { controls, record, tick, .. } = self;
        for decision in controls[control].plan(*tick, record, fate) {
            self.note(|_| format!("control {control}: {decision}"));
        }
        for node in 0..self.nodes.len() {
            let Node { member, life, deaf_until, .. } = &self.nodes[node];
            if *deaf_until <= self.tick {
                let (orders, life) = (self.controls[control].placement.orders(member), *life);
                let generations = (self.record.generation, self.record.profiles);
                self.message(Event::Orders { node, life, orders, generations });
            }
        }
        self.after(CONTROL_EVERY, Event::Control { control });
    }

    /// What happens to a node from outside.
    pub(super) fn afflict(&mut self, node: usize) {
        let Faults { drain, deaf, mute, clock_jumps, .. } = self.faults;
        if self.rng.per_mille(drain / self.nodes.len() as u64) {
            self.nodes[node].draining = !self.nodes[node].draining;
        }
        if self.rng.per_mille(deaf) {
            self.nodes[node].deaf_until = self.tick + self.rng.below(400);
        }
        if self.rng.per_mille(mute) {
            self.nodes[node].mute_until = self.tick + self.rng.below(400);
        }
        if self.rng.per_mille(clock_jumps) {
            self.nodes[node].clock_ahead_ms = self.rng.below(2_000) as i64 - 1_000;
        }
    }

    /// Some node is told to own a task that is another's.
    pub(super) fn second_control(&mut self) {
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let Some(task) = self.rng.pick(&self.checks.tasks()).cloned() else { return };
        let Node { member, life, engine_version, .. } = &self.nodes[node];
        let Some(epoch) = self.checks.next_epoch(&task, *engine_version, self.faults.mixed_versions > 0) else {
            return;
        };
        let mut orders = self.record.placement.orders(member);
        orders.insert(task, Order::Own { epoch, rolled_back: false });
        let generations = (self.record.generation, self.record.profiles);
        let event = Event::Orders { node, life: *life, orders, generations };
        self.message(event);
    }

    pub(super) fn heard_of(&self, node: usize) -> Option<Heard> {
        let Node { member, zone, template, engine_version, draining, work, paused_until, mute_until, .. } =
            &self.nodes[node];
        let work = work.as_ref().filter(|_| *paused_until.max(mute_until) <= self.tick)?;
        Some(Heard {
            member: member.clone(),
            zone: zone.clone(),
            template: template.clone(),
            engine_version: *engine_version,
            draining: *draining,
            reports: work.station.reports(),
            models: work
                .station
                .seats
                .iter()
                .filter(|seat| seat.id.kind == TaskKind::Model)
                .map(generation_of)
                .collect(),
        })
    }

    pub(super) fn message(&mut self, event: Event) {
        if self.rng.per_mille(self.faults.message_twice)
            && let Event::Orders { node, life, orders, generations } = &event
        {
            let again = Event::Orders { node: *node, life: *life, orders: orders.clone(), generations: *generations };
            let delay = self.delay();
            self.after(delay * 3, again);
        }
        if !self.rng.per_mille(self.faults.message_lost) {
            let delay = self.delay();
            self.after(delay, event);
        }
    }
}
