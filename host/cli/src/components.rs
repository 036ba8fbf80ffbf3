//! One build of the components, with its progress.

use convoke_project::{BuildError, BuildReport, Builder, CargoOutput};

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

/// Lines of cargo whose news come with more detail from us.
fn is_said_again(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty()
        || ["Finished ", "error: could not compile ", "warning: build failed, "]
            .iter()
            .any(|start| line.starts_with(start))
}
