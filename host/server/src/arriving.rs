//! What has come on a socket and is no whole message yet: its parts are kept until the last one is there.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::budget::{Budget, Held};

/// Counted among all bodies, by the connection as it comes and by the socket as it is understood.
#[derive(Debug, Clone)]
pub(crate) struct Arriving {
    held: Arc<Mutex<Held>>,
}

/// Of a frame of control with what a client sends masked: its text comes to this.
const CONTROL_HEAD_BYTES: usize = 6;

impl Arriving {
    pub(crate) fn new(bodies: &Arc<Budget>) -> Self {
        Self { held: Arc::new(Mutex::new(bodies.hold_anyway(0))) }
    }

    /// So many bytes have come.
    ///
    /// # Errors
    /// With [`io::ErrorKind::QuotaExceeded`] where there is no room for them.
    pub(crate) fn add(&self, bytes: usize) -> io::Result<()> {
        if self.held().grow(bytes) { Ok(()) } else { Err(io::ErrorKind::QuotaExceeded.into()) }
    }

    /// They were a message.
    pub(crate) fn is_whole(&self) {
        self.held().resize(0);
    }

    /// Some of them were a ping or a pong with so many bytes, perhaps between the parts of a message.
    pub(crate) fn had_control(&self, bytes: usize) {
        drop(self.held().split(CONTROL_HEAD_BYTES + bytes));
    }

    /// Whether a part of a message is there.
    pub(crate) fn has_begun(&self) -> bool {
        self.held().units() > 0
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
