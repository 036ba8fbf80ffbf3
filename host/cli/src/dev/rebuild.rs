//! From a save to the new functions.

use std::sync::Arc;
use std::time::Instant;

use convoke_project::{BuildError, BuildReport, Builder, Change, Watcher};
use convoke_server::{Deployed, Host};

use crate::components;
use crate::failure::Failure;
use crate::output::Output;

use super::host::Served;
use super::seconds;

/// The builder and the watch that wakes it. Made once a `dev`.
#[derive(Debug)]
pub(super) struct Rebuilds {
    builder: Builder,
    watcher: Watcher,
}

/// One build, with the compiler's warnings.
pub(super) async fn build(builder: &mut Builder, output: &Output) -> Result<BuildReport, BuildError> {
    let report = components::build(builder, output).await?;
    if report.components.iter().any(|built| built.changed) {
        for warning in &report.warnings {
            output.note(warning.trim_end());
        }
    }
    Ok(report)
}

/// Builds until a build succeeds, each try after a change.
pub(super) async fn until_built(
    builder: &mut Builder,
    watcher: &mut Watcher,
    output: &Output,
) -> Result<BuildReport, Failure> {
    loop {
        match build_latest(builder, watcher, output).await? {
            Ok(report) => return Ok(report),
            Err(error) => output.failure(&error.into()),
        }
        output.note("Waiting for a change");
        let change = watcher.next().await?;
        apply(&change, builder, output);
    }
}

/// Builds what lies there when the build ends: a save during the build starts it again, since its result is out of date
/// already.
async fn build_latest(
    builder: &mut Builder,
    watcher: &mut Watcher,
    output: &Output,
) -> Result<Result<BuildReport, BuildError>, Failure> {
    let result = loop {
        let change = tokio::select! {
            result = build(builder, output) => break result,
            change = watcher.next() => change?,
        };
        apply(&change, builder, output);
    };
    watcher.follow(builder)?;
    Ok(result)
}

/// What a change means for the next build.
fn apply(change: &Change, builder: &mut Builder, output: &Output) {
    if change.cargo_manifests {
        builder.forget_plan();
    }
    if !change.project_file {
        return;
    }
    match builder.project().reload() {
        Ok(project) => {
            let (old, new) = (builder.project().manifest(), project.manifest());
            let host_differs = (&old.name, &old.site, &old.limits, &old.outbound_allow, old.sql_allow)
                != (&new.name, &new.site, &new.limits, &new.outbound_allow, new.sql_allow);
            if host_differs {
                output.warning("`convoke.toml`: only `[components]` is taken over now");
                output.hint("stop `convoke dev` and start it again for the rest");
            }
            builder.set_project(project);
        }
        Err(error) => {
            output.failure(&error.into());
            output.note("The last good `convoke.toml` still holds");
        }
    }
}

impl Rebuilds {
    pub(super) fn new(builder: Builder, watcher: Watcher) -> Self {
        Self { builder, watcher }
    }

    /// Rebuilds at each change, for ever. What does not build or is refused leaves the last good version serving.
    pub(super) async fn follow(
        &mut self,
        host: &Arc<Host>,
        served: &mut Served,
        output: &Output,
    ) -> Result<(), Failure> {
        loop {
            let change = self.watcher.next().await?;
            let from = Instant::now();
            apply(&change, &mut self.builder, output);
            let built = build_latest(&mut self.builder, &mut self.watcher, output).await?;
            let build_time = from.elapsed();
            let outcome = match built {
                Ok(report) if served.is_current(&report) => {
                    output.note(format!("No component changed ({})", seconds(from.elapsed())));
                    continue;
                }
                Ok(report) => served.deploy(host, &report).await,
                Err(error) => Err(error.into()),
            };
            match outcome {
                Ok(deployed) => {
                    let (all, build) = (seconds(from.elapsed()), seconds(build_time));
                    output.good(format!("{} after {all}, of which the build took {build}", news(&deployed)));
                }
                Err(failure) => {
                    output.failure(&failure);
                    output.note("The last good version goes on serving");
                }
            }
        }
    }

    /// Rebuilds at each change until the host serves something.
    pub(super) async fn until_served(
        &mut self,
        host: &Arc<Host>,
        served: &mut Served,
        output: &Output,
    ) -> Result<Deployed, Failure> {
        loop {
            output.note("Waiting for a change");
            let change = self.watcher.next().await?;
            apply(&change, &mut self.builder, output);
            let report = until_built(&mut self.builder, &mut self.watcher, output).await?;
            match served.deploy(host, &report).await {
                Ok(deployed) => return Ok(deployed),
                Err(failure) => output.failure(&failure),
            }
        }
    }
}

/// What a deploy brought, for a line: "Serving `messages`".
fn news(deployed: &Deployed) -> String {
    let names = |modules: &[String]| modules.iter().map(|module| format!("`{module}`")).collect::<Vec<_>>().join(", ");
    match (deployed.changed.as_slice(), deployed.removed.as_slice()) {
        ([], []) => "Serving the same components".to_owned(),
        (changed, []) => format!("Serving {}", names(changed)),
        ([], removed) => format!("Removed {}", names(removed)),
        (changed, removed) => format!("Serving {}, removed {}", names(changed), names(removed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_name_what_came_and_went() {
        let deployed = |changed: &[&str], removed: &[&str]| {
            let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            news(&Deployed { functions: Vec::new(), changed: own(changed), removed: own(removed) })
        };
        assert_eq!(deployed(&["a", "b"], &[]), "Serving `a`, `b`");
        assert_eq!(deployed(&["a"], &["b"]), "Serving `a`, removed `b`");
        assert_eq!(deployed(&[], &["b"]), "Removed `b`");
    }
}
