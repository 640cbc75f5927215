//! The `l7lb` command: chooses the provider of cryptography, then does what the command line says.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    l7lb::tls::install_provider();
    l7lb::cli::main()
}
