//! How many files the process may have open: a connection is one.

use convoke_model::Limits;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many as are ever useful, where the system has no bound of its own.
const WANTED_MAX: u64 = 1 << 20;
/// The components' files, the log, the runtime's own, a child that is started.
const OWN: usize = 128;
/// Connections to Postgres beside the pool of a project: the feed, kept snapshots, syncs.
const POSTGRES_BESIDE_POOL: usize = 32;
/// So many connections are taken however few files there are.
const CONNECTIONS_LEAST: usize = 16;
/// So many wait for their peers' ends however many files there are.
const LINGERING_MAX: usize = 1_024;

/// Raises the bound of the process as far as it may be raised; gives the bound that holds then.
pub(crate) fn raise() -> usize {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "the number of files that may be open is not known");
            return usize::MAX;
        }
    };
    let wanted = hard.min(WANTED_MAX);
    if soft >= wanted {
        return usize::try_from(soft).unwrap_or(usize::MAX);
    }
    match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
        Ok(()) => usize::try_from(wanted).unwrap_or(usize::MAX),
        Err(error) => {
            tracing::warn!(%error, soft, hard, "the number of files that may be open could not be raised");
            usize::try_from(soft).unwrap_or(usize::MAX)
        }
    }
}

/// What a project's listener may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) connections: usize,
    /// Connections that have ended on this side and wait for their peers. Further ones end at once.
    pub(crate) lingering: usize,
}

impl Room {
    /// What each project of a process has when so many files may be open: what Postgres and actions need is left to them,
    /// so that nobody who connects takes the database from the others. Nor does who connects to one project take from
    /// another.
    pub(crate) fn of_each(files: usize, postgres: usize, limits: &Limits, projects_max: u32) -> Self {
        let projects = (projects_max as usize).max(1);
        // Each action may have one request under way.
        let reserved = OWN + postgres + projects * POSTGRES_BESIDE_POOL + limits.instances_max as usize;
        let room = files.saturating_sub(reserved) / projects;
        let lingering = (room / 8).clamp(1, LINGERING_MAX);
        Self { connections: (room - lingering.min(room)).max(CONNECTIONS_LEAST), lingering }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_raised_to_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a bound");
        let wanted = hard.min(WANTED_MAX);
        setrlimit(Resource::RLIMIT_NOFILE, wanted / 2, hard).expect("a lower one");
        assert_eq!(raise() as u64, wanted);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("a bound"), (wanted, hard));
        assert_eq!(raise() as u64, wanted);
    }

    #[test]
    fn what_postgres_needs_is_left_to_it() {
        let limits = Limits { instances_max: 256, ..Limits::default() };
        let of_each = |files, projects_max| Room::of_each(files, 20, &limits, projects_max);
        assert_eq!(of_each(usize::MAX, 1).lingering, LINGERING_MAX);
        let room: usize = 1_024 - 128 - 32 - 20 - 256;
        assert_eq!(of_each(1_024, 1), Room { connections: room - room / 8, lingering: room / 8 });
        assert_eq!(of_each(64, 1), Room { connections: CONNECTIONS_LEAST, lingering: 1 });
    }

    #[test]
    fn projects_together_take_no_more_than_one_alone() {
        let limits = Limits { instances_max: 256, ..Limits::default() };
        for projects_max in 1..9 {
            let Room { connections, lingering } = Room::of_each(4_096, 20, &limits, projects_max);
            let all = (connections + lingering) * projects_max as usize;
            let rest = 4_096 - 128 - 20 - 256 - 32 * projects_max as usize;
            assert!(connections > CONNECTIONS_LEAST && all <= rest && rest - all < projects_max as usize);
        }
    }
}
