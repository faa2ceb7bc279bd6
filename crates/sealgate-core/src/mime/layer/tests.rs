//! Which root is which container.

use super::*;

fn entity(text: &str) -> Entity {
    Entity::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

const HEAD: &str =
    "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; boundary=b\r\n\r\n";
const ONE: &str = "--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n\r\n";
const TWO: &str = "--b\r\nContent-Type: application/x-pkcs7-signature\r\n\r\nx\r\n";
const END: &str = "--b--\r\n";

fn signed(text: &str) -> SignedParts {
    match cryptographic_layer(&entity(text)) {
        Cryptographic::ClearSigned(parts) => parts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn part_one_is_exact() {
    let parts = signed(&[HEAD, ONE, TWO, END].concat());
    assert_eq!(parts.signed, "Content-Type: text/plain\r\n\r\nhi\r\n");
    assert_eq!(parts.signature.body, "x");
    assert!(parts.strict);
}

#[test]
fn strict_leaves_nothing_unsigned_to_an_attacker() {
    let notice = "This is an S/MIME signed message\r\n\r\n";
    assert!(signed(&[HEAD, notice, ONE, TWO, END, "\r\n"].concat()).strict);
    let outlook = "This is a multipart message in MIME format.\r\n\r\n";
    assert!(signed(&[HEAD, outlook, ONE, TWO, END].concat()).strict);
    assert!(!signed(&[HEAD, "<img src=\r\n", ONE, TWO, END].concat()).strict);
    assert!(!signed(&[HEAD, notice, "x\r\n", ONE, TWO, END].concat()).strict);
    assert!(!signed(&[HEAD, ONE, TWO, END, "x"].concat()).strict);
    let odd = HEAD.replace("\r\n\r\n", "\r\nX: \u{1}\r\n\r\n");
    assert!(!signed(&[&odd, ONE, TWO, END].concat()).strict);
    let odd = ONE.replace("plain\r\n", "plain\r\nno field\r\n");
    assert!(!signed(&[HEAD, &odd, TWO, END].concat()).strict);
}

#[test]
fn a_broken_container_is_ambiguous() {
    for text in [
        [HEAD, ONE, TWO].concat(),
        [HEAD, ONE, END].concat(),
        [HEAD, ONE, ONE, TWO, END].concat(),
        [HEAD, ONE, TWO, END, ONE].concat(),
        [&HEAD.replace("boundary=b", "boundary=b; boundary=c"), ONE, TWO, END].concat(),
        [&HEAD.replace("boundary=b", "x=\"y"), ONE, TWO, END].concat(),
        [&HEAD.replace("pkcs7", "pgp"), ONE, TWO, END].concat(),
        ["Content-Transfer-Encoding: base64\r\n", HEAD, ONE, TWO, END].concat(),
        ["Content-Type: text/plain\r\n", HEAD, ONE, TWO, END].concat(),
        [HEAD, &ONE.replace("hi", "hi --b"), TWO, END].concat(),
    ] {
        assert!(
            matches!(cryptographic_layer(&entity(&text)), Cryptographic::Ambiguous(_)),
            "{text}"
        );
    }
}

#[test]
fn only_the_root_counts() {
    let mixed = format!(
        "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n{HEAD}{ONE}{TWO}{END}--a--\r\n"
    );
    assert!(matches!(cryptographic_layer(&entity(&mixed)), Cryptographic::None));
    for kind in ["message/partial", "message/external-body", "message/rfc822", "text/plain"] {
        let text = format!("Content-Type: {kind}\r\n\r\n{HEAD}");
        assert!(matches!(cryptographic_layer(&entity(&text)), Cryptographic::None), "{kind}");
    }
}

#[test]
fn pkcs7_is_recognised_by_its_content() {
    for kind in [
        "application/pkcs7-mime; smime-type=authenticated-enveloped-data",
        "Application/X-PKCS7-MIME",
    ] {
        let text = format!("Content-Type: {kind}\r\n\r\n");
        assert!(matches!(cryptographic_layer(&entity(&text)), Cryptographic::Pkcs7Mime), "{kind}");
        assert_eq!(protection(&entity(&text)), Protection::None, "{kind}: the label alone");
    }
    for name in [
        "; name=SMIME.P7M",
        "\r\nContent-Disposition: attachment; filename=\"a.p7m\"",
        "; name=x\r\nContent-Disposition: attachment; filename=a.p7m",
    ] {
        let with = |body: &str| {
            let head =
                "Content-Transfer-Encoding: base64\r\nContent-Type: application/octet-stream";
            cryptographic_layer(&entity(&format!("{head}{name}\r\n\r\n{body}\r\n")))
        };
        // What cannot be decoded was broken on the way.
        for body in ["MAsGCSqGSIb3DQEHAw==", "MIAGCyqGSIb3DQEJEAEX", "MIIBAAYJKoZIhvcNAQcC", "!"] {
            assert!(matches!(with(body), Cryptographic::Pkcs7Mime), "{name} {body}");
        }
        // "-----BEGIN PKCS7-----", base64 in base64, nothing.
        for body in ["LS0tLS1CRUdJTiBQS0NTNy0tLS0t", "TUlJQkFBWUpLb1pJaHZjTkFRY0M=", ""] {
            assert!(matches!(with(body), Cryptographic::None), "{name} {body}");
        }
    }
    let with = |body: &str, more: &str| {
        let head = "Content-Transfer-Encoding: base64\r\nContent-Type: application/pkcs7-mime";
        protection(&entity(&format!("{head}{more}\r\n\r\n{body}\r\n")))
    };
    assert_eq!(with("MAsGCSqGSIb3DQEHAw==", ""), Protection::Encrypted);
    assert_eq!(with("MIAGCyqGSIb3DQEJEAEX", "; smime-type=x"), Protection::Encrypted);
    assert_eq!(with("MIIBAAYJKoZIhvcNAQcC", ""), Protection::Signed);
    assert_eq!(with("MIIBAAYJKoZIhvcNAQcC", "; smime-type=certs-only"), Protection::None);
    assert_eq!(with("MIIBAAYJKoZIhvcNAQcB", ""), Protection::None);
    assert_eq!(with("!", ""), Protection::None);
}

#[test]
fn an_untyped_signature_is_known_by_its_name() {
    for (kind, is_one) in [
        ("application/octet-stream; name=smime.P7S", true),
        ("application/octet-stream\r\nContent-Disposition: attachment; filename=\"a.p7s\"", true),
        ("application/octet-stream; name=x\r\nContent-Disposition: inline; filename=a.p7s", true),
        ("application/octet-stream; name=a.txt", false),
        ("text/plain; name=a.p7s", false),
    ] {
        let head =
            "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; boundary=b";
        let text = format!(
            "{head}\r\n\r\n--b\r\n\r\nx\r\n--b\r\nContent-Type: {kind}\r\n\r\nMAA=\r\n--b--\r\n"
        );
        let layer = cryptographic_layer(&entity(&text));
        assert_eq!(matches!(layer, Cryptographic::ClearSigned(_)), is_one, "{kind}: {layer:?}");
    }
}

const ARMOR: &str = "-----BEGIN PGP MESSAGE-----\r\nVersion: x\r\n\r\nhQEMAabc\r\n=abcd\r\n-----END PGP MESSAGE-----\r\n";

#[test]
fn openpgp_is_recognised_by_its_content() {
    let of = |text: &str| protection(&entity(text));
    assert_eq!(of(&format!("\r\n\r\n{ARMOR}")), Protection::Encrypted);
    assert_eq!(of(&format!("Content-Type: text/html\r\n\r\n{ARMOR}")), Protection::None);
    assert_eq!(of(&format!("\r\nhello\r\n{ARMOR}")), Protection::None);
    assert_eq!(of(&format!("\r\n{ARMOR}hello")), Protection::None);
    let fake = ARMOR.replace("abc\r\n=", "abc\r\nthe plan is\r\n=");
    assert_eq!(of(&format!("\r\n{fake}")), Protection::None, "words between the lines");
    assert_eq!(of("\r\n-----BEGIN PGP SIGNED MESSAGE-----\r\n"), Protection::Signed);
}

/// The armor of a message that is only signed, or only compressed, is the same.
#[test]
fn an_openpgp_message_is_encrypted_where_it_begins_with_a_session_key() {
    let of = |start: &str| protection(&entity(&format!("\r\n{}", ARMOR.replace("hQEM", start))));
    // Public key, in both forms, and symmetric key.
    for encrypted in ["hQEM", "wcBM", "jA0E", "wy4E"] {
        assert_eq!(of(encrypted), Protection::Encrypted, "{encrypted}");
    }
    // Compressed, one-pass signature, literal data, marker, no packet, no base64.
    for open in ["owEB", "yIcB", "kA0D", "rBJi", "yBJi", "qANQ", "abcd", "h=EM"] {
        assert_eq!(of(open), Protection::None, "{open}");
    }
}

/// REQUIREMENTS H12.
#[test]
fn nothing_else_stands_in_an_openpgp_container() {
    let notices = ["4880", "2440"]
        .map(|rfc| format!("This is an OpenPGP/MIME encrypted message (RFC {rfc} and 3156)\r\n"));
    let control = "Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n";
    let with = |preamble: &str, control: &str, second: &str, epilogue: &str| {
        entity(&format!(
            "Content-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=b\r\n\r\n\
             {preamble}--b\r\n{control}--b\r\n\r\n{second}\r\n--b--\r\n{epilogue}"
        ))
    };
    assert_eq!(protection(&with("", control, ARMOR, "")), Protection::Encrypted);
    for notice in &notices {
        assert_eq!(protection(&with(notice, control, ARMOR, "\r\n")), Protection::Encrypted);
    }
    let spoken = control.replace("Version: 1", "Version: 1\r\nthe plan is");
    let text = control.replace("application/pgp-encrypted", "text/plain");
    for (preamble, control, second, epilogue) in [
        ("the plan is\r\n", control, ARMOR, ""),
        ("", "\r\nthe plan is\r\n", ARMOR, ""),
        ("", &spoken, ARMOR, ""),
        ("", &text, ARMOR, ""),
        ("", control, "hello", ""),
        ("", control, ARMOR, "the plan is\r\n"),
    ] {
        let found = protection(&with(preamble, control, second, epilogue));
        assert_eq!(found, Protection::None, "{preamble} {control} {second} {epilogue}");
    }
    assert!(matches!(cryptographic_layer(&with("", "\r\n", "x", "")), Cryptographic::PgpMime));
}
