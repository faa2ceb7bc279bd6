//! The store against a server whose objects and manners a test chooses: what servers of other makers do, and ours does not.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use rcgen::{CertificateParams, KeyPair, KeyUsagePurpose, SanType};
use sealgate_core::keys::{
    Certificate, Digest, KeyError, KeyTransport, SecretKey as _, SignatureScheme, SoftwareKey,
};

use super::*;
use crate::kmip::client::CONNECTIONS_MAX;
use crate::kmip::enumeration::{HashingAlgorithm, ResultReason, State};
use crate::kmip::message::{RequestMessage, ResponseItem, ResponseMessage, Version};
use crate::kmip::object::Object;
use crate::kmip::request::KeyUse;
use crate::kmip::response::Failure;
use crate::kmip::ttlv::{HEADER_BYTES, message_bytes};

mod ambiguous;
mod gone;
mod unreadable;

const ALICE: &str = "alice@nec.example";
const SHA256: SignatureScheme = SignatureScheme::Ecdsa(Digest::Sha256);

/// An object at the server.
#[derive(Clone)]
struct Kept {
    id: String,
    object: Object,
    attributes: Vec<Attribute>,
    state: State,
}

/// The server's data and manners.
struct Fake {
    kept: Vec<Kept>,
    operations: Vec<Operation>,
    /// Whether it decrypts with private keys; PyKMIP does not, and says that permission is denied.
    decrypts: bool,
    /// What it says of a ciphertext that it cannot decrypt.
    of_bad_ciphertexts: ResultReason,
    /// Who it says that made it.
    vendor: Option<String>,
    /// With which of the next decryptions it has troubles of its own, and says General Failure.
    troubles: VecDeque<bool>,
    /// Behind so many decryptions it has lost the key.
    loses_after: Option<usize>,
    takes_links: bool,
    /// Whether it looks at names where it is asked for one.
    minds_names: bool,
    /// It dies after so many registrations.
    registers: usize,
    /// What it was asked: the operation and the object.
    asked: Vec<(Operation, String)>,
    /// Connections now, and at most so far.
    connections: [usize; 2],
    before: String,
    /// Its answers about this object are spoiled so.
    spoiled: Option<(String, Spoil)>,
}

type Spoil = fn(&mut [u8]);

struct FakeServer {
    shared: Arc<Mutex<Fake>>,
}

impl FakeServer {
    fn start(socket: &Path, before: &str) -> Self {
        let fake = Fake {
            kept: Vec::new(),
            operations: vec![Operation::Sign, Operation::Decrypt],
            decrypts: true,
            of_bad_ciphertexts: ResultReason::CryptographicFailure,
            vendor: None,
            troubles: VecDeque::new(),
            loses_after: None,
            takes_links: true,
            minds_names: true,
            registers: usize::MAX,
            asked: Vec::new(),
            connections: [0, 0],
            before: before.to_owned(),
            spoiled: None,
        };
        let shared = Arc::new(Mutex::new(fake));
        let listener = UnixListener::bind(socket).unwrap();
        let server = Self { shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let count = |change: fn(usize) -> usize| {
                        let mut fake = shared.lock().unwrap();
                        let [now, most] = &mut fake.connections;
                        *now = change(*now);
                        *most = (*most).max(*now);
                    };
                    count(|now| now + 1);
                    while serve(&stream, &shared).is_some() {}
                    count(|now| now - 1);
                });
            }
        });
        server
    }

    fn fake(&self) -> MutexGuard<'_, Fake> {
        self.shared.lock().unwrap()
    }

    /// Puts an object there and says its identifier.
    fn put(&self, object: Object, attributes: Vec<Attribute>) -> String {
        self.fake().put(object, attributes, State::Active)
    }

    fn put_certificate(&self, person: &Person) -> String {
        let name = Attribute::Name(format!("sealgate/{ALICE}/certificate"));
        self.put(Object::Certificate(person.certificate.der().to_vec()), vec![name])
    }

    /// A private key without a link.
    fn put_key(&self, person: &Person, mask: i32) -> String {
        let name = Attribute::Name(format!("sealgate/{ALICE}/key"));
        self.put(person.key_object(), vec![name, Attribute::UsageMask(mask)])
    }

    fn set_state(&self, id: &str, state: State) {
        self.fake().kept.iter_mut().find(|kept| kept.id == id).unwrap().state = state;
    }

    fn times(&self, operation: Operation, id: &str) -> usize {
        let is = |asked: &&(Operation, String)| asked.0 == operation && asked.1 == id;
        self.fake().asked.iter().filter(is).count()
    }
}

fn serve(mut stream: &UnixStream, shared: &Mutex<Fake>) -> Option<()> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).ok()?;
    let mut bytes = vec![0; message_bytes(&header).unwrap()];
    bytes[..HEADER_BYTES].copy_from_slice(&header);
    stream.read_exact(&mut bytes[HEADER_BYTES..]).ok()?;
    let mut message = RequestMessage::decode(&bytes).unwrap();
    let request = message.items.pop().unwrap().request;
    let operation = Some(request.operation());
    let mut fake = shared.lock().unwrap();
    let result = fake.answer(request)?;
    let spoil = fake.spoiled.as_ref().filter(|(id, _)| fake.asked.last().unwrap().1 == *id);
    let spoil = spoil.map(|(_, spoil)| *spoil);
    drop(fake);
    let items = vec![ResponseItem { operation, batch_id: None, result }];
    let answer = ResponseMessage { version: message.version, items };
    let mut answer = answer.encode(0);
    if let Some(spoil) = spoil {
        spoil(&mut answer);
    }
    stream.write_all(&answer).ok()
}

fn no(reason: ResultReason) -> Result<Response, Failure> {
    Err(Failure { reason, message: "no".to_owned() })
}

impl Fake {
    fn put(&mut self, object: Object, attributes: Vec<Attribute>, state: State) -> String {
        let id = format!("{}{}", self.before, self.kept.len());
        self.kept.push(Kept { id: id.clone(), object, attributes, state });
        id
    }

    /// `None` where it dies.
    fn answer(&mut self, request: Request) -> Option<Result<Response, Failure>> {
        let id = match &request {
            Request::Activate { id }
            | Request::Destroy { id }
            | Request::Get { id, .. }
            | Request::GetAttributes { id, .. }
            | Request::Revoke { id, .. } => id.clone(),
            Request::Decrypt(used) | Request::Sign(used) => used.id.clone(),
            _ => String::new(),
        };
        self.asked.push((request.operation(), id.clone()));
        if !id.is_empty() && !self.kept.iter().any(|kept| kept.id == id) {
            return Some(no(ResultReason::ItemNotFound));
        }
        let kept = || self.kept.iter().find(|kept| kept.id == id).unwrap();
        Some(match request {
            Request::DiscoverVersions => Ok(Response::Versions(Version::SPOKEN.to_vec())),
            Request::Query(_) => {
                let (operations, vendor) = (self.operations.clone(), self.vendor.clone());
                Ok(Response::Query { operations, vendor })
            }
            Request::Locate { attributes, .. } => {
                let is = |kept: &&Kept| {
                    attributes.iter().all(|wanted| match wanted {
                        Attribute::ObjectType(kind) => kept.object.object_type() == *kind,
                        Attribute::Name(_) if !self.minds_names => true,
                        other => kept.attributes.contains(other),
                    })
                };
                let found = self.kept.iter().filter(is).map(|kept| kept.id.clone());
                Ok(Response::Located(found.collect()))
            }
            Request::Get { .. } => {
                Ok(Response::Got { id: id.clone(), object: kept().object.clone() })
            }
            Request::GetAttributes { names, .. } => {
                let mut attributes = kept().attributes.clone();
                attributes.push(Attribute::State(kept().state));
                attributes.retain(|one| names.iter().any(|name| name == one.name()));
                Ok(Response::Attributes { id, attributes })
            }
            Request::Sign(used) => self.sign(&used),
            Request::Decrypt(used) => self.decrypt(&used),
            Request::Register { object, attributes } => {
                let links =
                    attributes.iter().any(|one| matches!(one, Attribute::CertificateLink(_)));
                if links && !self.takes_links {
                    return Some(no(ResultReason::InvalidField));
                }
                self.registers = self.registers.checked_sub(1)?;
                let id = self.put(object, attributes, State::PreActive);
                Ok(Response::Done { id })
            }
            Request::Activate { .. } => {
                self.kept.iter_mut().find(|kept| kept.id == id).unwrap().state = State::Active;
                Ok(Response::Done { id })
            }
            Request::Revoke { .. } => Ok(Response::Done { id }),
            Request::Destroy { .. } => {
                self.kept.retain(|kept| kept.id != id);
                Ok(Response::Done { id })
            }
            Request::Unsupported(_) => no(ResultReason::OperationNotSupported),
        })
    }

    fn usable(&self, used: &KeyUse, bit: i32) -> Option<SoftwareKey> {
        let kept = self.kept.iter().find(|kept| kept.id == used.id)?;
        let Object::PrivateKey(key) = &kept.object else { return None };
        let allows = |one: &Attribute| matches!(one, Attribute::UsageMask(mask) if mask & bit != 0);
        let is_usable = kept.state == State::Active && kept.attributes.iter().any(allows);
        is_usable.then(|| SoftwareKey::from_pkcs8(&key.material).unwrap())
    }

    fn sign(&self, used: &KeyUse) -> Result<Response, Failure> {
        // Some servers know some digests only.
        if used.parameters.hashing == Some(HashingAlgorithm::Sha512) {
            return no(ResultReason::InvalidField);
        }
        let Some(key) = self.usable(used, usage::SIGN) else {
            return no(ResultReason::PermissionDenied);
        };
        let data = key.sign(SHA256, &used.data).unwrap().into();
        Ok(Response::Result { id: used.id.clone(), data })
    }

    fn decrypt(&mut self, used: &KeyUse) -> Result<Response, Failure> {
        if self.troubles.pop_front() == Some(true) {
            return no(ResultReason::GeneralFailure);
        }
        if let Some(left) = self.loses_after {
            let Some(less) = left.checked_sub(1) else { return no(ResultReason::ItemNotFound) };
            self.loses_after = Some(less);
        }
        let key = self.usable(used, usage::DECRYPT).filter(|_| self.decrypts);
        let Some(key) = key else { return no(ResultReason::PermissionDenied) };
        if used.parameters.algorithm != Some(crate::kmip::enumeration::CryptographicAlgorithm::Ecdh)
        {
            return no(ResultReason::InvalidField);
        }
        match key.unwrap(&KeyTransport::Ecdh { ephemeral: &used.data }) {
            Ok(data) => Ok(Response::Result { id: used.id.clone(), data }),
            Err(_) => no(self.of_bad_ciphertexts),
        }
    }
}

/// A key on P-256 and its certificate.
struct Person {
    pkcs8: Vec<u8>,
    certificate: Arc<Certificate>,
}

impl Person {
    fn new(usages: &[KeyUsagePurpose]) -> Self {
        let mut params = CertificateParams::default();
        params.key_usages = usages.to_vec();
        params.subject_alt_names = vec![SanType::Rfc822Name(ALICE.try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let certificate = Arc::new(Certificate::from_der(certificate.der()).unwrap());
        Self { pkcs8: key.serialize_der(), certificate }
    }

    fn signing() -> Self {
        Self::new(&[KeyUsagePurpose::DigitalSignature])
    }

    fn decrypting() -> Self {
        Self::new(&[KeyUsagePurpose::KeyAgreement])
    }

    fn new_key(&self) -> NewSecretKey {
        NewSecretKey {
            owner: ALICE.to_owned(),
            purpose: KeyPurpose::of(&self.certificate).unwrap(),
            pkcs8: self.pkcs8.clone().into(),
            certificate: Arc::clone(&self.certificate),
            chain: Vec::new(),
        }
    }

    fn key_object(&self) -> Object {
        let (format, algorithm, bits) = (crate::kmip::enumeration::KeyFormat::Pkcs8, None, None);
        let material = self.pkcs8.clone().into();
        Object::PrivateKey(crate::kmip::object::PrivateKey { format, algorithm, bits, material })
    }

    /// Whether a handle signs with this person's key.
    fn is_signed_by(&self, key: &RemoteKey) -> bool {
        let signature = key.secret.sign(SHA256, b"text").unwrap();
        let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1;
        let public = self.certificate.public_key_bytes();
        let public = aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, public);
        public.verify(b"text", &signature).is_ok()
    }
}

struct Bed {
    directory: tempfile::TempDir,
    servers: Vec<FakeServer>,
}

impl Bed {
    fn new(servers: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let start = |index: usize| {
            FakeServer::start(&directory.path().join(index.to_string()), ["a", "b"][index])
        };
        let servers = (0..servers).map(start).collect();
        Self { directory, servers }
    }

    /// One visit at a time: whoever waited for himself would be seen.
    fn store(&self, get: KmipGet) -> KeyManagementServer {
        self.store_with(get, 1)
    }

    fn store_with(&self, get: KmipGet, connections: usize) -> KeyManagementServer {
        let socket = |index: usize| KmipServer::Unix(self.directory.path().join(index.to_string()));
        KeyManagementServer::new(KmipConfig {
            servers: (0..self.servers.len()).map(socket).collect(),
            tls: None,
            key_name: crate::kmip::KEY_NAME.to_owned(),
            certificate_name: crate::kmip::CERTIFICATE_NAME.to_owned(),
            get,
            timeout: Duration::from_secs(20),
            connections,
        })
        .unwrap()
    }
}

#[test]
fn after_a_renewal_each_key_has_its_own_certificate_without_leaving_the_server() {
    let bed = Bed::new(1);
    let people = [Person::signing(), Person::signing(), Person::decrypting(), Person::decrypting()];
    people.iter().for_each(|person| drop(bed.servers[0].put_certificate(person)));
    // The order of keys is not that of certificates.
    for person in people.iter().rev() {
        bed.servers[0].put_key(person, usage_of(KeyPurpose::of(&person.certificate).unwrap()));
    }
    let found = bed.store(KmipGet::Never).find(ALICE).unwrap();
    assert_eq!(found.len(), 4);
    for person in &people {
        let is_its = |key: &&RemoteKey| key.certificate.der() == person.certificate.der();
        let key = found.iter().find(is_its).unwrap();
        if person.certificate.may_sign() {
            assert!(person.is_signed_by(key));
        } else {
            let transport = KeyTransport::Ecdh { ephemeral: person.certificate.public_key_bytes() };
            let own = SoftwareKey::from_pkcs8(&person.pkcs8).unwrap();
            assert_eq!(key.secret.unwrap(&transport), own.unwrap(&transport));
        }
    }
}

#[test]
fn a_key_that_belongs_to_no_certificate_is_an_error_and_no_absence() {
    let bed = Bed::new(1);
    let (one, other) = (Person::signing(), Person::signing());
    bed.servers[0].put_certificate(&one);
    bed.servers[0].put_key(&other, usage::SIGN);
    for get in [KmipGet::Never, KmipGet::IfNeeded] {
        let refused = bed.store(get).find(ALICE).unwrap_err();
        assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
        let said = refused.to_string();
        assert!(said.contains("object a1") && said.contains(ALICE), "{said}");
    }
}

#[test]
fn a_second_key_that_claims_a_certificate_must_show_that_it_is_its_key() {
    let bed = Bed::new(1);
    let (one, other) = (Person::signing(), Person::signing());
    let link = bed.servers[0].put_certificate(&one);
    let name = Attribute::Name(format!("sealgate/{ALICE}/key"));
    let linked = vec![name, Attribute::UsageMask(usage::SIGN), Attribute::CertificateLink(link)];
    bed.servers[0].put(one.key_object(), linked.clone());
    bed.servers[0].put(one.key_object(), linked.clone());
    let found = bed.store(KmipGet::Never).find(ALICE).unwrap();
    assert_eq!(found.len(), 1, "the same key twice");
    assert!(one.is_signed_by(&found[0]));
    bed.servers[0].put(other.key_object(), linked);
    assert!(bed.store(KmipGet::Never).find(ALICE).is_err());
}

#[test]
fn a_wrong_link_loses_against_a_proven_key_whichever_comes_first() {
    let linked = |link: &str| {
        let name = Attribute::Name(format!("sealgate/{ALICE}/key"));
        let link = Attribute::CertificateLink(link.to_owned());
        vec![name, Attribute::UsageMask(usage::SIGN), link]
    };
    for (wrong_first, both_linked) in [(true, false), (false, false), (true, true), (false, true)] {
        let bed = Bed::new(1);
        let server = &bed.servers[0];
        let (right, wrong) = (Person::signing(), Person::signing());
        let link = server.put_certificate(&right);
        let put_right = || match both_linked {
            true => server.put(right.key_object(), linked(&link)),
            false => server.put_key(&right, usage::SIGN),
        };
        if !wrong_first {
            put_right();
        }
        server.put(wrong.key_object(), linked(&link));
        if wrong_first {
            put_right();
        }
        let refused = bed.store(KmipGet::Never).find(ALICE).unwrap_err().to_string();
        assert!(refused.contains("no certificate"), "whose is the other? {refused}");
        server.put_certificate(&wrong);
        let found = bed.store(KmipGet::Never).find(ALICE).unwrap();
        for person in [&right, &wrong] {
            let is_its = |key: &&RemoteKey| key.certificate.der() == person.certificate.der();
            let key = found.iter().find(is_its).unwrap();
            assert!(person.is_signed_by(key), "{wrong_first} {both_linked}");
        }
    }
}

#[test]
fn a_revoked_copy_of_a_key_does_not_keep_the_other_from_signing() {
    for (links, get) in [(2, KmipGet::Never), (1, KmipGet::IfNeeded), (0, KmipGet::IfNeeded)] {
        let bed = Bed::new(1);
        let person = Person::signing();
        let link = bed.servers[0].put_certificate(&person);
        let ids = [0, 1].map(|index| {
            let name = Attribute::Name(format!("sealgate/{ALICE}/key"));
            let mut attributes = vec![name, Attribute::UsageMask(usage::SIGN)];
            if index < links {
                attributes.push(Attribute::CertificateLink(link.clone()));
            }
            bed.servers[0].put(person.key_object(), attributes)
        });
        for revoked in [0, 1] {
            bed.servers[0].set_state(&ids[revoked], State::Deactivated);
            bed.servers[0].set_state(&ids[1 - revoked], State::Active);
            let found = bed.store(get).find(ALICE).unwrap();
            assert_eq!(found.len(), 1, "{links} {revoked}");
            assert!(person.is_signed_by(&found[0]), "{links} {revoked}");
        }
    }
}

#[test]
fn what_a_mail_asks_for_never_fetches_a_key_that_the_server_uses_itself() {
    let bed = Bed::new(1);
    let (signing, decrypting) = (Person::signing(), Person::decrypting());
    for person in [&signing, &decrypting] {
        bed.servers[0].put_certificate(person);
    }
    let signing_id = bed.servers[0].put_key(&signing, usage::SIGN);
    let decrypting_id = bed.servers[0].put_key(&decrypting, usage::DECRYPT);
    let found = bed.store(KmipGet::IfNeeded).find(ALICE).unwrap();
    let refused = found[0].secret.sign(SignatureScheme::Ecdsa(Digest::Sha512), b"x").unwrap_err();
    assert!(matches!(refused, KeyError::Unavailable(_)), "{refused}");
    let transport = KeyTransport::RsaPkcs1 { encrypted_key: &[1; 256] };
    assert_eq!(found[1].secret.unwrap(&transport).unwrap_err(), KeyError::Failed);
    assert!(signing.is_signed_by(&found[0]));
    for id in [signing_id, decrypting_id] {
        assert_eq!(bed.servers[0].times(Operation::Get, &id), 0, "{id} was fetched");
    }
}

#[test]
fn a_key_that_the_server_does_not_decrypt_with_is_fetched_and_no_other() {
    let bed = Bed::new(1);
    bed.servers[0].fake().decrypts = false;
    let (signing, decrypting) = (Person::signing(), Person::decrypting());
    for person in [&signing, &decrypting] {
        bed.servers[0].put_certificate(person);
    }
    let signing_id = bed.servers[0].put_key(&signing, usage::SIGN);
    let id = bed.servers[0].put_key(&decrypting, usage::DECRYPT);
    let found = bed.store(KmipGet::IfNeeded).find(ALICE).unwrap();
    let transport = KeyTransport::Ecdh { ephemeral: decrypting.certificate.public_key_bytes() };
    for _ in 0..3 {
        assert!(found[1].secret.unwrap(&transport).is_ok());
    }
    assert_eq!(bed.servers[0].times(Operation::Get, &id), 1);
    assert_eq!(bed.servers[0].times(Operation::Get, &signing_id), 0);
    assert!(bed.store(KmipGet::Never).find(ALICE).is_err(), "it cannot be proven");
}

#[test]
fn a_deactivated_key_signs_no_more_and_is_not_fetched_for_it() {
    let bed = Bed::new(1);
    let (old, new) = (Person::signing(), Person::signing());
    let link = bed.servers[0].put_certificate(&old);
    let id = bed.servers[0].put_key(&old, usage::SIGN);
    let before = bed.store(KmipGet::IfNeeded).find(ALICE).unwrap();
    let linked = Attribute::CertificateLink(link);
    bed.servers[0].fake().kept[1].attributes.push(linked);
    bed.servers[0].set_state(&id, State::Deactivated);
    // A handle that was found before; now it is found no more.
    let refused = before[0].secret.sign(SHA256, b"text");
    assert!(matches!(refused, Err(KeyError::Unavailable(_))), "{refused:?}");
    assert!(bed.store(KmipGet::IfNeeded).find(ALICE).unwrap().is_empty());
    assert_eq!(bed.servers[0].times(Operation::Get, &id), 0, "fetched");
    // Where another signs it is out of the way.
    bed.servers[0].put_certificate(&new);
    bed.servers[0].put_key(&new, usage::SIGN);
    let found = bed.store(KmipGet::IfNeeded).find(ALICE).unwrap();
    assert_eq!(found.len(), 1);
    assert!(new.is_signed_by(&found[0]));
}

#[test]
fn identifiers_and_abilities_are_each_servers_own() {
    let bed = Bed::new(2);
    let person = Person::decrypting();
    // The same identifier means the certificate at one, and something else at the other.
    bed.servers[0].put_certificate(&person);
    bed.servers[0].put_key(&person, usage::DECRYPT);
    bed.servers[1].put_certificate(&Person::signing());
    bed.servers[1].put_certificate(&person);
    let there = bed.servers[1].put_key(&person, usage::DECRYPT);
    bed.servers[1].fake().operations = vec![Operation::Sign];
    let store = bed.store(KmipGet::IfNeeded);
    let found = store.find(ALICE).unwrap();
    let transport = KeyTransport::Ecdh { ephemeral: person.certificate.public_key_bytes() };
    assert!(found[0].secret.unwrap(&transport).is_ok());
    assert_eq!(bed.servers[1].times(Operation::Get, &there), 0);
    // The first goes, which the next new connection notices.
    std::fs::remove_file(bed.directory.path().join("0")).unwrap();
    store.keeper.client.in_order()[0]
        .visit()
        .unwrap()
        .session()
        .map(drop)
        .expect_err("nobody listens there, and it is marked");
    assert!(found[0].secret.unwrap(&transport).is_ok(), "with the other server's key");
    assert_eq!(bed.servers[1].times(Operation::Get, &there), 1, "fetched: it does not decrypt");
    assert_eq!(bed.servers[1].times(Operation::Decrypt, &there), 0, "and is not asked to");
}

#[test]
fn a_key_of_another_name_than_was_asked_for_is_nobodys_and_is_not_destroyed() {
    let bed = Bed::new(1);
    let person = Person::signing();
    bed.servers[0].put_certificate(&person);
    let id = bed.servers[0].put_key(&person, usage::SIGN);
    bed.servers[0].fake().minds_names = false;
    let store = bed.store(KmipGet::Never);
    let bob = "bob@nec.example";
    let errors = [store.find(bob).map(drop), store.find_for(bob, bob).map(drop)];
    for error in errors.into_iter().chain([store.remove(bob).map(drop)]) {
        let error = error.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "mail waits: {error}");
        let names = ["sealgate/bob@nec.example/key", "sealgate/alice@nec.example/key"];
        assert!(names.iter().all(|name| error.to_string().contains(name)), "{error}");
    }
    assert_eq!(bed.servers[0].fake().kept.len(), 2);
    let asked = bed.servers[0].times(Operation::GetAttributes, &id);
    assert!(person.is_signed_by(&store.find(ALICE).unwrap()[0]));
    let again = bed.servers[0].times(Operation::GetAttributes, &id);
    assert_eq!(again - asked, 1, "the name comes with what is asked anyway");
    // Addresses are compared whatever their case.
    let name = Attribute::Name(format!("sealgate/{}/key", ALICE.to_uppercase()));
    bed.servers[0].fake().kept[1].attributes[0] = name;
    assert!(person.is_signed_by(&store.find(ALICE).unwrap()[0]));
}

#[test]
fn a_check_asks_every_server_and_a_ping_is_content_with_one() {
    let bed = Bed::new(2);
    bed.servers[1].fake().operations = vec![Operation::Sign];
    let line = bed.store(KmipGet::Never).check().unwrap();
    assert!(line.contains("/0, signs itself: yes, decrypts itself: yes; "), "{line}");
    assert!(line.ends_with("/1, signs itself: yes, decrypts itself: no"), "{line}");
    // One that is away, and one that is none.
    std::fs::remove_file(bed.directory.path().join("1")).unwrap();
    let store = bed.store(KmipGet::Never);
    for _ in 0..2 {
        let line = store.check().unwrap_err().to_string();
        assert!(line.starts_with("key management server: unix:"), "{line}");
        assert!(line.contains("/1: No such file") && line.contains("/0, signs"), "{line}");
        store.ping().unwrap();
    }
}

#[test]
fn a_key_is_taken_in_with_a_link_where_the_server_takes_links() {
    for takes_links in [true, false] {
        let bed = Bed::new(1);
        bed.servers[0].fake().takes_links = takes_links;
        let store = bed.store(KmipGet::Never);
        let person = Person::signing();
        store.insert(&[person.new_key()]).unwrap();
        let kept = bed.servers[0].fake().kept[1].attributes.clone();
        assert_eq!(kept.contains(&Attribute::CertificateLink("a0".to_owned())), takes_links);
        assert!(person.is_signed_by(&store.find(ALICE).unwrap()[0]));
        let again = store.insert(&[person.new_key()]).unwrap_err();
        assert!(matches!(again, StoreError::Exists(_)), "{again}");
        assert_eq!(bed.servers[0].fake().kept.len(), 2, "nothing is left of the second attempt");
    }
}

#[test]
fn a_key_that_does_not_work_there_is_not_taken_in() {
    let bed = Bed::new(1);
    bed.servers[0].fake().decrypts = false;
    let refused = bed.store(KmipGet::Never).insert(&[Person::decrypting().new_key()]).unwrap_err();
    assert!(refused.to_string().contains("no key agreement (ECDH)"), "{refused}");
    assert!(bed.servers[0].fake().kept.is_empty(), "something of it is left");
}

#[test]
fn what_was_cut_off_between_certificate_and_key_or_before_the_activation_is_gone_on_with() {
    for takes_links in [true, false] {
        let bed = Bed::new(1);
        bed.servers[0].fake().takes_links = takes_links;
        bed.servers[0].fake().registers = 1;
        let person = Person::signing();
        let cut = bed.store(KmipGet::IfNeeded).insert(&[person.new_key()]).unwrap_err();
        assert!(matches!(cut, StoreError::Unavailable { .. }), "{cut}");
        assert_eq!(bed.servers[0].fake().kept.len(), 1, "the certificate alone");
        bed.servers[0].fake().registers = usize::MAX;
        bed.store(KmipGet::IfNeeded).insert(&[person.new_key()]).unwrap();
        assert_eq!(bed.servers[0].fake().kept.len(), 2);
        assert!(person.is_signed_by(&bed.store(KmipGet::Never).find(ALICE).unwrap()[0]));

        bed.servers[0].set_state("a1", State::PreActive);
        bed.store(KmipGet::IfNeeded).insert(&[person.new_key()]).unwrap();
        assert_eq!(bed.servers[0].fake().kept.len(), 2);
        assert!(person.is_signed_by(&bed.store(KmipGet::Never).find(ALICE).unwrap()[0]));
    }
}

#[test]
fn a_list_that_may_be_cut_off_is_no_answer() {
    let bed = Bed::new(1);
    let key = Person::signing();
    for _ in 0..=10_000 {
        bed.servers[0].put_key(&key, usage::SIGN);
    }
    let refused = bed.store(KmipGet::Never).find(ALICE).unwrap_err();
    assert!(refused.to_string().contains("more than 10000"), "{refused}");
}

/// Our own server closes a client's 65th connection.
#[test]
fn many_questions_at_once_share_a_bounded_number_of_connections() {
    for (connections, at_once) in [(CONNECTIONS_MAX, 2..=40), (1, 1..=1)] {
        let bed = Bed::new(1);
        let person = Person::signing();
        bed.servers[0].put_certificate(&person);
        bed.servers[0].put_key(&person, usage::SIGN);
        let store = bed.store_with(KmipGet::Never, connections);
        std::thread::scope(|scope| {
            let ask = || store.find(ALICE).map(|found| found.len());
            let all: Vec<_> = (0..200).map(|_| scope.spawn(ask)).collect();
            for one in all {
                assert_eq!(one.join().unwrap().unwrap(), 1);
            }
        });
        let [_, most] = bed.servers[0].fake().connections;
        assert!(at_once.contains(&most), "{most} connections at once");
    }
}

#[test]
fn a_key_that_was_fetched_waits_for_nobodys_visit() {
    let bed = Bed::new(1);
    let person = Person::decrypting();
    bed.servers[0].put_certificate(&person);
    bed.servers[0].put_key(&person, usage::DECRYPT);
    bed.servers[0].fake().operations = vec![Operation::Sign];
    let store = bed.store(KmipGet::IfNeeded);
    let found = store.find(ALICE).unwrap();
    let transport = KeyTransport::Ecdh { ephemeral: person.certificate.public_key_bytes() };
    assert!(found[0].secret.unwrap(&transport).is_ok(), "fetched");
    let order = store.keeper.client.in_order();
    let _visit = order[0].visit().unwrap();
    // Else it would wait for all of its 20 s, and in vain.
    assert!(found[0].secret.unwrap(&transport).is_ok());
}
