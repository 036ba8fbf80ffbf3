//! The mutations and actions of one client: mutations strictly in order, actions as they come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Call;
use crate::RequestId;
use crate::error::{Misuse, ProtocolError};
use crate::limits::{ACTIONS_MAX, MUTATIONS_WAITING_MAX};
use crate::timestamp::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Requests {
    running: Option<Mutation>,
    waiting: VecDeque<Call>,
    actions: BTreeSet<RequestId>,
    /// All of the above with the bytes of their text: no number may come twice, since a client takes a second response for
    /// a failure.
    open: BTreeMap<RequestId, usize>,
    bytes: usize,
}

#[derive(Debug)]
struct Mutation {
    request_id: RequestId,
    /// Its commit is later than this.
    commits_after: Option<Timestamp>,
}

impl Requests {
    /// Takes a mutation: it is handed back where it runs at once.
    pub(super) fn add_mutation(&mut self, call: Call) -> Result<Option<Call>, ProtocolError> {
        if self.running.is_some() && self.waiting.len() >= MUTATIONS_WAITING_MAX {
            return Err(ProtocolError::TooManyConcurrentMutations { limit: MUTATIONS_WAITING_MAX });
        }
        self.open(call.request_id, call.bytes())?;
        self.waiting.push_back(call);
        Ok(if self.running.is_none() { self.next() } else { None })
    }

    pub(super) fn finish_mutation(&mut self, id: RequestId) -> Result<Option<Call>, Misuse> {
        self.running(id)?;
        self.close(id);
        Ok(self.next())
    }

    pub(super) fn commits_after(&mut self, id: RequestId, latest: Option<Timestamp>) -> Result<(), Misuse> {
        self.running(id)?.commits_after = latest;
        Ok(())
    }

    /// The last snapshot that surely does not cover the running mutation, where it is being committed.
    pub(super) fn held_at(&self) -> Option<Timestamp> {
        self.running.as_ref().and_then(|mutation| mutation.commits_after)
    }

    pub(super) fn add_action(&mut self, call: &Call) -> Result<(), ProtocolError> {
        if self.actions.len() >= ACTIONS_MAX {
            return Err(ProtocolError::TooManyConcurrentActions { limit: ACTIONS_MAX });
        }
        self.open(call.request_id, call.bytes())?;
        self.actions.insert(call.request_id);
        Ok(())
    }

    pub(super) fn finish_action(&mut self, id: RequestId) -> Result<(), Misuse> {
        if !self.actions.remove(&id) {
            return Err(Misuse::RequestIsNotRunning(id));
        }
        self.close(id);
        Ok(())
    }

    /// Of the text of all calls that have no answer.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn open(&mut self, id: RequestId, bytes: usize) -> Result<(), ProtocolError> {
        if self.open.contains_key(&id) {
            return Err(ProtocolError::RequestIsRunning(id));
        }
        self.open.insert(id, bytes);
        self.bytes += bytes;
        Ok(())
    }

    fn close(&mut self, id: RequestId) {
        self.bytes -= self.open.remove(&id).unwrap_or_default();
    }

    fn running(&mut self, id: RequestId) -> Result<&mut Mutation, Misuse> {
        self.running.as_mut().filter(|mutation| mutation.request_id == id).ok_or(Misuse::RequestIsNotRunning(id))
    }

    fn next(&mut self) -> Option<Call> {
        let call = self.waiting.pop_front();
        self.running = call.as_ref().map(|call| Mutation { request_id: call.request_id, commits_after: None });
        call
    }
}
