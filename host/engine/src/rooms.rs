//! The places of the pools, and who waits for which.
//!
//! A call takes a place first and a connection to the database after it. Whoever would wait for a place while he holds
//! something that others wait for, another place or a connection, has a room of his own: what holds those places waits
//! for nothing that he holds, so that a full pool is slow and never stuck.

use std::time::{Duration, Instant};

use convoke_model::{Code, Failure, Kind, Limits, Outcome};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Who asks for an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Room {
    /// A call that holds nothing yet. It waits for as long as a call may wait in a queue.
    #[default]
    Entry,
    /// An action that actions wait for: so many, from 1.
    Nested(u32),
    /// A run in a snapshot that is kept over several runs, and with it a connection.
    Snapshot,
}

/// An instance's place in the pools, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a>(#[expect(dead_code, reason = "gives the place back")] SemaphorePermit<'a>);

/// Runs in kept snapshots at a time: no fewer than there may be kept snapshots that take turns, or one with a connection
/// would wait for one without.
pub const SNAPSHOT_INSTANCES_MAX: u32 = 16;
/// Rules at a time. They run within calls, for a moment each, and wait for nothing.
const RULE_INSTANCES_MAX: u32 = 8;
/// Actions at a time, for each depth of nesting.
const NESTED_INSTANCES_MAX: u32 = 16;

/// The places of one project.
#[derive(Debug)]
pub(crate) struct Rooms {
    /// Queries and mutations.
    calls: Semaphore,
    snapshots: Semaphore,
    rules: Semaphore,
    actions: Semaphore,
    /// By depth, from 1: an action waits for deeper ones only, and the deepest for none.
    nested: Vec<Semaphore>,
    queue: Duration,
}

impl Rooms {
    pub(crate) fn new(limits: &Limits) -> Self {
        let room = |instances: u32| Semaphore::new(instances as usize);
        Self {
            calls: room(limits.instances_max),
            snapshots: room(SNAPSHOT_INSTANCES_MAX),
            rules: room(RULE_INSTANCES_MAX),
            actions: room(limits.instances_max),
            nested: (0..limits.action_depth_max).map(|_| room(nested(limits))).collect(),
            queue: Duration::from_millis(limits.queue_ms_max),
        }
    }

    /// How many instances so many projects have at most, queries, mutations and rules together.
    pub(crate) fn synchronous(limits: &Limits, projects_max: u32) -> u32 {
        let apart = projects_max.saturating_mul(SNAPSHOT_INSTANCES_MAX + RULE_INSTANCES_MAX);
        limits.instances_max.saturating_add(apart)
    }

    /// The same for actions.
    pub(crate) fn concurrent(limits: &Limits, projects_max: u32) -> u32 {
        let apart = projects_max.saturating_mul(limits.action_depth_max).saturating_mul(nested(limits));
        limits.instances_max.saturating_add(apart)
    }

    /// Waits for a place: when the pool itself is full wasmtime gives an error instead of waiting.
    pub(crate) async fn enter(&self, kind: Kind, room: Room, deadline: Instant) -> Result<Place<'_>, Failure> {
        let places = self.places(kind, room)?;
        if let Ok(place) = places.try_acquire() {
            return Ok(Place(place));
        }
        let entry = room == Room::Entry && kind != Kind::Rule;
        // Only who has just come may be sent away; the others' calls have been let in.
        let bound = if entry { deadline.min(Instant::now() + self.queue) } else { deadline };
        match tokio::time::timeout_at(bound.into(), places.acquire()).await {
            Ok(Ok(place)) => Ok(Place(place)),
            _ if entry => Err(Failure::system(Code::Overloaded, "too many calls are running: try again")
                .with_outcome(Outcome::NotBegun)),
            _ => Err(deadline_exceeded()),
        }
    }

    fn places(&self, kind: Kind, room: Room) -> Result<&Semaphore, Failure> {
        match (kind, room) {
            (Kind::Rule, _) => Ok(&self.rules),
            (Kind::Action, Room::Nested(depth @ 1..)) => {
                let nested = self.nested.get(depth as usize - 1);
                nested.ok_or_else(|| Failure::internal(format!("there is no room for actions {depth} deep")))
            }
            (Kind::Action, _) => Ok(&self.actions),
            (Kind::Query | Kind::Mutation, Room::Snapshot) => Ok(&self.snapshots),
            (Kind::Query | Kind::Mutation, _) => Ok(&self.calls),
        }
    }
}

/// Fewer than may come from outside: that so many nest at once is rare, and each takes address space.
fn nested(limits: &Limits) -> u32 {
    (limits.instances_max / 8).clamp(1, NESTED_INSTANCES_MAX)
}

/// The call's own time is over, whether it ran or waited.
pub(crate) fn deadline_exceeded() -> Failure {
    Failure::function(Code::DeadlineExceeded, "the function ran longer than it may")
}
