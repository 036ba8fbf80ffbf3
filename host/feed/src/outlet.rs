//! The channel between a feed and its consumer: bounded by memory, not by number.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::event::FeedEvent;

/// What one permit stands for. Also the least that an event takes, so that their number is bounded too.
const PERMIT_BYTES: usize = 1 << 10;

/// An event on its way; what it holds is given back when the consumer takes it.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) event: FeedEvent,
    _room: Option<Room>,
    _taken: Option<oneshot::Sender<Infallible>>,
}

/// The right to send so many bytes.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: Option<OwnedSemaphorePermit>,
}

/// The feed's end.
#[derive(Debug)]
pub(crate) struct Outlet {
    sender: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
    permits: u32,
}

/// The consumer's end.
pub(crate) type Inlet = mpsc::UnboundedReceiver<Queued>;

pub(crate) fn channel(bytes_max: usize) -> (Outlet, Inlet) {
    let permits = u32::try_from(bytes_max / PERMIT_BYTES).unwrap_or(u32::MAX).clamp(1, 1 << 28);
    let (sender, receiver) = mpsc::unbounded_channel();
    (Outlet { sender, room: Arc::new(Semaphore::new(permits as usize)), permits }, receiver)
}

impl Outlet {
    /// Room for so many bytes, if there is any. What exceeds the whole buffer is let through once it is empty.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Room> {
        let permit = self.room.clone().try_acquire_many_owned(self.permits_for(bytes)).ok()?;
        Some(Room { _permit: Some(permit) })
    }

    /// Waits for room.
    pub(crate) async fn reserve(&self, bytes: usize) -> Room {
        // The semaphore is never closed.
        Room { _permit: self.room.clone().acquire_many_owned(self.permits_for(bytes)).await.ok() }
    }

    fn permits_for(&self, bytes: usize) -> u32 {
        u32::try_from(bytes / PERMIT_BYTES + 1).unwrap_or(u32::MAX).min(self.permits)
    }

    pub(crate) fn send(&self, event: FeedEvent, room: Room) {
        // Nobody is left to miss it.
        let _ = self.sender.send(Queued { event, _room: Some(room), _taken: None });
    }

    /// Sends what is short and rare, whether there is room or not.
    pub(crate) fn send_now(&self, event: FeedEvent) {
        let _ = self.sender.send(Queued { event, _room: None, _taken: None });
    }

    /// The same, and waits until the consumer has taken it or is gone.
    pub(crate) async fn send_and_wait(&self, event: FeedEvent) {
        let (taken, watch) = oneshot::channel();
        let _ = self.sender.send(Queued { event, _room: None, _taken: Some(taken) });
        let _ = watch.await;
    }

    /// Waits until the consumer is gone.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }
}
