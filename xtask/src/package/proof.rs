//! The package is made, installed, started by its units' own words, and removed, on a copy of this machine's file system
//! that nobody else sees: an overlay in a mount name space, with a network of its own.
//!
//! systemd itself does not run there. What it would do is done by its parts: `systemd-analyze` judges the units,
//! `systemd-sysusers` and `systemd-tmpfiles` make users and folders, `systemd-socket-activate` hands over port 25.

use std::path::Path;
use std::process::Command;

use super::{make, output};
use crate::root;

/// # Errors
/// What is wrong with the units or the package, or which step failed.
pub(crate) fn prove(binary: &Path) -> Result<(), String> {
    let pkg = root().join("pkg/systemd");
    for unit in ["sealgate.service", "sealgate-key-server.service"] {
        output(
            Command::new("systemd-analyze")
                .args(["security", "--no-pager", "--offline=true"])
                .arg(format!("--threshold={EXPOSURE_MAX_TENTHS}"))
                .arg(pkg.join(unit)),
        )?;
    }
    let folder = tempfile::tempdir().map_err(|why| why.to_string())?;
    let package = make(binary, folder.path())?;
    let script = root().join("xtask/src/package/proof.sh");
    let said = output(
        Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-eu"])
            .arg(script)
            .arg(&package),
    )?;
    match said.lines().last() {
        Some("installed, started and removed") => Ok(()),
        _ => Err(format!("the proof of the package ended early: {said}")),
    }
}

/// REQUIREMENTS L3 demands 1.5 at most.
const EXPOSURE_MAX_TENTHS: u32 = 15;
