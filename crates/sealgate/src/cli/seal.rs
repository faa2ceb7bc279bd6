//! `sealgate seal`: to one message exactly what the relay would do to it going out.

use std::path::PathBuf;

use clap::Args;
use sealgate_core::address::Address;
use sealgate_core::outbound::Outbound;
use sealgate_core::report::Direction;

use super::envelope::{Destination, Transaction, drive};
use super::session::Session;
use super::{Failure, Globals, session};

#[derive(Debug, Args)]
pub(crate) struct Seal {
    /// The originator, the envelope's sender
    #[arg(long, value_name = "ADDR")]
    from: Address,
    /// A recipient; give it once for each
    #[arg(long, required = true, value_name = "ADDR")]
    to: Vec<Address>,
    /// Write what was done to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write every copy to DIR: NNN.eml, and NNN.json with its recipients
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
}

impl Seal {
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        Session::run(globals, async |session| {
            let from = Some(self.from);
            let now = session::now();
            let destination =
                Destination { report: self.report.as_deref(), out_dir: self.out_dir.as_deref() };
            let (direction, to) = (Direction::Outbound, &self.to);
            let transaction =
                Transaction::new(session, direction, from, to, now, destination).await?;
            let Transaction { context, id, envelope, message, received } = transaction;
            let mut outbound = Outbound::new(context, id, envelope, message, received);
            drive(session, to, destination, |keys| outbound.step(keys)).await
        })
    }
}
