//! The question how far the log is.

use std::sync::Arc;

use tokio::sync::Notify;

/// Asks the server how far it is, for an early [`crate::FeedEvent::Position`]. Cheap to clone.
///
/// One question is on its way at a time: all who ask meanwhile share the next one.
#[derive(Debug, Clone, Default)]
pub struct PositionRequest(Arc<Notify>);

impl PositionRequest {
    pub fn send(&self) {
        self.0.notify_one();
    }

    pub(crate) async fn wanted(&self) {
        self.0.notified().await;
    }
}
