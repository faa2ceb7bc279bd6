//! The names of the fail points, as the program's sources have them.

use std::fs;
use std::path::Path;

/// Every name that stands in a `failpoint!` below this directory, in order.
///
/// # Panics
/// Where there is no such directory.
pub fn points(sources: &Path) -> Vec<String> {
    let mut names = Vec::new();
    collect(sources, &mut names);
    names.sort();
    names.dedup();
    names
}

fn collect(dir: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with(DEFINITION) {
            let text = fs::read_to_string(&path).unwrap();
            let calls = text.match_indices("failpoint!(");
            names.extend(
                calls.filter_map(|(at, _)| text[at..].split('"').nth(1)).map(str::to_owned),
            );
        }
    }
}

/// Where the mechanism is explained with examples.
const DEFINITION: &str = "failpoint.rs";
