//! What the server says (1.5). Values are at hand as text: they are spliced, never parsed.

use serde::Serialize;

use crate::failure::FunctionError;
use crate::query_result::QueryResult;
use crate::session::Committed;
use crate::timestamp::Timestamp;
use crate::value::Encoded;
use crate::{QueryId, RequestId};

/// The client's state: which changes of its query set and identity it covers, and the snapshot that it shows (1.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateVersion {
    pub query_set: u32,
    pub identity: u32,
    pub ts: Timestamp,
}

/// A change of what a client shows.
#[derive(Debug, Clone, Copy)]
pub enum Modification<'a> {
    /// `QueryUpdated` or `QueryFailed`.
    Result { query_id: QueryId, result: &'a QueryResult },
    /// The client's removal is confirmed.
    Removed { query_id: QueryId },
}

/// A message of the server.
#[derive(Debug, Clone, Copy)]
pub enum ServerMessage<'a> {
    Transition {
        start: StateVersion,
        end: StateVersion,
        modifications: &'a [Modification<'a>],
        /// The client's clock minus the server's when the client connected, in milliseconds.
        client_clock_skew: Option<i64>,
        /// When the message was made, in nanoseconds.
        server_ts: Option<Timestamp>,
    },
    TransitionChunk {
        chunk: &'a str,
        part_number: usize,
        parts: usize,
        transition_id: &'a str,
    },
    MutationResponse {
        request_id: RequestId,
        result: Result<&'a Committed, &'a FunctionError>,
        log_lines: &'a [String],
    },
    ActionResponse {
        request_id: RequestId,
        result: Result<&'a Encoded, &'a FunctionError>,
        log_lines: &'a [String],
    },
    AuthError {
        error: &'a str,
        base_version: u32,
        /// Whether an `Authenticate` was refused, as opposed to an identity in use that has expired.
        update_attempted: bool,
    },
    FatalError {
        error: &'a str,
    },
    Ping,
}

impl ServerMessage<'_> {
    /// The message as one text frame.
    pub fn to_text(&self) -> String {
        match *self {
            Self::Transition { start, end, modifications, client_clock_skew, server_ts } => {
                transition(start, end, modifications, client_clock_skew, server_ts)
            }
            Self::TransitionChunk { chunk, part_number, parts, transition_id } => format!(
                "{{\"type\":\"TransitionChunk\",\"chunk\":{},\"partNumber\":{part_number},\"totalParts\":{parts},\
                 \"transitionId\":{}}}",
                json_text(chunk),
                json_text(transition_id)
            ),
            Self::MutationResponse { request_id, result, log_lines } => {
                let ts = result.map(|committed| committed.ts).ok();
                let result = result.map(|committed| &committed.value);
                let ts = format!("\"ts\":{},", json_text(&ts));
                response("MutationResponse", request_id, result, &ts, log_lines)
            }
            Self::ActionResponse { request_id, result, log_lines } => {
                response("ActionResponse", request_id, result, "", log_lines)
            }
            Self::AuthError { error, base_version, update_attempted } => format!(
                "{{\"type\":\"AuthError\",\"error\":{},\"baseVersion\":{base_version},\
                 \"authUpdateAttempted\":{update_attempted}}}",
                json_text(error)
            ),
            Self::FatalError { error } => format!("{{\"type\":\"FatalError\",\"error\":{}}}", json_text(error)),
            Self::Ping => "{\"type\":\"Ping\"}".to_owned(),
        }
    }
}

fn transition(
    start: StateVersion,
    end: StateVersion,
    modifications: &[Modification<'_>],
    client_clock_skew: Option<i64>,
    server_ts: Option<Timestamp>,
) -> String {
    // What each modification takes around its members, and the frame around all of them, generously.
    const MODIFICATION_BYTES: usize = 48;
    const FRAME_BYTES: usize = 256;
    let members = |modification: &Modification<'_>| match modification {
        Modification::Result { result, .. } => result.members().len() + MODIFICATION_BYTES,
        Modification::Removed { .. } => MODIFICATION_BYTES,
    };
    let bytes: usize = modifications.iter().map(members).sum();
    let mut text = String::with_capacity(bytes + FRAME_BYTES);
    text.push_str("{\"type\":\"Transition\",\"startVersion\":");
    text.push_str(&json_text(&start));
    text.push_str(",\"endVersion\":");
    text.push_str(&json_text(&end));
    text.push_str(",\"modifications\":[");
    for (at, modification) in modifications.iter().enumerate() {
        text.push_str(if at == 0 { "{\"queryId\":" } else { ",{\"queryId\":" });
        let (query_id, members) = match modification {
            Modification::Result { query_id, result } => (query_id, result.members()),
            Modification::Removed { query_id } => (query_id, "\"type\":\"QueryRemoved\""),
        };
        text.push_str(&query_id.to_string());
        text.push(',');
        text.push_str(members);
        text.push('}');
    }
    text.push_str("],\"clientClockSkew\":");
    text.push_str(&json_text(&client_clock_skew));
    text.push_str(",\"serverTs\":");
    text.push_str(&json_text(&server_ts.map(Timestamp::nanos)));
    text.push('}');
    text
}

fn response(
    kind: &str,
    request_id: RequestId,
    result: Result<&Encoded, &FunctionError>,
    ts: &str,
    log_lines: &[String],
) -> String {
    let log = json_text(log_lines);
    let head = format!("{{\"type\":\"{kind}\",\"requestId\":{request_id},{ts}\"logLines\":{log},\"success\":");
    match result {
        Ok(value) => format!("{head}true,\"result\":{}}}", value.as_str()),
        Err(FunctionError { message, data: None }) => format!("{head}false,\"result\":{}}}", json_text(message)),
        Err(FunctionError { message, data: Some(data) }) => {
            format!("{head}false,\"result\":{},\"errorData\":{}}}", json_text(message), data.as_str())
        }
    }
}

/// A transition's text as frames: one, or pieces of it where it is longer than `bytes_max`. Pieces end where characters
/// do, and have the whole's length for an id.
pub(crate) fn frames(text: String, bytes_max: usize) -> Vec<String> {
    if text.len() <= bytes_max {
        return vec![text];
    }
    let mut pieces = Vec::with_capacity(text.len() / bytes_max + 1);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // At least one character, whatever the limit.
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let (piece, after) = rest.split_at(rest.floor_char_boundary(bytes_max).max(first));
        pieces.push(piece);
        rest = after;
    }
    let transition_id = text.len().to_string();
    let parts = pieces.len();
    let message = |(part_number, chunk)| {
        ServerMessage::TransitionChunk { chunk, part_number, parts, transition_id: &transition_id }.to_text()
    };
    pieces.into_iter().enumerate().map(message).collect()
}

/// A value as JSON text; nothing that is given here can fail to be one.
pub(crate) fn json_text<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn parsed(message: ServerMessage<'_>) -> Value {
        serde_json::from_str(&message.to_text()).expect("JSON")
    }

    fn version(query_set: u32, ts: u64) -> StateVersion {
        StateVersion { query_set, identity: 0, ts: Timestamp::from_nanos(ts).expect("in bounds") }
    }

    #[test]
    fn transitions_have_every_key() {
        let result = QueryResult::updated(&Encoded::null(), &["[LOG] 'hi'".to_owned()], None);
        let modifications =
            [Modification::Removed { query_id: 3 }, Modification::Result { query_id: 0, result: &result }];
        let message = ServerMessage::Transition {
            start: StateVersion::default(),
            end: version(1, 1),
            modifications: &modifications,
            client_clock_skew: Some(-12),
            server_ts: Timestamp::from_nanos(1_700_000_000_000_000_000).ok(),
        };
        assert_eq!(
            parsed(message),
            json!({
                "type": "Transition",
                "startVersion": { "querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA=" },
                "endVersion": { "querySet": 1, "identity": 0, "ts": "AQAAAAAAAAA=" },
                "modifications": [
                    { "type": "QueryRemoved", "queryId": 3 },
                    { "type": "QueryUpdated", "queryId": 0, "value": null, "logLines": ["[LOG] 'hi'"], "journal": null },
                ],
                "clientClockSkew": -12,
                "serverTs": 1_700_000_000_000_000_000_u64,
            })
        );
        let empty = ServerMessage::Transition {
            start: version(1, 1),
            end: version(1, 2),
            modifications: &[],
            client_clock_skew: None,
            server_ts: None,
        };
        let empty = parsed(empty);
        assert_eq!((&empty["clientClockSkew"], &empty["serverTs"]), (&Value::Null, &Value::Null));
        assert_eq!(empty["modifications"], json!([]));
    }

    #[test]
    fn responses_have_their_keys() {
        let committed = Committed { value: Encoded::null(), ts: Timestamp::MIN };
        let done = ServerMessage::MutationResponse { request_id: 4, result: Ok(&committed), log_lines: &[] };
        assert_eq!(
            parsed(done),
            json!({ "type": "MutationResponse", "requestId": 4, "success": true, "result": null, "ts": "AAAAAAAAAAA=",
                    "logLines": [] })
        );
        let error = FunctionError { message: "no".to_owned(), data: None };
        let failed = ServerMessage::MutationResponse { request_id: 4, result: Err(&error), log_lines: &[] };
        assert_eq!(
            parsed(failed),
            json!({ "type": "MutationResponse", "requestId": 4, "success": false, "result": "no", "ts": null,
                    "logLines": [] })
        );
        let error = FunctionError { message: "no".to_owned(), data: Some(Encoded::null()) };
        let failed = ServerMessage::ActionResponse { request_id: 5, result: Err(&error), log_lines: &[] };
        assert_eq!(
            parsed(failed),
            json!({ "type": "ActionResponse", "requestId": 5, "success": false, "result": "no", "errorData": null,
                    "logLines": [] })
        );
        assert_eq!(parsed(ServerMessage::Ping), json!({ "type": "Ping" }));
    }

    #[test]
    fn a_short_text_is_one_frame() {
        assert_eq!(frames("{}".to_owned(), 2), ["{}"]);
    }

    proptest! {
        #[test]
        fn pieces_make_the_whole(text in ".{1,40}", bytes_max in 1_usize..20) {
            let frames = frames(text.clone(), bytes_max);
            if text.len() <= bytes_max {
                prop_assert_eq!(frames, [text]);
            } else {
                let mut whole = String::new();
                for (at, frame) in frames.iter().enumerate() {
                    let frame: Value = serde_json::from_str(frame).expect("JSON");
                    prop_assert_eq!(&frame["type"], "TransitionChunk");
                    prop_assert_eq!(&frame["partNumber"], at);
                    prop_assert_eq!(&frame["totalParts"], frames.len());
                    prop_assert_eq!(&frame["transitionId"], &text.len().to_string());
                    let chunk = frame["chunk"].as_str().expect("text");
                    prop_assert!(chunk.len() <= bytes_max || chunk.chars().count() == 1);
                    whole.push_str(chunk);
                }
                prop_assert_eq!(whole, text);
            }
        }
    }
}
