//! What a client says (1.4). Arguments stay text.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Number;
use serde_json::value::RawValue;
use thiserror::Error;
use uuid::Uuid;

use crate::timestamp::Timestamp;
use crate::{QueryId, RequestId};

/// How much of what a client sent an error repeats.
const QUOTED_CHARS_MAX: usize = 100;

/// A message of a client. Serialised it is what the client sends.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum ClientMessage {
    Connect(Connect),
    ModifyQuerySet {
        base_version: u32,
        new_version: u32,
        modifications: Vec<QuerySetModification>,
    },
    Mutation {
        request_id: RequestId,
        udf_path: String,
        args: Box<RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        component_path: Option<String>,
    },
    Action {
        request_id: RequestId,
        udf_path: String,
        args: Box<RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        component_path: Option<String>,
    },
    Authenticate {
        base_version: u32,
        #[serde(flatten)]
        token: Token,
    },
    /// Telemetry of a type that the client chose, never answered.
    Event {
        event_type: String,
        event: Option<Box<RawValue>>,
    },
}

/// The first message on every socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connect {
    pub session_id: Uuid,
    pub connection_count: u32,
    pub last_close_reason: Option<String>,
    /// The latest snapshot that the client has seen, on whatever socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_observed_timestamp: Option<Timestamp>,
    /// The client's clock in milliseconds. Clients that do not tell send 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ts: Option<i64>,
}

/// A query added to or removed from what a client shows.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum QuerySetModification {
    Add(AddQuery),
    Remove { query_id: QueryId },
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddQuery {
    pub query_id: QueryId,
    pub udf_path: String,
    pub args: Box<RawValue>,
    /// Of the last result on an earlier socket (1.13).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component_path: Option<String>,
}

/// Who a client says that it is.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "tokenType")]
pub enum Token {
    Admin {
        #[serde(rename = "value")]
        key: String,
        /// Attributes of the user as whom the administrator acts: a JSON object.
        #[serde(skip_serializing_if = "Option::is_none")]
        acting_as: Option<Box<RawValue>>,
    },
    User {
        #[serde(rename = "value")]
        jwt: String,
    },
    None,
}

/// Why a text is no message of a client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MessageError {
    #[error("the message is not one of the protocol's: {0}")]
    Json(String),
    #[error("there is no message {0:?}")]
    Unknown(String),
    #[error("the message `{message}` lacks `{field}`")]
    Missing { message: &'static str, field: &'static str },
}

impl ClientMessage {
    /// Reads one text frame.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        // serde would take a list of the members too.
        if !text.trim_start().starts_with('{') {
            return Err(MessageError::Json("a message is an object".to_owned()));
        }
        let wire: Wire<'_> = serde_json::from_str(text).map_err(|error| MessageError::Json(error.to_string()))?;
        wire.into_message()
    }

    /// The message's `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "Connect",
            Self::ModifyQuerySet { .. } => "ModifyQuerySet",
            Self::Mutation { .. } => "Mutation",
            Self::Action { .. } => "Action",
            Self::Authenticate { .. } => "Authenticate",
            Self::Event { .. } => "Event",
        }
    }
}

/// All messages' members together: an enum that is told apart by a member would parse the arguments into a tree first,
/// since the member that tells may come last.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    r#type: String,
    session_id: Option<Uuid>,
    connection_count: Option<u32>,
    last_close_reason: Option<String>,
    max_observed_timestamp: Option<Timestamp>,
    #[serde(default, deserialize_with = "milliseconds")]
    client_ts: Option<i64>,
    base_version: Option<u32>,
    new_version: Option<u32>,
    #[serde(borrow)]
    modifications: Option<Vec<WireModification<'a>>>,
    token_type: Option<String>,
    value: Option<String>,
    #[serde(borrow)]
    impersonating: Option<&'a RawValue>,
    // The client in Rust spells it so.
    #[serde(borrow, rename = "acting_as")]
    acting_as: Option<&'a RawValue>,
    request_id: Option<u32>,
    udf_path: Option<String>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    component_path: Option<String>,
    event_type: Option<String>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireModification<'a> {
    r#type: String,
    query_id: Option<u32>,
    udf_path: Option<String>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    journal: Option<String>,
    component_path: Option<String>,
}

/// A clock may tell fractions.
fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let number = Option::<Number>::deserialize(deserializer)?;
    Ok(number.and_then(|number| number.as_i64().or_else(|| number.as_f64().map(|float| float as i64))))
}

impl Wire<'_> {
    fn into_message(self) -> Result<ClientMessage, MessageError> {
        match self.r#type.as_str() {
            "Connect" => self.into_connect(),
            "ModifyQuerySet" => self.into_modify_query_set(),
            "Mutation" => {
                let of = Of("Mutation");
                Ok(ClientMessage::Mutation {
                    request_id: of.member("requestId", self.request_id)?,
                    udf_path: of.member("udfPath", self.udf_path)?,
                    args: of.member("args", self.args)?.to_owned(),
                    component_path: self.component_path,
                })
            }
            "Action" => {
                let of = Of("Action");
                Ok(ClientMessage::Action {
                    request_id: of.member("requestId", self.request_id)?,
                    udf_path: of.member("udfPath", self.udf_path)?,
                    args: of.member("args", self.args)?.to_owned(),
                    component_path: self.component_path,
                })
            }
            "Authenticate" => self.into_authenticate(),
            "Event" => Ok(ClientMessage::Event {
                event_type: Of("Event").member("eventType", self.event_type)?,
                event: self.event.map(ToOwned::to_owned),
            }),
            other => Err(MessageError::Unknown(quoted(other))),
        }
    }

    fn into_connect(self) -> Result<ClientMessage, MessageError> {
        let of = Of("Connect");
        Ok(ClientMessage::Connect(Connect {
            session_id: of.member("sessionId", self.session_id)?,
            connection_count: of.member("connectionCount", self.connection_count)?,
            last_close_reason: self.last_close_reason,
            max_observed_timestamp: self.max_observed_timestamp,
            client_ts: self.client_ts,
        }))
    }

    fn into_modify_query_set(self) -> Result<ClientMessage, MessageError> {
        let of = Of("ModifyQuerySet");
        let modifications = of.member("modifications", self.modifications)?;
        Ok(ClientMessage::ModifyQuerySet {
            base_version: of.member("baseVersion", self.base_version)?,
            new_version: of.member("newVersion", self.new_version)?,
            modifications: modifications
                .into_iter()
                .map(WireModification::into_modification)
                .collect::<Result<_, _>>()?,
        })
    }

    fn into_authenticate(self) -> Result<ClientMessage, MessageError> {
        let of = Of("Authenticate");
        let token_type = of.member("tokenType", self.token_type)?;
        let token = match token_type.as_str() {
            "Admin" => Token::Admin {
                key: of.member("value", self.value)?,
                acting_as: self.impersonating.or(self.acting_as).map(ToOwned::to_owned),
            },
            "User" => Token::User { jwt: of.member("value", self.value)? },
            "None" => Token::None,
            other => return Err(MessageError::Unknown(format!("Authenticate with {}", quoted(other)))),
        };
        Ok(ClientMessage::Authenticate { base_version: of.member("baseVersion", self.base_version)?, token })
    }
}

impl WireModification<'_> {
    fn into_modification(self) -> Result<QuerySetModification, MessageError> {
        match self.r#type.as_str() {
            "Add" => {
                let of = Of("Add");
                Ok(QuerySetModification::Add(AddQuery {
                    query_id: of.member("queryId", self.query_id)?,
                    udf_path: of.member("udfPath", self.udf_path)?,
                    args: of.member("args", self.args)?.to_owned(),
                    journal: self.journal,
                    component_path: self.component_path,
                }))
            }
            "Remove" => Ok(QuerySetModification::Remove { query_id: Of("Remove").member("queryId", self.query_id)? }),
            other => Err(MessageError::Unknown(quoted(other))),
        }
    }
}

/// The message of which a member must be there.
struct Of(&'static str);

impl Of {
    fn member<T>(&self, field: &'static str, value: Option<T>) -> Result<T, MessageError> {
        value.ok_or(MessageError::Missing { message: self.0, field })
    }
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}
