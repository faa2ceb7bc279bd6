//! What is written is read back.

use super::super::{
    Cryptographic, Entity, Protection, cryptographic_layer, decode_body, protection,
};
use super::*;

const DER: &[u8] = &[0x30, 0x0b, 0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3];

#[test]
fn what_is_written_is_read_back() {
    let signed =
        [Bytes::from_static(b"Content-Type: text/plain\r\n\r\n"), Bytes::from_static(b"hi")];
    let boundary = Boundary::new([7; 16], &signed);
    let pieces = multipart_signed(b"From: a@b\r\n", &signed, DER, "sha-256", &boundary);
    let root = Entity::parse(Bytes::from(pieces.concat())).unwrap();
    assert_eq!(root.header.count("MIME-Version"), 1);
    assert_eq!(
        root.header.content_type().unwrap().unwrap().parameter("micalg").unwrap(),
        "sha-256"
    );
    let Cryptographic::ClearSigned(parts) = cryptographic_layer(&root) else {
        panic!("{:?}", cryptographic_layer(&root));
    };
    assert_eq!(parts.signed, signed.concat());
    assert!(parts.strict);
    assert_eq!(decode_body(&parts.signature).unwrap(), DER);
    assert_eq!(protection(&root), Protection::Signed);
}

#[test]
fn an_inner_entity_has_no_mime_version() {
    let boundary = Boundary::new([0; 16], &[]);
    let inner = multipart_signed(b"", &[], DER, "sha-256", &boundary).concat();
    assert!(inner.starts_with(b"Content-Type:"));
    assert!(pkcs7_mime(b"", "enveloped-data", DER.to_vec()).starts_with(b"Content-Type:"));
}

#[test]
fn an_envelope_is_read_back() {
    let message = pkcs7_mime(b"From: a@b\r\n", "enveloped-data", DER.to_vec());
    let root = Entity::parse(message).unwrap();
    assert!(matches!(cryptographic_layer(&root), Cryptographic::Pkcs7Mime));
    assert_eq!(decode_body(&root).unwrap(), DER);
    assert_eq!(protection(&root), Protection::Encrypted);
    assert_eq!(root.header.count("MIME-Version"), 1);
}

#[test]
fn a_boundary_never_stands_in_the_content() {
    let plain = Boundary::new([0xab; 16], &[]);
    assert_eq!(plain.as_str(), format!("=_{}", "ab".repeat(16)));
    let whole = Bytes::from(format!("x{}y", plain.as_str()));
    assert_ne!(Boundary::new([0xab; 16], std::slice::from_ref(&whole)), plain);
    for cut in 0..whole.len() {
        let two = [whole.slice(..cut), whole.slice(cut..)];
        assert_ne!(Boundary::new([0xab; 16], &two), plain, "{cut}");
    }
    let bytes: Vec<Bytes> = (0..whole.len()).map(|at| whole.slice(at..=at)).collect();
    assert_ne!(Boundary::new([0xab; 16], &bytes), plain);
    assert_eq!(Boundary::new([0xab; 16], &[whole.slice(2..)]), plain);
}
