//! NIST PKITS, row by row, against the paths as this store judges them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use certval::{CertificationPathSettings, ObjectIdentifierSet};
use const_oid::ObjectIdentifier;

use super::*;

#[test]
fn pkits_paths_are_judged_as_nist_expects_or_are_listed_as_exceptions() {
    let folder = fixtures();
    let table = fs::read_to_string(folder.join("expect.tsv")).unwrap();
    let mut exceptions = exceptions();
    let mut agreed = 0;
    let mut excepted = 0;
    let mut failures = Vec::new();
    for row in table.lines().skip(1) {
        let cells: Vec<&str> = row.split('\t').collect();
        let (expected, name, certificates, crls) = (cells[3], cells[5], cells[6], cells[7]);
        let settings = cells.get(8).copied().unwrap_or_default();
        let found = judge_row(&folder, certificates, crls, settings);
        let agrees = (expected == "accept") == (found == Trust::Trusted);
        match (exceptions.remove(name), agrees) {
            (None, true) => agreed += 1,
            (Some((listed, _)), false) if listed == found.to_string() => excepted += 1,
            (Some((listed, reason)), _) => failures.push(format!(
                "{name}: an exception ({listed}: {reason}), found {found}, expected {expected}"
            )),
            (None, false) => failures.push(format!("{name}: expected {expected}, found {found}")),
        }
    }
    println!("PKITS: {agreed} rows as NIST expects, {excepted} listed exceptions");
    failures.extend(exceptions.keys().map(|name| format!("{name}: an exception without a row")));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(agreed + excepted == 123, "the set has 123 rows, {agreed} + {excepted} were run");
}

fn judge_row(folder: &Path, certificates: &str, crls: &str, settings: &str) -> Trust {
    let read = |name: &str| fs::read(folder.join("certs").join(format!("{name}.crt"))).unwrap();
    let names: Vec<&str> = certificates.split('>').collect();
    let parse = |name: &&str| Arc::new(Certificate::from_der(&read(name)).unwrap());
    let (anchor, rest) = names.split_first().unwrap();
    let (target, intermediates) = rest.split_last().unwrap();
    let crls = crls
        .split(',')
        .map(|name| fs::read(folder.join("crls").join(format!("{name}.crl"))).unwrap())
        .collect();
    let store =
        TrustStore::new(vec![parse(anchor)], intermediates.iter().map(parse).collect(), crls);
    assert_eq!(store.unreadable_crls(), [0_usize; 0]);
    let Some(link) = Link::parse(&parse(target)) else { return Trust::Untrusted };
    let mut clock = Clock::new(AT);
    store.judge_paths(&link, &[], &mut clock, &Budget::default(), |initial| {
        adjust(initial, settings)
    })
}

/// Sets the inputs of RFC 5280 §6.1.1 that a row names; "UserConstrainedPolicySet" is an output.
fn adjust(initial: &mut CertificationPathSettings, settings: &str) {
    for setting in settings.split("; ").filter(|setting| !setting.is_empty()) {
        let (name, value) = setting.trim_end_matches(')').split_once('(').unwrap();
        match name {
            "SetInitialPolicySet" => {
                let last = value.trim_matches('"').strip_prefix("NIST-test-policy-").unwrap();
                let policy = format!("2.16.840.1.101.3.2.1.48.{last}");
                initial.set_initial_policy_set_from_oid_set(ObjectIdentifierSet::from([
                    ObjectIdentifier::new(&policy).unwrap(),
                ]));
            }
            "SetInitialExplicitPolicy" => {
                initial.set_initial_explicit_policy_indicator(value == "true");
            }
            "SetInitialPolicyMappingInhibit" => {
                initial.set_initial_policy_mapping_inhibit_indicator(value == "true");
            }
            "SetUserConstrainedPolicySet" => {}
            other => panic!("unknown setting {other}"),
        }
    }
}

/// Name of a row to (what we find instead, why).
fn exceptions() -> BTreeMap<String, (String, String)> {
    include_str!("../../tests/data/pkits_exceptions.tsv")
        .lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            assert!(cells.len() == 3 && cells[2].len() > 20, "an exception needs a reason: {line}");
            (cells[0].to_owned(), (cells[1].to_owned(), cells[2].to_owned()))
        })
        .collect()
}

fn fixtures() -> PathBuf {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures/pkits"));
    assert!(folder.is_dir(), "PKITS was left out: {} is absent", folder.display());
    folder.to_path_buf()
}

/// 2020-01-01, inside the window of every row.
const AT: Timestamp = Timestamp(1_577_836_800);
