//! A hundred thousand mutants a parser on the stable toolchain: no panic, and none that takes long.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::time::{Duration, Instant};

use sealgate_core::cms::{ContentCipher, KeyWrap, Signing, default_scheme, encrypt, sign_detached};
use sealgate_core::keys::{Certificate, Timestamp};

#[path = "fuzz_bodies/cms.rs"]
mod bodies;
#[path = "support/corpus.rs"]
mod corpus;
#[path = "support/cms_people.rs"]
mod people;
#[path = "support/random.rs"]
mod random;
#[path = "support/shortest.rs"]
mod shortest;

use people::{blocks, files, fixtures, from_mail, recipients, rfc9216, signers};
use random::Random;
use shortest::shortest;

const MUTANTS: u64 = 100_000;
/// What no small input may take.
const LIMIT: Duration = Duration::from_secs(1);

/// One to four changes: a bit, an octet that means something in BER, a piece cut out, doubled or
/// taken from elsewhere.
fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            bytes.push(0x30);
        }
        let at = random.below(bytes.len());
        let length = random.below(24).min(bytes.len() - at);
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => {
                bytes[at] = [0, 1, 0x04, 0x24, 0x30, 0x31, 0x80, 0x84, 0xa0, 0xff][random.below(10)]
            }
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let piece = bytes[at..at + length].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let from = random.below(seed.len());
                let piece = seed[from..(from + length).min(seed.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => bytes.truncate(at),
            _ => bytes[at] = bytes[at].wrapping_add(1),
        }
    }
    bytes
}

fn run(name: &str, seeds: &[Vec<u8>], body: &dyn Fn(&[u8])) {
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut one = |data: &[u8]| {
        slowest = slowest.max(shortest(LIMIT, || body(data)));
    };
    seeds.iter().for_each(|seed| one(seed));
    let mut random = Random(0x5ea1_6a7e);
    for index in 0..MUTANTS {
        let seed = &seeds[index as usize % seeds.len()];
        one(&mutate(seed, &mut random));
    }
    println!(
        "{name}: {} seeds, {MUTANTS} mutants, {:?}, slowest {slowest:?}",
        seeds.len(),
        started.elapsed()
    );
    assert!(slowest < LIMIT, "{name}: one took {slowest:?}");
}

/// What we write ourselves, small enough for many mutants.
fn own(sign: bool) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    if sign {
        for person in signers() {
            let key = person.own();
            let scheme = default_scheme(&person.certificate).unwrap();
            let signing = Signing {
                key: &key,
                scheme,
                encryption_certificate: None,
                signed_at: Timestamp(1_700_000_000),
            };
            seeds.push(sign_detached(&signing, &[b""]).unwrap());
        }
    } else {
        for person in recipients() {
            for cipher in [ContentCipher::Aes256Gcm, ContentCipher::Aes128Cbc] {
                let kind = person.certificate.key_kind();
                let way = sealgate_core::cms::key_wrap_for(kind, None).unwrap();
                seeds.push(encrypt(&[b"text"], cipher, &[(&person.certificate, way)]).unwrap());
            }
        }
        let bob = rfc9216("bob.encrypt");
        for cipher in [ContentCipher::Aes256Gcm, ContentCipher::Aes256Cbc] {
            let named = [(&*bob.certificate, KeyWrap::RsaOaepSha256)];
            seeds.push(encrypt(&[b"text"], cipher, &named).unwrap());
        }
    }
    seeds
}

/// The seeds of other projects, decoded where they are PEM or mail.
fn foreign(sets: &[&str]) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for set in sets {
        for path in files(&fixtures(set)) {
            let bytes = std::fs::read(&path).unwrap();
            if bytes.len() > 64 * 1024 {
                continue;
            }
            seeds.extend(blocks(&bytes));
            seeds.extend(from_mail(&bytes));
            seeds.push(bytes);
        }
    }
    assert!(seeds.len() > 10, "{sets:?} hold only {} seeds", seeds.len());
    seeds
}

const SETS: [&str; 5] =
    ["fuzz-openssl/cms", "fuzz-awslc", "rustcrypto-cms", "openssl-smime", "rfc4134"];

#[test]
fn transcode() {
    run("cms_transcode", &[own(true), own(false), foreign(&SETS)].concat(), &bodies::cms_transcode);
}

#[test]
fn signed_data() {
    run("cms_signed_data", &[own(true), foreign(&SETS)].concat(), &bodies::cms_signed_data);
}

#[test]
fn own_signed_data() {
    run("cms_signed_data (own)", &own(true), &bodies::cms_signed_data);
}

#[test]
fn enveloped_data() {
    let bob = rfc9216("bob.encrypt").certificate;
    let body = |data: &[u8]| bodies::cms_enveloped_data(data, &bob);
    run("cms_enveloped_data", &[own(false), foreign(&SETS)].concat(), &body);
}

#[test]
fn own_enveloped_data() {
    let bob: std::sync::Arc<Certificate> = rfc9216("bob.encrypt").certificate;
    let body = |data: &[u8]| bodies::cms_enveloped_data(data, &bob);
    run("cms_enveloped_data (own)", &own(false), &body);
}

#[test]
fn certificates() {
    let mut seeds: Vec<Vec<u8>> =
        signers().iter().map(|person| person.certificate.der().to_vec()).collect();
    seeds.extend(foreign(&["rfc9216", "openssl-smime/smime-certs", "openssl-smime/d2i-tests"]));
    run("certificate", &seeds, &bodies::certificate);
}

#[test]
fn keys_and_capabilities() {
    // Parsing an RSA key costs a check of its primes, so the mutants are of small keys.
    let mut seeds: Vec<Vec<u8>> = signers()
        .into_iter()
        .chain(recipients())
        .map(|person| person.pkcs8)
        .filter(|pkcs8| pkcs8.len() < 512)
        .collect();
    seeds.push(vec![0x30, 0]);
    run("small_parsers", &seeds, &bodies::small_parsers);
}

#[test]
fn the_corpora_of_cms_replay() {
    corpus::replay(bodies::TARGETS);
}
