//! Bugs that are known, to prove that the simulator's checks catch what they are there for.
//!
//! Each is one line where it breaks something: `if planted::is(planted::Bug::X)`. Without the feature `planted` that is a
//! constant `false`, and no branch is left. With it, a thread has at most one bug at a time, see [`with`].

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What each of them breaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug { $($(#[doc = $doc])+ $name,)+ }

        impl Bug {
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// What it breaks.
            pub fn what(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

bugs! {
    // Who owns a task.
    /// A stale owner takes another one's manifest for its own, and goes on committing.
    CommitWithoutEpochCheck,
    /// A standby's effects are appended.
    StandbyEmits,
    /// A claim leaves the epoch as it was.
    ClaimKeepsEpoch,
    /// A claim does not mind that its epoch is not above the manifest's.
    ClaimBelowEpoch,
    /// A claim whose end is unknown is taken for done.
    UnknownClaimBelieved,
    /// A manifest that was not released by another engine version is acquired.
    OtherVersionAcquired,
    /// An owner that was fenced goes on as if the store had failed.
    FencedGoesOn,

    // Taking over.
    /// A promoted standby tells its effects from its own position on instead of the manifest's.
    OwnPositionForManifests,
    /// A promoted standby owns before it has come to the manifest's offset.
    OwnsBeforeLevel,
    /// A promoted standby's first save is a delta of what it has changed since.
    DeltaAfterPromotion,
    /// A promoted standby's outputs are swapped.
    OutputsSwapped,

    // Checkpoints.
    /// A manifest is written before the effects below it are acknowledged.
    ManifestBeforeEffects,
    /// Frames are cut only for outputs with records: others are not covered when the manifest is written.
    QuietOutputsNotCovered,
    /// A task that is released drops what no frame has told yet.
    DroppedAtRelease,
    /// A state is saved in the middle of a drain.
    SavedMidDrain,
    /// A swap whose end is unknown is taken for failed.
    UnknownTakenForFailed,
    /// What was put with an unknown end is not read back.
    NotReadBack,
    /// The save after a failed one is a delta.
    DeltaAfterFailedSave,
    /// A delta of users lacks its tombstones.
    DeltaWithoutTombstones,
    /// A restore leaves out the last delta.
    LastDeltaForgotten,
    /// Garbage collection spares only what the newest checkpoint names.
    NamedIsGarbage,
    /// Files are deleted before the manifest forgets them.
    DeletedBeforeForgotten,
    /// The log is trimmed up to the newest checkpoint that is kept, not the oldest.
    TrimmedTooFar,

    // Hops.
    /// A reader does not notice that something is missing between two frames.
    GapsIgnored,
    /// A reader applies what a writer with a lower epoch still sends.
    LowerEpochApplied,
    /// A restarted ingest task counts its sequence anew.
    CounterAsSequence,
    /// The sequence of a control record lacks the epoch.
    ControlWithoutEpoch,
    /// The watermark is told while records below it are still to be emitted.
    WatermarkAheadOfEffects,
    /// The position that is saved lies behind a record that is held back.
    HeldIsCommitted,
    /// A held record does not move its origin's watermark: two origins with a night between them wait for each other.
    HeldMovesNothing,
    /// A source is idle at its end at once.
    IdleAtOnce,
    /// A profile task tells models that it is idle, when its sources are.
    IdlePassedOn,

    // Generations of the pipeline.
    /// A source goes over to a changed pipeline where its checkpoint is, below what a dead owner has told.
    SwitchBelowDeadOwners,
    /// Records are read under a changed pipeline before checkpoints say from where on.
    SwitchUsedBeforeSaved,
    /// A task goes on if it is told to own while its last state is being saved.
    ReleasedGoesOn,
    /// A promoted standby tells a new model's log what lies above the manifest only, though nobody has told the rest.
    NewOutputForgotten,

    // Event time.
    /// A restarted ingest task has forgotten the highest event time.
    HighestForgotten,
    /// A restored merge has forgotten all watermarks.
    WatermarksForgotten,
    /// A reader judges lateness by the watermark in the frame's header.
    LatenessByFrameHeader,
    /// A join fires before the watermark has passed its window.
    WindowBeforeWatermark,
    /// Late events are taken.
    LateAccepted,
    /// Client retries are applied.
    DuplicatesAccepted,

    // What people asked for.
    /// A withdrawal of consent is ignored.
    WithdrawalIgnored,
    /// After a restore, events of before an erasure are taken again.
    ErasureNotRestored,
    /// After an erasure the checkpoint goes on from a base that still holds the user.
    ErasedStaysInBase,
}

#[cfg(not(feature = "planted"))]
mod state {
    use super::Bug;

    /// Is this bug there?
    #[inline(always)]
    pub const fn is(_: Bug) -> bool {
        false
    }

    /// Runs what a simulation is compared with.
    #[inline(always)]
    pub fn reference<T>(run: impl FnOnce() -> T) -> T {
        run()
    }
}

#[cfg(feature = "planted")]
mod state {
    use std::cell::Cell;

    use super::Bug;

    /// A bug, and where it is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Planted {
        pub bug: Bug,
        /// Also in what a simulation is compared with, as a bug of the engine would be.
        pub everywhere: bool,
    }

    thread_local! {
        static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// Is this bug there, on this thread?
    pub fn is(bug: Bug) -> bool {
        PLANTED.get().is_some_and(|planted| planted.bug == bug)
    }

    fn with_only<T>(planted: Option<Planted>, run: impl FnOnce() -> T) -> T {
        let before = PLANTED.replace(planted);
        let result = run();
        PLANTED.set(before);
        result
    }

    /// Runs it with this bug, and no other.
    pub fn with<T>(planted: Planted, run: impl FnOnce() -> T) -> T {
        with_only(Some(planted), run)
    }

    /// Runs what a simulation is compared with: without the bug, unless that is everywhere.
    pub fn reference<T>(run: impl FnOnce() -> T) -> T {
        with_only(PLANTED.get().filter(|planted| planted.everywhere), run)
    }
}

pub use state::*;
