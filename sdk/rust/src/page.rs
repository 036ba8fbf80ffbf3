//! A long result, page by page.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// Which page a client wants. It is Convex' `paginationOpts`, so that its clients send it as they are:
/// `{"numItems", "cursor", "endCursor"?, "id"?, "maximumRowsRead"?, "maximumBytesRead"?}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaginationOptions {
    /// How many items the page should have.
    #[serde(deserialize_with = "whole")]
    #[schemars(with = "u32")]
    pub num_items: u32,
    /// Where the page begins: null, or the `continueCursor` of the page before.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Where the page ends, if that is fixed already; then the number of items does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_cursor: Option<String>,
    /// What a client tells its lists apart by. It changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<f64>,
    /// Accepted, and without effect: the project's limits hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_rows_read: Option<f64>,
    /// Accepted, and without effect: the project's limits hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_bytes_read: Option<f64>,
}

impl PaginationOptions {
    /// The first page, of this many items.
    pub fn new(num_items: u32) -> Self {
        Self { num_items, cursor: None, end_cursor: None, id: None, maximum_rows_read: None, maximum_bytes_read: None }
    }

    /// The page that begins at this cursor.
    #[must_use]
    pub fn after(mut self, cursor: impl Into<String>) -> Self {
        self.cursor = Some(cursor.into());
        self
    }
}

/// JavaScript has one type of numbers, and some of its encoders write 20 as `20.0`.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let integer = number.as_u64().and_then(|integer| u32::try_from(integer).ok());
    let float = number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(float));
    #[expect(clippy::cast_sign_loss, reason = "it is within the bounds of `u32`")]
    let whole = integer.or(float.map(|float| float as u32));
    whole.ok_or_else(|| D::Error::custom(format_args!("`{number}` is not a whole number from 0 to {}", u32::MAX)))
}

/// One page of a longer result, in the form of Convex' clients:
/// `{"page", "isDone", "continueCursor", "splitCursor", "pageStatus"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The items.
    pub page: Vec<T>,
    /// Whether this was the last page.
    pub is_done: bool,
    /// Where the next page begins.
    pub continue_cursor: String,
    /// Where a page that has grown too long can be cut in two.
    #[serde(default)]
    pub split_cursor: Option<String>,
    /// Whether it should be.
    #[serde(default)]
    pub page_status: Option<PageStatus>,
}

/// Whether a page has grown so long that it should be cut in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PageStatus {
    /// It may be.
    SplitRecommended,
    /// It must be.
    SplitRequired,
}

impl<T> Page<T> {
    /// The same page with something else for each item.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page {
            page: self.page.into_iter().map(change).collect(),
            is_done: self.is_done,
            continue_cursor: self.continue_cursor,
            split_cursor: self.split_cursor,
            page_status: self.page_status,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn options(json: serde_json::Value) -> Result<PaginationOptions, String> {
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn what_convex_clients_send_is_read() {
        assert_eq!(options(json!({ "numItems": 20, "cursor": null })), Ok(PaginationOptions::new(20)));
        assert_eq!(options(json!({ "numItems": 20.0, "cursor": "c" })), Ok(PaginationOptions::new(20).after("c")));
        let all = json!({
            "numItems": 5, "cursor": "c", "endCursor": "e", "id": 1_700_000_000_000_i64,
            "maximumRowsRead": 100, "maximumBytesRead": 1e6, "later": true,
        });
        let read = options(all).unwrap();
        assert_eq!((read.end_cursor.as_deref(), read.id), (Some("e"), Some(1_700_000_000_000.0)));
    }

    #[test]
    fn a_number_of_items_is_whole_and_not_negative() {
        for number in [json!(1.5), json!(-1), json!(4_294_967_296_u64), json!(1e300)] {
            let error = options(json!({ "numItems": number, "cursor": null })).unwrap_err();
            assert!(error.contains("is not a whole number"), "{error}");
        }
        assert!(options(json!({ "numItems": "20" })).is_err());
    }

    #[test]
    fn the_schema_takes_what_is_read() {
        let schema = schemars::schema_for!(PaginationOptions).to_value();
        assert_eq!(schema["properties"]["numItems"]["type"], "integer");
        assert_eq!(schema["properties"]["cursor"]["type"], json!(["string", "null"]));
        assert_eq!(schema["required"], json!(["numItems"]));
        assert_eq!(schema.get("additionalProperties"), None);
    }

    #[test]
    fn a_page_is_read_and_written_in_the_form_of_convex() {
        let host = r#"{"page":[1,2],"isDone":false,"continueCursor":"c","splitCursor":null}"#;
        let page: Page<u32> = serde_json::from_str(host).unwrap();
        let doubled = page.map(|item| item * 2);
        assert_eq!(
            serde_json::to_string(&doubled).unwrap(),
            r#"{"page":[2,4],"isDone":false,"continueCursor":"c","splitCursor":null,"pageStatus":null}"#
        );
        let split =
            Page { page_status: Some(PageStatus::SplitRequired), split_cursor: Some("s".to_owned()), ..doubled };
        let json = serde_json::to_value(&split).unwrap();
        assert_eq!((&json["pageStatus"], &json["splitCursor"]), (&json!("SplitRequired"), &json!("s")));
        assert_eq!(serde_json::from_value::<Page<u32>>(json).unwrap(), split);
    }
}
