//! sealgate, a secure mail proxy between an organisation's mail server and the Internet: the program.

use std::process::ExitCode;

#[macro_use]
mod failpoint;

mod cli;
mod config;
mod demo;
mod key_management_server;
mod observe;
mod relay;

fn main() -> ExitCode {
    cli::main()
}
