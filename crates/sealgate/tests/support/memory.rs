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
        let (mut at, mut kept) = (from, Vec::new());
        let mut bytes = vec![0; CHUNK_OCTETS];
        while at < to {
            let wanted = bytes.len().min(usize::try_from(to - at).unwrap());
            // A read ends before the first page that cannot be read, one that belongs to the kernel for instance: those
            // behind it can.
            let count = memory.read_at(&mut bytes[..wanted], at).unwrap_or(0);
            if count == 0 {
                kept.clear();
                at = (at / PAGE_OCTETS + 1) * PAGE_OCTETS;
                continue;
            }
            searched += count;
            at += u64::try_from(count).unwrap();
            // What the chunk before ends with may begin a find.
            kept.extend_from_slice(&bytes[..count]);
            let mut rest = kept.as_slice();
            while let Some(at) = mail::find(rest, needle) {
                found += 1;
                rest = &rest[at + 1..];
            }
            kept.drain(..kept.len().saturating_sub(needle.len() - 1));
        }
    }
    assert!(searched > 1_000_000, "only {searched} bytes of process {id} could be read");
    found
}

const CHUNK_OCTETS: usize = 1 << 20;
const PAGE_OCTETS: u64 = 4096;
