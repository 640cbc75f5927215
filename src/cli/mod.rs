//! The command line and its exit codes.
//!
//! [`failure`] defines the exit codes.

mod backends;
mod cache;
mod cert;
mod check;
mod demo;
mod explain;
mod failure;
mod logging;
mod mirrors;
mod plan;
mod register;
mod process;
mod reload;
mod requests;
mod run;
mod sample;
mod schema;
mod server;
mod status;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

/// An HTTP load balancer on Pingora.
#[derive(Parser)]
#[command(name = "l7lb", version, about, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Arguments,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a configuration file (the same as `l7lb -c FILE`).
    Run(run::Arguments),
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
    Status(process::ProcessArguments),
    /// Show the pools of the running process.
    Pools(process::ProcessArguments),
    /// Show its routes.
    Routes(process::ProcessArguments),
    /// Show its backends; add, remove, drain, disable or enable one, or change its weight.
    Backends(backends::Arguments),
    /// Start a service, register it as a backend, and drain it before it stops.
    Register(register::Arguments),
    /// Show what the caches did; list stored responses, or purge them.
    Cache(cache::Arguments),
    /// Show what happened to a request, and what would happen now.
    Why(requests::WhyArguments),
    /// Show the slowest requests that the recorder has kept.
    Slow(requests::ListArguments),
    /// Show failed requests.
    Errors(requests::ListArguments),
    /// Show requests as they end.
    Tap(requests::TapArguments),
    /// Show what happened to copies of requests.
    Mirrors(process::ProcessArguments),
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
        Command::Status(process) => status::status(&process),
        Command::Pools(process) => status::pools(&process),
        Command::Routes(process) => status::routes(&process),
        Command::Backends(arguments) => backends::main(&arguments),
        Command::Register(arguments) => register::main(&arguments),
        Command::Cache(arguments) => cache::main(&arguments),
        Command::Why(arguments) => requests::why(&arguments),
        Command::Slow(arguments) => requests::slow(&arguments),
        Command::Errors(arguments) => requests::errors(&arguments),
        Command::Tap(arguments) => requests::tap(&arguments),
        Command::Mirrors(process) => mirrors::main(&process),
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
