//! Room that all callers of a host share: so many of something, or so many bytes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How much there may be at once, and how much there is. A unit is whatever the owner counts.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    max: usize,
}

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    units: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    /// Takes a part; none where it does not fit.
    pub(crate) fn hold(self: &Arc<Self>, units: usize) -> Option<Held> {
        self.take(units).then(|| Held { budget: Arc::clone(self), units })
    }

    /// The same, and what does not fit at all is held alone: else it would wait for ever.
    pub(crate) fn hold_or_alone(self: &Arc<Self>, units: usize) -> Option<Held> {
        let alone = || self.used.compare_exchange(0, units, Ordering::AcqRel, Ordering::Acquire).is_ok();
        (self.take(units) || alone()).then(|| Held { budget: Arc::clone(self), units })
    }

    /// Takes a part of what is there already, whether it fits or not.
    pub(crate) fn hold_anyway(self: &Arc<Self>, units: usize) -> Held {
        self.used.fetch_add(units, Ordering::AcqRel);
        Held { budget: Arc::clone(self), units }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used.load(Ordering::Acquire) >= self.max
    }

    fn take(&self, units: usize) -> bool {
        let fits = |used: usize| used.checked_add(units).filter(|used| *used <= self.max);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }
}

impl Held {
    /// Takes more; false where it does not fit, and then nothing has changed.
    pub(crate) fn grow(&mut self, units: usize) -> bool {
        self.resize(self.units.saturating_add(units))
    }

    /// Gives a part of itself away. There is never more in it than it has.
    pub(crate) fn split(&mut self, units: usize) -> Self {
        let units = units.min(self.units);
        self.units -= units;
        Self { budget: Arc::clone(&self.budget), units }
    }

    pub(crate) fn units(&self) -> usize {
        self.units
    }

    /// Becomes as large as said; false where that does not fit, and then nothing has changed.
    pub(crate) fn resize(&mut self, units: usize) -> bool {
        let fits = units <= self.units || self.budget.take(units - self.units);
        if fits {
            self.budget.used.fetch_sub(self.units.saturating_sub(units), Ordering::AcqRel);
            self.units = units;
        }
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.units, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_what_ends_is_given_back() {
        let budget = Budget::new(10);
        let mut first = budget.hold(6).expect("room");
        assert!(budget.hold(5).is_none() && !first.grow(5));
        assert!(first.grow(4) && budget.is_full());
        let over = budget.hold_anyway(3);
        drop(first);
        assert!(budget.hold(8).is_none(), "three are held");
        drop(over);
        assert!(budget.hold(10).is_some());
        assert!(budget.hold(usize::MAX).is_none() && budget.hold(0).is_some_and(|mut none| !none.grow(usize::MAX)));
        let mut whole = budget.hold(10).expect("room");
        let part = whole.split(4);
        drop(whole);
        assert!(budget.hold(7).is_none() && budget.hold(6).is_some() && part.units() == 4);
        drop(part);
        let mut alone = budget.hold_or_alone(12).expect("alone");
        assert!(budget.hold_or_alone(1).is_none() && alone.resize(9));
        assert!(budget.hold_or_alone(2).is_none() && budget.hold_or_alone(1).is_some());
    }
}
