//! `convoke doctor`: what is wrong on this machine or with this project, and the repair of each.

mod checks;

use convoke_project::Project;
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::failure::Failure;
use crate::output::Output;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// What was looked at: stable, for programs.
    check: &'static str,
    state: State,
    /// How it is.
    message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fix: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Convoke works, with something less.
    Warning,
    Failed,
}

impl Finding {
    fn good(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, state: State::Ok, message: message.into(), fix: Vec::new() }
    }

    fn warning(check: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, state: State::Warning, message: message.into(), fix: vec![fix.into()] }
    }

    fn failed(check: &'static str, failure: impl Into<Failure>) -> Self {
        let failure = failure.into();
        let mut message = failure.message().to_owned();
        for cause in failure.causes() {
            message = format!("{message}: {cause}");
        }
        Self { check, state: State::Failed, message, fix: failure.advice().to_vec() }
    }
}

pub(crate) async fn doctor(args: DoctorArgs, output: &Output) -> Result<(), Failure> {
    let project = Project::find(&args.dir);
    let dir = project
        .as_ref()
        .map_or(args.dir.clone(), |project| project.first_package_dir().unwrap_or_else(|| project.root().to_owned()));
    let url = args.database_url.as_deref();
    let tables = async {
        match &project {
            Ok(project) => checks::tables(project, url).await,
            Err(_) => Vec::new(),
        }
    };
    let (mut toolchain, postgres, port, tables) =
        tokio::join!(checks::toolchain(&dir), checks::postgres(url), checks::port(args.port), tables);
    let mut findings = vec![checks::project(project)];
    findings.append(&mut toolchain);
    findings.extend(postgres);
    findings.extend(tables);
    findings.push(port);
    report(&findings, &args, output)
}

fn report(findings: &[Finding], args: &DoctorArgs, output: &Output) -> Result<(), Failure> {
    if args.json {
        output.json(&findings)?;
    } else {
        for finding in findings {
            output.data(line(finding))?;
        }
    }
    match findings.iter().filter(|finding| finding.state == State::Failed).count() {
        0 => Ok(()),
        1 => Err(Failure::new("1 check failed")),
        count => Err(Failure::new(format!("{count} checks failed"))),
    }
}

fn line(finding: &Finding) -> String {
    let state = match finding.state {
        State::Ok => "ok",
        State::Warning => "warning",
        State::Failed => "failed",
    };
    let mut line = format!("{state:<7}  {:<9}  {}", finding.check, finding.message);
    for fix in &finding.fix {
        line.extend(["\n                    fix: ", fix]);
    }
    line
}
