//! What may be typed.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The port of `dev`, and where `run` looks for it.
pub(crate) const PORT: u16 = 3210;

/// A serverless backend on Postgres: functions are WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "convoke", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Example:\n  convoke dev\n\n`convoke help COMMAND` tells more about a command.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start Postgres, build the components, serve them, and again at each change
    Dev(DevArgs),
    /// Build the components into `.convoke/build/`
    Build(BuildArgs),
    /// Bring the tables to the schema that the components declare; nothing is dropped unless it is named
    Sync(SyncArgs),
    /// Call one function and print its result
    Run(RunArgs),
    /// Say what is wrong on this machine or with this project, and how to repair it
    Doctor(DoctorArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  convoke dev\n  convoke dev ../shop --port 4000\n  convoke dev shop blog\n  DATABASE_URL=postgres://localhost/shop convoke dev"
)]
pub(crate) struct DevArgs {
    /// The project's directory, or one below it; several are served by one process
    #[arg(default_value = ".", hide_default_value = true, value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
    /// The port to serve on; further projects have the ports behind it
    #[arg(long, default_value_t = PORT)]
    pub(crate) port: u16,
    /// The address to serve on; `0.0.0.0` lets other machines in
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Build once and serve, without watching for changes
    #[arg(long)]
    pub(crate) once: bool,
    /// A Postgres to use instead of one of the project's own
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  convoke build --json")]
pub(crate) struct BuildArgs {
    /// The project's directory, or one below it
    #[arg(default_value = ".", hide_default_value = true)]
    pub(crate) dir: PathBuf,
    /// What the components are for
    #[arg(long, value_enum, default_value_t = BuildTarget::Convoke)]
    pub(crate) target: BuildTarget,
    /// Print the components as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BuildTarget {
    /// The Convoke host
    Convoke,
    /// The Spin runtime
    Spin,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  convoke sync --dry-run\n  convoke sync --allow-drop messages.by_channel\n\nWithout a database URL it is the Postgres of the running `convoke dev`, or the project's own, which is started for it."
)]
pub(crate) struct SyncArgs {
    /// The project's directory, or one below it
    #[arg(default_value = ".", hide_default_value = true)]
    pub(crate) dir: PathBuf,
    /// Print the plan, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// What may be dropped, by the name in the plan: a table, an index or a field; can be given again
    #[arg(long, value_name = "TABLE[.FIELD]")]
    pub(crate) allow_drop: Vec<String>,
    /// Print the plan, and what was done, as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The database to change
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  convoke run messages:list '{\"channel\": \"general\"}'\n  convoke run accounts:total --url https://api.example.com\n\nWithout `--url` the function is called on the running `convoke dev` of this project."
)]
pub(crate) struct RunArgs {
    /// The function, as `module:function`
    pub(crate) function: String,
    /// Its arguments: a JSON object
    #[arg(default_value = "{}", value_name = "JSON")]
    pub(crate) arguments: String,
    /// Where the functions are served
    #[arg(long, env = "CONVOKE_URL", hide_env_values = true)]
    pub(crate) url: Option<String>,
    /// The function's kind; `auto` asks the server
    #[arg(long, value_enum, default_value_t = Kind::Auto)]
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Whichever it is
    Auto,
    /// It reads
    Query,
    /// It writes, in one transaction
    Mutation,
    /// It calls the outside
    Action,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  convoke doctor --json")]
pub(crate) struct DoctorArgs {
    /// The project's directory, or one below it
    #[arg(default_value = ".", hide_default_value = true)]
    pub(crate) dir: PathBuf,
    /// The port that has to be free for `convoke dev`
    #[arg(long, default_value_t = PORT)]
    pub(crate) port: u16,
    /// The database to look at
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
