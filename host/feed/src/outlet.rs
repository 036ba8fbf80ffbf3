//! The channel between a feed and one of its subscribers: bounded by memory, not by number.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::event::FeedEvent;

/// The least that an event counts for, so that their number is bounded too.
const EVENT_BYTES_MIN: usize = 1 << 10;

#[derive(Debug)]
struct Channel {
    queue: Mutex<Queue>,
    bytes_max: usize,
    /// An event can be taken.
    arrived: Notify,
    /// Shared by all channels of a feed: one of them was emptied a little while the feed watches it, or its subscriber has
    /// gone.
    moved: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Queue {
    /// With the bytes that each counts for.
    events: VecDeque<(FeedEvent, usize)>,
    bytes: usize,
    /// Whether the feed waits for the subscriber.
    watched: bool,
    feed_is_gone: bool,
    subscriber_is_gone: bool,
}

/// The feed's end.
#[derive(Debug)]
pub(crate) struct Outlet(Arc<Channel>);

/// The subscriber's end.
#[derive(Debug)]
pub(crate) struct Inlet(Arc<Channel>);

pub(crate) fn channel(bytes_max: usize, moved: Arc<Notify>) -> (Outlet, Inlet) {
    let channel = Arc::new(Channel { queue: Mutex::default(), bytes_max, arrived: Notify::new(), moved });
    (Outlet(Arc::clone(&channel)), Inlet(channel))
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlet {
    /// Sends what takes so many bytes, if there is room. What exceeds the whole buffer is let through once it is empty.
    pub(crate) fn try_send(&self, event: &FeedEvent, bytes: usize) -> bool {
        let bytes = bytes.max(EVENT_BYTES_MIN);
        let mut queue = self.0.lock();
        if queue.bytes > 0 && queue.bytes + bytes > self.0.bytes_max {
            queue.watched = true;
            return false;
        }
        queue.watched = false;
        queue.bytes += bytes;
        queue.events.push_back((event.clone(), bytes));
        drop(queue);
        self.0.arrived.notify_one();
        true
    }

    /// Sends what is short and rare, whether there is room or not.
    pub(crate) fn send_now(&self, event: FeedEvent) {
        self.0.lock().events.push_back((event, 0));
        self.0.arrived.notify_one();
    }

    /// Sends a position, in place of the one before where that has not been taken.
    pub(crate) fn send_position(&self, position: u64) {
        let mut queue = self.0.lock();
        if let Some((FeedEvent::Position(last), _)) = queue.events.back_mut() {
            *last = position;
            return;
        }
        queue.events.push_back((FeedEvent::Position(position), 0));
        drop(queue);
        self.0.arrived.notify_one();
    }

    /// Whether all has been taken; where not, the feed hears of it.
    pub(crate) fn is_empty(&self) -> bool {
        let mut queue = self.0.lock();
        queue.watched = !queue.events.is_empty();
        !queue.watched
    }

    /// Whether the subscriber is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().subscriber_is_gone
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.0.lock().feed_is_gone = true;
        self.0.arrived.notify_one();
    }
}

impl Inlet {
    /// The next event, as soon as there is one; none when the feed is gone.
    pub(crate) async fn recv(&mut self) -> Option<FeedEvent> {
        loop {
            if let Some(event) = self.try_recv() {
                return Some(event);
            }
            if self.0.lock().feed_is_gone {
                return None;
            }
            self.0.arrived.notified().await;
        }
    }

    pub(crate) fn try_recv(&mut self) -> Option<FeedEvent> {
        let mut queue = self.0.lock();
        let (event, bytes) = queue.events.pop_front()?;
        queue.bytes -= bytes;
        if queue.watched {
            self.0.moved.notify_one();
        }
        Some(event)
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.subscriber_is_gone = true;
        queue.events.clear();
        queue.bytes = 0;
        drop(queue);
        self.0.moved.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(event: Option<&FeedEvent>) -> Option<u64> {
        match event {
            Some(FeedEvent::Position(position)) => Some(*position),
            _ => None,
        }
    }

    #[tokio::test]
    async fn only_the_last_of_several_positions_is_kept() {
        let (outlet, mut inlet) = channel(1 << 20, Arc::default());
        (1..100).for_each(|position| outlet.send_position(position));
        assert_eq!(position(inlet.recv().await.as_ref()), Some(99));
        assert!(inlet.try_recv().is_none());
        drop(outlet);
        assert!(inlet.recv().await.is_none());
    }

    #[tokio::test]
    async fn room_is_counted_in_bytes() {
        let moved = Arc::new(Notify::new());
        let (outlet, mut inlet) = channel(4 << 10, Arc::clone(&moved));
        let event = FeedEvent::Position(0);
        assert!(outlet.try_send(&event, 1 << 20), "the first one whatever its size");
        assert!(!outlet.try_send(&event, 1));
        assert!(inlet.try_recv().is_some());
        moved.notified().await;
        let sent = (0..100).take_while(|_| outlet.try_send(&event, 1)).count();
        assert_eq!(sent, 4);
        drop(inlet);
        assert!(outlet.is_closed());
    }
}
