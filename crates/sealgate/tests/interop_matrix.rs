//! The interoperability matrix: `sealgate seal` is read by three other implementations of S/MIME, and `sealgate open`
//! reads what they write, in every combination of signature, key transport, content encryption and encoding.
//!
//! Every combination has a cell. Where one side cannot do a thing, [`inability`] says so, and the test tries it all
//! the same: a cell that is expected to be impossible and works fails the test like one that should work and does not.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::collections::{BTreeMap, HashMap};

use sealgate_testkit::bouncycastle::BouncyCastle;
use sealgate_testkit::gate::Gate;
use sealgate_testkit::gpgsm::GpgSm;
use sealgate_testkit::mail;
use sealgate_testkit::openssl::OpenSsl;
use sealgate_testkit::peer::{Cipher, Form, Peer, Signing, Transport};
use sealgate_testkit::pki::{Identity, KeyKind, PASSWORD, Pki, Reads};

const TEXT: &[u8] = b"The quick brown fox jumps over the lazy dog.\r\n.\r\nFrom here to there.\r\n";

/// Ours to theirs: a peer decrypts and verifies what `sealgate seal` wrote.
#[test]
fn peers_read_what_sealgate_seals() {
    let ours = Pki::new("Ours");
    let theirs = Pki::new("Theirs");
    let gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
    let signers = our_signers(&gate, &ours);
    let recipients = their_recipients(&gate, &theirs);
    let roots = [theirs.root.as_path(), &ours.root, &gate.authority()];
    let gpgsm = GpgSm::new(&roots, &recipients.values().collect::<Vec<_>>());
    let peers: [&dyn Peer; 3] = [&OpenSsl, &gpgsm, &BouncyCastle::start()];

    let mut table = Table::new(Direction::OursToTheirs);
    for scheme in Signing::ALL {
        for transport in Transport::ALL {
            for cipher in Cipher::ALL {
                let recipient = &recipients[&(transport, cipher)];
                let sealed = signers.get(&scheme).map(|signer| seal(&gate, signer, recipient));
                for peer in peers {
                    for form in Form::ALL {
                        let cell = Cell { peer: peer.name(), scheme, transport, cipher, form };
                        let result = match &sealed {
                            None => Err("no switch for signing with it".to_owned()),
                            Some((cms, _)) if Form::of(cms) != form => {
                                Err(format!("written as {}", Form::of(cms)))
                            }
                            Some((cms, root)) => read(peer, recipient, cms, root),
                        };
                        table.enter(cell, result);
                    }
                }
            }
        }
    }
    table.finish();
}

/// Theirs to ours: `sealgate open` decrypts and verifies what a peer wrote.
#[test]
fn sealgate_opens_what_peers_seal() {
    let ours = Pki::new("Ours");
    let theirs = Pki::new("Theirs");
    let gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
    gate.must(&["anchor", "import", theirs.root.to_str().unwrap()], b"");
    let recipients: HashMap<Transport, Identity> = [
        (Transport::RsaPkcs1, "pkcs1@nec.example", KeyKind::Rsa2048),
        (Transport::RsaOaep, "oaep@nec.example", KeyKind::Rsa2048),
        (Transport::EcdhP256, "ecdh@nec.example", KeyKind::P256),
    ]
    .into_iter()
    .map(|(transport, address, kind)| {
        let identity = ours.issue(address, kind, Reads::GcmAndOaep);
        import_secret_key(&gate, &identity);
        (transport, identity)
    })
    .collect();
    let signers: HashMap<KeyKind, Identity> = KINDS
        .into_iter()
        .map(|(kind, name)| {
            (kind, theirs.issue(&format!("{name}@abc.example"), kind, Reads::GcmAndOaep))
        })
        .collect();
    let everyone: Vec<&Identity> = signers.values().chain(recipients.values()).collect();
    let gpgsm = GpgSm::new(&[&theirs.root, &ours.root], &everyone);
    let peers: [&dyn Peer; 3] = [&OpenSsl, &gpgsm, &BouncyCastle::start()];

    let mut table = Table::new(Direction::TheirsToOurs);
    for peer in peers {
        for scheme in Signing::ALL {
            let signer = &signers[&kind_of(scheme)];
            for form in Form::ALL {
                for transport in Transport::ALL {
                    for cipher in Cipher::ALL {
                        let cell = Cell { peer: peer.name(), scheme, transport, cipher, form };
                        let sealed = write(peer, &cell, signer, &recipients[&transport]);
                        let result = sealed.and_then(|message| {
                            open(&gate, &cell, &signer.address, &recipients[&transport], &message)
                        });
                        table.enter(cell, result);
                    }
                }
            }
        }
    }
    table.finish();
}

/// Keys for signing: one imported as PKCS#12, the others made by our own authority; with the root they chain to.
fn our_signers(gate: &Gate, ours: &Pki) -> HashMap<Signing, (String, std::path::PathBuf)> {
    let imported = ours.issue("rsa2048@nec.example", KeyKind::Rsa2048, Reads::Unsaid);
    import_secret_key(gate, &imported);
    let mut signers = HashMap::from([(Signing::Rsa2048, (imported.address, ours.root.clone()))]);
    for (scheme, algorithm) in
        [(Signing::Rsa3072, "rsa3072"), (Signing::P256, "p256"), (Signing::Ed25519, "ed25519")]
    {
        let address = format!("{algorithm}@nec.example");
        gate.generate_key(&address, algorithm);
        signers.insert(scheme, (address, gate.authority()));
    }
    signers
}

/// Recipients whose certificates say what they read: that alone decides about OAEP and GCM.
fn their_recipients(gate: &Gate, theirs: &Pki) -> HashMap<(Transport, Cipher), Identity> {
    let mut recipients = HashMap::new();
    for transport in Transport::ALL {
        for cipher in Cipher::ALL {
            let reads = match (transport, cipher) {
                (Transport::RsaOaep, Cipher::Cbc) => Reads::Oaep,
                (Transport::RsaOaep, Cipher::Gcm) => Reads::GcmAndOaep,
                (_, Cipher::Cbc) => Reads::Unsaid,
                (_, Cipher::Gcm) => Reads::Gcm,
            };
            let kind = match transport {
                Transport::RsaPkcs1 | Transport::RsaOaep => KeyKind::Rsa2048,
                Transport::EcdhP256 => KeyKind::P256,
            };
            let address = format!("{transport}-{cipher}@abc.example");
            let identity = theirs.issue(&address, kind, reads);
            gate.must(&["public-key", "import", identity.certificate.to_str().unwrap()], b"");
            recipients.insert((transport, cipher), identity);
        }
    }
    recipients
}

fn import_secret_key(gate: &Gate, identity: &Identity) {
    let password = gate.dir().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let pkcs12 = identity.pkcs12.to_str().unwrap();
    let password = password.to_str().unwrap();
    gate.must(
        &["secret-key", "import", &identity.address, pkcs12, "--password-file", password],
        b"",
    );
}

/// The CMS that sealgate makes, and the root that its signer chains to.
fn seal(
    gate: &Gate,
    (signer, root): &(String, std::path::PathBuf),
    recipient: &Identity,
) -> (Vec<u8>, std::path::PathBuf) {
    let entity = [b"Content-Type: text/plain; charset=us-ascii\r\n\r\n", TEXT].concat();
    let message = mail::message(signer, &recipient.address, "matrix", &entity);
    let sealed = gate.must(&["seal", "--from", signer, "--to", &recipient.address], &message);
    (mail::decoded_body(&sealed), root.clone())
}

/// A peer reads a sealed message whole: decrypts it, verifies the signature inside and finds the text.
fn read(
    peer: &dyn Peer,
    recipient: &Identity,
    cms: &[u8],
    root: &std::path::Path,
) -> Result<(), String> {
    let inner = peer.decrypt(recipient, cms).map_err(|why| format!("decrypting: {why}"))?;
    let content = mail::signed_part(&inner);
    if content == inner {
        return Err("not multipart/signed inside".to_owned());
    }
    peer.verify(&mail::signature_part(&inner), content, root)
        .map_err(|why| format!("verifying: {why}"))?;
    if mail::decoded_content(content) == TEXT { Ok(()) } else { Err("another text".to_owned()) }
}

/// A peer writes a message: signs, then encrypts.
fn write(
    peer: &dyn Peer,
    cell: &Cell,
    signer: &Identity,
    recipient: &Identity,
) -> Result<Vec<u8>, String> {
    let entity = [b"Content-Type: text/plain; charset=us-ascii\r\n\r\n", TEXT].concat();
    let signature = peer
        .sign(signer, cell.scheme, cell.form, &entity)
        .map_err(|why| format!("signing: {why}"))?;
    let signed = mail::signed_entity(&entity, &signature);
    let sealed = peer
        .encrypt(recipient, cell.transport, cell.cipher, cell.form, &signed)
        .map_err(|why| format!("encrypting: {why}"))?;
    let kind = match cell.cipher {
        Cipher::Cbc => "enveloped-data",
        Cipher::Gcm => "authEnveloped-data",
    };
    let entity = mail::pkcs7_mime(kind, &sealed);
    Ok(mail::message(&signer.address, &recipient.address, "matrix", &entity))
}

/// Sealgate reads a message whole: verdict pass, the layers named rightly, and the text.
fn open(
    gate: &Gate,
    cell: &Cell,
    from: &str,
    recipient: &Identity,
    message: &[u8],
) -> Result<(), String> {
    let (ran, report) =
        gate.process(&["open", "--from", from, "--to", &recipient.address], message);
    if !ran.ok() {
        return Err(format!("exit {}: {}", ran.code, ran.stderr.trim()));
    }
    let report = report.ok_or("no report")?;
    if report["verdict"] != "pass" || report["delivered"] != "plain" {
        return Err(format!("verdict {} delivered {}", report["verdict"], report["delivered"]));
    }
    let [cipher, key, signature] = names(cell);
    let layers = &report["layers"];
    if layers[0]["content"] != cipher
        || layers[0]["key"] != key
        || layers[1]["signature"] != signature
    {
        return Err(format!("layers {layers}"));
    }
    let content = mail::signed_part(&ran.stdout);
    if mail::decoded_content(content) == TEXT { Ok(()) } else { Err("another text".to_owned()) }
}

/// What the report calls the algorithms of a cell.
fn names(cell: &Cell) -> [&'static str; 3] {
    [
        match cell.cipher {
            Cipher::Cbc => "aes-256-cbc",
            Cipher::Gcm => "aes-256-gcm",
        },
        match cell.transport {
            Transport::RsaPkcs1 => "rsa-pkcs1",
            Transport::RsaOaep => "rsa-oaep-sha256",
            Transport::EcdhP256 => "ecdh-p256",
        },
        match cell.scheme {
            Signing::Rsa2048 | Signing::Rsa3072 => "rsa-pkcs1",
            Signing::RsaPss => "rsa-pss",
            Signing::P256 => "ecdsa-p256",
            Signing::Ed25519 => "ed25519",
        },
    ]
}

/// What cannot be, and why: OpenSSL 3.0, gpgsm 2.2 and BouncyCastle 1.72 as Debian 12 has them.
fn inability(direction: Direction, cell: &Cell) -> Option<&'static str> {
    let ours_to_theirs = direction == Direction::OursToTheirs;
    if ours_to_theirs && cell.form == Form::Ber {
        return Some("sealgate writes DER");
    }
    if ours_to_theirs && cell.scheme == Signing::RsaPss {
        return Some("sealgate signs with PKCS#1 v1.5: no policy asks for PSS");
    }
    match cell.peer {
        "openssl" if cell.scheme == Signing::Ed25519 => Some("openssl 3.0: no Ed25519 in CMS"),
        "openssl" if (cell.scheme, cell.form) == (Signing::RsaPss, Form::Ber) => {
            Some("openssl 3.0: fails on streamed PSS")
        }
        "gpgsm" if !ours_to_theirs && cell.form == Form::Der => Some("gpgsm 2.2: writes BER only"),
        "gpgsm" if !ours_to_theirs && cell.scheme == Signing::RsaPss => {
            Some("gpgsm 2.2: cannot sign with PSS")
        }
        "gpgsm" if cell.scheme == Signing::Ed25519 => Some("gpgsm 2.2: no Ed25519"),
        "gpgsm" if cell.cipher == Cipher::Gcm => Some("gpgsm 2.2: no AES-GCM"),
        "gpgsm" if cell.transport == Transport::RsaOaep => Some("gpgsm 2.2: no OAEP"),
        "gpgsm" if cell.transport == Transport::EcdhP256 => Some("gpgsm 2.2: no ECDH"),
        _ => None,
    }
}

fn kind_of(scheme: Signing) -> KeyKind {
    match scheme {
        Signing::Rsa2048 | Signing::RsaPss => KeyKind::Rsa2048,
        Signing::Rsa3072 => KeyKind::Rsa3072,
        Signing::P256 => KeyKind::P256,
        Signing::Ed25519 => KeyKind::Ed25519,
    }
}

const KINDS: [(KeyKind, &str); 4] = [
    (KeyKind::Rsa2048, "rsa2048"),
    (KeyKind::Rsa3072, "rsa3072"),
    (KeyKind::P256, "p256"),
    (KeyKind::Ed25519, "ed25519"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    OursToTheirs,
    TheirsToOurs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Cell {
    peer: &'static str,
    scheme: Signing,
    form: Form,
    transport: Transport,
    cipher: Cipher,
}

struct Table {
    direction: Direction,
    cells: BTreeMap<Cell, Result<(), String>>,
}

impl Table {
    fn new(direction: Direction) -> Self {
        Self { direction, cells: BTreeMap::new() }
    }

    fn enter(&mut self, cell: Cell, result: Result<(), String>) {
        assert!(self.cells.insert(cell, result).is_none(), "{cell:?} twice");
    }

    /// Prints the table and fails where a cell is not as expected.
    fn finish(&self) {
        let title = match self.direction {
            Direction::OursToTheirs => "sealgate seal, read by",
            Direction::TheirsToOurs => "sealgate open, written by",
        };
        let columns: Vec<(Transport, Cipher)> = Transport::ALL
            .into_iter()
            .flat_map(|transport| Cipher::ALL.map(|cipher| (transport, cipher)))
            .collect();
        let names: Vec<String> = columns.iter().map(|(t, c)| format!("{t}/{c}")).collect();
        println!("\n{title:25} {}", names.join(" "));
        let mut notes: Vec<&str> = Vec::new();
        let mut rows: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for (cell, result) in &self.cells {
            let text = match (inability(self.direction, cell), result) {
                (None, Ok(())) => "ok".to_owned(),
                (None, Err(_)) => "FAILED".to_owned(),
                (Some(_), Ok(())) => "WORKS".to_owned(),
                (Some(note), Err(_)) => {
                    let known = notes.iter().position(|known| *known == note);
                    let number = known.unwrap_or_else(|| {
                        notes.push(note);
                        notes.len() - 1
                    });
                    format!("({})", number + 1)
                }
            };
            rows.entry((cell.peer, cell.scheme, cell.form)).or_default().push(text);
        }
        for ((peer, scheme, form), texts) in rows {
            let padded: Vec<String> = texts
                .iter()
                .zip(&names)
                .map(|(t, name)| format!("{t:^w$}", w = name.len()))
                .collect();
            println!("{peer:12} {scheme:8} {form:3} {}", padded.join(" "));
        }
        for (number, note) in (1..).zip(&notes) {
            println!("({number}) {note}");
        }
        let good = self.cells.values().filter(|result| result.is_ok()).count();
        println!("{good} of {} cells ok", self.cells.len());
        assert_eq!(self.cells.len(), 3 * 5 * 2 * 3 * 2, "every combination has its cell");
        let wrong: Vec<String> = self
            .cells
            .iter()
            .filter(|(cell, result)| result.is_ok() == inability(self.direction, cell).is_some())
            .map(|(cell, result)| format!("{cell:?}: {result:?}"))
            .collect();
        assert!(
            wrong.is_empty(),
            "{} cells are not as expected:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}
