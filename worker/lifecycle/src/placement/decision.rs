//! What a plan decided, and why; each is a sentence that needs no other to be understood.

use std::fmt;

use super::record::Member;
use crate::keys::TaskId;

/// What a plan changes in the record, and what it holds back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A task gets an owner: its first, or the next after the last one went.
    Place {
        task: TaskId,
        to: Member,
        epoch: u64,
        reason: PlaceReason,
        choice: Choice,
    },
    /// The owner has acquired.
    Acquired {
        task: TaskId,
        owner: Member,
        epoch: u64,
    },
    /// A move begins: the target prepares.
    Move {
        task: TaskId,
        from: Member,
        to: Member,
        reason: MoveReason,
        moving: usize,
        max_moving: usize,
    },
    /// The target is level: the owner is told to release.
    Release {
        task: TaskId,
        from: Member,
        to: Member,
        lag_records: u64,
    },
    /// The owner has released: the target is told to acquire.
    HandOver {
        task: TaskId,
        from: Member,
        to: Member,
        epoch: u64,
        offset: u64,
    },
    /// A move ends where it began.
    Abort {
        task: TaskId,
        from: Member,
        to: Member,
        reason: Unfit,
    },
    Standby {
        task: TaskId,
        from: Option<Member>,
        to: Option<Member>,
        reason: StandbyReason,
    },
    /// The task is to end.
    Retire {
        task: TaskId,
        owner: Member,
    },
    /// The task has ended.
    Retired {
        task: TaskId,
        epoch: u64,
        released: bool,
    },
    /// The task was to end, and is wanted again.
    Revive {
        task: TaskId,
        owner: Member,
    },
    /// Something is not done, or not yet.
    Hold(Hold),
}

/// Why a task is given to somebody, other than by a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceReason {
    New,
    /// The owner's shard is not there any more, nor another pod of it.
    OwnerGone {
        owner: Member,
    },
    OwnerReplaced {
        owner: Member,
    },
    OwnerSilent {
        owner: Member,
        for_ms: u64,
    },
    OwnerFailed {
        owner: Member,
        why: String,
    },
    /// It was told to acquire, and has not within the time that a move may take.
    OwnerTooSlow {
        owner: Member,
        for_ms: u64,
    },
    /// It restarted, or the record is older than the manifest.
    EpochUsed {
        owner: Member,
        manifest_epoch: u64,
    },
    /// It shut down in order, or was told to and the move was then given up.
    OwnerReleased {
        owner: Member,
        offset: u64,
    },
}

/// Why this one gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It follows the task's log already.
    Follows { lag_records: u64 },
    /// It had it.
    Owned,
    /// Of those ready it has the most room.
    MostRoom,
    /// None of those ready has room; of them it is the least loaded.
    Overloaded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveReason {
    Drains,
    /// The owner's pod template is not the one that is wanted.
    Rollout,
    /// Utilisation of owner and target by tasks that they own, percent.
    Balance {
        from_percent: u64,
        to_percent: u64,
    },
}

/// What makes a member unfit as a target or standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    Gone,
    Silent {
        for_ms: u64,
    },
    Drains,
    Failed {
        why: String,
    },
    /// It is not level, or the owner has not released, within the time that a move may take.
    TooSlow {
        for_ms: u64,
    },
    /// It is of a pod template that is no longer wanted, and the owner is not.
    OldTemplate,
    /// It could not take over from the owner without a release.
    OtherEngine {
        owner: u32,
        own: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StandbyReason {
    /// There was none.
    Missing,
    Unfit(Unfit),
    /// It is in the owner's failure domain, and another has room.
    SameZone,
    /// It carries more than others.
    Balance,
    /// Standbys are switched off.
    Off,
}

/// What is held back, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// No ready member may own it; it stays with the owner that it has, if any.
    NoOwner {
        task: TaskId,
        reason: Option<PlaceReason>,
        engine_version: Option<u32>,
    },
    /// Told to acquire, and has not yet.
    NotAcquired {
        task: TaskId,
        owner: Member,
        epoch: u64,
    },
    /// It is recorded as the owner and does not say that it owns.
    OwnerSaysNothing {
        task: TaskId,
        owner: Member,
    },
    /// The target prepares. No lag: it says nothing yet, or loads.
    NotLevel {
        task: TaskId,
        to: Member,
        lag_records: Option<u64>,
    },
    /// A canary follows on the new template before it may own.
    CanaryFollows {
        task: TaskId,
        to: Member,
        level_for_ms: u64,
        of_ms: u64,
    },
    /// A release would leave too little.
    ServedFloor {
        task: TaskId,
        to: Member,
        served: usize,
        floor: usize,
    },
    ReadyFloor {
        task: TaskId,
        to: Member,
        ready: usize,
        floor: usize,
    },
    NotReleased {
        task: TaskId,
        from: Member,
    },
    NotRetired {
        task: TaskId,
        owner: Member,
    },
    /// Tasks that are to leave a member, and do not begin to.
    Leaving {
        from: Member,
        tasks: usize,
        reason: MoveReason,
        because: Blocked,
    },
    /// Balance could be better, of what members own or of what they carry.
    Unbalanced {
        standbys: bool,
        from: Member,
        from_percent: u64,
        to: Member,
        to_percent: u64,
        because: Blocked,
    },
    /// Tasks that should have a standby.
    NoStandby {
        tasks: usize,
        such_as: TaskId,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    MaxMoving {
        moving: usize,
        max_moving: usize,
    },
    /// Standbys load; no more for balance than tasks may move.
    MaxLoading {
        loading: usize,
        max_moving: usize,
    },
    NoRoom,
    /// The members with the new template have what will be theirs when all shards are there.
    Share {
        shards: u64,
    },
    /// Until the first tasks of the rollout are served on the new template.
    Canary {
        tasks: usize,
    },
    /// The owner does not serve them, so it could not release them.
    NotServed,
}

impl Decision {
    /// The task that it is about, if it is about one.
    pub fn task(&self) -> Option<&TaskId> {
        match self {
            Self::Place { task, .. }
            | Self::Acquired { task, .. }
            | Self::Move { task, .. }
            | Self::Release { task, .. }
            | Self::HandOver { task, .. }
            | Self::Abort { task, .. }
            | Self::Standby { task, .. }
            | Self::Retire { task, .. }
            | Self::Retired { task, .. }
            | Self::Revive { task, .. } => Some(task),
            Self::Hold(hold) => hold.task(),
        }
    }
}

impl Hold {
    /// The task that it is about, if it is about one.
    pub fn task(&self) -> Option<&TaskId> {
        match self {
            Self::NoOwner { task, .. }
            | Self::NotAcquired { task, .. }
            | Self::OwnerSaysNothing { task, .. }
            | Self::NotLevel { task, .. }
            | Self::CanaryFollows { task, .. }
            | Self::ServedFloor { task, .. }
            | Self::ReadyFloor { task, .. }
            | Self::NotReleased { task, .. }
            | Self::NotRetired { task, .. } => Some(task),
            Self::Leaving { .. } | Self::Unbalanced { .. } | Self::NoStandby { .. } => None,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place { task, to, epoch, reason, choice } => {
                write!(f, "{task} goes to {to} with epoch {epoch}, because {reason}; {choice}")
            }
            Self::Acquired { task, owner, epoch } => write!(f, "{task} is owned by {owner} with epoch {epoch}"),
            Self::Move { task, from, to, reason, moving, max_moving } => {
                write!(f, "{task} moves from {from} to {to}, because {}; ", reason.of(from, to))?;
                write!(f, "{moving} of {max_moving} moves")
            }
            Self::Release { task, from, to, lag_records } => {
                write!(f, "{task} is to be released by {from}, because {to} is level ({lag_records} records behind)")
            }
            Self::HandOver { task, from, to, epoch, offset } => {
                write!(f, "{task} goes to {to} with epoch {epoch}, because {from} released it at offset {offset}")
            }
            Self::Abort { task, from, to, reason } => {
                write!(f, "{task} stays on {from} instead of moving to {to}, because {to} {reason}")
            }
            Self::Standby { task, from: Some(from), to: Some(to), reason } => {
                write!(f, "{task} has its standby on {to} instead of {from}, because {}", reason.of(from))
            }
            Self::Standby { task, from: Some(from), to: None, reason } => {
                write!(f, "{task} loses its standby on {from}, because {}", reason.of(from))
            }
            Self::Standby { task, to: Some(to), .. } => write!(f, "{task} gets a standby on {to}, because it has none"),
            Self::Standby { task, .. } => write!(f, "{task} has no standby"),
            Self::Retire { task, owner } => {
                write!(f, "{task} is to be released by {owner} for good, because the pipeline has it no more")
            }
            Self::Retired { task, epoch, released } => {
                let how = if *released { "released" } else { "without a release, because its owner is lost" };
                write!(f, "{task} has ended with epoch {epoch}, {how}")
            }
            Self::Revive { task, owner } => {
                write!(f, "{task} stays on {owner} instead of ending, because the pipeline has it again")
            }
            Self::Hold(hold) => hold.fmt(f),
        }
    }
}

impl fmt::Display for PlaceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("it is new"),
            Self::OwnerGone { owner } => write!(f, "{owner} is gone"),
            Self::OwnerReplaced { owner } => write!(f, "the pod of {owner} was replaced"),
            Self::OwnerSilent { owner, for_ms } => write!(f, "{owner} has been silent for {} s", for_ms / 1000),
            Self::OwnerFailed { owner, why } => write!(f, "{owner} failed: {why}"),
            Self::OwnerTooSlow { owner, for_ms } => write!(f, "{owner} did not acquire it in {} s", for_ms / 1000),
            Self::EpochUsed { owner, manifest_epoch } => {
                write!(f, "its manifest has epoch {manifest_epoch} already: {owner} restarted, or the record is old")
            }
            Self::OwnerReleased { owner, offset } => write!(f, "{owner} released it at offset {offset}"),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Follows { lag_records } => write!(f, "it follows the log there, {lag_records} records behind"),
            Self::Owned => f.write_str("it was there before"),
            Self::MostRoom => f.write_str("of the ready shards that one has the most room"),
            Self::Overloaded => f.write_str(
                "no ready shard has room for it, that one is the least loaded and now overloaded: add shards",
            ),
        }
    }
}

impl MoveReason {
    fn of<'a>(&'a self, from: &'a Member, to: &'a Member) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match self {
            Self::Drains => write!(f, "{from} drains"),
            Self::Rollout => write!(f, "{from} has an old pod template"),
            Self::Balance { from_percent, to_percent } => {
                write!(f, "{from} is {from_percent} % busy with its own tasks and {to} {to_percent} %")
            }
        })
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("is gone"),
            Self::Silent { for_ms } => write!(f, "has been silent for {} s", for_ms / 1000),
            Self::Drains => f.write_str("drains"),
            Self::Failed { why } => write!(f, "failed: {why}"),
            Self::TooSlow { for_ms } => write!(f, "has not got it in {} s", for_ms / 1000),
            Self::OldTemplate => f.write_str("has a pod template that is wanted no more"),
            Self::OtherEngine { owner, own } => {
                write!(f, "has engine version {own}, which cannot take over what {owner} did not release")
            }
        }
    }
}

impl StandbyReason {
    fn of<'a>(&'a self, from: &'a Member) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match self {
            Self::Missing => f.write_str("it has none"),
            Self::Unfit(unfit) => write!(f, "{from} {unfit}"),
            Self::SameZone => write!(f, "{from} is in the failure domain of the owner"),
            Self::Balance => write!(f, "{from} carries more than others"),
            Self::Off => f.write_str("standbys are switched off"),
        })
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOwner { task, reason, engine_version } => {
                write!(f, "{task} is not served, because ")?;
                if let Some(reason) = reason {
                    write!(f, "{reason}, and ")?;
                }
                match engine_version {
                    Some(version) => write!(f, "no other ready shard of engine version {version} can take it: add one"),
                    None => f.write_str("no ready shard can take it: add one"),
                }
            }
            Self::NotAcquired { task, owner, epoch } => write!(f, "{task} waits until {owner} acquires epoch {epoch}"),
            Self::OwnerSaysNothing { task, owner } => {
                write!(f, "{task} is not known to be served: {owner}, its owner, says nothing of it")
            }
            Self::NotLevel { task, to, lag_records: Some(lag) } => {
                write!(f, "{task} is not yet released to {to}, which is {lag} records behind")
            }
            Self::NotLevel { task, to, lag_records: None } => {
                write!(f, "{task} is not yet released to {to}, which still loads it")
            }
            Self::CanaryFollows { task, to, level_for_ms, of_ms } => {
                write!(f, "{task} is a canary and not yet released to {to}, which has been level for ")?;
                write!(f, "{} of {} s", level_for_ms / 1000, of_ms / 1000)
            }
            Self::ServedFloor { task, to, served, floor } => {
                write!(f, "{task} is not yet released to {to}: {served} tasks are served, ")?;
                write!(f, "and {floor} are to be at any time")
            }
            Self::ReadyFloor { task, to, ready, floor } => {
                write!(f, "{task} is not yet released to {to}: {ready} shards are ready and stay, ")?;
                write!(f, "and {floor} are to at any time")
            }
            Self::NotReleased { task, from } => write!(f, "{task} waits until {from} releases it"),
            Self::NotRetired { task, owner } => write!(f, "{task} waits until {owner} releases it for good"),
            Self::Leaving { from, tasks, reason, because } => {
                write!(f, "{tasks} tasks stay on {from} for now, although {}: {because}", reason.of(from, from))
            }
            Self::Unbalanced { standbys, from, from_percent, to, to_percent, because } => {
                let what = if *standbys { "standbys" } else { "tasks" };
                write!(
                    f,
                    "{what} stay on {from}, {from_percent} % busy, although {to} is {to_percent} % busy: {because}"
                )
            }
            Self::NoStandby { tasks, such_as } => {
                write!(f, "{tasks} tasks have no standby, such as {such_as}: ")?;
                f.write_str("no other ready shard of the owner's engine version has room")
            }
        }
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxMoving { moving, max_moving } => write!(f, "{moving} of {max_moving} moves are under way"),
            Self::MaxLoading { loading, max_moving } => {
                write!(f, "{loading} standbys load, and for balance there are to be at most {max_moving}")
            }
            Self::NoRoom => f.write_str("no ready shard that may take them has room"),
            Self::Share { shards } => {
                write!(f, "the shards with the new pod template that are ready have their share of {shards}")
            }
            Self::Canary { tasks } => write!(f, "the first {tasks} on the new pod template come before"),
            Self::NotServed => f.write_str("it does not serve them, so it cannot release them in order"),
        }
    }
}
