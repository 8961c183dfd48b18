//! What goes wrong in a world: drawn anew for each seed, so that some worlds know only one kind of trouble (swarm testing:
//! Groce et al., "Swarm Testing", ISSTA 2012).

use millrace_e2e::rng::Rng;

/// In thousandths, unless it says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Of a node, in each tick in which it works.
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
    /// A list that lacks an object.
    pub list_lacks: u64,
    /// Of a message between control and a node.
    pub message_lost: u64,
    pub message_twice: u64,
    /// At each look of the control: it forgets what it observed, a shard is drained, all get a new template.
    pub control_restarts: u64,
    pub drain: u64,
    pub rollout: u64,
    /// In each tick in which a task works: a user is erased. Only in a quarter of the worlds.
    pub erase: u64,
    /// The longest that anything takes, in ticks.
    pub delay_ticks: u64,
}

impl Faults {
    pub fn none() -> Self {
        Self { delay_ticks: 2, ..Self::default() }
    }

    /// Each kind is there in about half of the worlds.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut some = |most: u64| if rng.per_mille(500) { 1 + rng.below(most) } else { 0 };
        Self {
            crash: some(15),
            pause: some(10),
            append_fails: some(30),
            append_unknown: some(30),
            append_twice: some(100),
            store_fails: some(50),
            store_unknown: some(100),
            list_lacks: some(300),
            message_lost: some(300),
            message_twice: some(300),
            control_restarts: some(50),
            drain: some(60),
            rollout: some(30),
            erase: some(1) * some(10),
            delay_ticks: 1 + rng.below(30),
        }
    }
}
