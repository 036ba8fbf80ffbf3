//! The stream that takes over from one that runs, when somebody joins or leaves.
//!
//! Postgres sends what the publications of a stream's beginning list, and a session cannot begin twice. So another slot is
//! made for those who follow now, while this one goes on; and from the point on from which that one tells everything, it
//! does. Its creation waits for the write transactions that run, as any slot's does, but it interrupts nobody.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use convoke_model::chain;
use futures_util::future::BoxFuture;
use tokio::time::{Sleep, sleep};

use super::{End, Opened, Setting, Stream};
use crate::coverage::Wanted;
use crate::error::FeedError;
use crate::event::GapReason;
use crate::members::Members;

/// The pause after an attempt that came to nothing; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// How far the stream is that is to take over.
#[derive(Default)]
pub(crate) struct Successor {
    stage: Stage,
    /// For whom it is: these wait, and those are wanted altogether.
    waiting: Vec<Wanted>,
    wanted: Vec<Wanted>,
    pause: Option<Duration>,
}

#[derive(Default)]
enum Stage {
    #[default]
    None,
    Opening(BoxFuture<'static, Result<Opened, FeedError>>),
    Opened(Result<Opened, FeedError>),
    Pausing(Pin<Box<Sleep>>),
    Ready(Box<Stream>),
}

impl Successor {
    /// Sees to it that a stream is being opened where one is needed, for those who are there now.
    pub(crate) fn review(&mut self, members: &Members, publications: &BTreeSet<String>, setting: &Setting) {
        let (waiting, wanted) = (members.waiting(), members.wanted());
        // A publication that nobody wants any more may be dropped, which would end the stream.
        let is_left = |name: &String| !wanted.iter().any(|wanted| wanted.publication == *name);
        if waiting.is_empty() && !publications.iter().any(is_left) {
            // One that is ready takes over all the same: that is no more work than to give it up.
            if !matches!(self.stage, Stage::Ready(_)) {
                *self = Self::default();
            }
            return;
        }
        let is_for_others = (&waiting, &wanted) != (&self.waiting, &self.wanted);
        if matches!(self.stage, Stage::None) || is_for_others {
            self.pause = self.pause.filter(|_| !is_for_others);
            (self.waiting, self.wanted) = (waiting, wanted);
            self.open(setting);
        }
    }

    fn open(&mut self, setting: &Setting) {
        let opening = Stream::open(setting.clone(), self.wanted.clone(), self.waiting.clone());
        self.stage = Stage::Opening(Box::pin(opening));
    }

    /// Waits until there is something to [`Successor::settle`]. A call that is dropped loses nothing.
    pub(crate) async fn progress(&mut self) {
        match &mut self.stage {
            Stage::None | Stage::Ready(_) => std::future::pending().await,
            Stage::Opened(_) => {}
            Stage::Pausing(until) => until.await,
            Stage::Opening(opening) => {
                let opened = opening.await;
                self.stage = Stage::Opened(opened);
            }
        }
    }

    /// # Errors
    /// When the stream that runs has to end first.
    pub(crate) fn settle(&mut self, members: &mut Members, setting: &Setting) -> Result<(), End> {
        let opened = match std::mem::take(&mut self.stage) {
            Stage::Opened(opened) => opened,
            Stage::Pausing(_) => {
                self.open(setting);
                return Ok(());
            }
            other => {
                self.stage = other;
                return Ok(());
            }
        };
        let error = match opened {
            Ok(Opened { stream, refused }) => {
                members.tell(&refused);
                if let Some(stream) = stream {
                    self.stage = Stage::Ready(stream);
                    return Ok(());
                }
                None
            }
            Err(error) => Some(error),
        };
        if matches!(error, Some(FeedError::NoSlotFree | FeedError::NoSenderFree)) && !self.waiting.is_empty() {
            return Err(End::Gap(GapReason::Replaced));
        }
        if let Some(error) = error {
            tracing::warn!(error = %chain(&error), "others cannot join the change feed yet: trying again");
        }
        let pause = self.pause.map_or(RETRY_FIRST, |pause| (pause * 2).min(setting.options.backoff_max));
        self.pause = Some(pause);
        self.stage = Stage::Pausing(Box::pin(sleep(pause)));
        Ok(())
    }

    /// From where on the next stream tells everything.
    pub(crate) fn position(&self) -> Option<u64> {
        match &self.stage {
            Stage::Ready(stream) => Some(stream.position()),
            _ => None,
        }
    }

    pub(crate) fn take(&mut self) -> Option<Box<Stream>> {
        match std::mem::take(&mut self.stage) {
            Stage::Ready(stream) => Some(stream),
            _ => None,
        }
    }
}
