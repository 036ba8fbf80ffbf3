//! `convoke`: the command line. Each command is a module; [`args`] says what may be typed, [`output`] alone prints,
//! [`failure`] is what a command ends with when it cannot do its work.
//!
//! Exit codes: 0 done, 1 failed, 2 bad usage. Data go to stdout, all else to stderr.

mod args;
mod build;
mod components;
mod dev;
mod doctor;
mod failure;
mod http;
mod output;
mod port;
mod run;
mod sync;
mod toolchain;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::args::{Cli, Command};
use crate::failure::Failure;
use crate::output::Output;

/// Every call makes and frees an instance from several threads: the allocator of the C library costs more there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a thread that is stuck in a system call may cost at the end; nothing that has to be saved runs on one.
const THREADS_END_MAX: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where even this cannot be printed there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let output = Output::detect();
    log(&output);
    match run_to_end(cli.command, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// The host's own log goes to stderr; `CONVOKE_LOG` says how much of it, as in `CONVOKE_LOG=debug`.
fn log(output: &Output) {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).with_env_var("CONVOKE_LOG");
    let log = tracing_subscriber::fmt().with_env_filter(filter.from_env_lossy()).with_writer(std::io::stderr);
    log.with_ansi(output.has_colour()).compact().init();
}

fn run_to_end(command: Command, output: &Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new("the asynchronous runtime could not start").cause(&e))?;
    let result = runtime.block_on(async {
        match command {
            Command::Dev(args) => dev::dev(args, output).await,
            Command::Build(args) => build::build(args, output).await,
            Command::Sync(args) => sync::sync(args, output).await,
            Command::Run(args) => run::run(args, output).await,
            Command::Doctor(args) => Box::pin(doctor::doctor(args, output)).await,
        }
    });
    runtime.shutdown_timeout(THREADS_END_MAX);
    result
}
