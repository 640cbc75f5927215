//! `l7lb reload`: has a running process read its file anew, and says what came of it.

use clap::Args;

use super::Failure;
use super::process::Which;
use crate::plan::changes::Changes;
use crate::units::Percent;

/// Which process.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Refuse where more of the requests of the last while would end elsewhere, such as 5%.
    #[arg(long, value_name = "PERCENT")]
    max_moved: Option<Percent>,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let path = match arguments.max_moved {
        // The sign of a percentage begins an escape in a URL.
        Some(most) => format!("/reload?max_moved={}", most.to_string().replace('%', "%25")),
        None => "/reload".to_owned(),
    };
    let changes: Changes = arguments.which.client()?.post(&path)?;
    eprintln!("l7lb: reloaded");
    let sentences = changes.sentences();
    if sentences.is_empty() {
        eprintln!("  nothing changed");
    }
    sentences.iter().for_each(|sentence| eprintln!("  {sentence}"));
    Ok(())
}
