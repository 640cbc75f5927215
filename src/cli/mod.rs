//! The command line and its exit codes.
//!
//! Exit codes: 0 success, 2 faults of usage or configuration, 1 failures at run time, 3 timeout of a wait.

mod backends;
mod cert;
mod check;
mod demo;
mod explain;
mod logging;
mod plan;
mod process;
mod reload;
mod run;
mod sample;
mod schema;
mod status;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// The configuration or the command line is invalid.
const EXIT_USAGE: u8 = 2;
/// A failure at run time.
const EXIT_RUNTIME: u8 = 1;
/// A wait has timed out.
const EXIT_TIMEOUT: u8 = 3;

/// An HTTP load balancer on Pingora.
#[derive(Parser)]
#[command(name = "l7lb", version, about, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a configuration file (the same as `l7lb -c FILE`).
    Run(RunArguments),
    /// Start a demo: five sample backends behind a TLS listener, without any file.
    Demo,
    /// Check configuration files and report all faults.
    Check(check::Arguments),
    /// Show where a request would go, and why, without sending it.
    Explain(explain::Arguments),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Show what a configuration would change in the running process, for recent requests as well.
    Plan(plan::Arguments),
    /// Reload the configuration file of the running process and report the result.
    Reload(reload::Arguments),
    /// Show whether the running process is ready, and its configuration.
    Status(process::Asked),
    /// Show the pools of the running process.
    Pools(process::Asked),
    /// Show its routes.
    Routes(process::Asked),
    /// Show its backends; drain, disable or enable one, or change its weight.
    Backends(backends::Arguments),
    /// Show the last events.
    Events(status::EventArguments),
    /// Show or set the log level.
    LogLevel(status::LevelArguments),
    /// Write a development certificate for localhost and its key.
    Cert(cert::Arguments),
    /// One of the demo's backends.
    #[command(hide = true)]
    SampleBackend(sample::Arguments),
}

/// Options for serving. The flags are those of Pingora.
#[derive(Args)]
struct RunArguments {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Run in the background.
    #[arg(short, long)]
    daemon: bool,
    /// Take over the sockets of the running process, which is triggered by SIGQUIT.
    #[arg(short, long)]
    upgrade: bool,
    /// Check the configuration and exit.
    #[arg(short, long)]
    test: bool,
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let CommandLine { command, run } = CommandLine::parse();
    let result = match command.unwrap_or(Command::Run(run)) {
        Command::Run(arguments) => run::main(&arguments),
        Command::Demo => demo::main(),
        Command::Check(arguments) => check::main(&arguments),
        Command::Explain(arguments) => explain::main(&arguments),
        Command::Schema => schema::main(),
        Command::Plan(arguments) => plan::main(&arguments),
        Command::Reload(arguments) => reload::main(&arguments),
        Command::Status(asked) => status::status(&asked),
        Command::Pools(asked) => status::pools(&asked),
        Command::Routes(asked) => status::routes(&asked),
        Command::Backends(arguments) => backends::main(&arguments),
        Command::Events(arguments) => status::events(&arguments),
        Command::LogLevel(arguments) => status::log_level(&arguments),
        Command::Cert(arguments) => cert::main(&arguments),
        Command::SampleBackend(arguments) => sample::main(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            if !message.is_empty() {
                eprintln!("l7lb: {}", message.trim_end());
            }
            ExitCode::from(code)
        }
    }
}

/// A failed command with its exit code.
struct Failure {
    code: u8,
    /// Empty if everything was printed already.
    message: String,
}

impl Failure {
    fn usage(message: impl Into<String>) -> Self {
        Self { code: EXIT_USAGE, message: message.into() }
    }

    fn runtime(message: impl Into<String>) -> Self {
        Self { code: EXIT_RUNTIME, message: message.into() }
    }
}
