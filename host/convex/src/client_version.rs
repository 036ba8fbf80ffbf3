//! Which client is at the other end (1.1).

use semver::Version;

/// The first version of the npm package that puts pieces of a transition together (1.5).
const CHUNKS_SINCE: Version = Version::new(1, 28, 0);

/// A client's name and version: from the path for browsers, which cannot set headers, else from `Convex-Client`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientVersion {
    name: String,
    version: Option<Version>,
}

impl ClientVersion {
    /// From the `{version}` of `/api/{version}/sync`, which only the npm package uses.
    pub fn from_path_segment(segment: &str) -> Self {
        Self { name: "npm".to_owned(), version: Version::parse(segment).ok() }
    }

    /// From the header `Convex-Client: npm-1.48.0`. Anything is accepted; what cannot be read is unrecognised.
    pub fn from_header(text: &str) -> Self {
        // A name may have a hyphen, as `npm-cli` has; a version begins with a digit.
        let split = text.match_indices('-').find(|(at, _)| text[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
        match split {
            Some((at, _)) => Self { name: text[..at].to_owned(), version: Version::parse(&text[at + 1..]).ok() },
            None => Self { name: text.to_owned(), version: None },
        }
    }

    /// `npm`, `rust`, `python`, `swift`, or whatever the client calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// None where it is no semantic version.
    pub fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// Whether the client understands `TransitionChunk`. To those of Rust and Python it is a failure of the protocol.
    pub fn takes_chunks(&self) -> bool {
        self.name == "npm" && self.version.as_ref().is_some_and(|version| *version >= CHUNKS_SINCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_recent_npm_takes_chunks() {
        for (header, name, takes) in [
            ("npm-1.48.0", "npm", true),
            ("npm-1.28.0", "npm", true),
            ("npm-1.30.0-alpha.1", "npm", true),
            ("npm-1.27.3", "npm", false),
            ("npm-1.28.0-alpha.1", "npm", false),
            ("npm-cli-1.48.0", "npm-cli", false),
            ("rust-0.10.4", "rust", false),
            ("python-0.8.1", "python", false),
            ("npm-next", "npm-next", false),
            ("npm-1", "npm", false),
            ("", "", false),
        ] {
            let client = ClientVersion::from_header(header);
            assert_eq!((client.name(), client.takes_chunks()), (name, takes), "{header}");
        }
        assert!(ClientVersion::from_path_segment("1.48.0").takes_chunks());
        assert!(!ClientVersion::from_path_segment("1.9.0").takes_chunks());
        assert!(!ClientVersion::from_path_segment("latest").takes_chunks());
        assert!(!ClientVersion::default().takes_chunks());
    }
}
