//! The bodies of the MIME and SMTP fuzz targets on the stable toolchain: their seeds and a hundred thousand mutants each.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

#[path = "support/corpus.rs"]
mod corpus;
#[path = "fuzz_bodies/inbound.rs"]
mod inbound;
#[path = "support/mails.rs"]
mod material;
#[path = "fuzz_bodies/mime.rs"]
mod mime;
#[path = "support/mutants.rs"]
mod mutants;
#[path = "fuzz_bodies/smtp.rs"]
mod smtp;

use bytes::Bytes;
use material::{all_mails, mails};
use mutants::run;
use sealgate_core::mime::{Cryptographic, Entity, Header, cryptographic_layer};

/// Mails small enough for a hundred thousand mutants.
fn small_mails() -> Vec<Vec<u8>> {
    all_mails().map(|(_, mail)| mail.to_vec()).filter(|mail| mail.len() <= 6_000).collect()
}

fn header_sections() -> Vec<Vec<u8>> {
    let sections =
        small_mails().into_iter().filter_map(|mail| Header::parse(Bytes::from(mail)).ok());
    sections.map(|header| header.bytes().to_vec()).collect()
}

/// The values of all fields of these names.
fn values(names: &[&str]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for section in header_sections() {
        let header = Header::parse(Bytes::from(section)).unwrap();
        for name in names {
            found.extend(header.all(name).map(|field| field.value().to_vec()));
        }
    }
    found
}

fn signed_mails() -> Vec<Vec<u8>> {
    let sets = ["comm-smime", "wolfssl", "bc-mime", "protected-headers"];
    let signed = sets.into_iter().flat_map(mails).filter(|(_, mail)| {
        let entity = Entity::parse(mail.clone());
        entity.is_ok_and(|entity| {
            matches!(cryptographic_layer(&entity), Cryptographic::ClearSigned(_))
        })
    });
    signed.map(|(_, mail)| mail.to_vec()).filter(|mail| mail.len() < 8_000).collect()
}

const MIME_WORDS: [&[u8]; 26] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"\n",
    b"\r",
    b"--",
    b"\"",
    b"\\",
    b"(",
    b")",
    b";",
    b":",
    b",",
    b"<",
    b">",
    b"@",
    b"=",
    b"*0*=",
    b"\r\nContent-Type: ",
    b"multipart/mixed; boundary=",
    b"message/rfc822\r\n\r\n",
    b"\r\nContent-Transfer-Encoding: base64",
    b"\r\nFrom: ",
    b"=?utf-8?q?",
    b"\0",
    b"\xff",
];

#[test]
fn mime_header() {
    run("mime_header", &header_sections(), &MIME_WORDS, mime::mime_header);
}

#[test]
fn address_list() {
    let seeds = values(&["From", "To", "Cc", "Reply-To", "Sender"]);
    run("address_list", &seeds, &MIME_WORDS, mime::address_list);
}

#[test]
fn content_type() {
    let seeds = values(&["Content-Type", "Content-Disposition"]);
    run("content_type", &seeds, &MIME_WORDS, mime::content_type);
}

#[test]
fn signed_part() {
    run("signed_part", &signed_mails(), &MIME_WORDS, mime::signed_part);
}

#[test]
fn wrapped_part() {
    run("wrapped_part", &small_mails(), &MIME_WORDS, mime::wrapped_part);
}

#[test]
fn canonical() {
    run("canonical", &small_mails(), &MIME_WORDS, mime::canonical);
}

/// The ends of data of fixtures/smtp-smuggling, each in a mail that goes on behind it.
fn smuggled() -> Vec<Vec<u8>> {
    let table = std::path::Path::new(material::FIXTURES).join("smtp-smuggling/expect.tsv");
    let table =
        std::fs::read_to_string(table).expect("left out: fixtures/smtp-smuggling is not there");
    let sequences = table.lines().skip(1).filter_map(|line| line.split('\t').next());
    let seeds: Vec<Vec<u8>> = sequences
        .map(|escaped| {
            let end = escaped.replace("\\r", "\r").replace("\\n", "\n").replace("\\x00", "\0");
            let behind = "MAIL FROM:<x@y.example>\r\nRCPT TO:<z@y.example>\r\nDATA\r\nx\r\n.\r\n";
            format!("Subject: a\r\n\r\ntext{end}{behind}").into_bytes()
        })
        .collect();
    assert_eq!(seeds.len(), 9);
    seeds
}

const SMTP_WORDS: [&[u8]; 18] = [
    b"\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\r.\r",
    b".",
    b"..",
    b"\r",
    b"\n",
    b"\0",
    b"MAIL FROM:<a@b.example>",
    b"RCPT TO:<c@d.example>",
    b"DATA\r\n",
    b"BDAT 3 LAST\r\n",
    b"RSET\r\n",
    b" SIZE=9",
    b"\r\nQUIT\r\n",
    b"EHLO x\r\n",
    b"\xff",
];

#[test]
fn smtp_data() {
    for seed in smuggled() {
        let text = seed.split(|&b| b == b'M').next().unwrap().to_vec();
        smtp::smtp_data(&text);
    }
    run("smtp_data", &smuggled(), &SMTP_WORDS, smtp::smtp_data);
}

#[test]
fn smtp_session() {
    let sessions: [&[u8]; 4] = [
        b"EHLO x.example\r\nMAIL FROM:<a@b.example> SIZE=100 BODY=8BITMIME\r\nRCPT TO:<c@d.example> NOTIFY=NEVER\r\n\
          RCPT TO:<postmaster>\r\nDATA\r\nSubject: x\r\n\r\n..\r\n.\r\nQUIT\r\n",
        b"LHLO x.example\r\nMAIL FROM:<>\r\nRCPT TO:<\"q p\"@d.example>\r\nRCPT TO:<e@[127.0.0.1]>\r\nDATA\r\nhello\r\n.\r\n",
        b"EHLO [127.0.0.1]\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 4\r\nab\r\nBDAT 2 LAST\r\n\r\nRSET\r\nNOOP\r\n",
        b"HELO x\r\nVRFY a\r\nMAIL FROM:<\xc3\xa4@b.example> SMTPUTF8\r\nRCPT TO:<c@d.example> ORCPT=rfc822;x\r\nDATA\r\n.\r\n",
    ];
    run("smtp_session", &sessions.map(<[u8]>::to_vec), &SMTP_WORDS, smtp::smtp_session);
}

#[test]
fn smtp_stuffing() {
    let seeds = [b".\r\n..\r\nx\r\n.y\r\n".to_vec(), b"no end".to_vec(), Vec::new()];
    run("smtp_stuffing", &seeds, &SMTP_WORDS, smtp::smtp_stuffing);
}

#[test]
fn smtp_client() {
    let words: [&[u8]; 14] = [
        b"\r\n",
        b"250 ok\r\n",
        b"250-",
        b"354 go\r\n",
        b"451 4.3.0 later\r\n",
        b"550 5.1.1 no\r\n",
        b"421 bye\r\n",
        b"250 2.1.5 ok\r\n",
        b"\n",
        b"\0",
        b"-",
        b"999 x\r\n",
        b"220 x\r\n",
        b"PIPELINING\r\n",
    ];
    let seeds: [&[u8]; 3] = [
        b"220 x ESMTP\r\n250-x\r\n250-PIPELINING\r\n250 SIZE 1000\r\n250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n250 2.0.0 done\r\n250 2.1.0 ok\r\n",
        b"220 x\r\n250 x\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 one\r\n451 4.2.0 two\r\n",
        b"220-a\r\n220 b\r\n502 no\r\n250 x\r\n550 no\r\n550 no\r\n503 no\r\n554 no\r\n421 4.3.2 bye\r\n",
    ];
    run("smtp_client", &seeds.map(<[u8]>::to_vec), &words, smtp::smtp_client);
}

#[test]
fn the_corpora_of_mail_and_smtp_replay() {
    for targets in [inbound::TARGETS, mime::TARGETS, smtp::TARGETS] {
        corpus::replay(targets);
    }
}
