//! The first layer: how many calls are in the host at once, and until when each may be.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use convoke_model::{Code, Failure, Kind, Limits, Outcome};

use crate::caller::{CallOrigin, Caller};

/// Counts the calls of a project that run or wait.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    calls: AtomicUsize,
}

/// A call that was let in; dropping it lets another one in.
#[derive(Debug)]
pub(crate) struct Admitted<'a> {
    calls: Option<&'a AtomicUsize>,
}

impl Admission {
    /// Lets a call in, or refuses it before it costs anything.
    pub(crate) fn admit(&self, caller: &Caller, limits: &Limits) -> Result<Admitted<'_>, Failure> {
        match caller.origin {
            CallOrigin::Http | CallOrigin::Socket => {}
            // The first is let in with its action, which would wait for it; the other is bounded by its rounds.
            CallOrigin::Action { .. } | CallOrigin::Subscription => return Ok(Admitted { calls: None }),
        }
        let before = self.calls.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted { calls: Some(&self.calls) };
        if before < limits.calls_max {
            return Ok(admitted);
        }
        let words = format!("{} calls are running or waiting already: try again", limits.calls_max);
        Err(Failure::system(Code::Overloaded, words).with_outcome(Outcome::NotBegun))
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if let Some(calls) = self.calls {
            calls.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// When a call has to be over, wherever it waits: by the function's kind, or earlier where the caller says so.
pub(crate) fn deadline(caller: &Caller, limits: &Limits, kind: Kind) -> Instant {
    let allowed = Duration::from_millis(match kind {
        Kind::Query | Kind::Mutation | Kind::Rule => limits.call_ms_max,
        Kind::Action => limits.action_ms_max,
    });
    let own = Instant::now() + allowed;
    caller.deadline.map_or(own, |earlier| own.min(earlier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_leaves_makes_room() {
        let (admission, limits) = (Admission::default(), Limits { calls_max: 2, ..Limits::default() });
        let outside = Caller::new(CallOrigin::Http);
        let first = admission.admit(&outside, &limits);
        let second = admission.admit(&outside, &limits);
        assert!(first.is_ok() && second.is_ok());
        let refused = admission.admit(&outside, &limits).expect_err("a third");
        assert_eq!((refused.code.clone(), refused.outcome), (Code::Overloaded, Outcome::NotBegun));
        assert!(admission.admit(&Caller::new(CallOrigin::Action { depth: 1 }), &limits).is_ok());
        drop(second);
        assert!(admission.admit(&outside, &limits).is_ok());
    }
}
