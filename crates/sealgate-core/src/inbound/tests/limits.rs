//! What one message may cost, and what becomes of it beyond that (REQUIREMENTS K).

use super::*;
use crate::testing::mails_at_header_limits;
use crate::trust::TrustStore;

/// K6: the signers of both layers cost what so many authorities of one name, tried first, make them cost.
#[test]
fn the_signatures_of_all_layers_are_checked_within_one_budget() {
    let world = World::new();
    let usage = KeyUsagePurpose::DigitalSignature;
    let other = world.authority.key("alice@nec.example", usage);
    // The outer one is not the author's, or nothing would hang on the inner one.
    let inner = joined(&world.signed(PAYLOAD, &other));
    let mail = mail(FROM_ALICE, &world.signed(&inner, &world.carol.signing));
    let taken = |impostors: usize| {
        let mut anchors: Vec<_> =
            (0..impostors).map(|_| Authority::new("Test Authority").certificate).collect();
        anchors.push(std::sync::Arc::clone(&world.authority.certificate));
        let mut context = context("abc.example", &world.authority, Decision::default());
        context.trust = std::sync::Arc::new(TrustStore::new(anchors, Vec::new(), Vec::new()));
        run(context, &mail, &["bob@abc.example"], &keys(&[&world.bob], &[]))
    };
    row(&taken(99), "250", Delivered::AsReceived, Verdict::Pass, None);
    let over = taken(100);
    row(&over, "250", Delivered::AsReceived, Verdict::PermError, Some(Reason::OverLimit));
    assert!(over.result.unwrap().harvest.is_none());
}

/// K1.
#[test]
fn header_sections_over_the_limits_are_refused() {
    let world = World::new();
    for (mail, is_within) in mails_at_header_limits(FROM_ALICE) {
        let reply = world.take(&mail).reply();
        let expected = if is_within { "250" } else { "550 5.6.0" };
        assert!(reply.starts_with(expected), "{reply} for {} octets", mail.len());
    }
}

/// K2: what is deeper, or has more parts, than is looked at is not judged, and stays as it is.
#[test]
fn trees_over_the_limits_have_no_verdict() {
    let world = World::new();
    let deep = |depth: usize| {
        // The signed part is at depth 1.
        (1..depth).fold("Content-Type: text/plain\r\n\r\nfox\r\n".to_owned(), |inner, level| {
            format!(
                "Content-Type: multipart/mixed; boundary=\"b{level}.\"\r\n\r\n\
                 --b{level}.\r\n{inner}\r\n--b{level}.--\r\n"
            )
        })
    };
    let wide = |entities: usize| {
        // The root, the signed part and the signature count.
        let parts = "--b\r\n\r\nfox\r\n".repeat(entities - 3);
        format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{parts}--b--\r\n")
    };
    for (payload, is_within) in
        [(deep(20), true), (deep(21), false), (wide(1_000), true), (wide(1_001), false)]
    {
        let signed = world.signed(payload.as_bytes(), &world.alice.signing);
        let mail = mail(FROM_ALICE, &signed);
        let outcome = world.take(&mail);
        let (verdict, reason) = match is_within {
            true => (Verdict::Pass, None),
            false => (Verdict::Neutral, Some(Reason::Ambiguous)),
        };
        row(&outcome, "250", Delivered::AsReceived, verdict, reason);
        let body = String::from_utf8_lossy(&mail[FROM_ALICE.len()..]).into_owned();
        assert!(outcome.message(0).ends_with(&body));
    }
}

/// K3.
#[test]
fn four_layers_are_judged() {
    let world = World::new();
    let mut entity = vec![Bytes::from_static(PAYLOAD)];
    for _ in 0..4 {
        entity = world.signed(&joined(&entity), &world.alice.signing);
    }
    let outcome = world.take(&mail(FROM_ALICE, &entity));
    row(&outcome, "250", Delivered::AsReceived, Verdict::Pass, None);
    assert_eq!(outcome.report.layers.len(), 4);
}

/// K3: nothing is decompressed, so no bomb goes off.
#[test]
fn compressed_data_is_delivered_as_it_is() {
    let world = World::new();
    // ContentInfo { id-ct-compressedData }, RFC 3274 §1.1.
    let der = b"\x30\x0f\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x01\x09\xa0\x00";
    let smime = mime::write::pkcs7_mime(&[], "compressed-data", der.to_vec());
    let mail = mail(FROM_ALICE, &[smime]);
    let outcome = world.take(&mail);
    row(&outcome, "250", Delivered::AsReceived, Verdict::Neutral, Some(Reason::Unsupported));
    assert!(outcome.message(0).ends_with(std::str::from_utf8(&mail[FROM_ALICE.len()..]).unwrap()));
}
