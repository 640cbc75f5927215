//! `l7lb reload`: has a running process read its file anew, and says what came of it.

use clap::Args;

use super::Failure;
use super::process::Which;
use crate::plan::changes::Changes;

/// Which process.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: Which,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let changes: Changes = arguments.which.client()?.post("/reload")?;
    eprintln!("l7lb: reloaded");
    let sentences = changes.sentences();
    if sentences.is_empty() {
        eprintln!("  nothing changed");
    }
    sentences.iter().for_each(|sentence| eprintln!("  {sentence}"));
    Ok(())
}
