//! Who follows a feed, and what each is sent.

use std::collections::BTreeSet;
use std::sync::Arc;

use convoke_model::chain;
use tokio::select;
use tokio::sync::{Notify, mpsc};

use crate::change::{Relation, Transaction};
use crate::coverage::{Coverage, Wanted};
use crate::error::FeedError;
use crate::event::{FeedEvent, GapReason, Started, System};
use crate::outlet::Outlet;

/// One who follows, or wants to.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) publication: String,
    /// The Postgres schema of its own tables.
    pub(crate) schema: String,
    pub(crate) outlet: Outlet,
    standing: Standing,
    generation: u64,
    /// What committed before has been handed on: a stream that takes over begins before the end of the last one.
    passed: u64,
    /// Why it is not followed, as the log was told.
    told: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Is not in the stream.
    Waiting,
    /// Was in it; has yet to take what was sent, and the gap behind. A slot for one who takes nothing would only be a
    /// burden.
    Draining,
    Following,
}

/// All who follow a feed.
#[derive(Debug)]
pub(crate) struct Members {
    all: Vec<Member>,
    joining: mpsc::UnboundedReceiver<Member>,
    /// Whether somebody may still join.
    open: bool,
    moved: Arc<Notify>,
}

impl Member {
    pub(crate) fn new(publication: String, schema: String, outlet: Outlet) -> Self {
        Self { publication, schema, outlet, standing: Standing::Waiting, generation: 0, passed: 0, told: String::new() }
    }

    fn start(&mut self, position: u64, system: System) {
        self.generation += 1;
        self.passed = position;
        self.told.clear();
        self.standing = Standing::Following;
        self.outlet.send_now(FeedEvent::Started(Started { position, system, generation: self.generation }));
    }

    fn interrupt(&mut self, reason: GapReason) {
        if self.standing == Standing::Following {
            self.outlet.send_now(FeedEvent::Gap { reason });
            self.standing = Standing::Draining;
        }
    }
}

impl Members {
    pub(crate) fn new(joining: mpsc::UnboundedReceiver<Member>, moved: Arc<Notify>) -> Self {
        Self { all: Vec::new(), joining, open: true, moved }
    }

    /// Waits until somebody joined, left or took something that was waited for.
    pub(crate) async fn changed(&mut self) {
        select! {
            joined = self.joining.recv(), if self.open => match joined {
                Some(member) => self.all.push(member),
                None => self.open = false,
            },
            () = self.moved.notified() => {}
        }
    }

    /// Takes note of who left, and of who has taken all.
    pub(crate) fn settle(&mut self) {
        while let Ok(member) = self.joining.try_recv() {
            self.all.push(member);
        }
        self.all.retain(|member| !member.outlet.is_closed());
        for member in &mut self.all {
            if member.standing == Standing::Draining && member.outlet.is_empty() {
                member.standing = Standing::Waiting;
            }
        }
    }

    /// Waits until somebody is to be followed for; false when nobody will ever be.
    pub(crate) async fn until_waiting(&mut self) -> bool {
        loop {
            self.settle();
            if self.all.iter().any(|member| member.standing == Standing::Waiting) {
                return true;
            }
            if !self.open && self.all.is_empty() {
                return false;
            }
            self.changed().await;
        }
    }

    /// Waits until nobody is left.
    pub(crate) async fn until_empty(&mut self) {
        loop {
            self.settle();
            if self.all.is_empty() {
                return;
            }
            self.changed().await;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether what is sent has to be sorted.
    pub(crate) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// What all want.
    pub(crate) fn wanted(&self) -> Vec<Wanted> {
        self.wanted_by(|_| true)
    }

    /// What those want who are to be taken into the stream.
    pub(crate) fn waiting(&self) -> Vec<Wanted> {
        self.wanted_by(|member| member.standing == Standing::Waiting)
    }

    fn wanted_by(&self, which: impl Fn(&Member) -> bool) -> Vec<Wanted> {
        let wanted =
            |member: &Member| Wanted { publication: member.publication.clone(), schema: member.schema.clone() };
        self.all.iter().filter(|member| which(member)).map(wanted).collect()
    }

    /// Those of the publications begin to follow who do not yet.
    pub(crate) fn start(&mut self, publications: &BTreeSet<String>, position: u64, system: System) {
        for member in &mut self.all {
            if member.standing == Standing::Waiting && publications.contains(&member.publication) {
                member.start(position, system);
            }
        }
    }

    /// Changes were missed by all.
    pub(crate) fn interrupt(&mut self, reason: &GapReason) {
        self.all.iter_mut().for_each(|member| member.interrupt(reason.clone()));
    }

    /// Says in the log why those of these publications are not followed, once for each reason.
    pub(crate) fn tell(&mut self, refused: &[(String, FeedError)]) {
        for (publication, error) in refused {
            let text = chain(error);
            let is_new = |member: &&mut Member| member.publication == *publication && member.told != text;
            for member in self.all.iter_mut().filter(is_new) {
                let (schema, hint) = (&member.schema, error.hint().unwrap_or_default());
                tracing::error!(error = %text, hint, schema, "a project has no change feed, others may");
                member.told.clone_from(&text);
            }
        }
    }

    pub(crate) fn position(&mut self, position: u64) {
        let is_behind = |member: &&mut Member| member.standing == Standing::Following && member.passed < position;
        for member in self.all.iter_mut().filter(is_behind) {
            member.passed = position;
            member.outlet.send_position(position);
        }
    }

    /// Hands a transaction to whom it concerns, and its position to the others. False where the only one there is has no
    /// room; one of several who has none is interrupted, or the others would wait for it.
    pub(crate) fn hand_on(&mut self, transaction: &Arc<Transaction>, bytes: usize, coverage: &Coverage) -> bool {
        let several = self.are_several();
        let Transaction { commit_lsn, end_lsn, .. } = **transaction;
        let is_behind = |member: &&mut Member| member.standing == Standing::Following && member.passed <= commit_lsn;
        for member in self.all.iter_mut().filter(is_behind) {
            let concerned = |relation: &Relation| {
                !several || relation.schema == member.schema || coverage.contains(&member.publication, relation)
            };
            let Some((part, bytes)) = part(transaction, bytes, concerned) else {
                member.passed = end_lsn;
                member.outlet.send_position(end_lsn);
                continue;
            };
            if member.outlet.try_send(&FeedEvent::Transaction(part), bytes) {
                member.passed = end_lsn;
                continue;
            }
            if !several {
                return false;
            }
            member.interrupt(GapReason::Overrun);
        }
        true
    }
}

/// What of a transaction concerns one member, and about what it takes in memory.
fn part(
    transaction: &Arc<Transaction>,
    bytes: usize,
    concerned: impl Fn(&Relation) -> bool,
) -> Option<(Arc<Transaction>, usize)> {
    let all = transaction.changes.len();
    let count = transaction.changes.iter().filter(|change| concerned(&change.relation)).count();
    if count == all {
        return Some((Arc::clone(transaction), bytes));
    }
    if count == 0 && transaction.messages.is_empty() {
        return None;
    }
    let changes = transaction.changes.iter().filter(|change| concerned(&change.relation)).cloned().collect();
    let messages = transaction.messages.clone();
    let Transaction { xid, commit_lsn, end_lsn, commit_time_us, .. } = **transaction;
    let part = Transaction { xid, commit_lsn, end_lsn, commit_time_us, changes, messages };
    // By number: which rows are large does not matter here. In 128 bits, as a product of two sizes.
    let share = bytes as u128 * count as u128 / all.max(1) as u128;
    Some((part.into(), usize::try_from(share).unwrap_or(bytes)))
}
