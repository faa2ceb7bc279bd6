//! `sealgate open`: to one message exactly what the relay would do to it coming in.

use std::path::PathBuf;

use clap::Args;
use sealgate_core::address::Address;
use sealgate_core::inbound::Inbound;
use sealgate_core::keys::Timestamp;
use sealgate_core::report::Direction;

use super::envelope::{Destination, Transaction, drive};
use super::session::{self, Session};
use super::{Failure, Globals};

#[derive(Debug, Args)]
pub(crate) struct Open {
    /// A recipient; give it once for each
    #[arg(long, required = true, value_name = "ADDR")]
    to: Vec<Address>,
    /// The envelope's sender; without it the null reverse-path
    #[arg(long, value_name = "ADDR")]
    from: Option<Address>,
    /// The time of verification; without it now
    #[arg(long, value_name = "RFC3339", value_parser = parse_time)]
    at: Option<jiff::Timestamp>,
    /// Write what was done to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write every copy to DIR: NNN.eml, and NNN.json with its recipients
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
}

impl Open {
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        Session::run(globals, async |session| {
            let at = self.at.map_or_else(session::now, |at| Timestamp(at.as_second()));
            let destination =
                Destination { report: self.report.as_deref(), out_dir: self.out_dir.as_deref() };
            let (direction, to) = (Direction::Inbound, &self.to);
            let transaction =
                Transaction::new(session, direction, self.from, to, at, destination).await?;
            let Transaction { context, id, envelope, message, received } = transaction;
            let mut inbound = Inbound::new(context, id, envelope, message, received);
            drive(session, to, destination, |keys| inbound.step(keys)).await
        })
    }
}

fn parse_time(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse().map_err(|_| format!("`{text}` is no time: write 2026-11-23T07:00:00Z"))
}
