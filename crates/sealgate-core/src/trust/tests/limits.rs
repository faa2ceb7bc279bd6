//! REQUIREMENTS K4 to K6: each limit, and one more.

use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, GeneralSubtree, IsCa, Issuer, KeyUsagePurpose, NameConstraints, SanType,
};

use super::making::{Authority, RsaShaped, set_years, year};
use super::{plain_store, sign_in};
use crate::trust::*;

#[test]
fn rsa_keys_are_taken_from_2048_to_8192_bits_with_an_exponent_of_64() {
    let root = Authority::root("Root");
    let store = plain_store(&root, &[]);
    let usual = [1, 0, 1];
    let longest = [0x80, 0, 0, 0, 0, 0, 0, 1];
    let too_long = [1, 0, 0, 0, 0, 0, 0, 0, 1];
    for (bits, exponent, expected) in [
        (2047, &usual[..], Trust::Weak),
        (2048, &usual, Trust::Trusted),
        (8192, &usual, Trust::Trusted),
        (8193, &usual, Trust::OverLimit),
        (16_384, &usual, Trust::OverLimit),
        (2048, &longest, Trust::Trusted),
        (2048, &too_long, Trust::OverLimit),
        (2048, &[1, 0, 0], Trust::Untrusted),
        (2048, &[1], Trust::Untrusted),
    ] {
        let person = root.person_with_key(&RsaShaped::new(bits, exponent), 1, |_| {});
        assert_eq!(sign_in(&store, &person, 2026), expected, "{bits} bits, {exponent:?}");
        let pinned = store.judge_pinned(&person, &[], Purpose::Sign, year(2026));
        assert_eq!(pinned, expected, "pinned: {bits} bits, {exponent:?}");
    }
}

#[test]
fn a_key_of_16384_bits_is_refused_without_arithmetic() {
    let root = Authority::root("Root");
    let person = root.person_with_key(&RsaShaped::new(16_384, &[1, 0, 1]), 1, |_| {});
    // As the key of an authority that seems to have issued the certificate, and offered in plenty.
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    set_years(&mut params, (2020, 2040));
    let key = RsaShaped::new(16_384, &[1, 0, 1]);
    let huge = super::making::parse(params.signed_by(&key, &root.issuer).unwrap().der());
    let issuer = Issuer::new(params.clone(), key);
    let key = rcgen::KeyPair::generate().unwrap();
    let issued = super::making::parse(params.signed_by(&key, &issuer).unwrap().der());
    let offered = vec![huge; OFFERED_MAX];
    let started = Instant::now();
    for minute in 0..100 {
        // Other moments, so that nothing is remembered for both.
        let store = plain_store(&root, &[]);
        let at = Timestamp(year(2026).0 + 60 * minute);
        assert_eq!(store.judge(&person, &[], Purpose::Sign, at), Trust::OverLimit);
        let found = store.judge(&issued, &offered[..1], Purpose::Sign, at);
        assert_eq!(found, Trust::Untrusted);
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn a_path_is_at_most_8_certificates_long() {
    let root = Authority::root("Root");
    let mut authorities: Vec<Authority> = Vec::new();
    for level in 1..=8 {
        let above = authorities.last().unwrap_or(&root);
        let next = above.under(&format!("Level {level}"));
        authorities.push(next);
    }
    let all: Vec<&Authority> = authorities.iter().collect();
    let store = plain_store(&root, &all);
    assert_eq!(sign_in(&store, &authorities[6].person(1), 2026), Trust::Trusted);
    assert_eq!(sign_in(&store, &authorities[7].person(1), 2026), Trust::OverLimit);
}

#[test]
fn at_most_100_candidate_paths_are_looked_at() {
    let root = Authority::root("Root");
    let below = root.under("Below");
    let person = below.person(1);
    let judged = |expired: u64| {
        let mut intermediates: Vec<_> =
            (1..=expired).map(|serial| below.again(&root, serial, (2020, 2022))).collect();
        intermediates.push(below.certificate.clone());
        let store = TrustStore::new(vec![root.certificate.clone()], intermediates, vec![]);
        sign_in(&store, &person, 2026)
    };
    assert_eq!(judged(99), Trust::Trusted);
    assert_eq!(judged(100), Trust::OverLimit);
}

#[test]
fn at_most_200_signatures_are_checked() {
    let root = Authority::root("Root");
    let below = root.under("Below");
    let person = below.person(1);
    // The same name, another key: each costs the check of the person's certificate.
    let others: Vec<_> = (0..199).map(|_| root.under("Below").certificate).collect();
    let judged = |others: &[Arc<Certificate>]| {
        let mut intermediates = others.to_vec();
        intermediates.push(below.certificate.clone());
        let store = TrustStore::new(vec![root.certificate.clone()], intermediates, vec![]);
        sign_in(&store, &person, 2026)
    };
    assert_eq!(judged(&others[..198]), Trust::Trusted);
    assert_eq!(judged(&others), Trust::OverLimit);
}

#[test]
fn at_most_64_certificates_of_a_message_are_looked_at() {
    let root = Authority::root("Root");
    let below = root.under("Below");
    let person = below.person(1);
    let store = plain_store(&root, &[]);
    let judged = |others: usize| {
        let mut offered = vec![root.certificate.clone(); others];
        offered.push(below.certificate.clone());
        store.judge(&person, &offered, Purpose::Sign, year(2026))
    };
    assert_eq!(judged(63), Trust::Trusted);
    assert_eq!(judged(64), Trust::OverLimit);
    // A search that was cut is not remembered as one that was not.
    assert_eq!(judged(63), Trust::Trusted);
}

/// Each is read anew for each question, so that large ones would cost the square of their size.
#[test]
fn at_most_256_kib_of_certificates_of_a_message_are_looked_at() {
    let root = Authority::root("Root");
    let below = root.under("Below");
    let person = below.person(1);
    let large = Authority::adjusted(None, "Large", |params| {
        let name = |n| SanType::Rfc822Name(format!("a{n}@p.example").try_into().unwrap());
        params.subject_alt_names = (0..3_000).map(name).collect();
    });
    let bytes = large.certificate.der().len();
    let most = OFFERED_BYTES_MAX / bytes;
    assert!((3..60).contains(&most), "{bytes}");
    let store = plain_store(&root, &[]);
    let judged = |others: usize| {
        let mut offered = vec![large.certificate.clone(); others];
        offered.push(below.certificate.clone());
        store.judge(&person, &offered, Purpose::Sign, year(2026))
    };
    assert_eq!(judged(most - 1), Trust::Trusted);
    assert_eq!(judged(most + 1), Trust::OverLimit);
}

#[test]
fn at_most_250_000_names_are_compared_with_constraints() {
    let root = Authority::root("Root");
    let subtrees = (0..500).map(|n| GeneralSubtree::Rfc822Name(format!("x{n}.example")));
    let below = Authority::adjusted(Some(&root), "Below", |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![],
            excluded_subtrees: subtrees.collect(),
        });
    });
    // Each certificate's subject counts as a name: this many, and two.
    let person = |names: usize| {
        below.person_adjusted(1, |params| {
            let name = |n| SanType::Rfc822Name(format!("a{n}@p.example").try_into().unwrap());
            params.subject_alt_names = (0..names).map(name).collect();
        })
    };
    let store = plain_store(&root, &[&below]);
    let started = Instant::now();
    assert_eq!(sign_in(&store, &person(498), 2026), Trust::Trusted);
    assert_eq!(sign_in(&store, &person(499), 2026), Trust::OverLimit);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    let excluded = below.person_adjusted(2, |params| {
        let name = SanType::Rfc822Name("a@x499.example".try_into().unwrap());
        params.subject_alt_names.push(name);
    });
    assert_eq!(sign_in(&store, &excluded, 2026), Trust::Untrusted);
}

#[test]
fn the_signatures_checked_for_one_message_are_counted_together() {
    let root = Authority::root("Root");
    let below = root.under("Below");
    // With the right one after 98 of the same name each of these costs 99, and "Below" itself one.
    let persons = [below.person(1), below.person(2), root.person(3), root.person(4)];
    let mut intermediates: Vec<_> = (0..98).map(|_| root.under("Below").certificate).collect();
    intermediates.push(below.certificate);
    let store = TrustStore::new(vec![root.certificate], intermediates, vec![]);
    let budget = Budget::default();
    let judged =
        |person: &Certificate| store.judge_within(person, &[], Purpose::Sign, year(2026), &budget);
    let [one, two, three, four] = persons.each_ref().map(|person| judged(person));
    assert_eq!([one, two], [Trust::Trusted; 2], "199");
    assert_eq!([three, four], [Trust::Trusted, Trust::OverLimit], "200 and 201");
    // The next message has its own, and does not inherit the verdict.
    assert_eq!(sign_in(&store, &persons[3], 2026), Trust::Trusted);
}
