//! The `l7lb` command: installs the cryptography provider and runs the command line.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    l7lb::tls::install_provider();
    l7lb::cli::main()
}
