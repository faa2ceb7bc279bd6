//! sealgate, a secure mail proxy between an organisation's mail server and the Internet: the program.

use std::process::ExitCode;

mod cli;
mod config;
mod demo;
mod domain_key;
mod key_management_server;
mod observe;
mod relay;

fn main() -> ExitCode {
    cli::main()
}
