//! What the sender's domain says of a message and what that decides; results that others wrote; what only time can tell.

use std::sync::Arc;

use super::*;
use crate::keys::Timestamp;
use crate::policy::{Overrides, Pattern};
use crate::trust::TrustStore;

fn found(method: &'static str, result: &'static str, domain: &str) -> AuthenticationResult {
    let property = if method == "spf" { "smtp.mailfrom" } else { "header.d" };
    AuthenticationResult { method, result, properties: vec![(property, domain.to_owned())] }
}

/// From alice@nec.example, after authentication.
fn run_after(context: Context, mail: &Bytes, results: Vec<AuthenticationResult>) -> Outcome {
    let keys = keys(&[], &[]);
    let envelope = envelope("alice@nec.example", &["bob@abc.example"]);
    let message = Message::new(mail.clone());
    let inbound = Inbound::new(context, "ID".to_owned(), envelope, message, Vec::new());
    finished(inbound.authenticated(results, None), &keys)
}

/// Anybody can write an envelope that a rule excuses.
#[test]
fn a_rule_excuses_nobody_whose_domain_disowns_the_message() {
    let world = World::new();
    let mut context = context("abc.example", &world.authority, Decision::default());
    let mut policy = (*context.policy).clone();
    policy.rules.push(Rule {
        from: vec![Pattern::parse("*@nec.example").unwrap()],
        to: Vec::new(),
        overrides: Overrides { falsified: Some(Falsified::Tag), ..Default::default() },
    });
    context.policy = Arc::new(policy);
    let signed = mail(FROM_ALICE, &world.signed(PAYLOAD, &world.alice.signing));
    let falsified = altered(&signed, "quick");
    for (results, is_excused) in [
        (Vec::new(), true),
        (vec![found("spf", "none", "")], true),
        (vec![found("spf", "pass", "")], true),
        (vec![found("spf", "fail", "")], false),
        (vec![found("spf", "softfail", "")], false),
        // Somebody forwards it.
        (vec![found("spf", "fail", ""), found("dkim", "pass", "NEC.example")], true),
        (vec![found("spf", "fail", ""), found("dkim", "fail", "nec.example")], false),
        (vec![found("spf", "fail", ""), found("dkim", "pass", "evil.example")], false),
    ] {
        let outcome = run_after(context.clone(), &falsified, results.clone());
        match is_excused {
            true => assert!(outcome.result.is_ok(), "{results:?}"),
            false => refused(&outcome),
        }
    }
}

/// REQUIREMENTS E2. Of whom they believe, inside, the Internet says nothing.
#[test]
fn results_of_hosts_behind_us_are_erased_where_we_are_the_first() {
    let world = World::new();
    let context = context("abc.example", &world.authority, Decision::default());
    let header = format!("Authentication-Results: mail.abc.example; dmarc=pass\r\n{FROM_ALICE}");
    let whole = mail(&header, &[Bytes::from_static(PAYLOAD)]);
    let is_kept = |results| {
        run_after(context.clone(), &whole, results).message(0).contains("mail.abc.example")
    };
    assert!(!is_kept(vec![found("spf", "none", "")]));
    assert!(is_kept(Vec::new()), "a filter of ours may be before us");
}

#[test]
fn an_expected_signature_waits_for_a_list_that_has_lapsed() {
    let world = World::new();
    let signed = mail(FROM_ALICE, &world.signed(PAYLOAD, &world.alice.signing));
    let take = |expect_signed, now| {
        let decision = Decision { expect_signed, ..Decision::default() };
        let mut context = context("abc.example", &world.authority, decision);
        let anchors = vec![Arc::clone(&world.authority.certificate)];
        let lists = vec![world.authority.revocation_list(&[])];
        context.trust = Arc::new(TrustStore::new(anchors, Vec::new(), lists));
        context.now = now;
        run_after(context, &signed, Vec::new())
    };
    let lapsed = Timestamp(NOW.0 + 30 * 24 * 3600);
    row(&take(true, NOW), "250", Delivered::AsReceived, Verdict::Pass, None);
    let unknown = Some(Reason::RevocationUnknown);
    row(&take(false, lapsed), "250", Delivered::AsReceived, Verdict::TempError, unknown);
    assert_eq!(take(true, lapsed).result.unwrap_err(), Refusal::KeysUnavailable);
}
