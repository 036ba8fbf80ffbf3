//! The name of a component within its project.

use std::fmt;
use std::path::{Path, PathBuf};

/// The length of one segment, in bytes: what fits in a Postgres identifier with a byte to spare, and what a person still reads.
const SEGMENT_BYTES_MAX: usize = 64;

/// Segments of a name: enough for `area/group/module`, and a bound for whatever walks them.
const SEGMENTS_MAX: usize = 8;

/// `messages` or `chat/messages`: what stands before the colon of `messages:list`. Made by parsing only, so it is
/// always valid and safe as a relative path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleName(String);

/// Why a text is no module name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no module name: {why}")]
pub struct InvalidModuleName {
    /// The text as given.
    pub name: String,
    why: &'static str,
}

impl ModuleName {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// When a segment is empty, too long, starts with a digit or has a character other than ASCII letters, digits
    /// and `_`.
    pub fn parse(name: &str) -> Result<Self, InvalidModuleName> {
        let refuse = |why| Err(InvalidModuleName { name: name.to_owned(), why });
        if name.is_empty() {
            return refuse("it is empty");
        }
        if name.split('/').count() > SEGMENTS_MAX {
            return refuse("it has more than 8 segments");
        }
        for segment in name.split('/') {
            let Some(first) = segment.chars().next() else {
                return refuse("a segment is empty");
            };
            if segment.len() > SEGMENT_BYTES_MAX {
                return refuse("a segment has more than 64 characters");
            }
            if !segment.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return refuse("segments are of ASCII letters, digits and `_`, with `/` between them");
            }
            if segment.chars().all(|c| c == '_') {
                return refuse("a segment has neither a letter nor a digit");
            }
            if first.is_ascii_digit() {
                return refuse("a segment starts with a digit");
            }
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the module's component lies below `dir`: `dir/chat/messages.wasm`.
    pub fn wasm_path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.wasm", self.0))
    }
}

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ModuleName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_modules() {
        for name in ["messages", "chat/messages", "_internal", "a1/b2/c3", "Camel_Case", &"x".repeat(64)] {
            assert_eq!(ModuleName::parse(name).expect(name).as_str(), name);
        }
    }

    #[test]
    fn names_that_are_not() {
        let too_long = "x".repeat(65);
        let too_deep = ["a"; 9].join("/");
        let names = [
            "", "/", "a/", "/a", "a//b", "1a", "a/1b", "a-b", "a.b", "a:b", "..", "_", "a/__", "a/../b", "a b", "ä",
            "a\\b",
        ];
        for name in names.into_iter().chain([too_long.as_str(), too_deep.as_str()]) {
            ModuleName::parse(name).expect_err(name);
        }
    }

    #[test]
    fn a_refusal_says_why() {
        let error = ModuleName::parse("my-app").expect_err("has a dash");
        insta::assert_snapshot!(error, @"`my-app` is no module name: segments are of ASCII letters, digits and `_`, with `/` between them");
    }

    #[test]
    fn the_file_of_a_nested_module_is_nested() {
        let name = ModuleName::parse("chat/messages").expect("valid");
        assert_eq!(name.wasm_path(Path::new("build")), Path::new("build/chat/messages.wasm"));
    }
}
