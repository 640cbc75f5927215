//! `l7lb reload`: reloads the configuration file of a running process and reports the result.

use clap::Args;

use super::failure::Failure;
use super::process::ProcessSelector;
use crate::base::units::Percent;
use crate::control::api::process::Reloaded;

/// The process and options.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: ProcessSelector,
    /// Reject the reload if more of the recent requests would have another outcome, such as 5%.
    #[arg(long, value_name = "PERCENT")]
    max_moved: Option<Percent>,
    /// Start a new process if listeners or settings of the server have changed.
    #[arg(long)]
    upgrade_if_needed: bool,
}

/// Why `--max-moved` may have had no effect.
const WATCHED: &str = "  with `reload: { watch: true }`, the default, a saved file is active before this command, without its limit\n  \
    = set `reload: { max_moved: … }`, which applies to watched files too, or `watch: false`";

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let mut path = format!("/reload?upgrade_if_needed={}", arguments.upgrade_if_needed);
    if let Some(most) = arguments.max_moved {
        // `%` starts a percent-encoding in a URL.
        path += &format!("&max_moved={}", most.to_string().replace('%', "%25"));
    }
    let Reloaded { mut changes, upgraded, pid } = arguments.which.client()?.post(&path)?;
    match (upgraded, pid) {
        (false, _) => eprintln!("l7lb: reloaded"),
        (true, Some(pid)) => eprintln!("l7lb: reloaded, and process {pid} has taken over"),
        (true, None) => eprintln!("l7lb: reloaded, and a new process has taken over"),
    }
    let taken_up = if upgraded { std::mem::take(&mut changes.needs_upgrade) } else { Vec::new() };
    let mut sentences = changes.sentences();
    if !taken_up.is_empty() {
        sentences.push(format!("active now: {}", taken_up.join(", ")));
    }
    if sentences.is_empty() {
        eprintln!("  nothing changed");
        if arguments.max_moved.is_some() {
            eprintln!("{WATCHED}");
        }
    }
    sentences.iter().for_each(|sentence| eprintln!("  {sentence}"));
    Ok(())
}
