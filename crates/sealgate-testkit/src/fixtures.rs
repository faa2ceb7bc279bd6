//! The test material of others, `../shared/fixtures` from the project's root.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the material lies.
///
/// # Panics
/// Where it does not: a test that needs it must not pass without it.
pub fn root() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    let missing = "no fixtures at ../shared/fixtures from the project's root";
    path.canonicalize().unwrap_or_else(|error| panic!("{missing}: {error}"))
}

/// One expectation: its columns by name.
#[derive(Clone, Debug)]
pub struct Expectation {
    columns: HashMap<String, String>,
}

impl Expectation {
    /// A column, empty where there is none.
    pub fn column(&self, name: &str) -> &str {
        self.columns.get(name).map_or("", String::as_str)
    }
}

/// The lines of a set's `expect.tsv`.
pub fn expectations(set: &Path) -> Vec<Expectation> {
    let text = fs::read_to_string(set.join("expect.tsv")).unwrap();
    let mut lines = text.lines();
    let names: Vec<String> =
        lines.next().expect("a line of names").split('\t').map(str::to_owned).collect();
    lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| Expectation {
            columns: names.iter().cloned().zip(line.split('\t').map(str::to_owned)).collect(),
        })
        .collect()
}
