//! The compiler's words, with paths that hold where the command runs.

use std::path::Path;

/// Cargo has the compiler name files relative to the workspace, which is rarely where the reader is: `--> src/lib.rs:2:5`
/// of the workspace `components` becomes `--> components/src/lib.rs:2:5`, which an editor's terminal can open.
pub(crate) fn relative_to(project: &Path, workspace: &Path, rendered: &str) -> String {
    let Some(prefix) = workspace.strip_prefix(project).ok().and_then(Path::to_str).filter(|prefix| !prefix.is_empty())
    else {
        return rendered.to_owned();
    };
    rendered.split_inclusive('\n').map(|line| with_prefix(line, prefix)).collect()
}

fn with_prefix(line: &str, prefix: &str) -> String {
    let Some(path) = path_start(line) else {
        return line.to_owned();
    };
    format!("{}{prefix}/{}", &line[..path], &line[path..])
}

/// Where a line's relative path begins: after the arrow that opens the line, or the colons that continue it.
fn path_start(line: &str) -> Option<usize> {
    let mut rest = after_colours(line.trim_start_matches(' '));
    rest = rest.trim_start_matches(' ');
    rest = rest.strip_prefix("--> ").or_else(|| rest.strip_prefix("::: "))?;
    rest = after_colours(rest);
    let is_relative = !rest.starts_with(['/', '<']);
    is_relative.then(|| line.len() - rest.len())
}

/// Skips escape sequences of colour: `ESC [ ... m`.
fn after_colours(mut text: &str) -> &str {
    while let Some((_, rest)) = text.strip_prefix("\x1b[").and_then(|sequence| sequence.split_once('m')) {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rendered: &str) -> String {
        relative_to(Path::new("/p"), Path::new("/p/components"), rendered)
    }

    #[test]
    fn paths_of_the_workspace_become_paths_of_the_project() {
        let rendered = "error: no\n --> a/src/lib.rs:2:5\n  |\n2 | x --> y\n  |\n   ::: b/src/lib.rs:1:1\n";
        assert_eq!(
            shown(rendered),
            "error: no\n --> components/a/src/lib.rs:2:5\n  |\n2 | x --> y\n  |\n   ::: components/b/src/lib.rs:1:1\n"
        );
    }

    #[test]
    fn colours_are_no_obstacle() {
        let rendered = "\x1b[1m\x1b[94m --> \x1b[0ma/src/lib.rs:2:5\n";
        assert_eq!(shown(rendered), "\x1b[1m\x1b[94m --> \x1b[0mcomponents/a/src/lib.rs:2:5\n");
    }

    #[test]
    fn other_paths_stay() {
        for rendered in ["  --> /home/x/lib.rs:1:1\n", "  --> <anon>:1:1\n", "no path\n", ""] {
            assert_eq!(shown(rendered), rendered);
        }
        let rendered = " --> src/lib.rs:1:1\n";
        assert_eq!(relative_to(Path::new("/p"), Path::new("/p"), rendered), rendered);
        assert_eq!(relative_to(Path::new("/p"), Path::new("/elsewhere"), rendered), rendered);
    }
}
