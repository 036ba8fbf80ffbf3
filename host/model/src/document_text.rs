//! What JSON text may hold that a stored document may not: looked for in the text, where a tree has lost it.

use crate::document::DocumentError;
use crate::number::{Decimal, NUMBER_DIGITS_MAX};

/// How deep values may nest in a document. Convex' own bound; whoever reads documents in lists needs a few levels more.
const DEPTH_MAX: usize = 64;

/// The length of a document's text once Postgres has it, which writes numbers without exponents.
pub fn stored_bytes(text: &str) -> usize {
    let mut grown = text.len();
    let mut walk = Walk::new(text);
    while let Some(token) = walk.next() {
        if let Token::Number(number) = token
            && number.contains(['e', 'E'])
        {
            grown = grown.saturating_add(Decimal::parse(number).map_or(0, |number| number.growth()));
        }
    }
    grown
}

/// Checks JSON text, valid or not, for what is never stored.
pub(crate) fn check(text: &str) -> Result<(), DocumentError> {
    let mut walk = Walk::new(text);
    while let Some(token) = walk.next() {
        let (expected, found) = match token {
            Token::Number(number) => match Decimal::parse(number).and_then(|number| number.check()) {
                Ok(()) => continue,
                Err(_) => (
                    format!("a number that a 64-bit float holds, of at most {NUMBER_DIGITS_MAX} digits"),
                    format!("the number {}", shortened(number)),
                ),
            },
            Token::Nul => {
                ("text without the character \\u0000, which Postgres cannot store".to_owned(), "one".to_owned())
            }
            Token::Open if walk.depth > DEPTH_MAX => {
                (format!("values nested at most {DEPTH_MAX} deep"), "deeper ones".to_owned())
            }
            Token::Open => continue,
        };
        return Err(DocumentError::new(walk.field(), expected, found));
    }
    Ok(())
}

fn shortened(number: &str) -> String {
    const CHARS_MAX: usize = 40;
    if number.len() <= CHARS_MAX { number.to_owned() } else { format!("{}…", &number[..CHARS_MAX]) }
}

enum Token<'a> {
    Number(&'a str),
    /// An escape `\u0000` in a string.
    Nul,
    /// An array or an object begins.
    Open,
}

/// Goes over a text and stops at what may be wrong in it.
struct Walk<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    in_string: bool,
    string_from: usize,
    /// The last string of the outermost object, and the one that is known to be the name of a field.
    last: &'a str,
    field: Option<&'a str>,
}

impl<'a> Walk<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, in_string: false, string_from: 0, last: "", field: None }
    }

    /// The field of the document within which the walk is.
    fn field(&self) -> &'a str {
        self.field.unwrap_or("document")
    }

    fn next(&mut self) -> Option<Token<'a>> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            let from = self.at;
            self.at += 1;
            match byte {
                b'\\' if self.in_string => {
                    let is_nul = bytes.get(self.at..self.at + 5) == Some(b"u0000".as_slice());
                    self.at += 1;
                    if is_nul {
                        return Some(Token::Nul);
                    }
                }
                b'"' => self.quote(from),
                _ if self.in_string => {}
                b'{' | b'[' => {
                    self.depth += 1;
                    return Some(Token::Open);
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b':' if self.depth == 1 => self.field = Some(self.last),
                b'-' | b'0'..=b'9' => {
                    let rest = &bytes[from..];
                    let part = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                    let length = rest.iter().position(|byte| !part(byte)).unwrap_or(rest.len());
                    self.at = from + length;
                    return Some(Token::Number(&self.text[from..self.at]));
                }
                _ => {}
            }
        }
        None
    }

    fn quote(&mut self, at: usize) {
        if self.in_string && self.depth == 1 {
            self.last = &self.text[self.string_from..at];
        }
        self.in_string = !self.in_string;
        self.string_from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_and_what() {
        let deep = format!("{{\"a\":1,\"b\":{}{}}}", "[".repeat(64), "]".repeat(64));
        for (text, field, words) in [
            (r#"{"a":"\"","b":[1,-1e400]}"#, "b", "the number -1e400"),
            (r#"{"a":{"c":2},"b":{"c":1e-400}}"#, "b", "the number 1e-400"),
            (r#"{"a":"x\\","b":"\\u0000 \u0000"}"#, "b", "\\u0000"),
            (deep.as_str(), "b", "nested at most 64 deep"),
            (r"[1e400]", "document", "a 64-bit float"),
        ] {
            let error = check(text).expect_err(text);
            assert_eq!(error.field, field, "{text}");
            assert!(error.to_string().contains(words), "{error}");
        }
        for text in [r#"{"a":"1e400","\\u0000":"\\u0000","b":[1e300,-0,5e-324]}"#, "", "\"\\", "\"\\u00"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_text_is_as_long_as_postgres_writes_it() {
        assert_eq!(stored_bytes(r#"{"a":[1,2.5,"1e300"]}"#), 21);
        assert!((600..610).contains(&stored_bytes("[1e300,1e-300]")));
    }
}
