//! What an operator may want to know of a running feed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Figures of a feed, free to read at any time. Each is right by itself; two of them may be of different moments.
/// Positions are in bytes from the log's beginning, 0 as long as there is none.
#[derive(Debug)]
pub struct FeedMetrics {
    made: Instant,
    streaming: AtomicBool,
    commit_lsn: AtomicU64,
    position: AtomicU64,
    wal_end: AtomicU64,
    /// In milliseconds since `made`, plus one; 0 for none.
    last_message: AtomicU64,
    reconnects: AtomicU64,
    transactions: AtomicU64,
}

impl FeedMetrics {
    pub(crate) fn new() -> Self {
        Self {
            made: Instant::now(),
            streaming: AtomicBool::new(false),
            commit_lsn: AtomicU64::new(0),
            position: AtomicU64::new(0),
            wal_end: AtomicU64::new(0),
            last_message: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
        }
    }

    /// Whether a slot is held and followed.
    pub fn is_streaming(&self) -> bool {
        self.streaming.load(Relaxed)
    }

    /// The commit of the last transaction that was received.
    pub fn commit_lsn(&self) -> u64 {
        self.commit_lsn.load(Relaxed)
    }

    /// How far the feed is: all that committed before has been handed to the consumer's channel. It advances without
    /// transactions too.
    pub fn position(&self) -> u64 {
        self.position.load(Relaxed)
    }

    /// How far the server was when it last said so.
    pub fn wal_end(&self) -> u64 {
        self.wal_end.load(Relaxed)
    }

    /// What the server has and the feed has not delivered, as far as the feed knows.
    pub fn lag_bytes(&self) -> u64 {
        self.wal_end().saturating_sub(self.position())
    }

    /// When the server was last heard.
    pub fn last_message(&self) -> Option<Instant> {
        let milliseconds = self.last_message.load(Relaxed).checked_sub(1)?;
        Some(self.made + Duration::from_millis(milliseconds))
    }

    /// How many slots were created after the first one.
    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Relaxed)
    }

    /// How many transactions were handed to the consumer's channel.
    pub fn transactions(&self) -> u64 {
        self.transactions.load(Relaxed)
    }

    pub(crate) fn started(&self, position: u64, generation: u64) {
        self.reconnects.store(generation.saturating_sub(1), Relaxed);
        // After a restore it may be lower than before.
        self.position.store(position, Relaxed);
        self.wal_end.store(position, Relaxed);
        self.streaming.store(true, Relaxed);
        self.heard();
    }

    pub(crate) fn stopped(&self) {
        self.streaming.store(false, Relaxed);
    }

    pub(crate) fn heard(&self) {
        self.last_message.store(self.made.elapsed().as_millis() as u64 + 1, Relaxed);
    }

    pub(crate) fn received(&self, commit_lsn: u64) {
        self.commit_lsn.store(commit_lsn, Relaxed);
    }

    pub(crate) fn delivered(&self) {
        self.transactions.fetch_add(1, Relaxed);
    }

    pub(crate) fn advanced(&self, position: u64) {
        self.position.fetch_max(position, Relaxed);
    }

    pub(crate) fn server_at(&self, wal_end: u64) {
        self.wal_end.fetch_max(wal_end, Relaxed);
    }
}
