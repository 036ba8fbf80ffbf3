//! Cursors: where a page ended, as an opaque and signed text.
//!
//! A cursor is base64url of `kind ++ fingerprint ++ position ++ tag`. The fingerprint binds it to its query, the tag
//! (HMAC-SHA-256, cut to 16 bytes) to the database's key. The same position of the same query is always the same text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::key::Position;
use crate::plan::Plan;

const AFTER: u8 = 1;
const END: u8 = 2;
const FINGERPRINT_BYTES: usize = 8;
const TAG_BYTES: usize = 16;

/// Where a page begins or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// Behind the document at this position.
    After(Position),
    /// Behind the last document.
    End,
}

/// A text that is no cursor of this query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the cursor is not one of this query: begin again without one")]
pub struct CursorError;

/// Signs cursors.
#[derive(Clone)]
pub struct CursorKey([u8; 32]);

impl CursorKey {
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The text of a cursor of this query.
    pub fn sign(&self, plan: &Plan, cursor: &Cursor) -> String {
        let mut bytes = match cursor {
            Cursor::After(_) => vec![AFTER],
            Cursor::End => vec![END],
        };
        bytes.extend(fingerprint(plan));
        if let Cursor::After(position) = cursor {
            bytes.extend(&position.0);
        }
        let tag = self.mac(&bytes).finalize().into_bytes();
        bytes.extend(&tag[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a text that [`CursorKey::sign`] made for the same query.
    ///
    /// # Errors
    /// For every other text.
    pub fn verify(&self, plan: &Plan, text: &str) -> Result<Cursor, CursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        let at = bytes.len().checked_sub(TAG_BYTES).ok_or(CursorError)?;
        let (signed, tag) = bytes.split_at(at);
        self.mac(signed).verify_truncated_left(tag).map_err(|_| CursorError)?;
        let (head, position) = signed.split_at_checked(1 + FINGERPRINT_BYTES).ok_or(CursorError)?;
        match (head[0], &head[1..] == fingerprint(plan).as_slice()) {
            (AFTER, true) => Ok(Cursor::After(Position(position.to_vec()))),
            (END, true) if position.is_empty() => Ok(Cursor::End),
            _ => Err(CursorError),
        }
    }

    fn mac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            <Hmac<Sha256> as Mac>::new_from_slice(&self.0).unwrap_or_else(|_| unreachable!("any length fits"));
        mac.update(bytes);
        mac
    }
}

impl std::fmt::Debug for CursorKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CursorKey")
    }
}

/// What makes two queries the same for a cursor: all but the size of the page, its bounds and what is wanted of each
/// document.
fn fingerprint(plan: &Plan) -> [u8; FINGERPRINT_BYTES] {
    let of = Plan { page: None, limit: None, offset: None, fields: None, ..plan.clone() };
    let digest = Sha256::digest(serde_json::to_vec(&of).unwrap_or_default());
    let mut bytes = [0; FINGERPRINT_BYTES];
    bytes.copy_from_slice(&digest[..FINGERPRINT_BYTES]);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(json: &str) -> Plan {
        Plan::parse(json).expect("a plan")
    }

    proptest! {
        #[test]
        fn a_cursor_is_of_its_query_and_key(position: Vec<u8>, flip in 0usize..40) {
            let key = CursorKey::new([7; 32]);
            let of = plan(r#"{"table":"t","limit":5,"page":{"cursor":null}}"#);
            let cursor = Cursor::After(Position(position));
            let text = key.sign(&of, &cursor);
            prop_assert_eq!(key.verify(&plan(r#"{"table":"t","limit":9}"#), &text), Ok(cursor));
            let in_part = key.verify(&plan(r#"{"table":"t","fields":["a"]}"#), &text);
            prop_assert!(in_part.is_ok());
            prop_assert_eq!(key.verify(&plan(r#"{"table":"u"}"#), &text), Err(CursorError));
            prop_assert_eq!(CursorKey::new([8; 32]).verify(&of, &text), Err(CursorError));
            let mut bytes = URL_SAFE_NO_PAD.decode(&text).expect("base64");
            let at = flip % bytes.len();
            bytes[at] ^= 1;
            prop_assert_eq!(key.verify(&of, &URL_SAFE_NO_PAD.encode(bytes)), Err(CursorError));
        }

        #[test]
        fn any_text_is_refused(text in "\\PC{0,80}") {
            prop_assert_eq!(CursorKey::new([7; 32]).verify(&plan(r#"{"table":"t"}"#), &text), Err(CursorError));
        }
    }

    #[test]
    fn the_end_is_a_cursor() {
        let (key, of) = (CursorKey::new([7; 32]), plan(r#"{"table":"t"}"#));
        assert_eq!(key.verify(&of, &key.sign(&of, &Cursor::End)), Ok(Cursor::End));
    }
}
