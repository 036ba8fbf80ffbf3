//! A lane for each reader, and the turns in which they are served.

use std::collections::{HashMap, VecDeque};

use crate::due::Wanted;
use crate::reader::{EntryId, Reader};

/// Queries of one reader that are taken in one turn: so many belong to a page, and those of one snapshot are shown
/// together.
pub(super) const TURN_MAX: usize = 16;

/// The lanes of one pace: of queries without a result, and of those that are run again. They take turns.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    first: Ring,
    again: Ring,
    /// Which of the two comes next.
    again_is_next: bool,
}

/// Readers in the order of their turns.
#[derive(Debug, Default)]
struct Ring {
    lanes: HashMap<Reader, VecDeque<EntryId>>,
    turns: VecDeque<Reader>,
    /// What the first of them has had of his turn.
    taken: usize,
    len: usize,
}

impl Lanes {
    /// Queries in all lanes; those that were taken by another lane count until their turn comes.
    pub(super) fn len(&self) -> usize {
        self.first.len + self.again.len
    }

    pub(super) fn backlog(&self, reader: Reader) -> usize {
        [&self.first, &self.again].iter().filter_map(|ring| ring.lanes.get(&reader)).map(VecDeque::len).sum()
    }

    pub(super) fn push(&mut self, wanted: Wanted, reader: Reader, id: EntryId) {
        self.ring(wanted).push(reader, id);
    }

    /// To the front of the reader's lane; where that was empty, his turn was not over.
    pub(super) fn push_front(&mut self, wanted: Wanted, reader: Reader, id: EntryId) {
        self.ring(wanted).push_front(reader, id);
    }

    pub(super) fn pop(&mut self) -> Option<EntryId> {
        let again_is_next = self.again_is_next;
        self.again_is_next = !again_is_next;
        let [now, then] =
            if again_is_next { [&mut self.again, &mut self.first] } else { [&mut self.first, &mut self.again] };
        now.pop().or_else(|| then.pop())
    }

    /// Takes out what is not due, where there is more than twice as much as may be.
    pub(super) fn compact(&mut self, len_max: usize, is_due: impl Fn(EntryId) -> bool) {
        for ring in [&mut self.first, &mut self.again] {
            if ring.len > 2 * len_max + TURN_MAX {
                ring.compact(&is_due);
            }
        }
    }

    fn ring(&mut self, wanted: Wanted) -> &mut Ring {
        match wanted {
            Wanted::First => &mut self.first,
            Wanted::Again => &mut self.again,
        }
    }
}

impl Ring {
    fn push(&mut self, reader: Reader, id: EntryId) {
        let lane = self.lanes.entry(reader).or_default();
        if lane.is_empty() {
            self.turns.push_back(reader);
        }
        lane.push_back(id);
        self.len += 1;
    }

    fn push_front(&mut self, reader: Reader, id: EntryId) {
        let lane = self.lanes.entry(reader).or_default();
        if lane.is_empty() {
            self.turns.push_front(reader);
            self.taken = 0;
        }
        lane.push_front(id);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<EntryId> {
        let reader = *self.turns.front()?;
        let lane = self.lanes.get_mut(&reader)?;
        let id = lane.pop_front()?;
        self.len -= 1;
        self.taken += 1;
        if lane.is_empty() {
            self.lanes.remove(&reader);
            self.turns.pop_front();
            self.taken = 0;
        } else if self.taken >= TURN_MAX {
            self.turns.rotate_left(1);
            self.taken = 0;
        }
        Some(id)
    }

    /// Keeps each of what is due once a lane.
    fn compact(&mut self, is_due: impl Fn(EntryId) -> bool) {
        self.lanes.retain(|_, lane| {
            let mut seen = std::collections::HashSet::new();
            lane.retain(|id| is_due(*id) && seen.insert(*id));
            !lane.is_empty()
        });
        let lanes = &self.lanes;
        self.turns.retain(|reader| lanes.contains_key(reader));
        self.taken = 0;
        self.len = self.lanes.values().map(VecDeque::len).sum();
    }
}
