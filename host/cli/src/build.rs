//! `convoke build`.

use std::path::Path;

use convoke_project::{Builder, Built, Profile, Project};
use serde::Serialize;

use crate::args::{BuildArgs, BuildTarget};
use crate::failure::Failure;
use crate::output::Output;
use crate::{components, toolchain};

/// A component, as `--json` prints it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    module: &'a str,
    path: &'a Path,
    digest: &'a str,
    size_bytes: u64,
    changed: bool,
}

pub(crate) async fn build(args: BuildArgs, output: &Output) -> Result<(), Failure> {
    if args.target == BuildTarget::Spin {
        return Err(Failure::new("building for Spin is not there yet")
            .hint("leave out `--target`, or use `--target convoke`, to build for the Convoke host"));
    }
    let project = Project::find(&args.dir)?;
    toolchain::ensure_target(&project, output).await?;
    let mut builder = Builder::new(project, Profile::Release);
    let report = components::build(&mut builder, output).await?;
    for warning in &report.warnings {
        output.note(warning.trim_end());
    }
    if args.json {
        let lines: Vec<_> = report.components.iter().map(line).collect();
        return output.json(&lines);
    }
    if report.components.is_empty() {
        output.warning("the project has no components");
        output.hint("name one under `[components]` in `convoke.toml`: `messages = \"components/messages\"`");
    }
    for built in &report.components {
        let state = if built.changed { "changed" } else { "unchanged" };
        let path = built.wasm_path.strip_prefix(builder.project().root()).unwrap_or(&built.wasm_path);
        output.data(format!("{}  {}  {}  {state}", built.module, path.display(), size(built.size_bytes)))?;
    }
    Ok(())
}

fn line(built: &Built) -> Line<'_> {
    Line {
        module: built.module.as_str(),
        path: &built.wasm_path,
        digest: &built.digest,
        size_bytes: built.size_bytes,
        changed: built.changed,
    }
}

fn size(bytes: u64) -> String {
    if bytes < 1000 { format!("{bytes} B") } else { format!("{} kB", bytes.div_ceil(1000)) }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_for_people() {
        assert_eq!([size(8), size(999), size(1000), size(123_456)], ["8 B", "999 B", "1 kB", "124 kB"]);
    }
}
