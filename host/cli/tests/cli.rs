//! The command line from outside: exit code, stdout and stderr of each way to call it, as one snapshot a case.

#[path = "cli/support.rs"]
mod support;

#[path = "cli/build.rs"]
mod build;
#[path = "cli/dev.rs"]
mod dev;
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/usage.rs"]
mod usage;
