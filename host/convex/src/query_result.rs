//! A query's result as it stands in transitions.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::failure::{FunctionError, without_request_id};
use crate::server_message::json_text;
use crate::value::Encoded;

/// What of a result a client can see: the same digest, nothing new. Not the journal, and not a request's id.
///
/// Cryptographic, because one user's data must not be able to hide a change from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// A query's result, serialised. Made once a run; every socket that shows the query splices the same text.
#[derive(Debug, Clone)]
pub struct QueryResult {
    /// The members of the modification but for `queryId`, without the outer braces.
    members: Arc<str>,
    digest: Digest,
}

impl QueryResult {
    /// The query has returned a value.
    pub fn updated(value: &Encoded, log_lines: &[String], journal: Option<&str>) -> Self {
        let members = format!(
            "\"type\":\"QueryUpdated\",\"value\":{},\"logLines\":{},\"journal\":{}",
            value.as_str(),
            json_text(log_lines),
            json_text(&journal)
        );
        Self { members: members.into(), digest: digest("QueryUpdated", [Some(value.as_str()), None], log_lines) }
    }

    /// The query has failed, which is a result like another one.
    pub fn failed(error: &FunctionError, log_lines: &[String], journal: Option<&str>) -> Self {
        let data = error.data.as_ref().map(Encoded::as_str);
        let mut members = format!(
            "\"type\":\"QueryFailed\",\"errorMessage\":{},\"logLines\":{},\"journal\":{}",
            json_text(&error.message),
            json_text(log_lines),
            json_text(&journal)
        );
        if let Some(data) = data {
            members.push_str(",\"errorData\":");
            members.push_str(data);
        }
        let words = without_request_id(&error.message);
        Self { members: members.into(), digest: digest("QueryFailed", [Some(words), data], log_lines) }
    }

    /// Of a call's result in the encoded form, or its error.
    pub fn new(result: &Result<Encoded, FunctionError>, log_lines: &[String], journal: Option<&str>) -> Self {
        match result {
            Ok(value) => Self::updated(value, log_lines, journal),
            Err(error) => Self::failed(error, log_lines, journal),
        }
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub(crate) fn members(&self) -> &str {
        &self.members
    }
}

/// Each part with its length before it, so that no two lists of parts are the same bytes.
fn digest(kind: &str, parts: [Option<&str>; 2], log_lines: &[String]) -> Digest {
    let mut hasher = Sha256::new();
    let mut add = |part: Option<&str>| {
        hasher.update(part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        hasher.update(part.unwrap_or_default());
    };
    add(Some(kind));
    for part in parts {
        add(part);
    }
    for line in log_lines {
        add(Some(line));
    }
    Digest(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Encoded {
        Encoded::from_clean(text.to_owned())
    }

    fn error(message: &str, data: Option<&str>) -> FunctionError {
        FunctionError { message: message.to_owned(), data: data.map(value) }
    }

    #[test]
    fn error_data_is_absent_where_there_is_none() {
        let without = QueryResult::failed(&error("x", None), &[], None);
        assert_eq!(without.members(), r#""type":"QueryFailed","errorMessage":"x","logLines":[],"journal":null"#);
        let with = QueryResult::failed(&error("x", Some("null")), &["[LOG] 'a'".to_owned()], Some("j"));
        assert_eq!(
            with.members(),
            r#""type":"QueryFailed","errorMessage":"x","logLines":["[LOG] 'a'"],"journal":"j","errorData":null"#
        );
        assert_ne!(without.digest(), with.digest());
    }

    #[test]
    fn the_digest_is_what_a_client_sees() {
        let log = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let first = QueryResult::updated(&value("1"), &[], None).digest();
        assert_eq!(first, QueryResult::updated(&value("1"), &[], Some("journal")).digest());
        assert_ne!(first, QueryResult::updated(&value("2"), &[], None).digest());
        assert_ne!(first, QueryResult::updated(&value("1"), &log(&["a"]), None).digest());
        let joined = QueryResult::updated(&value("1"), &log(&["ab"]), None).digest();
        assert_ne!(joined, QueryResult::updated(&value("1"), &log(&["a", "b"]), None).digest());
        let failed = |message| QueryResult::failed(&error(message, None), &[], None).digest();
        assert_eq!(failed("[Request ID: 01] Server Error"), failed("[Request ID: 02] Server Error"));
        assert_ne!(failed("1"), first);
    }
}
