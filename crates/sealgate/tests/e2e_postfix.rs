//! The real thing: Postfix of one organisation, two sealgates with a wire between them that can falsify, and the
//! Dovecot of another organisation, from which plain clients fetch. The same with every combination of key stores.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

#[path = "e2e_postfix/bed.rs"]
mod bed;
#[path = "support/elsewhere.rs"]
mod elsewhere;
#[path = "e2e_postfix/organisation.rs"]
mod organisation;

use bed::{ALICE, BOB, BODY, Bed, CAROL, CLEAR, Route, plain_entity};
use organisation::Stores;
use sealgate_testkit::cms::{self, Target};
use sealgate_testkit::mail;
use sealgate_testkit::session::send_smtp;

const WORDS: [&str; 5] = ["Dear Carol", "quarterly", "turnover", "confidential", "Regards"];

#[test]
fn organisations_with_embedded_stores_correspond() {
    correspond(Stores::Embedded);
}

/// Certificates at OpenLDAP, secret keys at PyKMIP's server: it signs, and a key to decrypt with is fetched.
#[test]
fn organisations_with_a_directory_and_a_key_management_server_correspond() {
    correspond(Stores::directory_and_key_management());
}

/// Certificates at OpenLDAP, secret keys in a SoftHSM token for each organisation.
#[test]
fn organisations_with_a_directory_and_tokens_correspond() {
    correspond(Stores::directory_and_tokens());
}

/// Certificates in PostgreSQL, secret keys at a `sealgate key-server` on the same host, which has them in PostgreSQL.
#[test]
fn organisations_with_postgresql_and_key_servers_correspond() {
    correspond(Stores::postgresql_and_key_servers());
}

/// All that is shown of two organisations, whichever their stores are.
fn correspond(stores: Stores) {
    let bed = Bed::start(stores);
    bed.stores.assert_where_keys_are([&bed.first, &bed.second]);
    inside_mail_stays_inside(&bed);
    mail_leaves_sealed_and_arrives_opened(&bed);
    a_changed_letter_in_clear_signed_mail_is_refused(&bed);
    falsified_mail_is_refused_and_bounced(&bed);
    bed.stores.assert_where_keys_are([&bed.first, &bed.second]);
}

/// A plain client's mail arrives whole at plain clients, and nobody on the way reads it.
fn mail_leaves_sealed_and_arrives_opened(bed: &Bed) {
    bed.wire.clear();
    bed.swaks(CAROL, "the-real-thing");
    let received = bed.outer.await_mail(CAROL, 1);
    assert_eq!(bed.outer.imap_mail(CAROL), received, "POP3 and IMAP clients see the same");
    let entity = mail::signed_part(&received[0]);
    assert_eq!(mail::decoded_content(entity), BODY);
    assert_eq!(mail::header(&received[0], "Subject").as_deref(), Some("the-real-thing"));
    let results = mail::header(&received[0], "Authentication-Results").unwrap_or_default();
    assert!(results.contains("smime=pass"), "{results:?}");

    let messages = bed.wire.messages();
    assert_eq!(messages.len(), 1, "one copy on the wire");
    let recorded = bed.wire.recorded();
    let decoded = mail::decoded_body(&messages[0]);
    let in_it = |octets: &[u8]| WORDS.map(|word| mail::contains(octets, word));
    assert_eq!(in_it(&recorded), [false; 5], "of {WORDS:?} on the wire");
    assert_eq!(in_it(&decoded), [false; 5], "of {WORDS:?} in the CMS on the wire");
}

/// Mail between two people of the first organisation never reaches sealgate.
fn inside_mail_stays_inside(bed: &Bed) {
    let before = bed.first.log();
    let message = mail::message(ALICE, BOB, "inside", &plain_entity());
    assert_eq!(send_smtp(bed.postfix.smtp, ALICE, &[BOB], &message).code, 250);
    let received = bed.inner.await_mail(BOB, 1);
    assert_eq!(mail::body(&received[0]), BODY);
    assert_eq!(bed.first.log(), before, "sealgate saw something");
    assert!(bed.wire.recorded().is_empty());
}

/// Every order and cipher delivers, and one flipped bit anywhere is refused and bounced with 5.7.7.
fn falsified_mail_is_refused_and_bounced(bed: &Bed) {
    let mut rows = Vec::new();
    for route in Route::ALL {
        let to = route.address();
        let mut cells = vec![bed.deliver_intact(&route, &to)];
        for target in [Target::EncryptedContent, Target::EncryptedKey, Target::Signature] {
            if target == Target::Signature && !route.has_outer_signature() {
                cells.push("no outer signature".to_owned());
                continue;
            }
            bed.wire.alter(move |message| cms::falsified(message, target));
            cells.push(bed.expect_refusal(&to, &format!("{}-{target:?}", route.name())));
            bed.wire.leave();
        }
        let mailbox = bed.outer.pop3_mail(&to).len();
        assert_eq!(mailbox, 1, "{}: only the intact copy arrives", route.name());
        rows.push((route.name(), cells));
    }
    println!("{:28} {:22} encrypted content  encrypted key  outer signature", "", "intact");
    for (name, cells) in &rows {
        println!("{name:28} {}", cells.join("  "));
    }
    for (name, cells) in &rows {
        // A signature around the encryption alone says nothing about who wrote what is inside.
        let outside_only = name == "encrypt-then-sign-gcm";
        let verdict = if outside_only { "none" } else { "pass" };
        assert_eq!(cells[0], format!("delivered smime={verdict}"), "{name}");
        for cell in &cells[1..] {
            assert!(["550 5.7.7", "no outer signature"].contains(&cell.as_str()), "{name}: {cell}");
        }
    }
}

/// One letter changed in a clear-signed mail is a falsification too.
fn a_changed_letter_in_clear_signed_mail_is_refused(bed: &Bed) {
    bed.wire.clear();
    let message = mail::message(ALICE, CLEAR, "clear-intact", &plain_entity());
    assert_eq!(send_smtp(bed.postfix.smtp, ALICE, &[CLEAR], &message).code, 250);
    let received = bed.outer.await_mail(CLEAR, 1);
    assert_eq!(mail::decoded_content(mail::signed_part(&received[0])), BODY);
    assert!(mail::contains(&bed.wire.messages()[0], "turnover"), "signed only, not encrypted");
    bed.wire.alter(|message| {
        let at = mail::find(message, b"turnover").unwrap();
        let mut out = message.to_vec();
        out[at] = b'T';
        out
    });
    assert_eq!(bed.expect_refusal(CLEAR, "clear-changed"), "550 5.7.7");
    assert_eq!(bed.outer.pop3_mail(CLEAR).len(), 1);
    bed.wire.leave();
}
