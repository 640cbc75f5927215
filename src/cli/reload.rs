//! `l7lb reload`: has a running process read its file anew, and says what came of it.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::admin;
use crate::config::load;
use crate::reload::Outcome;

/// Which process.
#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration file of the running process, whose `server` block says where to find it;
    /// without it, where a process without such a block is.
    #[arg(short, long, value_name = "FILE")]
    conf: Option<PathBuf>,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let server = load::server(arguments.conf.as_deref()).map_err(|diagnostics| {
        Failure::usage(format!(
            "nothing was changed\n\n{}",
            diagnostics.iter().map(ToString::to_string).collect::<String>()
        ))
    })?;
    let socket = admin::socket_path(&server.upgrade_sock);
    let line = admin::ask(&socket, admin::RELOAD)
        .map_err(|e| Failure::runtime(format!("no process answers at {}: {e}", socket.display())))?;
    let outcome =
        serde_json::from_str(&line).map_err(|e| Failure::runtime(format!("an answer that is not understood: {e}")))?;
    match outcome {
        Outcome::Applied(changes) => {
            eprintln!("l7lb: reloaded");
            let sentences = changes.sentences();
            if sentences.is_empty() {
                eprintln!("  nothing changed");
            }
            sentences.iter().for_each(|sentence| eprintln!("  {sentence}"));
            Ok(())
        }
        Outcome::Rejected { diagnostics } => {
            Err(Failure::usage(format!("the old configuration stays in force\n\n{}", diagnostics.join("\n"))))
        }
        Outcome::Failed { reason } => Err(Failure::runtime(format!("the old configuration stays in force: {reason}"))),
    }
}
