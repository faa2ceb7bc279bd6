//! Mutants: a deterministic stand-in for the fuzzer on the stable toolchain.

use std::time::{Duration, Instant};

#[path = "random.rs"]
mod random;

use random::Random;

/// How many a parser.
pub(crate) const MUTANTS: usize = 100_000;

/// One to four changes: a bit, a word of the format, a piece cut out, doubled or taken from another seed.
fn mutate(seed: &[u8], other: &[u8], words: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let length = random.below(40).min(bytes.len() - at);
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let piece = bytes[at..at + length].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let from = random.below(other.len() + 1);
                let piece = other[from..(from + random.below(80)).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => bytes.truncate(at.max(bytes.len() / 2)),
            _ => {
                let word = words[random.below(words.len())];
                bytes.splice(at..at + length.min(random.below(3)), word.iter().copied());
            }
        }
    }
    bytes
}

/// Runs a property over its seeds and then over [`MUTANTS`] mutants of them; prints what reproduces a failure.
pub(crate) fn run(name: &str, seeds: &[Vec<u8>], words: &[&[u8]], body: impl Fn(&[u8])) {
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut one = |data: &[u8], which: &dyn Fn() -> String| {
        let began = Instant::now();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(data)));
        assert!(
            result.is_ok(),
            "{name}: {} fails with {:?}",
            which(),
            String::from_utf8_lossy(data)
        );
        slowest = slowest.max(began.elapsed());
    };
    for (number, seed) in seeds.iter().enumerate() {
        one(seed, &|| format!("seed {number}"));
    }
    let mut random = Random(RANDOM_SEED);
    for number in 0..MUTANTS {
        let seed = &seeds[number % seeds.len()];
        let other = &seeds[random.below(seeds.len())];
        one(&mutate(seed, other, words, &mut random), &|| {
            format!("mutant {number} of random seed {RANDOM_SEED:#x}")
        });
    }
    let spent = started.elapsed();
    println!("{name}: {} seeds, {MUTANTS} mutants, {spent:?}, slowest {slowest:?}", seeds.len());
    assert!(slowest < SLOWEST_MAX, "{name}: one took {slowest:?}");
}

/// Where all mutants begin.
const RANDOM_SEED: u64 = 0x5ea1_6a7e;
/// Far beyond what any of them needs on an idle machine.
const SLOWEST_MAX: Duration = Duration::from_secs(5);
