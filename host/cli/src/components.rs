//! One build of the components, with its progress.

use convoke_project::{BuildError, BuildReport, Builder, CargoOutput};

use crate::output::Output;

/// Builds all components; cargo's progress goes to stderr.
pub(crate) async fn build(builder: &mut Builder, output: &Output) -> Result<BuildReport, BuildError> {
    if output.has_colour() {
        return builder.build(CargoOutput::Terminal).await;
    }
    builder.build(CargoOutput::Lines(&mut |line| output.note(line))).await
}
