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
    for unit in UNITS {
        let text =
            std::fs::read_to_string(pkg.join(unit)).map_err(|why| format!("{unit}: {why}"))?;
        if let Some((section, setting)) = missing(&text) {
            return Err(format!("{unit} has no {setting} in {section}"));
        }
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

/// The first of [`DEMANDED`] that this unit does not have in its section.
fn missing(unit: &str) -> Option<(&'static str, &'static str)> {
    DEMANDED.into_iter().find(|(section, setting)| {
        let mut lines = unit.lines().skip_while(|line| line != section).skip(1);
        let mut inside = lines.by_ref().take_while(|line| !line.starts_with('['));
        !inside.any(|line| line == *setting)
    })
}

const UNITS: [&str; 2] = ["sealgate.service", "sealgate-key-server.service"];
/// What `systemd-analyze security` does not judge: started again for as long as it takes, where systemd would give up after
/// five failures in ten seconds, and no key in swap (REQUIREMENTS L5).
const DEMANDED: [(&str, &str); 4] = [
    ("[Unit]", "StartLimitIntervalSec=0"),
    ("[Service]", "Restart=always"),
    ("[Service]", "LimitCORE=0"),
    ("[Service]", "MemorySwapMax=0"),
];
/// REQUIREMENTS L3 demands 1.5 at most.
const EXPOSURE_MAX_TENTHS: u32 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_are_started_for_as_long_as_it_takes_and_are_kept_out_of_swap() {
        for unit in UNITS {
            let text = std::fs::read_to_string(root().join("pkg/systemd").join(unit)).unwrap();
            assert_eq!(missing(&text), None, "{unit}");
            for (section, setting) in DEMANDED {
                let without = text.replace(&format!("{setting}\n"), "");
                assert_eq!(missing(&without), Some((section, setting)));
                // systemd ignores what stands in the wrong section.
                let elsewhere = format!("{without}{setting}\n");
                assert_eq!(missing(&elsewhere), Some((section, setting)));
            }
        }
    }
}
