//! What an attacker makes of captured ciphertexts.

use sealgate_testkit::cms::{Target, locate};
use sealgate_testkit::der::Element;
use sealgate_testkit::mail;
use sealgate_testkit::openssl::OpenSsl;
use sealgate_testkit::peer::{Cipher, Form, Peer as _, Transport};

use super::random::Random;
use super::{CANARY, World};

/// A variant, with what was done to it.
pub(super) type Variant = (&'static str, Vec<u8>);

pub(super) fn flipped(cms: &[u8], at: usize, by: usize) -> Vec<u8> {
    let mut changed = cms.to_vec();
    changed[at] ^= u8::try_from(by).unwrap();
    changed
}

/// A thousand changes to captured mails, and mails that an attacker makes of what he knows.
pub(super) fn variants(world: &World) -> Vec<Variant> {
    let mut random = Random(0x5ea1_6a7e);
    let captured = world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, &world.signed());
    let gcm = world.encrypted(Cipher::Gcm, Transport::RsaPkcs1, &world.signed());
    let mut variants: Vec<Variant> = Vec::new();
    for (what, cms) in [("cbc: the wrapped key", &captured), ("gcm: the wrapped key", &gcm)] {
        let key = locate(cms, Target::EncryptedKey);
        for _ in 0..150 {
            let at = key.start + random.below(key.len());
            variants.push((what, flipped(cms, at, 1 + random.below(255))));
        }
    }
    for (what, cms) in [("cbc: the content", &captured), ("gcm: the content", &gcm)] {
        let content = locate(cms, Target::EncryptedContent);
        for _ in 0..150 {
            let at = content.start + random.below(content.len());
            variants.push((what, flipped(cms, at, 1 + random.below(255))));
        }
    }
    // Vaudenay's question, all of its answers: the last octet but one block.
    let content = locate(&captured, Target::EncryptedContent);
    for by in 1..256 {
        variants.push(("cbc: the padding", flipped(&captured, content.end - 17, by)));
    }
    for bit in 0..8 {
        variants.push(("cbc: the last octet", flipped(&captured, content.end - 1, 1 << bit)));
    }
    for octet in 0..16 {
        let at = gcm.len() - 16 + octet;
        variants.push(("gcm: the tag", flipped(&gcm, at, 1 << (octet % 8))));
    }
    // Bleichenbacher's: keys of every length, well padded.
    for octets in [0, 1, 5, 15, 16, 17, 24, 31, 33, 48, 64, 100] {
        let changed = world.with_key(&captured, &vec![7; octets]);
        variants.push(("cbc: a key of another length", changed));
    }
    for octet in 0..8 {
        for (what, cms) in [("cbc: another key", &captured), ("gcm: another key", &gcm)] {
            variants.push((what, world.with_key(cms, &[octet; 32])));
        }
    }
    variants.extend(other_tags(&gcm));
    variants.extend(other_recipients(world, &captured, &gcm));
    for _ in 0..20 {
        let (iv, blocks) = (random.below(256), 1 + random.below(4));
        variants.push(("gcm as cbc", as_cbc(&gcm, iv, blocks)));
    }
    // What opens, and is not what it must be.
    let mut broken = world.signed();
    let at = mail::find(&broken, CANARY.as_bytes()).unwrap();
    broken[at] ^= 1;
    let mut garbage = Vec::new();
    for _ in 0..200 {
        garbage.push(u8::try_from(random.below(256)).unwrap());
    }
    let unsigned = format!("Content-Type: text/plain\r\n\r\n{CANARY}\r\n");
    for _ in 0..20 {
        for (what, plain) in [
            ("cbc: a broken signature inside", broken.as_slice()),
            ("cbc: garbage inside", garbage.as_slice()),
            ("cbc: unsigned mail inside", unsigned.as_bytes()),
        ] {
            variants.push((what, world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, plain)));
        }
    }
    variants
}

/// Tags cut short, with the length that is said of them and without (RFC 5084 §3.2).
fn other_tags(gcm: &[u8]) -> Vec<Variant> {
    let tag = gcm.len() - 16..gcm.len();
    let with_tag = |octets: usize, said: Option<u8>| {
        rebuilt(gcm, |fields| {
            let last = fields.len() - 1;
            // Twelve octets and more may be one, and would be right without this.
            let changed = flipped(gcm, tag.start, 1);
            fields[last] = tlv(0x04, &[&changed[tag.start..tag.start + octets]]);
            let Some(said) = said else { return };
            // The one INTEGER of the parameters, behind a nonce of 12 octets.
            let parameters = mail::find(&fields[last - 1], b"\x02\x01\x10").unwrap();
            fields[last - 1][parameters + 2] = said;
        })
    };
    let cut = (0..16).map(|octets| ("gcm: a tag cut short", with_tag(octets, None)));
    let said = (0..16).map(|octets| {
        let said = Some(u8::try_from(octets).unwrap());
        ("gcm: a short tag, said to be one", with_tag(octets, said))
    });
    let only_said = (12..16).map(|said| ("gcm: a tag longer than said", with_tag(16, Some(said))));
    cut.chain(said).chain(only_said).collect()
}

/// Recipients added, doubled and in another order, with a content that nobody can open.
fn other_recipients(world: &World, captured: &[u8], gcm: &[u8]) -> Vec<Variant> {
    let mut variants = Vec::new();
    for (cipher, what, cms) in [
        (Cipher::Cbc, "cbc: other recipients", captured),
        (Cipher::Gcm, "gcm: other recipients", gcm),
    ] {
        let broken = flipped(cms, locate(cms, Target::EncryptedContent).end - 17, 1);
        let [alice, other] = [recipient(&broken), recipient(&world.with_key(&broken, &[7; 32]))];
        let unsigned = b"Content-Type: text/plain\r\n\r\nhello\r\n";
        let to_carol =
            OpenSsl.encrypt(&world.carol, Transport::RsaPkcs1, cipher, Form::Der, unsigned);
        let carol = recipient(&to_carol.unwrap());
        for order in [
            [&alice, &alice, &alice],
            [&alice, &other, &carol],
            [&alice, &carol, &other],
            [&other, &alice, &carol],
            [&other, &carol, &alice],
            [&carol, &alice, &other],
            [&carol, &other, &alice],
        ] {
            let set = tlv(0x31, &order.map(Vec::as_slice));
            let change = |fields: &mut Vec<Vec<u8>>| {
                let place = fields.iter().position(|field| field[0] == 0x31).unwrap();
                fields[place] = set.clone();
            };
            variants.push((what, rebuilt(&broken, change)));
        }
    }
    variants
}

/// The same with Carol named as well, by one who does not know the key.
pub(super) fn with_recipient_of(world: &World, cms: &[u8]) -> Vec<u8> {
    let to_carol = OpenSsl.encrypt(&world.carol, Transport::RsaPkcs1, Cipher::Cbc, Form::Der, b"x");
    let set = tlv(0x31, &[&recipient(cms), &recipient(&to_carol.unwrap())]);
    rebuilt(cms, |fields| {
        let place = fields.iter().position(|field| field[0] == 0x31).unwrap();
        fields[place] = set;
    })
}

/// The first recipient of a message.
fn recipient(cms: &[u8]) -> Vec<u8> {
    let fields = Element::at(cms, 0).child(cms, 1).child(cms, 0).children(cms);
    let set = fields.iter().find(|field| field.tag == 0x31).unwrap();
    cms[set.contents.start..set.child(cms, 0).end].to_vec()
}

/// The same message with other fields in its (Auth)EnvelopedData.
fn rebuilt(cms: &[u8], change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let whole = Element::at(cms, 0);
    let kind = whole.child(cms, 0);
    let sequence = whole.child(cms, 1).child(cms, 0);
    let mut start = sequence.contents.start;
    let mut fields = Vec::new();
    for field in sequence.children(cms) {
        fields.push(cms[start..field.end].to_vec());
        start = field.end;
    }
    change(&mut fields);
    let parts: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
    let sequence = tlv(0x30, &parts);
    tlv(0x30, &[&cms[whole.contents.start..kind.end], &tlv(0xa0, &[&sequence])])
}

/// The key and the first blocks of an authenticated encryption, called an unauthenticated one.
fn as_cbc(gcm: &[u8], iv: usize, blocks: usize) -> Vec<u8> {
    const ENVELOPED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03";
    const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
    const AES_256_CBC: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2a";
    let fields = Element::at(gcm, 0).child(gcm, 1).child(gcm, 0).children(gcm);
    let recipients = fields.iter().find(|field| field.tag == 0x31).unwrap();
    let recipients = tlv(0x31, &[&gcm[recipients.contents.clone()]]);
    let content = locate(gcm, Target::EncryptedContent);
    let ciphertext = tlv(0x80, &[&gcm[content.start..content.start + 16 * blocks]]);
    let vector = tlv(0x04, &[&[u8::try_from(iv).unwrap(); 16]]);
    let algorithm = tlv(0x30, &[AES_256_CBC, &vector]);
    let info = tlv(0x30, &[DATA, &algorithm, &ciphertext]);
    let enveloped = tlv(0x30, &[b"\x02\x01\x00", &recipients, &info]);
    tlv(0x30, &[ENVELOPED_DATA, &tlv(0xa0, &[&enveloped])])
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = u32::try_from(contents.len()).unwrap().to_be_bytes();
    let mut out = vec![tag, 0x84];
    out.extend_from_slice(&length);
    out.extend_from_slice(&contents);
    out
}

/// Changes to what a key is wrapped in, to the ephemeral key where there is one, and to the content.
pub(super) fn changed(cbc: &[u8], gcm: &[u8]) -> Vec<Variant> {
    const EACH: usize = 40;
    let mut random = Random(0x0a1e);
    let mut variants: Vec<Variant> = Vec::new();
    for (kinds, cms) in [
        (["cbc: the wrapped key", "cbc: the content", "cbc: the ephemeral key"], cbc),
        (["gcm: the wrapped key", "gcm: the content", "gcm: the ephemeral key"], gcm),
    ] {
        let mut places = vec![
            (kinds[0], locate(cms, Target::EncryptedKey)),
            (kinds[1], locate(cms, Target::EncryptedContent)),
        ];
        if let Some(point) = ephemeral_point(cms) {
            places.push((kinds[2], point));
        }
        for (kind, place) in places {
            for _ in 0..EACH {
                let at = place.start + random.below(place.len());
                variants.push((kind, flipped(cms, at, 1 + random.below(255))));
            }
        }
    }
    variants
}

/// The coordinates of the originator's public key (RFC 5652 §6.2.2), where the key was agreed on.
fn ephemeral_point(cms: &[u8]) -> Option<std::ops::Range<usize>> {
    const KEY_AGREEMENT: u8 = 0xa1;
    const COORDINATES_OCTETS: usize = 64;
    let fields = Element::at(cms, 0).child(cms, 1).child(cms, 0).children(cms);
    let set = fields.iter().find(|field| field.tag == 0x31).unwrap();
    let info = set.child(cms, 0);
    let originator = (info.tag == KEY_AGREEMENT).then(|| info.child(cms, 1))?;
    Some(originator.end - COORDINATES_OCTETS..originator.end)
}
