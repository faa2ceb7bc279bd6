//! Signed, encrypted and plain mail that others made goes through the inbound data processor, as it stands in
//! `../shared/fixtures`, at the time that each set asks for.
//!
//! What a set expects and sealgate does otherwise stands in `data/fixtures_exceptions.tsv` with what it does instead
//! and why; an entry that is no longer true fails the test too.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use sealgate_core::address::{Address, Domain};
use sealgate_core::envelope::{Envelope, MailParameters, Recipient};
use sealgate_core::inbound::Inbound;
use sealgate_core::keys::{Certificate, OwnKey, SoftwareKey, Timestamp};
use sealgate_core::message::Message;
use sealgate_core::outbound::Context;
use sealgate_core::policy::{Decision, Policy, SignerMismatch, UnauthenticatedEncryption};
use sealgate_core::refusal::Reply;
use sealgate_core::report::{Delivered, Layer, Report, Verdict};
use sealgate_core::step::{KeyQuery, Keys, Step};
use sealgate_core::trust::{Purpose, Trust, TrustStore};
use sealgate_testkit::fixtures::{self, Expectation};
use sealgate_testkit::{mail, pki, process};

/// The PKI of RFC 9216: every path holds, and the keys fit their certificates.
#[test]
fn rfc9216_certificates_are_trusted() {
    let root = fixtures::root();
    let set = root.join("rfc9216");
    let mut seen = 0;
    for row in fixtures::expectations(&set) {
        let file = row.column("file");
        let anchor = if file.contains("alice") || file.contains("bob") { "rsa" } else { "ed25519" };
        let target = certificate(&set.join(file));
        let purpose = if file.contains(".sign.") { Purpose::Sign } else { Purpose::Encrypt };
        let judged = |anchor: &str, cross: Option<&str>| {
            let read = |name: &str| Arc::new(certificate(&set.join(format!("certs/{name}.crt"))));
            let store = TrustStore::new(
                vec![read(&format!("{anchor}-ca-root"))],
                cross.map(|name| read(&format!("{name}-ca-cross"))).into_iter().collect(),
                Vec::new(),
            );
            store.judge(&target, &[], purpose, TODAY)
        };
        assert_eq!(judged(anchor, None), Trust::Trusted, "{file}");
        let other = if anchor == "rsa" { "ed25519" } else { "rsa" };
        assert_eq!(judged(other, None), Trust::Untrusted, "{file} under the other root");
        assert_eq!(judged(other, Some(anchor)), Trust::Trusted, "{file} by the cross certificate");
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn comm_smime() {
    let root = fixtures::root();
    let set = root.join("comm-smime");
    let anchors = vec![Arc::new(certificate(&set.join("smime/TestCA.pem")))];
    let mut bed = Bed::new(anchors, Vec::new());
    for name in ["smime/Alice", "smime/Bob", "smime/Dave", "smime/Fran", "smime/Fran-ec"]
        .into_iter()
        .chain(["smime-interop/Fran", "smime-interop/Fran-ec"])
    {
        bed.keys.push(own_key_of_pkcs12(&set.join(format!("{name}.p12")), "nss"));
    }
    check_set("comm-smime", &set, 27, |_, message| bed.open(message, TODAY));
}

#[test]
fn rfc4134() {
    let root = fixtures::root();
    let set = root.join("rfc4134");
    let anchors = ["CarlDSSSelf.cer", "CarlRSASelf.cer"]
        .map(|name| Arc::new(Certificate::from_der(&fs::read(set.join(name)).unwrap()).unwrap()));
    let mut bed = Bed::new(anchors.to_vec(), Vec::new());
    let bob = Certificate::from_der(&fs::read(set.join("BobRSASignByCarl.cer")).unwrap()).unwrap();
    match SoftwareKey::from_pkcs8(&fs::read(set.join("BobPrivRSAEncrypt.pri")).unwrap()) {
        Ok(key) => bed.keys.push(own_key(bob, key)),
        Err(why) => println!("Bob's key of 1024 bits: {why}"),
    }
    let detached = fs::read(set.join("ExContent.bin")).unwrap();
    check_set("rfc4134", &set, 18, |row, message| {
        if row.column("operation").starts_with("verify(detached") {
            let cms = fs::read(set.join(row.column("file"))).unwrap();
            let entity = mail::signed_entity(&detached, &cms);
            let message = mail::message("AliceDSS@example.com", TO, "x", &entity);
            return bed.open(&message, IN_2000);
        }
        bed.open(message, IN_2000)
    });
}

#[test]
fn openssl_smime() {
    let root = fixtures::root();
    let set = root.join("openssl-smime");
    let mut bed =
        Bed::new(vec![Arc::new(certificate(&set.join("smime-certs/smroot.pem")))], Vec::new());
    let path = set.join("smime-certs/smrsa1.pem");
    bed.keys.push(own_key_of_pem(&fs::read_to_string(path).unwrap()));
    check_set("openssl-smime", &set, 19, |_, message| bed.open(message, TODAY));
}

#[test]
fn wolfssl() {
    let root = fixtures::root();
    let bed = Bed::new(Vec::new(), Vec::new());
    check_set("wolfssl", &root.join("wolfssl"), 11, |_, message| bed.open(message, TODAY));
}

/// Of PKITS the signed mails: the signature is right in all of them, and the path decides.
#[test]
fn pkits_signed_mail() {
    let root = fixtures::root();
    let set = root.join("pkits");
    let anchor = certificate_der(&set.join("certs/TrustAnchorRootCertificate.crt"));
    check_set("pkits", &set, 0, |row, message| {
        let names = |column: &str, separator: char| -> Vec<String> {
            row.column(column).split(separator).map(str::to_owned).collect()
        };
        let chain = names("certs", '>');
        let crls = names("crls", ',')
            .iter()
            .filter_map(|name| fs::read(set.join(format!("crls/{name}.crl"))).ok())
            .collect();
        let mut bed = Bed::new(vec![Arc::new(anchor.clone())], crls);
        let path = |name: &String| set.join(format!("certs/{name}.crt"));
        bed.intermediates = chain[1..chain.len() - 1]
            .iter()
            .map(|name| Arc::new(certificate_der(&path(name))))
            .collect();
        bed.open(message, TODAY)
    });
}

/// Every message of the MIME sets is delivered byte for byte under our trace and result fields.
#[test]
fn mime_sets_pass_unchanged() {
    let root = fixtures::root();
    let bed = Bed::new(Vec::new(), Vec::new());
    let exceptions = exceptions();
    let mut wrong = Vec::new();
    for set in MIME_SETS {
        let files = messages(&root.join(set));
        assert!(files.len() > 1, "{set}: {} files", files.len());
        let (mut passed, mut refused) = (0, 0);
        for path in &files {
            let name = path.strip_prefix(root.join(set)).unwrap().to_str().unwrap();
            let message = mail::with_crlf(&fs::read(path).unwrap());
            let outcome = bed.open(&message, TODAY);
            let unchanged = outcome.message.ends_with(&message);
            let found = if unchanged { UNCHANGED.to_owned() } else { outcome.text.clone() };
            let expected = exceptions.get(&(set.to_owned(), name.to_owned()));
            match expected.map_or(UNCHANGED, String::as_str) == found {
                true if unchanged => passed += 1,
                true => refused += 1,
                false => wrong.push(format!("{set}\t{name}\t{found}\t")),
            }
            assert_results_on_top(&outcome.message, message.len(), unchanged, name);
        }
        println!("{set:22} {passed:4} unchanged, {refused:3} as the list of exceptions says");
    }
    assert!(wrong.is_empty(), "{} not as expected:\n{}", wrong.len(), wrong.join("\n"));
}

/// What stands above an unchanged message is ours, and nothing else.
fn assert_results_on_top(delivered: &[u8], length: usize, unchanged: bool, name: &str) {
    if !unchanged {
        return;
    }
    let top = String::from_utf8(delivered[..delivered.len() - length].to_vec()).unwrap();
    for line in top.lines().filter(|line| !line.starts_with([' ', '\t'])) {
        let known = ["Received: ", "Authentication-Results: ", "X-Sealgate-"];
        assert!(known.iter().any(|start| line.starts_with(start)), "{name}: {line:?}");
    }
}

/// Goes through a set's expectations; `count` is how many there are, 0 where only the files at hand are meant.
fn check_set(
    set: &str,
    folder: &Path,
    count: usize,
    open: impl Fn(&Expectation, &[u8]) -> Outcome,
) {
    let exceptions = exceptions();
    let rows: Vec<Expectation> = fixtures::expectations(folder)
        .into_iter()
        .filter(|row| count > 0 || row.column("file").ends_with(".eml"))
        // Inputs of RFC 5280 §6.1.1 about certificate policies, which the program has no setting for; the paths of these
        // rows are judged in sealgate-core's own PKITS test.
        .filter(|row| !row.column("settings").contains("SetInitial"))
        .collect();
    assert!(rows.len() >= count.max(1), "{set}: {} expectations", rows.len());
    let mut wrong = Vec::new();
    let mut excepted = 0;
    for row in &rows {
        let file = row.column("file");
        let outcome = open(row, &as_message(&folder.join(file), row.column("operation")));
        let exception = exceptions.get(&(set.to_owned(), file.to_owned()));
        let as_expected = outcome.meets(row.column("expected"));
        match exception {
            Some(text) if *text == outcome.text && !as_expected => excepted += 1,
            None if as_expected => {}
            _ => wrong.push(format!(
                "{set}\t{file}\t{}\t(expected {}, excepted {exception:?})",
                outcome.text,
                row.column("expected")
            )),
        }
    }
    println!(
        "{set:22} {:4} as expected, {excepted:3} as the list of exceptions says",
        rows.len() - excepted
    );
    assert!(wrong.is_empty(), "{} not as expected:\n{}", wrong.len(), wrong.join("\n"));
}

/// A file as a message: MIME as it is under address fields, bare CMS (PEM or DER) as application/pkcs7-mime.
fn as_message(path: &Path, operation: &str) -> Vec<u8> {
    let bytes = fs::read(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let entity = if bytes.starts_with(b"-----BEGIN") {
        mail::pkcs7_mime(smime_type(operation), &pki::pem_body(path))
    } else if bytes.first().is_some_and(u8::is_ascii_alphabetic) && mail::contains(&bytes, ": ") {
        mail::with_crlf(&bytes)
    } else {
        mail::pkcs7_mime(smime_type(operation), &bytes)
    };
    if mail::header(&entity, "From").is_some() {
        return entity;
    }
    let own_version = mail::header(&entity, "MIME-Version").is_some();
    let message = mail::message("someone@example.com", TO, "x", b"");
    let head = if own_version {
        message.strip_suffix(b"MIME-Version: 1.0\r\n").unwrap()
    } else {
        &message
    };
    [head, &entity].concat()
}

fn smime_type(operation: &str) -> &'static str {
    if operation.contains("decrypt") { "enveloped-data" } else { "signed-data" }
}

/// Exceptions: (set, file) and what happens instead.
fn exceptions() -> BTreeMap<(String, String), String> {
    include_str!("data/fixtures_exceptions.tsv")
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            assert!(
                columns.len() == 4 && columns[3].len() > 5,
                "an exception needs a reason: {line}"
            );
            ((columns[0].to_owned(), columns[1].to_owned()), columns[2].to_owned())
        })
        .collect()
}

/// What became of a message.
struct Outcome {
    /// In one line, as the exceptions have it.
    text: String,
    report: Report,
    is_refused: bool,
    /// The first copy that went on.
    message: Vec<u8>,
}

impl Outcome {
    fn new(report: &Report, reply: Option<&Reply>, message: Vec<u8>) -> Self {
        let reason = report.reason.map_or("-", |reason| reason.as_str());
        let layers: Vec<String> = report.layers.iter().map(layer_text).collect();
        let what = match (reply, report.delivered) {
            (Some(reply), _) => format!("{} {}", reply.code, reply.enhanced_text()),
            (None, Delivered::Plain) => "opened".to_owned(),
            (None, _) => "as received".to_owned(),
        };
        Self {
            text: format!("{what}, {} ({reason}), [{}]", report.verdict.as_str(), layers.join(" ")),
            report: report.clone(),
            is_refused: reply.is_some(),
            message,
        }
    }

    /// Whether this is what the expectation's word means for a gateway.
    fn meets(&self, expected: &str) -> bool {
        let opened = self.report.delivered == Delivered::Plain;
        let pass = self.report.verdict == Verdict::Pass;
        let valid = !self.is_refused && self.text.contains("signed:valid");
        match expected.split([' ', ';']).next().unwrap() {
            "decrypt-ok+sig-good" => opened && valid,
            "decrypt-ok+sig-none" => opened && self.report.verdict == Verdict::None,
            "decrypt-ok" => opened,
            "sig-good" => valid,
            "sig-bad" => self.is_refused || !pass,
            "accept" => valid && (pass || self.text.contains("signer-mismatch")),
            "reject" => {
                self.is_refused || (!pass && !opened && !self.text.contains("signer-mismatch"))
            }
            // These rows ask for no crash; a pass would still be wrong.
            _ => !pass,
        }
    }
}

fn layer_text(layer: &Layer) -> String {
    match layer {
        Layer::Encrypted { content, key, .. } => format!("encrypted:{content}:{key}"),
        Layer::Signed { status, .. } => format!("signed:{status:?}").to_lowercase(),
    }
}

/// What the inbound side knows.
struct Bed {
    anchors: Vec<Arc<Certificate>>,
    intermediates: Vec<Arc<Certificate>>,
    crls: Vec<Vec<u8>>,
    keys: Vec<OwnKey>,
}

impl Bed {
    fn new(anchors: Vec<Arc<Certificate>>, crls: Vec<Vec<u8>>) -> Self {
        Self { anchors, intermediates: Vec::new(), crls, keys: Vec::new() }
    }

    /// A message from the Internet for a recipient of ours who may use every key at hand.
    fn open(&self, message: &[u8], now: Timestamp) -> Outcome {
        let (anchors, intermediates) = (self.anchors.clone(), self.intermediates.clone());
        let decision = Decision {
            unauthenticated_encryption: UnauthenticatedEncryption::Pass,
            signer_mismatch: SignerMismatch::Tag,
            ..Decision::default()
        };
        let to = Address::parse(TO).unwrap();
        let context = Context {
            policy: Arc::new(Policy {
                domains: vec![Domain::parse("ours.example").unwrap()],
                defaults: decision,
                rules: Vec::new(),
            }),
            trust: Arc::new(TrustStore::new(anchors, intermediates, self.crls.clone())),
            hostname: "gate.ours.example".to_owned(),
            now,
            clock_is_doubtful: false,
            stamp: now,
            dkim: None,
        };
        let envelope = Envelope {
            reverse_path: Address::parse("sender@elsewhere.example").ok(),
            recipients: vec![Recipient::new(to)],
            parameters: MailParameters::default(),
        };
        let message = Message::new(Bytes::copy_from_slice(message));
        let received = b"Received: by gate.ours.example\r\n".to_vec();
        let mut inbound = Inbound::new(context, "test".to_owned(), envelope, message, received);
        let mut keys = Keys::default();
        for _ in 0..ROUNDS_MAX {
            match inbound.step(&keys) {
                Step::Want(queries) => self.answer(queries, &mut keys),
                Step::Done(done) => {
                    let message = done.parcels[0].message.concat();
                    return Outcome::new(&done.report, None, message);
                }
                Step::Refused(refused) => {
                    let (refusal, report) = *refused;
                    return Outcome::new(&report, Some(&Reply::from(&refusal)), Vec::new());
                }
            }
        }
        panic!("asks for keys without end");
    }

    fn answer(&self, queries: Vec<KeyQuery>, keys: &mut Keys) {
        for query in queries {
            match query {
                KeyQuery::Public(address) => {
                    keys.public.insert(address, Ok(Vec::new()));
                }
                KeyQuery::Decryption(ref address) | KeyQuery::Signing(ref address) => {
                    let mut own = self.keys.clone();
                    own.iter_mut().for_each(|key| key.address = Some(address.clone()));
                    keys.own.insert(query, Ok(own));
                }
            }
        }
    }
}

fn own_key(certificate: Certificate, key: SoftwareKey) -> OwnKey {
    OwnKey {
        address: None,
        certificate: Arc::new(certificate),
        chain: Vec::new(),
        secret: Arc::new(key),
        is_active: true,
    }
}

fn own_key_of_pkcs12(path: &Path, password: &str) -> OwnKey {
    let mut command = Command::new("openssl");
    command.args([
        "pkcs12",
        "-legacy",
        "-nodes",
        "-clcerts",
        "-passin",
        &format!("pass:{password}"),
        "-in",
    ]);
    let pem = process::run(command.arg(path), b"").expect_ok("openssl pkcs12");
    own_key_of_pem(&String::from_utf8(pem).unwrap())
}

/// The first certificate and the first key of a text with PEM.
fn own_key_of_pem(text: &str) -> OwnKey {
    let certificate = Certificate::from_der(&pem_object(text, "CERTIFICATE")).unwrap();
    own_key(certificate, SoftwareKey::from_pkcs8(&pem_object(text, "PRIVATE KEY")).unwrap())
}

fn certificate(path: &Path) -> Certificate {
    let text = fs::read_to_string(path).unwrap();
    Certificate::from_der(&pem_object(&text, "CERTIFICATE")).unwrap()
}

fn pem_object(text: &str, kind: &str) -> Vec<u8> {
    let start = format!("-----BEGIN {kind}-----");
    let at = text.find(&start).unwrap_or_else(|| panic!("no {kind} in {text}"));
    let rest = &text[at + start.len()..];
    mail::decode_base64(&rest.as_bytes()[..rest.find("-----END").unwrap()])
}

fn certificate_der(path: &Path) -> Certificate {
    Certificate::from_der(&fs::read(path).unwrap()).unwrap()
}

/// Messages of a MIME set.
fn messages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            found.extend(messages(&path));
        } else if [".eml", ".msg", ".message"].iter().any(|end| name.ends_with(end))
            || (name.starts_with("msg_") && name.ends_with(".txt"))
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

const MIME_SETS: [&str; 9] = [
    "bc-mime",
    "cpython-email",
    "deltachat",
    "mikel-mail",
    "mime-tools-perl",
    "mime4j",
    "protected-headers",
    "spamassassin",
    "stalwart-mail-parser",
];

/// How the outcome of a message that passed as it came is called.
const UNCHANGED: &str = "unchanged";

const TO: &str = "bob@ours.example";

/// 2026-11-23, inside the validity of everything recent.
const TODAY: Timestamp = Timestamp(1_795_392_000);

/// 2000-01-01, for RFC 4134.
const IN_2000: Timestamp = Timestamp(946_684_800);

/// How often the processor may ask for keys.
const ROUNDS_MAX: usize = 10;
