//! Chains made for each outcome, each way a CRL is signed, and the memory of verdicts.

use rcgen::{
    BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    RevocationReason,
};

use super::*;
use making::{Authority, set_years, year};

mod constraints;
mod limits;
mod making;
mod published;

#[test]
fn a_path_to_an_anchor_makes_trusted_and_nothing_else_does() {
    let root = Authority::root("Root");
    let below = root.under("Below");
    let impostor = Authority::root("Below");
    let store = plain_store(&root, &[&below]);
    assert_eq!(sign_in(&store, &below.person(1), 2026), Trust::Trusted);
    assert_eq!(sign_in(&store, &impostor.person(1), 2026), Trust::Untrusted);
    let bare = plain_store(&root, &[]);
    let person = below.person(2);
    assert_eq!(sign_in(&bare, &person, 2026), Trust::Untrusted);
    let offered = [impostor.certificate, below.certificate];
    let aided = |others: &[_]| bare.judge(&person, others, Purpose::Sign, year(2026));
    assert_eq!(aided(&offered), Trust::Trusted);
    assert_eq!(aided(&offered[..1]), Trust::Untrusted);
    // A person is no authority, whoever offers the certificate.
    let not_an_authority = Authority::adjusted(Some(&root), "Person", |params| {
        params.is_ca = IsCa::ExplicitNoCa;
    });
    let forged = not_an_authority.person(3);
    let others = [not_an_authority.certificate];
    assert_eq!(bare.judge(&forged, &others, Purpose::Sign, year(2026)), Trust::Untrusted);
}

#[test]
fn validity_holds_for_every_certificate_of_the_path() {
    let root = Authority::root("Root");
    let below = Authority::adjusted(Some(&root), "Below", |p| set_years(p, (2025, 2027)));
    let person = below.person(1);
    let store = plain_store(&root, &[&below]);
    let (first, last) = (year(2025).0, year(2027).0);
    for (at, expected) in [
        (first - 1, Trust::Expired),
        (first, Trust::Trusted),
        (last, Trust::Trusted),
        (last + 1, Trust::Expired),
    ] {
        assert_eq!(store.judge(&person, &[], Purpose::Sign, Timestamp(at)), expected, "{at}");
    }
    // The anchor's own validity is not asked.
    let old = Authority::adjusted(None, "Old", |params| set_years(params, (2000, 2010)));
    assert_eq!(sign_in(&plain_store(&old, &[]), &old.person(1), 2026), Trust::Trusted);
}

/// RFC 5280 §6.1.4 n asks for keyCertSign where there is a key usage.
#[test]
fn an_intermediate_without_key_usage_issues() {
    let root = Authority::root("Root");
    let judged = |usages: Vec<KeyUsagePurpose>| {
        let below = Authority::adjusted(Some(&root), "Below", |params| params.key_usages = usages);
        sign_in(&plain_store(&root, &[&below]), &below.person(1), 2026)
    };
    assert_eq!(judged(Vec::new()), Trust::Trusted);
    assert_eq!(judged(vec![KeyUsagePurpose::KeyCertSign]), Trust::Trusted);
    assert_eq!(judged(vec![KeyUsagePurpose::CrlSign]), Trust::Untrusted);
    // Nothing else is let off: neither below it nor above.
    let below = Authority::adjusted(Some(&root), "Below", |params| params.key_usages.clear());
    let critical = below.person_adjusted(2, |params| {
        let mut unknown =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        unknown.set_criticality(true);
        params.custom_extensions.push(unknown);
    });
    assert_eq!(sign_in(&plain_store(&root, &[&below]), &critical, 2026), Trust::Untrusted);
    let flat = Authority::adjusted(None, "Flat", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let below = Authority::adjusted(Some(&flat), "Below", |params| params.key_usages.clear());
    assert_eq!(sign_in(&plain_store(&flat, &[&below]), &below.person(3), 2026), Trust::Untrusted);
    let narrow = Authority::adjusted(Some(&root), "Narrow", |params| {
        params.key_usages.clear();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(sign_in(&plain_store(&root, &[&narrow]), &narrow.person(4), 2026), Trust::Untrusted);
}

#[test]
fn usage_decides_about_the_purpose() {
    let root = Authority::root("Root");
    let store = plain_store(&root, &[]);
    let signer = root.person(1);
    assert_eq!(sign_in(&store, &signer, 2026), Trust::Trusted);
    assert_eq!(store.judge(&signer, &[], Purpose::Encrypt, year(2026)), Trust::WrongUsage);
    let reader = root.person_adjusted(2, |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    });
    assert_eq!(store.judge(&reader, &[], Purpose::Encrypt, year(2026)), Trust::Trusted);
    assert_eq!(sign_in(&store, &reader, 2026), Trust::WrongUsage);
    let server = root.person_adjusted(3, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(sign_in(&store, &server, 2026), Trust::WrongUsage);
}

#[test]
fn a_revocation_counts_from_its_date_on_and_in_an_old_list_too() {
    let root = Authority::root("Root");
    let revoked = [
        (1, 2025, Some(RevocationReason::KeyCompromise)),
        (2, 2025, None),
        (3, 2025, Some(RevocationReason::CertificateHold)),
        (4, 2025, Some(RevocationReason::RemoveFromCrl)),
    ];
    let store = store(&root, &[], vec![root.crl((2024, 2027), &revoked)]);
    let stolen = Trust::Revoked { key_compromise: true };
    let ended = Trust::Revoked { key_compromise: false };
    for (serial, at, expected) in [
        (1, 2024, Trust::Trusted),
        (1, 2025, stolen),
        (1, 2028, stolen),
        (2, 2026, ended),
        (2, 2028, ended),
        (3, 2026, ended),
        (3, 2028, Trust::RevocationUnknown),
        (4, 2026, Trust::Trusted),
        (5, 2026, Trust::Trusted),
        (5, 2028, Trust::RevocationUnknown),
        // Before thisUpdate.
        (5, 2023, Trust::RevocationUnknown),
    ] {
        let person = root.person_adjusted(serial, |params| set_years(params, (2022, 2032)));
        assert_eq!(sign_in(&store, &person, at), expected, "serial {serial} in {at}");
        assert_eq!(store.judge_pinned(&person, &[], Purpose::Sign, year(at)), expected, "pinned");
    }
}

#[test]
fn a_revoked_or_unknown_authority_spoils_the_path() {
    let root = Authority::root("Root");
    let below = Authority::adjusted(Some(&root), "Below", |params| {
        params.serial_number = Some(7_u64.into());
    });
    let person = below.person(1);
    let good = below.crl((2024, 2028), &[]);
    let of_root = |revoked: &[_]| root.crl((2024, 2027), revoked);
    let judged = |crls, at| sign_in(&store(&root, &[&below], crls), &person, at);
    assert_eq!(judged(vec![good.clone(), of_root(&[])], 2026), Trust::Trusted);
    let compromised = of_root(&[(7, 2025, Some(RevocationReason::CaCompromise))]);
    let stolen = Trust::Revoked { key_compromise: true };
    assert_eq!(judged(vec![good.clone(), compromised], 2026), stolen);
    let late = year(2027).0 + 1;
    let store = store(&root, &[&below], vec![good, of_root(&[])]);
    let found = store.judge(&person, &[], Purpose::Sign, Timestamp(late));
    assert_eq!(found, Trust::RevocationUnknown);
}

#[test]
fn a_list_that_cannot_be_used_leaves_unknown_and_one_of_others_is_not_asked() {
    let root = Authority::root("Root");
    let impostor = Authority::root("Root");
    let person = root.person(1);
    let forged = impostor.crl((2024, 2028), &[]);
    let forged_revocation = impostor.crl((2024, 2028), &[(1, 2025, None)]);
    let judged = |crls| sign_in(&store(&root, &[], crls), &person, 2026);
    assert_eq!(judged(vec![]), Trust::Trusted);
    assert_eq!(judged(vec![Authority::root("Another").crl((2024, 2028), &[])]), Trust::Trusted);
    assert_eq!(judged(vec![forged.clone()]), Trust::RevocationUnknown);
    assert_eq!(judged(vec![forged_revocation.clone()]), Trust::RevocationUnknown);
    let own = root.crl((2024, 2028), &[]);
    assert_eq!(judged(vec![forged, forged_revocation, own.clone()]), Trust::Trusted);
    let mut broken = own;
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(judged(vec![broken]), Trust::RevocationUnknown);
    let store = store(&root, &[], vec![root.crl((2024, 2028), &[]), b"no list".to_vec()]);
    assert_eq!(store.unreadable_crls(), [1]);
}

#[test]
fn a_list_signed_with_another_key_of_the_issuer_counts_if_that_key_is_certified() {
    let root = Authority::root("Root");
    let below = root.under("Below");
    let for_lists = Authority::adjusted(Some(&root), "Below", |params| {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        params.serial_number = Some(9_u64.into());
        set_years(params, (2024, 2027));
    });
    let person = below.person(1);
    let good = for_lists.crl((2024, 2028), &[]);
    let revoking = for_lists.crl((2024, 2028), &[(1, 2025, None)]);
    let both = [&below, &for_lists];
    let judged = |authorities: &[&Authority], crls, at| {
        sign_in(&store(&root, authorities, crls), &person, at)
    };
    assert_eq!(judged(&both, vec![good.clone()], 2026), Trust::Trusted);
    let ended = Trust::Revoked { key_compromise: false };
    assert_eq!(judged(&both, vec![revoking], 2026), ended);
    let unknown = Trust::RevocationUnknown;
    assert_eq!(judged(&[&below], vec![good.clone()], 2026), unknown);
    // What a message offers does not sign lists.
    let bare = store(&root, &[&below], vec![good.clone()]);
    let others = [for_lists.certificate.clone()];
    assert_eq!(bare.judge(&person, &others, Purpose::Sign, year(2026)), unknown);
    // Neither does a certificate that has expired, or is revoked, or is under no anchor.
    let late = Timestamp(year(2027).0 + 1);
    let aged = store(&root, &both, vec![good.clone()]);
    assert_eq!(aged.judge(&person, &[], Purpose::Sign, late), unknown);
    let revoked = root.crl((2024, 2028), &[(9, 2025, None)]);
    assert_eq!(judged(&both, vec![good.clone(), revoked], 2026), unknown);
    let unrelated = Authority::root("Below");
    let crl = unrelated.crl((2024, 2028), &[]);
    assert_eq!(judged(&[&below, &unrelated], vec![crl], 2026), unknown);
    // Nor one that is not to sign them.
    let issuing_only = Authority::adjusted(Some(&root), "Below", |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    let person = issuing_only.person(2);
    let store = store(&root, &[&issuing_only, &for_lists], vec![good]);
    assert_eq!(sign_in(&store, &person, 2026), Trust::Trusted);
}

#[test]
fn a_new_key_does_not_vouch_for_its_own_certificate() {
    let root = Authority::root("Root");
    let old = root.under("Below");
    let new = old.under("Below");
    let person = new.person(1);
    let of_new = new.crl((2024, 2028), &[]);
    let of_old = old.crl((2024, 2028), &[]);
    let judged = |crls| sign_in(&store(&root, &[&old, &new], crls), &person, 2026);
    assert_eq!(judged(vec![of_new.clone()]), Trust::RevocationUnknown);
    assert_eq!(judged(vec![of_new, of_old.clone()]), Trust::Trusted);
    // The old key, above on the path, speaks for what the new one issued too.
    assert_eq!(judged(vec![of_old]), Trust::Trusted);
}

/// After a change of keys both keys' lists are in force for a while, and the newer one may say more.
#[test]
fn a_list_of_the_issuers_other_key_revokes_what_its_own_calls_good() {
    let root = Authority::root("Root");
    let (old, new) = (root.under("Below"), root.under("Below"));
    let person = old.person(1);
    let of_old = old.crl((2024, 2028), &[]);
    let judged = |others: &[(u64, i32, Option<RevocationReason>)]| {
        let lists = vec![of_old.clone(), new.crl((2024, 2028), others)];
        sign_in(&store(&root, &[&old, &new], lists), &person, 2026)
    };
    assert_eq!(judged(&[]), Trust::Trusted);
    assert_eq!(judged(&[(1, 2025, None)]), Trust::Revoked { key_compromise: false });
    assert_eq!(judged(&[(2, 2025, None)]), Trust::Trusted);
}

/// A pinned certificate has no path, and its authority's other key may say more all the same.
#[test]
fn a_list_of_the_issuers_other_key_revokes_what_is_pinned() {
    let root = Authority::root("Root");
    let (old, new) = (root.under("Below"), root.under("Below"));
    let person = old.person(1);
    let pinned = |store: &TrustStore| store.judge_pinned(&person, &[], Purpose::Sign, year(2026));
    let both = |lists| store(&root, &[&old, &new], lists);
    let (current, lapsed) = (old.crl((2024, 2028), &[]), old.crl((2024, 2025), &[]));
    let of_new = |revoked: &[_]| new.crl((2024, 2028), revoked);
    let ended = Trust::Revoked { key_compromise: false };
    for of_old in [&current, &lapsed] {
        let judged = |revoked: &[_]| pinned(&both(vec![of_old.clone(), of_new(revoked)]));
        assert_eq!(judged(&[]), Trust::Trusted);
        assert_eq!(judged(&[(2, 2025, None)]), Trust::Trusted);
        assert_eq!(judged(&[(1, 2025, None)]), ended);
    }
    // Whoever holds below no anchor in common says what is revoked, not what is good.
    let namesake = Authority::root("Below");
    for (revoked, expected) in [(1, ended), (2, Trust::RevocationUnknown)] {
        let lists = vec![lapsed.clone(), namesake.crl((2024, 2028), &[(revoked, 2025, None)])];
        let anchors = vec![root.certificate.clone(), namesake.certificate.clone()];
        let intermediates = vec![old.certificate.clone()];
        assert_eq!(pinned(&TrustStore::new(anchors, intermediates, lists)), expected);
    }
    let root_renewed = Authority::root("Root");
    let person = root.person(1);
    let lists =
        vec![root.crl((2024, 2028), &[]), root_renewed.crl((2024, 2028), &[(1, 2025, None)])];
    let anchors = vec![root.certificate, root_renewed.certificate];
    let store = TrustStore::new(anchors, vec![], lists);
    assert!(store.is_revoked(&person, &[], Purpose::Sign, year(2026)));
}

/// Authorities above our own keys need not be among those that we trust.
#[test]
fn a_list_of_an_authority_that_came_with_the_certificate_counts() {
    let below = Authority::root("Root").under("Below");
    let person = below.person(1);
    let holding =
        |revoked: &[_]| TrustStore::new(vec![], vec![], vec![below.crl((2024, 2028), revoked)]);
    let chain = [Authority::root("Below").certificate, below.certificate.clone()];
    let is_revoked = |store: &TrustStore, chain: &[_]| {
        store.is_revoked(&person, chain, Purpose::Sign, year(2026))
    };
    let revoking = holding(&[(1, 2025, None)]);
    assert!(is_revoked(&revoking, &chain));
    assert!(!is_revoked(&revoking, &chain[..1]), "it did not sign the certificate");
    let good = holding(&[(2, 2025, None)]);
    assert!(!is_revoked(&good, &chain));
    let pinned = |chain: &[_]| good.judge_pinned(&person, chain, Purpose::Sign, year(2026));
    assert_eq!(pinned(&chain[..1]), Trust::RevocationUnknown);
    assert_eq!(pinned(&chain), Trust::Trusted);
}

/// An authority may cut its list into more parts than one message may have signatures checked.
#[test]
fn lists_for_other_certificates_cost_no_signature_check() {
    let root = Authority::root("Root");
    let point = |number: u32| format!("http://root.example/{number}.crl");
    let person = root.person_adjusted(1, |params| {
        let uris = vec![point(299)];
        params.crl_distribution_points = vec![rcgen::CrlDistributionPoint { uris }];
    });
    let part = |number, revoked: &[_]| root.part_of_crl(&point(number), revoked);
    let mut parts: Vec<_> = (0..299).map(|number| part(number, &[(1, 2025, None)])).collect();
    let judged = |lists: &[Vec<u8>]| sign_in(&store(&root, &[], lists.to_vec()), &person, 2026);
    assert_eq!(judged(&parts), Trust::RevocationUnknown, "none is about it");
    parts.push(part(299, &[(2, 2025, None)]));
    assert_eq!(judged(&parts), Trust::Trusted);
    parts.push(part(299, &[(1, 2025, None)]));
    assert_eq!(judged(&parts), Trust::Revoked { key_compromise: false });
}

#[test]
fn a_lists_signature_is_checked_as_far_as_its_issuer_is_known() {
    let authority = Authority::root("An authority");
    let list = authority.crl((2024, 2028), &[(1, 2025, None)]);
    let held = |others: &[&Authority]| {
        let certificates: Vec<_> = others.iter().map(|one| one.certificate.clone()).collect();
        ListSignature::check(&list, &certificates)
    };
    assert_eq!(held(&[&Authority::root("Another"), &authority]), Some(ListSignature::Holds));
    assert_eq!(held(&[&Authority::root("Another")]), Some(ListSignature::IsUnknown));
    // Of the same name, with another key that its list would have named.
    let namesake = Authority::root("An authority");
    assert_eq!(held(&[&namesake]), Some(ListSignature::IsUnknown));
    assert_eq!(held(&[&namesake, &authority]), Some(ListSignature::Holds));
    let mut damaged = list.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let checked = ListSignature::check(&damaged, std::slice::from_ref(&authority.certificate));
    assert_eq!(checked, Some(ListSignature::IsFalse));
    assert_eq!(ListSignature::check(b"no list", &[]), None);
    let issues_only = Authority::adjusted(None, "An authority", |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    assert_eq!(held(&[&issues_only]), Some(ListSignature::IsUnknown));
}

#[test]
fn a_pinned_certificate_needs_no_path_but_its_revocation_counts() {
    let root = Authority::root("Root");
    let person = root.person(1);
    let stranger = TrustStore::default();
    let pinned = |store: &TrustStore, at| store.judge_pinned(&person, &[], Purpose::Sign, year(at));
    assert_eq!(sign_in(&stranger, &person, 2026), Trust::Untrusted);
    assert_eq!(pinned(&stranger, 2026), Trust::Trusted);
    assert_eq!(pinned(&stranger, 2030), Trust::Expired);
    assert_eq!(
        stranger.judge_pinned(&person, &[], Purpose::Encrypt, year(2026)),
        Trust::WrongUsage
    );
    let crl = root.crl((2024, 2028), &[(1, 2025, None)]);
    let without_issuer = TrustStore::new(vec![], vec![], vec![crl]);
    assert_eq!(pinned(&without_issuer, 2026), Trust::RevocationUnknown);
    // An anchor that is a person's certificate is trusted, and issues nothing.
    let store = TrustStore::new(vec![person.clone()], vec![], vec![]);
    assert_eq!(sign_in(&store, &person, 2026), Trust::Trusted);
    assert_eq!(sign_in(&store, &root.person(2), 2026), Trust::Untrusted);
}

#[test]
fn a_store_that_remembers_answers_as_one_that_does_not() {
    let root = Authority::root("Root");
    let below = Authority::adjusted(Some(&root), "Below", |p| set_years(p, (2023, 2029)));
    let crls = vec![
        below.crl((2024, 2026), &[(1, 2025, None), (2, 2024, None)]),
        below.crl((2025, 2027), &[(1, 2025, Some(RevocationReason::KeyCompromise))]),
    ];
    let fresh = || store(&root, &[], crls.clone());
    let remembering = fresh();
    let persons = [below.person(1), below.person(2), below.person(3), root.person(4)];
    let offered = [below.certificate];
    let edges = (2022..2031).flat_map(|y| [-1, 0, 1].map(|s| Timestamp(year(y).0 + s)));
    let edges: Vec<Timestamp> = edges.collect();
    let mut outcomes = std::collections::HashSet::new();
    // Forwards, backwards, and leaping: what was remembered first differs.
    let leaping = (0..edges.len()).map(|i| edges[i * 7 % edges.len()]);
    let order = edges.iter().copied().chain(edges.iter().rev().copied()).chain(leaping);
    for at in order {
        for person in &persons {
            for purpose in [Purpose::Sign, Purpose::Encrypt] {
                for others in [&[][..], &offered] {
                    let found = remembering.judge(person, others, purpose, at);
                    assert_eq!(found, fresh().judge(person, others, purpose, at), "{at:?}");
                    outcomes.insert(found);
                }
                let found = remembering.judge_pinned(person, &[], purpose, at);
                assert_eq!(found, fresh().judge_pinned(person, &[], purpose, at), "{at:?} pinned");
            }
        }
    }
    // All that can come of this: Trusted, Untrusted, Expired, Revoked twice, unknown, WrongUsage.
    assert_eq!(outcomes.len(), 7, "{outcomes:?}");
    assert!(remembering.verdicts.len() <= persons.len() * 2 * 3);
}

fn sign_in(store: &TrustStore, person: &Certificate, at: i32) -> Trust {
    store.judge(person, &[], Purpose::Sign, year(at))
}

fn plain_store(root: &Authority, authorities: &[&Authority]) -> TrustStore {
    store(root, authorities, vec![])
}

fn store(root: &Authority, authorities: &[&Authority], crls: Vec<Vec<u8>>) -> TrustStore {
    let intermediates = authorities.iter().map(|a| a.certificate.clone()).collect();
    TrustStore::new(vec![root.certificate.clone()], intermediates, crls)
}
