//! What makes a mutation happen once, however often it is sent.

use std::sync::Arc;

use convoke_model::{Code, DatabaseError, Failure, Outcome};
use convoke_sql::Statement;
use sha2::{Digest, Sha256};

use crate::rows::Row;

/// A larger result is not kept: a client that sends a mutation again is told that it was done, and not what it gave. Receipts
/// are kept for two weeks, so that they should not outweigh the documents.
pub const RECEIPT_RESULT_BYTES_MAX: usize = 64 << 10;

/// Under which a mutation leaves a receipt: what it was, and what it returned. A call with the receipt's scope and key
/// is the same call sent again if its digest is the same, and somebody's mistake if it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Whose keys these are: a client's session, say. Keys of different scopes have nothing to do with each other.
    pub scope: Arc<str>,
    /// The call within its scope: a request's number, or a key of the caller's own choice.
    pub key: Arc<str>,
    /// Of what is called: see [`Receipt::digest`].
    pub digest: [u8; 32],
    /// The caller knows that this was not sent before, so there is no receipt to look up. Where it is wrong, the call is
    /// undone and the receipt looked up after all.
    pub fresh: bool,
}

impl Receipt {
    /// The SHA-256 over a function's canonical path and its arguments in their canonical form.
    pub fn digest(path: &str, args: &str) -> [u8; 32] {
        let mut digest = Sha256::new();
        // Who calls is a part of what is called: nobody, until callers have identities.
        for part in ["", path, args] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    /// Looks for the receipt of the same call sent before.
    pub(crate) fn find(&self, project: &str) -> Statement {
        convoke_sql::find_receipt(project, &self.scope, &self.key)
    }

    pub(crate) fn leave(&self, project: &str, result: &str) -> Statement {
        let result = (result.len() <= RECEIPT_RESULT_BYTES_MAX).then_some(result);
        convoke_sql::leave_receipt(project, &self.scope, &self.key, self.digest, result)
    }

    /// What a receipt says of this call: its result, or why it has none. `row` is one of [`Self::find`].
    pub(crate) fn read(&self, row: &Row) -> Result<Result<String, Failure>, DatabaseError> {
        let (digest, result): (Option<&[u8]>, Option<String>) = (row.get(0)?, row.get(1)?);
        if digest.is_some_and(|digest| *digest != self.digest) {
            let words = "this key was used for another call before: a key is for one function with the same arguments";
            return Ok(Err(Failure::caller(Code::IdempotencyMismatch, words)));
        }
        Ok(result.ok_or_else(|| {
            let words = format!(
                "the mutation was done when it was sent before; what it returned was over {RECEIPT_RESULT_BYTES_MAX} bytes and \
                 was not kept"
            );
            Failure::function(Code::ResultLimit, words).with_outcome(Outcome::Done)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_what_is_meant() {
        let digest = Receipt::digest("a:b", r#"{"x":1,"y":[2]}"#);
        for (path, args) in
            [("a:c", r#"{"x":1,"y":[2]}"#), ("a:b", r#"{"x":1,"y":[3]}"#), ("a:b{", r#""x":1,"y":[2]}"#)]
        {
            assert_ne!(digest, Receipt::digest(path, args), "{path} {args}");
        }
    }
}
