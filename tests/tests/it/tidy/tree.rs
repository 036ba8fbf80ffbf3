//! The files of the repository, as far as the rules look at them.

use std::fs;
use std::path::{Path, PathBuf};

/// Built, fetched or written by a run: not ours to keep tidy.
const SKIPPED_FOLDERS: [&str; 5] = ["target", "node_modules", ".git", ".convoke", "screenshots"];
const TEXT_EXTENSIONS: [&str; 16] =
    ["rs", "toml", "md", "wit", "js", "mjs", "ts", "json", "html", "css", "py", "sh", "sql", "yml", "yaml", "stderr"];
/// Text files that have no extension.
const TEXT_NAMES: [&str; 3] = [".ci/run", "bench/pgo", "tests/clients/run"];

pub(super) struct Tree {
    root: PathBuf,
    files: Vec<TextFile>,
}

pub(super) struct TextFile {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

pub(super) struct Link {
    pub(super) line: usize,
    pub(super) target: String,
}

impl Tree {
    pub(super) fn read() -> Self {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the repository").to_owned();
        let mut files = Vec::new();
        read_folder(&root, "", &mut files);
        assert!(files.len() > 10, "the repository was not found at {}", root.display());
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { root, files }
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &TextFile> {
        self.files.iter()
    }

    pub(super) fn rust(&self) -> impl Iterator<Item = &TextFile> {
        self.texts().filter(|file| file.has_extension("rs"))
    }

    /// Whether a relative link of `file` leads to something.
    pub(super) fn exists_beside(&self, file: &TextFile, target: &str) -> bool {
        let folder = self.root.join(&file.path);
        folder.parent().is_some_and(|folder| folder.join(target).exists())
    }
}

fn read_folder(root: &Path, inside: &str, files: &mut Vec<TextFile>) {
    let folder = root.join(inside);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let entry = entry.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if inside.is_empty() { name.clone() } else { format!("{inside}/{name}") };
        let kind = entry.file_type().unwrap_or_else(|e| panic!("{path}: {e}"));
        if kind.is_dir() && !SKIPPED_FOLDERS.contains(&name.as_str()) {
            read_folder(root, &path, files);
        } else if kind.is_file() && is_text(&path) {
            // A file may go while the tests run (an editor's, another build's): then there is nothing to check.
            let Ok(text) = fs::read_to_string(entry.path()) else { continue };
            files.push(TextFile { path, text });
        }
    }
}

fn is_text(path: &str) -> bool {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| TEXT_EXTENSIONS.contains(&extension)) || TEXT_NAMES.contains(&path)
}

impl TextFile {
    pub(super) fn is_in(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    pub(super) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|own| own == extension)
    }

    /// The same file with a text cut out of its lines.
    pub(super) fn without(&self, text: &str) -> Self {
        Self { path: self.path.clone(), text: self.text.replace(text, "") }
    }

    /// The first file of a crate: `src/lib.rs` or `src/main.rs`.
    pub(super) fn is_crate_root(&self) -> bool {
        self.path.ends_with("/src/lib.rs") || self.path.ends_with("/src/main.rs")
    }

    /// The numbers of the lines that hold `mark` at a line's beginning or after a character that `starts` accepts.
    pub(super) fn lines_with(&self, mark: &str, starts: impl Fn(char) -> bool) -> impl Iterator<Item = usize> {
        let has_mark =
            |line: &str| line.match_indices(mark).any(|(at, _)| line[..at].chars().next_back().is_none_or(&starts));
        let lines = self.text.lines().enumerate().filter(|(_, line)| has_mark(line)).map(|(index, _)| index + 1);
        lines.collect::<Vec<_>>().into_iter()
    }

    /// The links of a Markdown page that lead to another file; code blocks and web addresses are left out.
    pub(super) fn relative_links(&self) -> Vec<Link> {
        let mut links = Vec::new();
        let mut in_code = false;
        for (index, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            if in_code {
                continue;
            }
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for target in targets {
                let target = target.split_whitespace().next().unwrap_or_default();
                let file = target.split('#').next().unwrap_or_default();
                if !file.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                    links.push(Link { line: index + 1, target: file.to_owned() });
                }
            }
        }
        links
    }
}

#[test]
fn links_are_found() {
    let text =
        "See [a](guide/a.md#part), [b](https://example.org), [c](#here).\n```\n[d](d.md)\n```\n![e](e.png \"E\")\n";
    let page = TextFile { path: "docs/index.md".to_owned(), text: text.to_owned() };
    let targets: Vec<_> = page.relative_links().into_iter().map(|link| link.target).collect();
    assert_eq!(targets, ["guide/a.md", "e.png"]);
}
