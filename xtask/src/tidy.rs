//! The project's rules about its own text, as checks (CONTRIBUTING says why each is there).
//!
//! Reads the files that git knows or would add; looks at lines and indentation only, which rustfmt has made regular.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::root;

/// Prints every breach; whether there was none.
pub(crate) fn run() -> bool {
    let breaches = breaches(&root());
    for breach in &breaches {
        println!("tidy: {breach}");
    }
    breaches.is_empty()
}

/// Every breach of every rule.
fn breaches(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let files = files(root);
    for path in &files {
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        let name = path.to_string_lossy();
        found.extend(machine_paths(&text).map(|line| format!("{name}:{line}: a machine's path")));
        if name.ends_with(".rs") {
            found.extend(rust(&name, &text, is_test_file(&name, &files, root)));
        }
    }
    found.extend(architecture(root, &files));
    found.extend(metrics(root, &files));
    found
}

/// The rules for one Rust file.
fn rust(name: &str, text: &str, is_test: bool) -> Vec<String> {
    let mut found = Vec::new();
    let lines = non_test_lines(text);
    if lines > FILE_LINES_MAX && !is_test {
        found.push(format!("{name}: {lines} lines without tests, more than {FILE_LINES_MAX}"));
    }
    if text.lines().count() > TEST_FILE_LINES_MAX {
        found.push(format!("{name}: more than {TEST_FILE_LINES_MAX} lines with tests"));
    }
    for (line, length) in long_functions(text) {
        found.push(format!(
            "{name}:{line}: a function of {length} lines (max {FUNCTION_LINES_MAX})"
        ));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let bare = line.trim();
        if bare == "#[ignore]" {
            found.push(format!("{name}:{number}: #[ignore] without a reason"));
        }
        if bare.contains("allow(") && bare.ends_with(")]") && !bare.contains("reason") {
            found.push(format!("{name}:{number}: allow without a reason"));
        }
        let in_core = name.starts_with("crates/sealgate-core/src/") && !is_test && number <= lines;
        if in_core && !bare.starts_with("//") {
            for word in FORBIDDEN_IN_CORE.iter().filter(|word| bare.contains(**word)) {
                found.push(format!("{name}:{number}: {word} in the core"));
            }
        }
    }
    let file = name.rsplit('/').next().unwrap_or(name);
    if FORBIDDEN_MODULES.iter().any(|module| file == format!("{module}.rs")) || file == "mod.rs" {
        found.push(format!("{name}: a module's name says what it is about"));
    }
    if !text.starts_with("//!") && !is_test {
        found.push(format!("{name}: no module documentation"));
    }
    found
}

/// Whether a file is compiled for tests only: by its place, or because the module above says so.
fn is_test_file(name: &str, files: &[PathBuf], root: &Path) -> bool {
    if ["/tests/", "/tests.rs", "/testing.rs"].iter().any(|part| name.contains(part))
        || name.starts_with("fuzz/")
    {
        return true;
    }
    let path = Path::new(name);
    let (Some(parent), Some(module)) = (path.parent(), path.file_stem()) else { return false };
    let above = [parent.with_extension("rs"), parent.join("lib.rs"), parent.join("main.rs")];
    let declaration = format!("#[cfg(test)]\nmod {};", module.to_string_lossy());
    above.iter().filter(|above| files.contains(above)).any(|above| {
        fs::read_to_string(root.join(above)).is_ok_and(|text| text.contains(&declaration))
    })
}

/// Lines up to the test module at the bottom.
fn non_test_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().position(|line| *line == "#[cfg(test)]").unwrap_or(lines.len())
}

/// First line and length of functions over the limit. rustfmt puts the closing brace of a function under its first line.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if !starts_function(line) {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let length = lines[at..].iter().position(|line| *line == closing).map_or(0, |end| end + 1);
        // A declaration without a body ends with a semicolon before any brace.
        let declaration = lines[at..]
            .iter()
            .find(|line| line.ends_with('{') || line.ends_with(';') || line.ends_with('}'))
            .is_none_or(|line| !line.ends_with('{'));
        if length > FUNCTION_LINES_MAX && !declaration {
            found.push((at + 1, length));
        }
    }
    found
}

fn starts_function(line: &str) -> bool {
    let mut bare = line.trim_start();
    loop {
        let Some((word, rest)) = bare.split_once(' ') else { return false };
        match word {
            "fn" => return true,
            "async" | "const" | "pub" | "unsafe" => bare = rest,
            _ if word.starts_with("pub(") => bare = rest,
            _ => return false,
        }
    }
}

/// Lines that name a place on one machine only.
pub(crate) fn machine_paths(text: &str) -> impl Iterator<Item = usize> {
    (1..).zip(text.lines()).filter(|(_, line)| machine_path(line)).map(|(number, _)| number)
}

fn machine_path(line: &str) -> bool {
    MACHINE_PATHS.iter().any(|path| {
        let path = path.concat();
        line.match_indices(&path).any(|(at, _)| {
            // `crates/work/` or `https://host/root/` are no absolute paths.
            !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || "./_-}".contains(c))
        })
    })
}

/// ARCHITECTURE.md names every top folder, every folder of the crates, and every dependency.
fn architecture(root: &Path, files: &[PathBuf]) -> Vec<String> {
    let Ok(text) = fs::read_to_string(root.join("ARCHITECTURE.md")) else {
        return vec!["ARCHITECTURE.md is not there".to_owned()];
    };
    let words: BTreeSet<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').collect();
    let mut found = Vec::new();
    for folder in folders(files) {
        let name = folder.rsplit('/').next().unwrap_or(&folder);
        if !words.contains(name) {
            found.push(format!("ARCHITECTURE.md does not name {folder}/"));
        }
    }
    let cargo = fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default();
    let table: toml::Table = cargo.parse().unwrap_or_default();
    let dependencies = table.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    for name in dependencies.and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys)
    {
        if !words.contains(name.as_str()) && !name.starts_with("sealgate-") {
            found.push(format!("ARCHITECTURE.md does not say why `{name}` is there"));
        }
    }
    found
}

/// The operator's guide has a row for every metric, and for nothing else.
fn metrics(root: &Path, files: &[PathBuf]) -> Vec<String> {
    let read = |path: &Path| fs::read_to_string(root.join(path)).unwrap_or_default();
    let sources = files.iter().filter(|path| path.starts_with("crates/sealgate/src"));
    let counted: BTreeSet<String> = sources.flat_map(|path| metric_names(&read(path))).collect();
    let documented = metric_rows(&read(Path::new(METRICS_TABLE)));
    let missing = counted.difference(&documented).map(|name| (name, "has no row"));
    let superfluous = documented.difference(&counted).map(|name| (name, "is counted nowhere"));
    let told = missing.chain(superfluous);
    told.map(|(name, what)| format!("{METRICS_TABLE}: sealgate_{name} {what}")).collect()
}

/// What stands behind `sealgate_` in the literals of a source file.
fn metric_names(text: &str) -> Vec<String> {
    let begin = ["\"", "sealgate_"].concat();
    let rest = text.split(&begin).skip(1).filter_map(|rest| rest.split('"').next());
    rest.map(str::to_owned).collect()
}

/// The first column of the table of metrics.
fn metric_rows(text: &str) -> BTreeSet<String> {
    let table = text.lines().skip_while(|line| !line.starts_with("| metric ")).skip(2);
    let cells =
        table.take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Top folders, and the folders under crates/*/src.
fn folders(files: &[PathBuf]) -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    for path in files {
        let parts: Vec<String> =
            path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if parts.len() > 1 && !parts[0].starts_with('.') {
            folders.insert(parts[0].clone());
        }
        if parts.len() > 4 && parts[0] == "crates" && parts[2] == "src" {
            folders.insert(parts[..4].join("/"));
        }
    }
    folders
}

/// Files that are committed or would be; outside a checkout, all that are not built.
fn files(root: &Path) -> Vec<PathBuf> {
    let listed = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output();
    match listed {
        Ok(listed) if listed.status.success() => String::from_utf8_lossy(&listed.stdout)
            .split_terminator('\0')
            .map(PathBuf::from)
            .collect(),
        _ => {
            let mut found = Vec::new();
            walk(root, Path::new(""), &mut found);
            found
        }
    }
}

fn walk(root: &Path, under: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root.join(under)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let path = under.join(&name);
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && name != "target" && name != ".git" => {
                walk(root, &path, found);
            }
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
}

/// Where the metrics are described.
const METRICS_TABLE: &str = "docs/operating.md";

/// Longest file, tests at its bottom not counted.
const FILE_LINES_MAX: usize = 600;

/// Longest file of all, tests included.
const TEST_FILE_LINES_MAX: usize = 1200;

/// Longest function.
const FUNCTION_LINES_MAX: usize = 70;

/// The core does no I/O and cannot tell the time.
const FORBIDDEN_IN_CORE: [&str; 6] =
    ["std::net", "std::fs", "std::env", "tokio", "SystemTime::now", "Instant::now"];

/// Names under which anything could be put.
const FORBIDDEN_MODULES: [&str; 5] = ["common", "helper", "helpers", "manager", "util"];

/// Beginnings of paths that exist on one machine only, in two pieces so that this file passes its own check.
const MACHINE_PATHS: [[&str; 2]; 4] =
    [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["/Us", "ers/"]];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_tidy() {
        let breaches = breaches(&root());
        assert!(breaches.is_empty(), "{}", breaches.join("\n"));
    }

    #[test]
    fn a_metric_without_a_row_and_a_row_without_a_metric_are_found() {
        let literal = |name| ["counter!(\"", "sealgate_", name, "\")"].concat();
        let source = format!("{} {}", literal("a_total"), literal("b_total"));
        assert_eq!(metric_names(&source), ["a_total", "b_total"]);
        let guide =
            "`x_total`\n| metric (`y`) | |\n|---|---|\n| `b_total`, `c` | `d` |\n\n| `e` |\n";
        let rows = metric_rows(guide);
        assert_eq!(rows.iter().map(String::as_str).collect::<Vec<_>>(), ["b_total", "c"]);
    }

    #[test]
    fn finds_a_long_function_and_no_short_one() {
        let body = "        x();\n".repeat(FUNCTION_LINES_MAX);
        let text = format!(
            "impl X {{\n    pub fn long(&self) {{\n{body}    }}\n    fn short() {{\n    }}\n}}\n"
        );
        assert_eq!(long_functions(&text), [(2, FUNCTION_LINES_MAX + 2)]);
    }

    #[test]
    fn finds_machine_paths_and_no_others() {
        let path = ["see /wo", "rk/x"].concat();
        assert!(machine_path(&path));
        assert!(!machine_path("see crates/wo"));
        assert!(!machine_path(&["https://host/ro", "ot/x"].concat()));
    }

    #[test]
    fn finds_breaches_in_a_rust_file() {
        let text = "//! X.\nuse std::fs;\n#[ignore]\n";
        let found = rust("crates/sealgate-core/src/util.rs", text, false);
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
