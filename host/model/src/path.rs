//! Names of functions: `module:function`, a nested module `dir/module:function`.

use std::fmt;

use thiserror::Error;

const IDENTIFIER_BYTES_MAX: usize = 64;

/// A function's name in canonical form: no `.js` suffix, `default` written out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionPath {
    text: String,
    colon: usize,
}

/// Why a text names no function.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{text}` is not a function's name: expected `module:function`, names of ASCII letters, digits and underscores"
)]
pub struct PathError {
    pub text: String,
}

impl FunctionPath {
    /// Reads `module:function`, `module.js:function`, or `module` alone for its `default` function.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let (module, function) = text.split_once(':').unwrap_or((text, "default"));
        let module = module.strip_suffix(".js").unwrap_or(module);
        if !is_module(module) || !is_identifier(function) {
            return Err(PathError { text: text.chars().take(200).collect() });
        }
        Ok(Self { text: format!("{module}:{function}"), colon: module.len() })
    }

    pub fn module(&self) -> &str {
        &self.text[..self.colon]
    }

    pub fn function(&self) -> &str {
        &self.text[self.colon + 1..]
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a text is a module's name: identifiers, joined by `/`.
    pub fn is_module(text: &str) -> bool {
        is_module(text)
    }

    /// Whether a text is a function's, table's or field's identifier.
    pub fn is_identifier(text: &str) -> bool {
        is_identifier(text)
    }
}

fn is_module(text: &str) -> bool {
    text.split('/').all(is_identifier)
}

fn is_identifier(text: &str) -> bool {
    text.len() <= IDENTIFIER_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text.bytes().any(|byte| byte != b'_')
}

impl fmt::Display for FunctionPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forms_that_clients_send() {
        for (given, canonical) in [
            ("messages:list", "messages:list"),
            ("messages.js:list", "messages:list"),
            ("messages", "messages:default"),
            ("admin/users:find", "admin/users:find"),
        ] {
            let path = FunctionPath::parse(given).expect(given);
            assert_eq!(path.as_str(), canonical);
            assert_eq!(format!("{}:{}", path.module(), path.function()), canonical);
        }
    }

    #[test]
    fn refuses_what_is_no_name() {
        for text in ["", ":", "a:", ":b", "a:b:c", "a//b:c", "../a:b", "a b:c", "9a:b", "___:b", "é:b"] {
            assert!(FunctionPath::parse(text).is_err(), "{text}");
        }
    }
}
