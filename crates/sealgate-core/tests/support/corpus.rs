//! The corpora of the fuzz targets that are checked in: what they hold goes through the same functions again.

use std::path::{Path, PathBuf};

/// A target's name and what it runs.
type Target = (&'static str, fn(&[u8]));

/// Runs every target over every file of its corpus; says which file fails.
pub(crate) fn replay(targets: &[Target]) {
    for (name, body) in targets {
        let files = files(name);
        assert!((1..=FILES_MAX).contains(&files.len()), "{name}: {} files", files.len());
        let mut bytes = 0;
        for path in &files {
            let data = std::fs::read(path).unwrap();
            bytes += data.len();
            let run = std::panic::catch_unwind(|| body(&data));
            assert!(run.is_ok(), "{name} fails with {}", path.display());
        }
        assert!(bytes <= BYTES_MAX, "{name}: {bytes} octets");
        println!("{name}: {} files", files.len());
    }
}

fn files(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A corpus stays small: `cargo xtask fuzz --keep` sees to it.
const FILES_MAX: usize = 60;
/// In octets, all files of one target.
const BYTES_MAX: usize = 200_000;
