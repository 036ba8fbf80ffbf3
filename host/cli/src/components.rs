//! One build of the components, with its progress.

use convoke_project::{BuildError, BuildReport, Builder, CargoOutput, Project};
use convoke_server::CacheDirs;

use crate::output::Output;

/// Builds all components; cargo's progress goes to stderr.
pub(crate) async fn build(builder: &mut Builder, output: &Output) -> Result<BuildReport, BuildError> {
    if output.has_colour() {
        return builder.build(CargoOutput::Terminal).await;
    }
    let mut line = |line: &str| {
        if !is_said_again(line) {
            output.note(line);
        }
    };
    builder.build(CargoOutput::Lines(&mut line)).await
}

/// Compiled components are kept with the project, and what tells ours from others with the user: a project may have come
/// from anywhere, with whatever in its directory.
pub(crate) fn cache(project: &Project) -> CacheDirs {
    let users = convoke_local_postgres::user_cache_dir().ok();
    CacheDirs { compiled: project.state_dir().join("cache"), key: users.map(|users| users.join("components")) }
}

/// Lines of cargo whose news come with more detail from us.
fn is_said_again(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty()
        || ["Finished ", "error: could not compile ", "warning: build failed, "]
            .iter()
            .any(|start| line.starts_with(start))
}
