//! What `postgres --version` says.

use std::fmt;

/// The oldest major version that Convoke works with: `FOR TABLES IN SCHEMA` publications came with it.
pub(crate) const MAJOR_MIN: u32 = 15;

/// A version of the Postgres programs, as they print it: `15.18`, `18beta1`, `19devel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    major: u32,
    text: String,
}

impl Version {
    /// Reads the line that `postgres --version` prints; `None` if some other program printed it.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("(PostgreSQL)")?;
        let text = rest.split_whitespace().next()?;
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let major = text[..digits].parse().ok()?;
        Some(Self { major, text: text.into() })
    }

    /// The part that decides whether a data directory can be opened: `15` of `15.18`.
    pub fn major(&self) -> u32 {
        self.major
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn reads_what_servers_print() {
        for (line, major, text) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", 15, "15.18"),
            ("postgres (PostgreSQL) 18.4", 18, "18.4"),
            ("postgres (PostgreSQL) 18beta1", 18, "18beta1"),
            ("postgres (PostgreSQL) 19devel", 19, "19devel"),
            ("postgres (PostgreSQL) 9.6.24", 9, "9.6.24"),
            ("postgres (PostgreSQL) 16.3 (Homebrew)", 16, "16.3"),
        ] {
            let version = Version::parse(line).expect(line);
            assert_eq!((version.major(), version.to_string().as_str()), (major, text), "{line}");
        }
    }

    #[test]
    fn refuses_what_is_no_postgres() {
        for line in ["", "psql 15.1", "postgres (PostgreSQL)", "postgres (PostgreSQL) unknown", "No version is set"] {
            assert_eq!(Version::parse(line), None, "{line}");
        }
    }
}
