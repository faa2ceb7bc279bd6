//! The small corpora that are checked in: of all that a target knows, the inputs that reach most for their size.
//!
//! libFuzzer says what each input reaches; it would keep some thousand of them. Regressions, files named so, stay always.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{LIMITS, Places};
use crate::{root, tidy};

/// Replaces what is checked in for a target by the best of it and of what was found since.
pub(super) fn keep(places: &Places) -> Result<(), String> {
    let reached = reached(places)?;
    let chosen = choose(reached.into_iter().filter_map(Input::read).collect());
    let (count, octets) = (chosen.len(), chosen.iter().map(|one| one.octets.len()).sum::<usize>());
    let failed = |path: &Path, why: std::io::Error| format!("{}: {why}", path.display());
    let names: HashSet<PathBuf> = chosen.iter().map(|one| places.kept.join(&one.name)).collect();
    for input in chosen {
        let path = places.kept.join(&input.name);
        fs::write(&path, input.octets).map_err(|why| failed(&path, why))?;
    }
    for entry in fs::read_dir(&places.kept).map_err(|why| failed(&places.kept, why))?.flatten() {
        if !names.contains(&entry.path()) {
            fs::remove_file(entry.path()).map_err(|why| failed(&entry.path(), why))?;
        }
    }
    println!("{}: {count} files, {octets} octets are kept", places.kept.display());
    Ok(())
}

/// Every input with the features that it reaches. This is the first half of libFuzzer's `-set_cover_merge=1`: its second takes
/// long, and knows no bounds.
fn reached(places: &Places) -> Result<Vec<(PathBuf, Vec<u32>)>, String> {
    let scratch = tempfile::tempdir().map_err(|why| format!("a scratch folder: {why}"))?;
    let control = scratch.path().join("control");
    let failed = |why: std::io::Error| format!("{}: {why}", control.display());
    let folders = [&places.kept, &places.grown];
    let entries = folders.into_iter().filter_map(|folder| fs::read_dir(folder).ok());
    let paths: Vec<PathBuf> = entries.flatten().flatten().map(|entry| entry.path()).collect();
    let names: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
    fs::write(&control, format!("{}\n0\n{names}", paths.len())).map_err(failed)?;
    let status = Command::new(&places.program)
        .current_dir(root().join("fuzz"))
        .args(["-merge_inner=2", &format!("-merge_control_file={}", control.display())])
        .args(LIMITS)
        .arg(format!("-artifact_prefix={}/", places.artifacts.display()))
        .stderr(Stdio::null())
        .status()
        .map_err(|why| format!("{}: {why}", places.program.display()))?;
    if !status.success() {
        return Err(format!("{}: {status} with an input of its corpus", places.program.display()));
    }
    Ok(read(&fs::read_to_string(&control).map_err(failed)?))
}

/// A control file of libFuzzer: two numbers, the names, then lines of which `FT INDEX FEATURE...` matter here.
fn read(control: &str) -> Vec<(PathBuf, Vec<u32>)> {
    let mut lines = control.lines();
    let count = lines.next().and_then(|count| count.parse().ok()).unwrap_or(0);
    let mut inputs: Vec<(PathBuf, Vec<u32>)> =
        lines.by_ref().skip(1).take(count).map(|name| (PathBuf::from(name), Vec::new())).collect();
    for line in lines {
        let mut words = line.split(' ');
        if words.next() == Some("FT")
            && let Some(index) = words.next().and_then(|index| index.parse::<usize>().ok())
        {
            inputs[index].1 = words.filter_map(|feature| feature.parse().ok()).collect();
        }
    }
    inputs
}

#[derive(Clone, Debug)]
struct Input {
    name: String,
    octets: Vec<u8>,
    features: Vec<u32>,
}

impl Input {
    /// `None` for what is too large to be checked in or would break a rule about its text, and is no regression.
    fn read((path, features): (PathBuf, Vec<u32>)) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_owned();
        let octets = fs::read(&path).ok()?;
        let text = str::from_utf8(&octets).unwrap_or_default();
        let fits = octets.len() <= INPUT_BYTES_MAX && tidy::machine_paths(text).next().is_none();
        let input = Self { name, octets, features };
        (fits || input.is_regression()).then_some(input)
    }

    fn is_regression(&self) -> bool {
        self.name.starts_with(REGRESSION)
    }
}

/// One after the other those that reach most new features for their size.
fn choose(mut inputs: Vec<Input>) -> Vec<Input> {
    inputs.sort_by(|a, b| (a.octets.len(), &a.name).cmp(&(b.octets.len(), &b.name)));
    let (mut chosen, mut others): (Vec<Input>, Vec<Input>) =
        inputs.into_iter().partition(Input::is_regression);
    // What those reach that were chosen last; the others are without what was reached before.
    let mut reached: HashSet<u32> = chosen.iter().flat_map(|one| one.features.clone()).collect();
    let mut left = BYTES_MAX.saturating_sub(chosen.iter().map(|one| one.octets.len()).sum());
    while chosen.len() < FILES_MAX {
        for one in &mut others {
            one.features.retain(|feature| !reached.contains(feature));
        }
        others.retain(|one| !one.features.is_empty() && one.octets.len() <= left);
        // Files are scarcer than octets: size counts where it is a good deal of one file's share.
        let worth = |one: &Input| one.features.len() * 1_000_000 / (one.octets.len() + 2000);
        let best = (0..others.len()).max_by_key(|at| (worth(&others[*at]), usize::MAX - at));
        let Some(at) = best else { break };
        let input = others.remove(at);
        left -= input.octets.len();
        reached.clear();
        reached.extend(&input.features);
        chosen.push(input);
    }
    chosen
}

/// Files of one target that are checked in; crates/sealgate-core/tests/support/corpus.rs holds to it.
const FILES_MAX: usize = 60;
/// Octets of all of them, with room for regressions.
const BYTES_MAX: usize = 60_000;
/// Octets of one.
const INPUT_BYTES_MAX: usize = 6_000;
/// How the name of an input starts that once made a target fail.
const REGRESSION: &str = "regression-";

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, length: usize, features: &[u32]) -> Input {
        Input { name: name.to_owned(), octets: vec![0; length], features: features.to_vec() }
    }

    #[test]
    fn a_control_file_is_read() {
        let text = "2\n0\na/x\na/y\nSTARTED 0 3\nFT 0 1 2\nCOV 0 7\nSTARTED 1 4\nFT 1\n";
        let expected = [(PathBuf::from("a/x"), vec![1, 2]), (PathBuf::from("a/y"), vec![])];
        assert_eq!(read(text), expected);
    }

    #[test]
    fn those_are_chosen_that_reach_most_for_their_size_and_regressions() {
        let inputs = vec![
            input("large", 5000, &[1, 2, 3, 4]),
            input("small", 10, &[1, 2, 3]),
            input("same", 20, &[1, 2]),
            input("regression-1", 900, &[]),
            input("more", 30, &[9]),
        ];
        let names: Vec<String> = choose(inputs).into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["regression-1", "small", "more", "large"]);
    }

    #[test]
    fn no_more_are_chosen_than_are_checked_in() {
        let many = (0..200).map(|n| input(&format!("{n:03}"), 900, &[n, n + 1000])).collect();
        let chosen = choose(many);
        assert_eq!(chosen.len(), FILES_MAX);
        assert!(chosen.iter().map(|one| one.octets.len()).sum::<usize>() <= BYTES_MAX);
    }
}
