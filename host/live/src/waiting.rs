//! Who waits for the log to get to a position.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

/// So few are not worth a look at which of them have gone.
const GONE_LOOKED_FOR_FROM: usize = 1_024;

/// Those who wait, by the position that each waits for. Whoever has given up is dropped by itself: anybody may name a
/// position that never comes.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// With the address of each: who waits for the same position again is there once.
    by_position: BTreeMap<(u64, usize), Weak<Notify>>,
    /// How many may be there before those who have gone are looked for.
    looked_at: usize,
}

impl Waiting {
    pub(crate) fn add(&mut self, position: u64, notify: &Arc<Notify>) {
        self.by_position.insert((position, Arc::as_ptr(notify).addr()), Arc::downgrade(notify));
        if self.by_position.len() > self.looked_at.max(GONE_LOOKED_FOR_FROM) {
            self.by_position.retain(|_, notify| notify.strong_count() > 0);
            self.looked_at = 2 * self.by_position.len();
        }
    }

    /// The nearest position that somebody waits for.
    pub(crate) fn nearest(&mut self) -> Option<u64> {
        while let Some(first) = self.by_position.first_entry() {
            if first.get().strong_count() > 0 {
                return Some(first.key().0);
            }
            first.remove();
        }
        None
    }

    /// Takes out all whose position is reached.
    pub(crate) fn reached(&mut self, position: u64) -> impl Iterator<Item = Arc<Notify>> {
        std::iter::from_fn(move || {
            let first = self.by_position.first_entry()?;
            (first.key().0 <= position).then(|| first.remove())
        })
        .filter_map(|notify| notify.upgrade())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_woken_once() {
        let mut waiting = Waiting::default();
        let [first, second] = [(); 2].map(|()| Arc::new(Notify::new()));
        waiting.add(120, &first);
        waiting.add(120, &first);
        waiting.add(110, &second);
        assert_eq!(waiting.reached(109).count(), 0);
        assert_eq!(waiting.reached(110).count(), 1);
        assert_eq!(waiting.reached(200).count(), 1);
        assert_eq!(waiting.reached(200).count(), 0);
    }

    #[test]
    fn who_gave_up_is_dropped() {
        let mut waiting = Waiting::default();
        let stays = Arc::new(Notify::new());
        waiting.add(u64::MAX, &stays);
        for _ in 0..10 * GONE_LOOKED_FOR_FROM {
            waiting.add(u64::MAX, &Arc::new(Notify::new()));
        }
        assert!(waiting.by_position.len() <= GONE_LOOKED_FOR_FROM + 1, "{}", waiting.by_position.len());
        waiting.add(7, &Arc::new(Notify::new()));
        assert_eq!(waiting.nearest(), Some(u64::MAX));
        assert_eq!(waiting.reached(u64::MAX).count(), 1);
        assert_eq!(waiting.nearest(), None);
    }
}
