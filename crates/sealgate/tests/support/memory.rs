//! What stands in the memory of another process.

use std::os::unix::fs::FileExt as _;

use sealgate_testkit::mail;

/// How often a process has these octets in its writable memory.
pub(crate) fn occurrences(id: u32, needle: &[u8]) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{id}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{id}/mem")).unwrap();
    let (mut searched, mut found) = (0_usize, 0);
    for line in maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with("rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // Pages that were never touched, or belong to the kernel, cannot be read.
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            searched += bytes.len();
            let mut rest = bytes.as_slice();
            while let Some(at) = mail::find(rest, needle) {
                found += 1;
                rest = &rest[at + 1..];
            }
        }
    }
    assert!(searched > 1_000_000, "only {searched} bytes of process {id} could be read");
    found
}
