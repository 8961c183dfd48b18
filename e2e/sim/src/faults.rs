//! What goes wrong in a world: drawn anew for each seed, so that some worlds know only one kind of trouble (swarm testing:
//! Groce et al., "Swarm Testing", ISSTA 2012).

use millrace_e2e::rng::Rng;

/// In thousandths, unless it says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Of a node, in each tick in which it works, and before each thing that it wants done.
    pub crash: u64,
    /// Likewise: it stands still for a while, long enough to be taken for dead now and then.
    pub pause: u64,
    /// Of an append: it fails, its end is not known, it is done twice.
    pub append_fails: u64,
    pub append_unknown: u64,
    pub append_twice: u64,
    /// Of a question to the store: it fails, its end is not known.
    pub store_fails: u64,
    pub store_unknown: u64,
    /// Of those, what is done long after nobody waits for it any more.
    pub store_late: u64,
    /// Of a checkpoint's file, some time after it was written: it is damaged, or gone.
    pub file_damaged: u64,
    /// A list that lacks an object.
    pub list_lacks: u64,
    /// Of a message between control and a node.
    pub message_lost: u64,
    pub message_twice: u64,
    /// At each look of the control, of a node: for a while it hears nothing, or is not heard.
    pub deaf: u64,
    pub mute: u64,
    /// Likewise: the log cannot be read for a while.
    pub log_outage: u64,
    /// Likewise, of a node: its clock jumps.
    pub clock_jumps: u64,
    /// At each look of the control: it forgets what it observed, a shard is drained, all get a new template.
    pub control_restarts: u64,
    pub drain: u64,
    pub rollout: u64,
    /// Of a write of the record: its end is not known. And whether two control the fleet, of whom neither knows the other.
    pub record_unknown: u64,
    pub two_control: u64,
    /// At each look of the control: somebody has a user erased; another control, which should not be there, tells a node to own
    /// a task.
    pub erase: u64,
    pub second_control: u64,
    /// A standby does not come to work when its node does.
    pub lag: u64,
    /// Some nodes run another engine version, so that tasks may go between them by a release only.
    pub mixed_versions: u64,
    /// So many times the pipeline becomes another one; and whether a source is read in another way then.
    pub changes: u64,
    pub remapped: u64,
    /// Sources with nothing new are soon idle.
    pub idle: u64,
    /// The longest that anything takes, in ticks.
    pub delay_ticks: u64,
}

impl Faults {
    pub fn none() -> Self {
        Self { delay_ticks: 2, ..Self::default() }
    }

    /// All of them, by name.
    pub fn fields(&mut self) -> [(&'static str, &mut u64); 29] {
        [
            ("crash", &mut self.crash),
            ("pause", &mut self.pause),
            ("append_fails", &mut self.append_fails),
            ("append_unknown", &mut self.append_unknown),
            ("append_twice", &mut self.append_twice),
            ("store_fails", &mut self.store_fails),
            ("store_unknown", &mut self.store_unknown),
            ("store_late", &mut self.store_late),
            ("file_damaged", &mut self.file_damaged),
            ("list_lacks", &mut self.list_lacks),
            ("message_lost", &mut self.message_lost),
            ("message_twice", &mut self.message_twice),
            ("deaf", &mut self.deaf),
            ("mute", &mut self.mute),
            ("log_outage", &mut self.log_outage),
            ("clock_jumps", &mut self.clock_jumps),
            ("control_restarts", &mut self.control_restarts),
            ("drain", &mut self.drain),
            ("rollout", &mut self.rollout),
            ("record_unknown", &mut self.record_unknown),
            ("two_control", &mut self.two_control),
            ("erase", &mut self.erase),
            ("second_control", &mut self.second_control),
            ("lag", &mut self.lag),
            ("mixed_versions", &mut self.mixed_versions),
            ("changes", &mut self.changes),
            ("remapped", &mut self.remapped),
            ("idle", &mut self.idle),
            ("delay_ticks", &mut self.delay_ticks),
        ]
    }

    pub fn engine_version(&self, node: usize) -> u32 {
        1 + u32::from(self.mixed_versions > 0 && node % 2 == 1)
    }

    /// Each kind is there in about half of the worlds.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut some = |most: u64| if rng.per_mille(500) { 1 + rng.below(most) } else { 0 };
        let drawn = Self {
            crash: some(15),
            pause: some(10),
            append_fails: some(30),
            append_unknown: some(30),
            append_twice: some(100),
            store_fails: some(50),
            store_unknown: some(100),
            store_late: some(500),
            file_damaged: some(20),
            list_lacks: some(300),
            message_lost: some(300),
            message_twice: some(300),
            deaf: some(10),
            mute: some(10),
            log_outage: some(5),
            clock_jumps: some(50),
            control_restarts: some(50),
            drain: some(60),
            rollout: some(30),
            record_unknown: some(200),
            two_control: some(1),
            erase: some(50),
            second_control: some(60),
            lag: some(950),
            mixed_versions: u64::from(rng.per_mille(250)),
            delay_ticks: 1 + rng.below(30),
            ..Self::default()
        };
        let changes = if rng.per_mille(400) { 1 + rng.below(3) } else { 0 };
        let remapped = u64::from(changes > 0 && rng.per_mille(600));
        Self { changes, remapped, idle: u64::from(rng.per_mille(250)), ..drawn }
    }
}
