//! What one message may cost, and what becomes of it beyond that (REQUIREMENTS K).

use super::*;
use crate::trust::TrustStore;

/// K6: both layers' signers cost what so many authorities of one name, tried first, make them cost.
#[test]
fn the_signatures_of_all_layers_are_checked_within_one_budget() {
    let world = World::new();
    let usage = KeyUsagePurpose::DigitalSignature;
    let other = world.authority.key("alice@nec.example", usage);
    let inner = joined(&world.signed(PAYLOAD, &other));
    let mail = mail(FROM_ALICE, &world.signed(&inner, &world.alice.signing));
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
