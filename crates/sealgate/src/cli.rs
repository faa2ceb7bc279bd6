//! The command line: one file a command, each with its arguments and its `run`.
//!
//! Standard output carries what was asked for, standard error one line on what went wrong. Exit statuses are those of
//! sysexits.h that INTERFACE names ([`Failure`]).

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use sealgate_keys::secret_key_store::pkcs11::end_modules;

use crate::config::{Config, place};

mod anchor;
mod backup;
mod ca;
mod check;
mod completions;
mod crl;
mod demo;
mod envelope;
mod failure;
mod files;
mod init;
mod key_server;
mod man;
mod master_key;
mod memory;
mod open;
mod output;
mod public_key;
mod relay;
mod seal;
mod secret_key;
mod session;

pub(crate) use failure::Failure;

/// A secure mail proxy between an organisation's mail server and the Internet.
#[derive(Debug, Parser)]
#[command(name = "sealgate", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What goes with every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Globals {
    /// The configuration; without it ./sealgate.toml, then /etc/sealgate/sealgate.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Say more on standard error; twice says most
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Globals {
    /// The configuration that `--config` names, or the usual one.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&place::find(self.config.as_deref())?)?)
    }

    /// With `-v`, what the libraries say goes to standard error.
    fn start_log(&self) {
        let level = match self.verbose {
            0 => return,
            1 => tracing::Level::INFO,
            _ => tracing::Level::DEBUG,
        };
        let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
        // Another subscriber, the relay's, may be there already.
        let _ = log.try_init();
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a configuration, a database, a master key and the organisation's own authority
    Init(init::Init),
    /// Run the proxy in the foreground; SIGTERM drains, SIGHUP reloads
    Relay(relay::RelayCommand),
    /// Run the key management server in the foreground; SIGTERM drains, SIGHUP reloads
    KeyServer(key_server::KeyServerCommand),
    /// Validate configuration, stores, next hops and certificates
    Check(check::Check),
    /// Copy the database into a file, also while the relay runs
    Backup(backup::Backup),
    /// Seal one message as the relay would: plain message in, sealed message out
    Seal(seal::Seal),
    /// Open one message as the relay would: sealed message in, opened message out
    Open(open::Open),
    /// Our secret keys
    #[command(subcommand)]
    SecretKey(secret_key::SecretKey),
    /// Correspondents' certificates
    #[command(subcommand)]
    PublicKey(public_key::PublicKey),
    /// Authorities whose certificates we trust
    #[command(subcommand)]
    Anchor(anchor::Anchor),
    /// Revocation lists
    #[command(subcommand)]
    Crl(crl::Crl),
    /// The organisation's own authority
    #[command(subcommand)]
    Ca(ca::Ca),
    /// The key under which the embedded secret keys are sealed
    #[command(subcommand)]
    MasterKey(master_key::MasterKey),
    /// Two organisations on this machine, and a mail from one to the other before your eyes
    Demo(demo::Demo),
    /// Write manual pages into a directory
    #[command(hide = true)]
    Man(man::Man),
    /// Write shell completions to standard output
    #[command(hide = true)]
    Completions(completions::Completions),
}

/// Parses the command line, runs the command and turns the outcome into an exit status.
pub(crate) fn main() -> ExitCode {
    // Before the first key is read, by whatever command.
    memory::forbid_dumps();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows which stream each belongs to.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { failure::USAGE } else { 0 });
        }
    };
    let status = match cli.run() {
        Ok(()) => 0,
        Err(failure) => {
            failure.report();
            failure.status()
        }
    };
    if !end_modules() {
        // A token hangs, and a thread of ours in its module, whose destructors must not run meanwhile.
        tracing::warn!(
            "a PKCS#11 token hangs, or its threads could not be ended: the process ends without it"
        );
        let _ = std::io::stdout().flush();
        sealgate_sys::exit_at_once(status);
    }
    ExitCode::from(status)
}

impl Cli {
    fn run(self) -> Result<(), Failure> {
        let globals = self.globals;
        // The servers have a log of their own.
        if !matches!(self.command, Command::Relay(_) | Command::KeyServer(_)) {
            globals.start_log();
        }
        match self.command {
            Command::Init(command) => command.run(),
            Command::Relay(command) => command.run(&globals),
            Command::KeyServer(command) => command.run(&globals),
            Command::Check(command) => command.run(&globals),
            Command::Backup(command) => command.run(&globals),
            Command::Seal(command) => command.run(&globals),
            Command::Open(command) => command.run(&globals),
            Command::SecretKey(command) => command.run(&globals),
            Command::PublicKey(command) => command.run(&globals),
            Command::Anchor(command) => command.run(&globals),
            Command::Crl(command) => command.run(&globals),
            Command::Ca(command) => command.run(&globals),
            Command::MasterKey(command) => command.run(&globals),
            Command::Demo(command) => command.run(),
            Command::Man(command) => command.run(Self::command()),
            Command::Completions(command) => command.run(Self::command()),
        }
    }
}
