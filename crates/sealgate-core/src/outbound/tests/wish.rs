//! What a user asks for in the message (REQUIREMENTS B18).

use super::*;

fn send(fields: &str) -> Result<Done, Refusal> {
    let world = World::new();
    let head = "From: alice@nec.example\r\nTo: bob@abc.example\r\n";
    let mail = format!("{head}{fields}\r\nhello\r\n");
    let nothing = Decision { sign: Sign::Never, ..sign_only() };
    world.send(nothing, mail.as_bytes(), &["bob@abc.example"], &world.keys(true))
}

#[test]
fn a_user_may_ask_for_encryption_and_the_wish_does_not_leave() {
    let world = World::new();
    let never = Decision { encrypt: Encrypt::Never, sign: Sign::Never, ..Decision::default() };
    let mail = b"From: alice@nec.example\r\nTo: bob@abc.example\r\nx-sealgate-encrypt: Yes\r\n\r\nhello\r\n";
    let done = world.send(never, mail, &["bob@abc.example"], &world.keys(true)).unwrap();
    assert_eq!(done.report.delivered, Delivered::Sealed);
    let entity = Entity::parse(joined(&done.parcels[0].message)).unwrap();
    assert_eq!(entity.header.count("X-Sealgate-Encrypt"), 0);
    assert_eq!(
        content_kind(&decode_body(&entity).unwrap()).unwrap(),
        ContentKind::AuthEnvelopedData
    );
}

#[test]
fn the_wish_is_understood_however_it_is_written() {
    for fields in [
        "X-Sealgate-Encrypt: yes (please)\r\n",
        "X-Sealgate-Encrypt:\r\n YES\r\n",
        "X-Sealgate-Encrypt : yes\r\n",
        "X-Sealgate-Encrypt: no\r\nX-Sealgate-Encrypt: yes\r\n",
    ] {
        let done = send(fields).unwrap();
        assert_eq!(done.report.delivered, Delivered::Sealed, "{fields}");
        let whole = joined(&done.parcels[0].message);
        assert!(memchr::memmem::find(&whole, b"X-Sealgate").is_none(), "{fields}");
    }
    assert_eq!(send("X-Sealgate-Encrypt: no\r\n").unwrap().report.delivered, Delivered::Plain);
}

/// Whoever writes it thinks that his mail is encrypted.
#[test]
fn a_wish_that_cannot_be_understood_is_no_mail_in_plain() {
    for value in ["", "true", "1", "yes, please", "y\u{e9}s", "yes (", "yes no"] {
        let refusal = send(&format!("X-Sealgate-Encrypt: {value}\r\n")).unwrap_err();
        let reply = Reply::from(&refusal).to_string();
        assert!(reply.starts_with("550 5.6.0 ") && reply.contains("X-Sealgate-Encrypt"), "{reply}");
    }
}
