//! `convoke.toml`: read into a raw type that mirrors the text, checked into [`ProjectManifest`], which is always valid.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use convoke_model::LimitBound;
use serde::Deserialize;
use toml::Spanned;

use crate::outbound;
use crate::{ModuleName, PROJECT_FILE};

/// A name becomes a Postgres schema, whose names end after 63 bytes.
const PROJECT_NAME_BYTES_MAX: usize = 63;

/// What a valid `convoke.toml` says. Paths are as written: relative to the file's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectManifest {
    /// The project's name: lower-case letters, digits, `-` and `_`.
    pub name: String,
    /// Directory of static files, served at `/`.
    pub site: Option<PathBuf>,
    /// Where each module's component is: a cargo package's directory or a `.wasm` file.
    pub components: BTreeMap<ModuleName, PathBuf>,
    /// Limits that the project sets; the host has a default for each that is absent.
    pub limits: Limits,
    /// Origins that actions may call, such as `https://api.example.com` or `https://*.stripe.com`.
    pub outbound_allow: Vec<String>,
    /// Whether functions may send SQL of their own.
    pub sql_allow: bool,
}

/// The `[limits]` table. Each absent one is the host's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How long a query or a mutation may take.
    pub call_ms_max: Option<u64>,
    /// How long an action may take.
    pub action_ms_max: Option<u64>,
    /// Memory of one call.
    pub memory_bytes_max: Option<u64>,
    /// Size of a function's result.
    pub result_bytes_max: Option<u64>,
    /// Size of a request's body.
    pub body_bytes_max: Option<u64>,
    /// Lines that one call may log.
    pub log_lines_max: Option<u64>,
    /// Calls into the host that one call may make.
    pub host_calls_max: Option<u64>,
    /// Calls that run at the same time.
    pub instances_max: Option<u64>,
    /// How long a call may wait for its turn.
    pub queue_ms_max: Option<u64>,
}

impl Limits {
    /// Each by its name, and whether it may be zero: no log lines, no host calls and no waiting are things one may want,
    /// where a zero elsewhere would refuse every call.
    fn values(&self) -> [(&'static str, Option<u64>, bool); 9] {
        [
            ("call_ms_max", self.call_ms_max, false),
            ("action_ms_max", self.action_ms_max, false),
            ("memory_bytes_max", self.memory_bytes_max, false),
            ("result_bytes_max", self.result_bytes_max, false),
            ("body_bytes_max", self.body_bytes_max, false),
            ("log_lines_max", self.log_lines_max, true),
            ("host_calls_max", self.host_calls_max, true),
            ("instances_max", self.instances_max, false),
            ("queue_ms_max", self.queue_ms_max, true),
        ]
    }
}

/// What is wrong with a `convoke.toml`, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1, where one is to blame.
    pub line: Option<usize>,
    /// What is wrong with it.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    project: RawProject,
    #[serde(default)]
    components: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    limits: Option<Spanned<Limits>>,
    #[serde(default)]
    outbound: RawOutbound,
    #[serde(default)]
    sql: RawSql,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProject {
    name: Spanned<String>,
    site: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutbound {
    #[serde(default)]
    allow: Vec<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSql {
    #[serde(default)]
    allow: bool,
}

impl ProjectManifest {
    /// Reads and checks the file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is no TOML, or says something that a project cannot be.
    pub fn read(file: &Path) -> Result<Self, ManifestError> {
        let text = std::fs::read_to_string(file).map_err(|e| ManifestError {
            file: file.to_owned(),
            line: None,
            message: format!("cannot be read: {e}"),
            hint: None,
        })?;
        Self::parse(file, &text)
    }

    /// Checks the text of the file; `file` is for the errors.
    ///
    /// # Errors
    ///
    /// When the text is no TOML or says something that a project cannot be.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ManifestError> {
        let source = Source { file, text };
        let raw: RawManifest = toml::from_str(text).map_err(|e| source.toml_error(&e))?;
        let name = check_name(&source, raw.project.name)?;
        let site = raw.project.site.map(|site| check_path(&source, site)).transpose()?;
        let components = check_components(&source, raw.components)?;
        let limits = check_limits(&source, raw.limits)?;
        let outbound_allow =
            raw.outbound.allow.into_iter().map(|origin| check_origin(&source, &origin)).collect::<Result<_, _>>()?;
        Ok(Self { name, site, components, limits, outbound_allow, sql_allow: raw.sql.allow })
    }
}

/// The text under check: turns positions into errors.
struct Source<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn error(&self, at: Option<usize>, message: impl Into<String>, hint: Option<&str>) -> ManifestError {
        ManifestError {
            file: self.file.to_owned(),
            line: at.map(|at| self.line(at)),
            message: message.into(),
            hint: hint.map(str::to_owned),
        }
    }

    fn line(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
    }

    fn toml_error(&self, error: &toml::de::Error) -> ManifestError {
        let message = error.message().trim_end();
        // A missing section has the whole document for its place, which is no place at all.
        let at = error.span().map(|span| span.start).filter(|_| !message.starts_with("missing field `project`"));
        self.error(at, message.lines().collect::<Vec<_>>().join("; "), self.hint_for(message))
    }

    fn hint_for(&self, message: &str) -> Option<&'static str> {
        if message.starts_with("missing field `project`") {
            return Some("a project starts with `[project]` and `name = \"my_app\"`");
        }
        if message.starts_with("missing field `name`") {
            return Some("`[project]` needs `name = \"my_app\"`");
        }
        if message.starts_with("unknown field") && message.contains("`call_ms_max`") {
            return Some("each limit has its unit in its name, as in `call_ms_max = 1000`");
        }
        if message.starts_with("invalid type: map, expected a string") && self.text.contains("[components") {
            return Some("a nested module is one quoted name: `\"dir/name\" = \"path\"`");
        }
        if message.starts_with("invalid type") && message.contains("u64") {
            return Some("a limit is a whole number, its unit is in its name: `call_ms_max = 1000`");
        }
        None
    }
}

fn check_name(source: &Source<'_>, name: Spanned<String>) -> Result<String, ManifestError> {
    let at = Some(name.span().start);
    let name = name.into_inner();
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let all_well = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    if !starts_well || !all_well || name.len() > PROJECT_NAME_BYTES_MAX {
        return Err(source.error(
            at,
            format!("`{name}` is no project name"),
            Some("a name starts with a lower-case letter, goes on with lower-case letters, digits, `-` and `_`, and has at most 63"),
        ));
    }
    if name == "convoke" || name == "information_schema" || name.starts_with("pg_") {
        return Err(source.error(
            at,
            format!("the project name `{name}` is taken by a Postgres schema that the host needs"),
            Some("choose a name other than `convoke`, `information_schema` and `pg_...`"),
        ));
    }
    Ok(name)
}

fn check_path(source: &Source<'_>, path: Spanned<String>) -> Result<PathBuf, ManifestError> {
    let at = Some(path.span().start);
    let path = PathBuf::from(path.into_inner());
    if path.as_os_str().is_empty() {
        return Err(source.error(
            at,
            "the path is empty",
            Some("paths are relative to the directory of `convoke.toml`"),
        ));
    }
    if path.is_absolute() {
        return Err(source.error(
            at,
            format!("`{}` is an absolute path", path.display()),
            Some("write it relative to the directory of `convoke.toml`, so that it holds on every machine"),
        ));
    }
    Ok(path)
}

fn check_components(
    source: &Source<'_>,
    raw: BTreeMap<Spanned<String>, Spanned<String>>,
) -> Result<BTreeMap<ModuleName, PathBuf>, ManifestError> {
    let mut components = BTreeMap::new();
    let mut folded = BTreeSet::new();
    for (name, path) in raw {
        let at = Some(name.span().start);
        let hint = "a module is called `name` or `dir/name`";
        let module = ModuleName::parse(name.get_ref()).map_err(|e| source.error(at, e.to_string(), Some(hint)))?;
        // Each module is a file in the build directory, and some file systems take `A` and `a` for the same.
        if !folded.insert(module.as_str().to_ascii_lowercase()) {
            return Err(source.error(at, format!("the module `{module}` differs from another in case alone"), None));
        }
        components.insert(module, check_path(source, path)?);
    }
    Ok(components)
}

fn check_limits(source: &Source<'_>, raw: Option<Spanned<Limits>>) -> Result<Limits, ManifestError> {
    let Some(raw) = raw else {
        return Ok(Limits::default());
    };
    let at = raw.span().start;
    let limits = raw.into_inner();
    for (name, value, may_be_zero) in limits.values() {
        let Some(value) = value else { continue };
        if value == 0 && !may_be_zero {
            let at = source.place_of_key(name, at);
            return Err(source.error(
                Some(at),
                format!("`{name}` is 0, so that no call could run"),
                Some("leave the line out for the default"),
            ));
        }
        let bound = LimitBound::of(name);
        if let Some(Err(error)) = bound.map(|bound| bound.check(value)) {
            let at = source.place_of_key(name, at);
            return Err(source.error(Some(at), error.to_string(), Some(&format!("the most is {}", error.bound.most))));
        }
    }
    Ok(limits)
}

impl Source<'_> {
    /// The place of a key that is known to be in the table at `table`: a plain table's fields carry no places.
    fn place_of_key(&self, key: &str, table: usize) -> usize {
        self.text.get(table..).and_then(|rest| rest.find(key)).map_or(table, |offset| table + offset)
    }
}

fn check_origin(source: &Source<'_>, raw: &Spanned<String>) -> Result<String, ManifestError> {
    outbound::normal_origin(raw.get_ref()).map_err(|why| {
        source.error(
            Some(raw.span().start),
            format!("`{}` is no origin to allow: {why}", raw.get_ref()),
            Some("write `https://api.example.com`, or `https://*.example.com` for its subdomains"),
        )
    })
}

/// The file's usual place in a directory.
pub(crate) fn file_in(dir: &Path) -> PathBuf {
    dir.join(PROJECT_FILE)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
