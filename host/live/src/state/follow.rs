//! What the change feed says.

use std::time::Instant;

use super::{Effects, State};
use crate::changes::Written;
use crate::evaluation::QueryKey;
use crate::history::hits_of;
use crate::index::Reason;

impl State {
    /// Takes a transaction of the feed; tells of each query that it made stale why.
    pub(crate) fn apply(
        &mut self,
        xid: u32,
        end_lsn: u64,
        written: Vec<Written>,
        mut why: impl FnMut(&QueryKey, &Reason),
    ) -> Effects {
        let mut effects = Effects::default();
        self.position = self.position.max(end_lsn);
        let mut unwanted = Vec::new();
        let hits = hits_of(&self.index, &written);
        for id in hits.as_seen {
            if let Some(entry) = self.entries.get_mut(&id)
                && entry.contains(xid)
            {
                entry.from = entry.from.max(end_lsn);
            }
        }
        for (id, reason) in hits.changed {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if entry.contains(xid) {
                entry.from = entry.from.max(end_lsn);
                continue;
            }
            if entry.until.is_some() {
                continue;
            }
            why(&entry.key, &reason);
            entry.until = Some(end_lsn);
            if !entry.is_wanted() {
                unwanted.push(id);
            } else if !entry.running {
                entry.running = true;
                effects.run.push(id);
            }
        }
        for id in unwanted {
            self.remove(id);
        }
        self.history.push(xid, end_lsn, written);
        self.wake_waiting(&mut effects);
        effects
    }

    /// Takes a position of the feed.
    pub(crate) fn advance(&mut self, position: u64) -> Effects {
        let mut effects = Effects::default();
        self.position = self.position.max(position);
        self.wake_waiting(&mut effects);
        effects
    }

    /// Takes the time: what is too long ago is not kept.
    pub(crate) fn advance_clock(&mut self, now: Instant) {
        self.history.advance_clock(now);
    }

    /// The feed has begun, or begun again: everything has to be read after this.
    pub(crate) fn start(&mut self, position: u64) -> Effects {
        self.history.clear();
        self.streaming = true;
        self.position = position;
        self.expire_all()
    }

    /// The feed was interrupted.
    pub(crate) fn interrupt(&mut self) {
        self.streaming = false;
        self.generation += 1;
        self.drop_cached();
    }

    /// Every query has to be run again.
    pub(crate) fn expire_all(&mut self) -> Effects {
        self.generation += 1;
        self.drop_cached();
        let mut effects = Effects::default();
        for (id, entry) in &mut self.entries {
            entry.until.get_or_insert(0);
            if !entry.running {
                entry.running = true;
                effects.run.push(*id);
            }
        }
        self.wake_waiting(&mut effects);
        effects
    }
}
