//! What a notification returns of opened mail (REQUIREMENTS B17).

use super::*;
use crate::mime::Multipart;

const OPENED: &str = "Received: from gate\r\nX-Sealgate-Id: 1\r\nX-Sealgate-Layer: encrypted; format=smime;\r\n\
    \tcontent=aes-256-gcm\r\nFrom: bob@abc.example\r\nSubject: plans\r\n";

/// As Postfix makes it: text, status, and one part more.
fn report(more: &str) -> String {
    format!(
        "From: MAILER-DAEMON@nec.example\r\nTo: eve@abc.example\r\nSubject: Undelivered\r\n\
         DKIM-Signature: v=1; d=nec.example; s=a; b=AA==\r\nDKIM-Signature: v=1; d=list.example; s=a; b=AA==\r\n\
         MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"=b/1\"\r\n\r\n\
         This is MIME.\r\n\r\n--=b/1\r\nContent-Type: text/plain\r\n\r\nThe mailbox is full.\r\n\r\n\
         --=b/1\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; nec.example\r\n\r\n\
         --=b/1\r\n{more}\r\n--=b/1--\r\nthe end\r\n"
    )
}

fn returned(header: &str) -> String {
    format!(
        "Content-Description: Undelivered\r\nContent-Type: message/rfc822\r\n\r\n{header}\r\nTOP SECRET\r\n"
    )
}

/// As it leaves, with no key of the recipient's or with one.
fn leaves(mail: &str, encrypt: Encrypt) -> Entity {
    let world = World::new();
    let decision = Decision { encrypt, ..Decision::default() };
    let done = world.send(decision, mail.as_bytes(), &["eve@abc.example"], &world.keys(true));
    let whole = joined(&done.unwrap().parcels[0].message);
    match encrypt {
        Encrypt::Never => Entity::parse(whole).unwrap(),
        Encrypt::Prefer | Encrypt::Require => world.open(&whole, &world.eve).unwrap(),
    }
}

fn parts(entity: &Entity) -> Multipart {
    let kind = entity.header.content_type().unwrap().unwrap();
    Multipart::split(&entity.body, &kind.boundary().unwrap()).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_notification_leaves_with_the_header_section_of_an_opened_mail_alone() {
    for encrypt in [Encrypt::Never, Encrypt::Require] {
        let left = leaves(&report(&returned(OPENED)), encrypt);
        let parts = parts(&left);
        assert_eq!(text(&parts.preamble), "This is MIME.\r\n", "{encrypt:?}");
        assert_eq!(text(&parts.epilogue), "the end\r\n");
        assert_eq!(parts.parts.len(), 3);
        assert!(text(&parts.parts[0]).ends_with("\r\n\r\nThe mailbox is full.\r\n"));
        assert!(text(&parts.parts[1]).contains("Reporting-MTA: dns; nec.example\r\n"));
        let fields = format!("Content-Type: text/rfc822-headers\r\n\r\n{OPENED}");
        assert_eq!(text(&parts.parts[2]), fields);
    }
}

#[test]
fn the_signature_of_our_domain_over_what_is_gone_goes_too() {
    let left = leaves(&report(&returned(OPENED)), Encrypt::Never);
    let signatures: Vec<_> = left.header.all("DKIM-Signature").map(|one| text(one.raw())).collect();
    assert_eq!(signatures.len(), 1, "{signatures:?}");
    assert!(signatures[0].contains("list.example"));
}

#[test]
fn an_opened_mail_is_found_however_it_is_returned() {
    let base64 = base64_simd::STANDARD.encode_to_string(format!("{OPENED}\r\nTOP SECRET\r\n"));
    let encoded = format!(
        "Content-Type: message/global\r\nContent-Transfer-Encoding: base64\r\n\r\n{base64}\r\n"
    );
    let beyond_limits = format!("{}{OPENED}", "X-A: b\r\n".repeat(2000));
    let first = OPENED.replace("Received: from gate\r\nX-Sealgate-Id: 1\r\n", "");
    let rewritten = OPENED.replace("X-Sealgate-Layer", "x-sealgate-layer");
    let folded = OPENED.replace("Layer: encrypted", "Layer:\r\n encrypted");
    let tight = OPENED.replace("Layer: encrypted", "Layer :encrypted");
    let with_lf = format!("{OPENED}\r\nTOP SECRET\r\n").replace("\r\n", "\n");
    let with_lf = base64_simd::STANDARD.encode_to_string(with_lf);
    let with_lf = format!(
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{with_lf}\r\n"
    );
    let several = [&beyond_limits, &first, &rewritten, &folded, &tight].map(|one| returned(one));
    for more in several.into_iter().chain([encoded, with_lf]) {
        let left = leaves(&report(&more), Encrypt::Never);
        assert!(!text(&left.body).contains("TOP SECRET"), "{more}");
        assert!(text(&parts(&left).parts[2]).contains("Subject: plans"), "{more}");
        assert!(!text(&left.body).contains(&base64));
    }
    // What cannot be decoded is not given out either.
    let unknown = format!("Content-Transfer-Encoding: 8-bit\r\n{}", returned(OPENED));
    let left = leaves(&report(&unknown), Encrypt::Never);
    assert!(!text(&left.body).contains("TOP SECRET"), "{}", text(&left.body));
    let utf8 = OPENED.replace("plans", "pl\u{e4}ne");
    let left = leaves(&report(&returned(&utf8)), Encrypt::Never);
    let last = text(&parts(&left).parts[2]);
    assert!(last.starts_with("Content-Type: message/global-headers\r\n"), "{last}");
    assert!(last.contains("pl\u{e4}ne") && !last.contains("TOP SECRET"), "{last}");
}

#[test]
fn what_was_not_opened_is_returned_as_it_is() {
    let signed = OPENED.replace("Layer: encrypted", "Layer: signed");
    let forwarded = report(&returned(OPENED)).replace("multipart/report", "multipart/mixed");
    let headers = report(&returned(OPENED)).replace("message/rfc822", "text/rfc822-headers");
    for mail in [report(&returned(&signed)), forwarded, headers] {
        let body = mail.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(text(&leaves(&mail, Encrypt::Never).body), body);
    }
}
