//! How many files the process may have open: a connection is one.

use convoke_model::Limits;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many as are ever useful, where the system has no bound of its own.
const WANTED_MAX: u64 = 1 << 20;
/// The components' files, the log, the runtime's own, a child that is started.
const OWN: usize = 128;
/// Connections to Postgres beside the pool: the feed, kept snapshots, syncs.
const POSTGRES_BESIDE_POOL: usize = 32;
/// So many connections are taken however few files there are.
const CONNECTIONS_LEAST: usize = 16;

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

/// How many connections may be taken when so many files may be open: what Postgres and actions need is left to them, so
/// that nobody who connects takes the database from the others.
pub(crate) fn connections_max(files: usize, wanted: usize, postgres: usize, limits: &Limits) -> usize {
    // Each action may have one request under way.
    let reserved = OWN + postgres + POSTGRES_BESIDE_POOL + limits.instances_max as usize;
    let room = files.saturating_sub(reserved).max(CONNECTIONS_LEAST);
    if room < wanted {
        tracing::info!(files, reserved, connections_max = room, "fewer connections than wanted: see `ulimit -n`");
    }
    wanted.min(room)
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
        assert_eq!(connections_max(20_000, 16_384, 20, &limits), 16_384);
        assert_eq!(connections_max(1_024, 16_384, 20, &limits), 1_024 - 128 - 32 - 20 - 256);
        assert_eq!(connections_max(64, 16_384, 20, &limits), CONNECTIONS_LEAST);
    }
}
