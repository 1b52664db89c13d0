//! The program: arguments in, exit status out; everything else is in the library.

use std::process::ExitCode;

/// Two per cent fewer instructions a request than glibc's, and what idle connections give back goes to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    switchback::cli::main()
}
