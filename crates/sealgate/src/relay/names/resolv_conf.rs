//! /etc/resolv.conf (resolv.conf(5)), which others write anew while the relay runs: DHCP, a VPN, the boot.
//!
//! Out: whom to ask and how, each time that the file says something else than before. It is compared by its content: a time
//! stamp may stay the same, and a file that is only touched need not cost the answers that are remembered.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::system_conf::parse_resolv_conf;

/// The file, and what it was last found to be.
#[derive(Debug)]
pub(super) struct ResolvConf {
    path: PathBuf,
    /// None before it was looked at.
    seen: Option<Result<Vec<u8>, io::ErrorKind>>,
}

impl ResolvConf {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says, where that is something else than before, or why it is of no use.
    pub(super) fn changed(&mut self) -> Option<Result<(ResolverConfig, ResolverOpts), String>> {
        let read = read(&self.path);
        let found = match &read {
            Ok(text) => Ok(text.clone()),
            Err(error) => Err(error.kind()),
        };
        if self.seen.as_ref() == Some(&found) {
            return None;
        }
        self.seen = Some(found);
        let text = match read {
            Ok(text) => text,
            Err(error) => return Some(Err(error.to_string())),
        };
        Some(parse_resolv_conf(text).map_err(|error| error.to_string()))
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(OCTETS_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// What the system says.
pub(super) const SYSTEM: &str = "/etc/resolv.conf";
/// Nobody has more; it is read again and again.
const OCTETS_MAX: u64 = 64 * 1024;
