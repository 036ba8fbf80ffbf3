//! The settings of TLS in a connection string: taken out of it before tokio-postgres, which knows few of them, reads it.
//!
//! Both forms are cut as tokio-postgres cuts them, so that the two agree on where a value ends.

use percent_encoding::percent_decode_str;

use crate::SettingsError;

/// How much a connection has to be protected, from nothing upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Disable,
    /// Encrypted where the server offers it.
    Prefer,
    /// Encrypted, with whomever.
    Require,
    /// With a server whose certificate a known authority has signed.
    VerifyCa,
    /// And that bears the name that was asked for.
    VerifyFull,
}

impl Mode {
    fn parse(text: &str) -> Result<Self, SettingsError> {
        match text {
            "disable" => Ok(Self::Disable),
            // libpq's `allow` encrypts only where the server insists: who is content with that, is with more.
            "prefer" | "allow" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            other => Err(SettingsError::Mode(other.to_owned())),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// What a connection string says of TLS.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) mode: Option<Mode>,
    /// A file, or `system`.
    pub(crate) root_cert: Option<String>,
    pub(crate) cert: Option<String>,
    pub(crate) key: Option<String>,
}

/// The names in a connection string, and in the environment, as libpq has them.
const NAMES: [(&str, &str); 4] =
    [("sslmode", "PGSSLMODE"), ("sslrootcert", "PGSSLROOTCERT"), ("sslcert", "PGSSLCERT"), ("sslkey", "PGSSLKEY")];

impl Settings {
    /// Takes the settings of TLS out of a connection string; gives what is left of it. The environment stands for what
    /// the string does not say.
    pub(crate) fn take(
        text: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, String), SettingsError> {
        let mut settings = Self::default();
        for (name, variable) in NAMES {
            if let Some(value) = environment(variable).filter(|value| !value.is_empty()) {
                settings.set(name, value)?;
            }
        }
        let is_url = ["postgres://", "postgresql://"].iter().any(|prefix| text.starts_with(prefix));
        let rest = if is_url { settings.take_from_url(text)? } else { settings.take_from_pairs(text)? };
        Ok((settings, rest))
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), SettingsError> {
        match name {
            "sslmode" => self.mode = Some(Mode::parse(&value)?),
            "sslrootcert" => self.root_cert = Some(value).filter(|value| !value.is_empty()),
            "sslcert" => self.cert = Some(value).filter(|value| !value.is_empty()),
            _ => self.key = Some(value).filter(|value| !value.is_empty()),
        }
        Ok(())
    }

    fn take_from_url(&mut self, url: &str) -> Result<String, SettingsError> {
        // A password may hold a question mark.
        let host = url.find('@').map_or(0, |at| at + 1);
        let Some(query) = url[host..].find('?').map(|at| host + at) else { return Ok(url.to_owned()) };
        let mut kept = Vec::new();
        for pair in url[query + 1..].split('&') {
            match pair.split_once('=') {
                Some((name, value)) if is_ours(&decoded(name)) => self.set(&decoded(name), decoded(value))?,
                _ => kept.push(pair),
            }
        }
        let question_mark = if kept.is_empty() { "" } else { "?" };
        Ok(format!("{}{question_mark}{}", &url[..query], kept.join("&")))
    }

    fn take_from_pairs(&mut self, text: &str) -> Result<String, SettingsError> {
        let mut kept = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            // What is no pair is for tokio-postgres to complain about.
            let Some((pair, name, value)) = first_pair(rest) else {
                kept.push(rest);
                break;
            };
            if is_ours(name) {
                self.set(name, value)?;
            } else {
                kept.push(pair);
            }
            rest = rest[pair.len()..].trim_start();
        }
        Ok(kept.join(" "))
    }
}

fn is_ours(name: &str) -> bool {
    NAMES.iter().any(|(ours, _)| *ours == name)
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The first `name = value` of a text: as it is written, its name and its value. The value may be in quotes; a backslash
/// takes the next character as it is.
fn first_pair(text: &str) -> Option<(&str, &str, String)> {
    let name_end = text.find(|c: char| c.is_whitespace() || c == '=')?;
    let (name, after) = text.split_at(name_end);
    let value_text = after.trim_start().strip_prefix('=')?.trim_start();
    let (quoted, inner) = match value_text.strip_prefix('\'') {
        Some(inner) => (true, inner),
        None => (false, value_text),
    };
    let mut value = String::new();
    let mut characters = inner.char_indices();
    let end = loop {
        match characters.next() {
            Some((at, '\'')) if quoted => break at + 1,
            Some((at, c)) if !quoted && c.is_whitespace() => break at,
            Some((_, '\\')) => value.extend(characters.next().map(|(_, c)| c)),
            Some((_, c)) => value.push(c),
            None if quoted => return None,
            None => break inner.len(),
        }
    };
    let pair_length = text.len() - inner.len() + end;
    Some((&text[..pair_length], name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(text: &str) -> (Settings, String) {
        Settings::take(text, |_| None).expect("settings")
    }

    fn set(mode: Option<Mode>, root_cert: Option<&str>) -> Settings {
        Settings { mode, root_cert: root_cert.map(str::to_owned), ..Settings::default() }
    }

    #[test]
    fn a_url_is_left_without_them() {
        let full = Some(Mode::VerifyFull);
        let cases = [
            ("postgres://a/b", set(None, None), "postgres://a/b"),
            ("postgres://a/b?sslmode=verify-full", set(full, None), "postgres://a/b"),
            (
                "postgresql://u:p?@a:1,b:2/c?connect_timeout=1&sslmode=verify-full&sslrootcert=%2Fx%20y&application_name=n",
                set(full, Some("/x y")),
                "postgresql://u:p?@a:1,b:2/c?connect_timeout=1&application_name=n",
            ),
            ("postgres://?host=%2Frun", set(None, None), "postgres://?host=%2Frun"),
        ];
        for (text, settings, rest) in cases {
            assert_eq!(take(text), (settings, rest.to_owned()), "{text}");
        }
    }

    #[test]
    fn pairs_are_left_without_them() {
        let cases = [
            ("host=a user=b", set(None, None), "host=a user=b"),
            (
                "host = a sslmode=require password='it\\'s sslmode=x' ",
                set(Some(Mode::Require), None),
                "host = a password='it\\'s sslmode=x'",
            ),
            (
                "sslrootcert='/x y' sslmode = verify-ca user=b\\ c",
                set(Some(Mode::VerifyCa), Some("/x y")),
                "user=b\\ c",
            ),
            ("host=a broken", set(None, None), "host=a broken"),
            ("host='a", set(None, None), "host='a"),
            ("", set(None, None), ""),
        ];
        for (text, settings, rest) in cases {
            assert_eq!(take(text), (settings, rest.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_environment_stands_for_what_is_not_said() {
        let environment = |name: &str| match name {
            "PGSSLMODE" => Some("verify-full".to_owned()),
            "PGSSLROOTCERT" => Some("system".to_owned()),
            _ => Some(String::new()),
        };
        let (settings, _) = Settings::take("host=a", environment).expect("settings");
        assert_eq!(settings, set(Some(Mode::VerifyFull), Some("system")));
        let (settings, _) = Settings::take("host=a sslmode=disable", environment).expect("settings");
        assert_eq!(settings.mode, Some(Mode::Disable));
    }

    #[test]
    fn other_modes_are_refused() {
        let error = Settings::take("postgres://a?sslmode=verify", |_| None).expect_err("no mode");
        assert_eq!(error.to_string(), "`sslmode` cannot be `verify`");
        assert!(error.hint().is_some_and(|hint| hint.contains("verify-full")));
    }
}
