//! sealgate, a secure mail proxy between an organisation's mail server and the Internet: the program.

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

#[macro_use]
mod failpoint;

mod cli;
mod config;
mod demo;
mod domain_key;
mod key_files;
mod key_management_server;
mod observe;
mod relay;

/// Whatever is freed is wiped: no plaintext and no key outlives its mail in memory that others are given next
/// (REQUIREMENTS L4, L5). Buffers of mail pass through libraries that know nothing of wiping.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // Only memory is at stake: where it is not taken, more of it is kept.
    let _ = sealgate_sys::bound_arenas((processors / PROCESSORS_PER_ARENA).max(1));
    cli::main()
}

/// Large mails go through several threads; with the usual eight arenas a processor each keeps much of what they held. Measured
/// on two processors, one costs no more time than four.
const PROCESSORS_PER_ARENA: usize = 2;
