//! Transactions within the transaction of a mutation.

use crate::bindings::convoke::runtime::database_write;
use crate::error::Result;

/// Who keeps the savepoints: the host, or a test.
trait Savepoints {
    fn begin(&self) -> Result<u32>;
    fn release(&self, savepoint: u32) -> Result<()>;
    fn rollback_to(&self, savepoint: u32) -> Result<()>;
}

struct Host;

impl Savepoints for Host {
    fn begin(&self) -> Result<u32> {
        Ok(database_write::savepoint()?)
    }

    fn release(&self, savepoint: u32) -> Result<()> {
        Ok(database_write::release(savepoint)?)
    }

    fn rollback_to(&self, savepoint: u32) -> Result<()> {
        Ok(database_write::rollback_to(savepoint)?)
    }
}

/// Runs the work in a nested transaction.
pub(crate) fn nested<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    nested_by(&Host, work)
}

fn nested_by<R>(savepoints: &impl Savepoints, work: impl FnOnce() -> Result<R>) -> Result<R> {
    let savepoint = savepoints.begin()?;
    let done = work().and_then(|result| savepoints.release(savepoint).map(|()| result));
    if done.is_err() {
        // Where undoing fails, that is the error: the caller must not take the writes for undone.
        savepoints.rollback_to(savepoint)?;
    }
    done
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::error::Error;

    #[derive(Default)]
    struct Recorded {
        calls: RefCell<Vec<String>>,
        release: Option<Error>,
        rollback: Option<Error>,
    }

    impl Recorded {
        fn record(&self, call: String, failure: Option<&Error>) -> Result<()> {
            self.calls.borrow_mut().push(call);
            failure.cloned().map_or(Ok(()), Err)
        }
    }

    impl Savepoints for Recorded {
        fn begin(&self) -> Result<u32> {
            self.record("begin".to_owned(), None)?;
            Ok(self.calls.borrow().len() as u32)
        }

        fn release(&self, savepoint: u32) -> Result<()> {
            self.record(format!("release {savepoint}"), self.release.as_ref())
        }

        fn rollback_to(&self, savepoint: u32) -> Result<()> {
            self.record(format!("rollback {savepoint}"), self.rollback.as_ref())
        }
    }

    #[test]
    fn what_went_well_is_kept() {
        let host = Recorded::default();
        assert_eq!(nested_by(&host, || Ok(5)), Ok(5));
        assert_eq!(*host.calls.borrow(), ["begin", "release 1"]);
    }

    #[test]
    fn an_error_undoes_the_writes_and_is_returned() {
        let host = Recorded::default();
        let refused = Error::new("REFUSED", "refused");
        assert_eq!(nested_by::<()>(&host, || Err(refused.clone())), Err(refused));
        assert_eq!(*host.calls.borrow(), ["begin", "rollback 1"]);
    }

    #[test]
    fn what_postgres_refuses_is_undone_and_returned() {
        let conflict = Error::new("UNIQUE", "taken");
        let host = Recorded { release: Some(conflict.clone()), ..Recorded::default() };
        assert_eq!(nested_by(&host, || Ok(5)), Err(conflict));
        assert_eq!(*host.calls.borrow(), ["begin", "release 1", "rollback 1"]);
    }

    #[test]
    fn writes_that_cannot_be_undone_are_told() {
        let broken = Error::new("INTERNAL", "no connection");
        let host = Recorded { rollback: Some(broken.clone()), ..Recorded::default() };
        assert_eq!(nested_by::<()>(&host, || Err(Error::new("REFUSED", "refused"))), Err(broken));
    }

    #[test]
    fn transactions_nest() {
        let host = Recorded::default();
        let inner = || nested_by::<()>(&host, || Err(Error::not_found("x")));
        assert_eq!(nested_by(&host, || Ok(inner().is_err())), Ok(true));
        assert_eq!(*host.calls.borrow(), ["begin", "begin", "rollback 2", "release 1"]);
    }
}
