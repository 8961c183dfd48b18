//! What the platform team wants of placement.

/// Percentages are of 100.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The pod template that all shards are to have. Tasks on shards with another one move.
    pub template: String,
    /// How many shards the pipeline is to have: during a rollout, a new one takes its share of so many.
    pub shards: u64,
    /// Moves under way at once, from the first preparation until the target has acquired. 0 stops all moves.
    pub max_moving: usize,
    /// So many tasks are served whenever one is released, rounded so that one may always be: else nothing could move.
    pub min_served_percent: u64,
    /// So many members are ready and stay whenever a task is released.
    pub min_ready_members: usize,
    /// Of a member's cores, the share that is given away; the rest is for bursts and for those who catch up.
    pub target_utilisation_percent: u64,
    /// A member's load may differ from the mean by so much before tasks move for balance. At least 1.
    pub imbalance_percent: u64,
    /// Each task has a standby, in another zone than its owner's where there is one.
    pub standbys: bool,
    /// A target may take over in order when it is behind by no more.
    pub level_lag_records: u64,
    /// A standby or target may take over from a lost owner when it is behind by no more: catching up takes less than
    /// loading elsewhere.
    pub promote_lag_records: u64,
    /// A member that has been silent for so long counts as lost.
    pub lost_after_ms: u64,
    /// What a move, or acquiring, may take.
    pub move_within_ms: u64,
    /// A member on which a task failed is not tried for so long.
    pub retry_after_ms: u64,
    pub canary: Canary,
    /// The rollout was taken back: [`Self::template`]'s members may acquire what a newer engine version did not release.
    pub rolled_back: bool,
}

/// The first tasks of a rollout. They follow for a while on the new template before one is released to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Canary {
    /// 0: no canary.
    pub tasks: usize,
    pub level_for_ms: u64,
}

impl Settings {
    /// The defaults, for so many shards of a template.
    pub fn new(template: impl Into<String>, shards: u64) -> Self {
        Self {
            template: template.into(),
            shards,
            max_moving: 2,
            min_served_percent: 90,
            min_ready_members: 1,
            target_utilisation_percent: 70,
            imbalance_percent: 20,
            standbys: true,
            level_lag_records: 1_000,
            promote_lag_records: 100_000,
            lost_after_ms: 15_000,
            move_within_ms: 600_000,
            retry_after_ms: 300_000,
            canary: Canary::default(),
            rolled_back: false,
        }
    }

    /// How many of so many tasks are to be served.
    pub fn served_floor(&self, tasks: usize) -> usize {
        let percent = usize::try_from(self.min_served_percent.min(100)).unwrap_or(100);
        (tasks * percent).div_ceil(100).min(tasks.saturating_sub(1))
    }
}
