//! Targets as rows, and the tables' places in docs/BENCHMARKS.md.

use std::fs;

use crate::root;

/// One thing to reach.
pub(super) struct Target {
    pub(super) what: String,
    pub(super) limit: f64,
    pub(super) measured: f64,
    pub(super) at_least: bool,
    pub(super) unit: &'static str,
}

impl Target {
    /// Something that is to stay below a limit.
    pub(super) fn at_most(what: String, limit: f64, measured: f64, unit: &'static str) -> Self {
        Self { what, limit, measured, at_least: false, unit }
    }

    pub(super) fn is_met(&self) -> bool {
        if self.at_least { self.measured >= self.limit } else { self.measured <= self.limit }
    }

    fn row(&self) -> String {
        let Self { what, limit, measured, unit, .. } = self;
        let sign = if self.at_least { "≥" } else { "≤" };
        let verdict = if self.is_met() { "pass" } else { "miss" };
        format!("| {what} | {sign} {limit} {unit} | {measured:.2} {unit} | {verdict} |\n")
    }
}

/// All of them as a table.
pub(super) fn targets(targets: &[Target]) -> String {
    let rows: String = targets.iter().map(Target::row).collect();
    format!("\n| target | limit | measured | |\n|---|--:|--:|---|\n{rows}")
}

/// Puts the tables of a group between its markers in docs/BENCHMARKS.md.
pub(super) fn write(group: &str, text: &str) -> Result<(), String> {
    let path = root().join("docs/BENCHMARKS.md");
    let old = fs::read_to_string(&path).map_err(|why| format!("{}: {why}", path.display()))?;
    let new =
        replace(&old, group, text).ok_or(format!("{}: no markers of {group}", path.display()))?;
    fs::write(&path, new).map_err(|why| format!("{}: {why}", path.display()))
}

fn replace(old: &str, group: &str, text: &str) -> Option<String> {
    let begin = format!("<!-- {group}: written by cargo xtask bench -->");
    let end = format!("<!-- end of {group} -->");
    let (before, rest) = old.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n\n{text}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::GROUPS;

    #[test]
    fn keeps_what_stands_around_the_markers() {
        let [begin, end] = ["<!-- a: written by cargo xtask bench -->", "<!-- end of a -->"];
        let old = format!("before\n{begin}\nold\n{end}\nafter\n");
        let new = replace(&old, "a", "new\n").unwrap();
        assert_eq!(new, format!("before\n{begin}\n\nnew\n\n{end}\nafter\n"));
        assert_eq!(replace(&old, "b", "new"), None);
    }

    #[test]
    fn every_group_has_its_place() {
        let text = fs::read_to_string(root().join("docs/BENCHMARKS.md")).unwrap();
        for group in &GROUPS {
            assert!(replace(&text, group.name, "").is_some(), "{}", group.name);
        }
    }

    #[test]
    fn what_is_over_its_limit_is_a_miss() {
        let target = Target::at_most("x".to_owned(), 1.15, 1.2, "×");
        assert_eq!(targets(&[target]).lines().last(), Some("| x | ≤ 1.15 × | 1.20 × | miss |"));
    }
}
