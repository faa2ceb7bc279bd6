//! What the MIME parsers are fuzzed with: one function a property, called by the fuzz targets and by the test command.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each user takes a part, the fuzz targets from another crate"
)]

use bytes::Bytes;
use sealgate_core::address::Address;
use sealgate_core::mime::write::{Boundary, multipart_signed, pkcs7_mime};
use sealgate_core::mime::{
    ContentType, Cryptographic, Entity, Header, SignedParts, agrees_with_reader,
    canonical_for_signing, canonical_line_ends, cryptographic_layer, decode_body, is_seven_bit,
    protection, split_content_fields,
};

/// A target's name and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// The targets by name, each with what it runs.
pub const TARGETS: &[Target] = &[
    ("address_list", address_list),
    ("mime_canonical", canonical),
    ("mime_content_type", content_type),
    ("mime_header", mime_header),
    ("mime_signed_part", signed_part),
    ("mime_wrapped_part", wrapped_part),
];

/// A header section loses no byte, and erasing fields invents none.
pub fn mime_header(data: &[u8]) {
    let Ok(header) = Header::parse(Bytes::copy_from_slice(data)) else { return };
    assert!(data.starts_with(header.bytes()));
    assert_eq!(header.without(|_| false), *header.bytes());
    let mut kept = Vec::new();
    for field in header.fields().filter(|field| !field.is("Subject")) {
        kept.extend_from_slice(field.raw());
    }
    assert!(header.without(|field| field.is("Subject")).starts_with(&kept));
    assert_eq!(header.fields().filter(|f| f.is("From")).count(), header.count("from"));
    let (content, rest) = split_content_fields(&header);
    for part in [content, rest] {
        let again = Header::parse(Bytes::from(part.clone())).expect("a part of a header section");
        assert!(header.duplicates().is_some() || again.duplicates().is_none());
    }
    let _ = (header.addressees(), header.content_type(), header.transfer_encoding());
    let _ = agrees_with_reader(&Entity::parse(Bytes::copy_from_slice(data)).expect("a header"));
}

/// A mailbox that is read from a list is a mailbox by itself, and its local part stands in the text.
pub fn address_list(data: &[u8]) {
    let text = [b"From: ", data].concat();
    let Ok(header) = Header::parse(Bytes::from(text)) else { return };
    let Ok(mailboxes) = header.from_mailboxes() else { return };
    for mailbox in &mailboxes {
        assert_eq!(Address::parse_foreign(&mailbox.to_string()).as_ref(), Ok(mailbox));
        let plain = mailbox.local_part().trim_matches('"').replace('\\', "");
        let given: Vec<u8> = data.iter().copied().filter(|b| !b"\\\r\n".contains(b)).collect();
        let local = plain.as_bytes();
        assert!(given.windows(local.len().max(1)).any(|found| found == local || local.is_empty()));
    }
}

/// A media type: what has a value has it in one form only.
pub fn content_type(data: &[u8]) {
    let Ok(found) = ContentType::parse(data) else { return };
    assert!(found.is(&found.kind, &found.subtype) && !found.kind.is_empty());
    let _ = (found.parameter("boundary"), found.parameter("name"), found.is_regular());
    if let Ok(boundary) = found.boundary() {
        assert!(boundary.len() <= 70 && boundary.bytes().all(|b| (b' '..=b'~').contains(&b)));
    }
}

/// Whatever we say is signed, another reader that agrees sees as the first part.
pub fn signed_part(data: &[u8]) {
    let bytes = canonical_line_ends(Bytes::copy_from_slice(data));
    let Ok(entity) = Entity::parse(bytes.clone()) else { return };
    let _ = (protection(&entity), decode_body(&entity));
    if let Cryptographic::ClearSigned(parts) = cryptographic_layer(&entity) {
        assert!(memchr::memmem::find(&bytes, &parts.signed).is_some());
        if agrees_with_reader(&entity) {
            assert!(mail_parser_sees(&bytes, &parts), "mail-parser sees another part");
        }
    }
}

/// The same for the data as the first part of a container of ours; and what we write we read.
pub fn wrapped_part(data: &[u8]) {
    let part = canonical_line_ends(Bytes::copy_from_slice(data));
    let content = [part.clone()];
    let boundary = Boundary::new([0x5a; 16], &content);
    let fields = b"From: alice@nec.example\r\n";
    let whole =
        Bytes::from(multipart_signed(fields, &content, data, "sha-256", &boundary).concat());
    let entity = Entity::parse(whole.clone()).expect("a header section of ours");
    let Cryptographic::ClearSigned(parts) = cryptographic_layer(&entity) else {
        assert!(Header::parse(part).is_err(), "only a part beyond the limits is not read back");
        return;
    };
    assert_eq!(parts.signed, part);
    assert_eq!(decode_body(&parts.signature).expect("base64 of ours"), data);
    if agrees_with_reader(&entity) {
        assert!(mail_parser_sees(&whole, &parts), "mail-parser sees another part");
    }
    let sealed = Entity::parse(pkcs7_mime(fields, "enveloped-data", data.to_vec())).expect("ours");
    assert_eq!(decode_body(&sealed).expect("base64 of ours"), data);
}

/// The canonical form is safe where it says so, a fixed point, and a leaf decodes to what it did.
pub fn canonical(data: &[u8]) {
    let Ok(entity) = Entity::parse(canonical_line_ends(Bytes::copy_from_slice(data))) else {
        return;
    };
    let (content, _) = split_content_fields(&entity.header);
    let Ok(once) = canonical_for_signing(&content, &entity.body) else { return };
    let bytes = Bytes::from(once.to_vec());
    assert_eq!(bytes.len(), once.len());
    assert_eq!(once.seven_bit, is_seven_bit(&bytes));
    let again = Entity::parse(bytes.clone()).expect("a header section of ours");
    let (fields, _) = split_content_fields(&again.header);
    if let Ok(twice) = canonical_for_signing(&fields, &again.body) {
        assert!(!once.seven_bit || twice.to_vec() == bytes, "not a fixed point");
    }
    let is_leaf = again.header.content_type().is_ok_and(|found| {
        found.is_some_and(|found| found.kind != "multipart" && found.kind != "message")
    });
    if is_leaf && let Ok(before) = decode_body(&entity) {
        assert_eq!(decode_body(&again).expect("an encoding of ours"), before);
    }
}

/// `mail-parser` as the product asks it: the other fields are taken as they are.
pub fn reader() -> mail_parser::MessageParser {
    mail_parser::MessageParser::new()
        .header_address(mail_parser::HeaderName::From)
        .header_content_type(mail_parser::HeaderName::ContentType)
        .header_text(mail_parser::HeaderName::ContentTransferEncoding)
        .default_header_raw()
}

/// Whether `mail-parser`, reading everything, finds the signed part as the first of two. It panics on some bodies
/// (quoted-printable that ends in "=", where overflow is checked); we never give it bodies, and here that says nothing.
fn mail_parser_sees(message: &[u8], parts: &SignedParts) -> bool {
    let Ok(parsed) = std::panic::catch_unwind(|| reader().parse(message)) else {
        return true;
    };
    let Some(parsed) = parsed else { return false };
    let Some(&[first, _]) = parsed.root_part().sub_parts() else { return false };
    let first = &parsed.parts[first as usize];
    let range = first.raw_header_offset() as usize..first.raw_end_offset() as usize;
    message.get(range).is_some_and(|seen| seen == parts.signed)
}
