//! `sealgate key-server` over its unix socket: keys found, used, brought and destroyed, and all that is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "test code"
)]

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use aws_lc_rs::agreement::{self, ECDH_P256, UnparsedPublicKey as PeerKey, agree};
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey,
    PublicEncryptingKey,
};
use aws_lc_rs::signature::{self, UnparsedPublicKey};
use sealgate_core::keys::Certificate;
use sealgate_keys::kmip::attribute::Attribute;
use sealgate_keys::kmip::enumeration::{
    CryptographicAlgorithm, HashingAlgorithm, KeyFormat, ObjectType, Operation, PaddingMethod,
    QueryFunction, ResultReason, RevocationReason, State, usage,
};
use sealgate_keys::kmip::message::{RequestItem, RequestMessage, Version};
use sealgate_keys::kmip::object::{Object, PrivateKey};
use sealgate_keys::kmip::request::{Parameters, Request};
use sealgate_keys::kmip::response::Response;
use sealgate_testkit::gate::{Gate, set};
use sealgate_testkit::key_server::KeyServer;
use sealgate_testkit::pki::{KeyKind, Pki, Reads, pem_body};
use sealgate_testkit::process::{self, Ran};

#[path = "key_server/host.rs"]
mod host;
#[path = "support/kmip_client.rs"]
mod kmip_client;
#[path = "key_server/rate_limit.rs"]
mod rate_limit;

use kmip_client::{BINARY, Kmip, MESSAGE, configure, own_uid, reason, relay};

const ALICE: &str = "alice@nec.example";
const BOB: &str = "bob@other.example";
/// Owner of a key that serves the whole domain.
const NEC: &str = "@nec.example";
const USES: &[&str] = &["sign", "decrypt"];

/// A gate with keys for Alice, and a key server for them.
fn start(algorithm: &str, keys: &[&str], operations: &[&str]) -> (Gate, KeyServer) {
    let gate = Gate::init(BINARY, &["nec.example", "other.example"]);
    gate.generate_key(ALICE, algorithm);
    configure(&gate, vec![relay(own_uid(&gate), keys, operations)], |_| {});
    let server = KeyServer::start(BINARY, &gate.configuration());
    (gate, server)
}

fn connect(server: &KeyServer) -> Kmip {
    Kmip::unix(server.socket.as_ref().unwrap())
}

fn padded(padding: PaddingMethod, hashing: Option<HashingAlgorithm>) -> Parameters {
    Parameters { padding: Some(padding), hashing, algorithm: Some(CryptographicAlgorithm::Rsa) }
}

fn audited(server: &KeyServer, operation: &str, outcome: &str) -> Vec<serde_json::Value> {
    let is =
        |line: &serde_json::Value| line["operation"] == operation && line["outcome"] == outcome;
    server.audit().into_iter().filter(is).collect()
}

fn verify_audit(gate: &Gate) -> Ran {
    gate.run(&["key-server", "--verify-audit", "audit.log"], b"")
}

#[test]
fn rsa_keys_are_found_sign_and_decrypt_and_every_use_is_audited() {
    let (gate, server) = start("rsa2048", &["*@nec.example"], USES);
    let mut kmip = connect(&server);
    assert_eq!(kmip.keys_of("Alice@NEC.example").len(), 2);
    let id = kmip.key_for(ALICE, usage::SIGN);
    let attributes = kmip.attributes(&id, &[]);
    for expected in [
        Attribute::Name("sealgate/alice@nec.example/key".to_owned()),
        Attribute::ObjectType(ObjectType::PrivateKey),
        Attribute::State(State::Active),
        Attribute::Algorithm(CryptographicAlgorithm::Rsa),
        Attribute::Length(2048),
        Attribute::UsageMask(usage::SIGN),
    ] {
        assert!(attributes.contains(&expected), "{expected:?}: {attributes:?}");
    }
    let certificate = Certificate::from_der(&kmip.certificate_of(&id)).unwrap();
    for (padding, algorithm) in [
        (PaddingMethod::Pkcs1, &signature::RSA_PKCS1_2048_8192_SHA256),
        (PaddingMethod::Pss, &signature::RSA_PSS_2048_8192_SHA256),
    ] {
        let signed = kmip.sign(&id, padded(padding, Some(HashingAlgorithm::Sha256))).unwrap();
        let public = UnparsedPublicKey::new(algorithm, certificate.public_key_bytes());
        public.verify(MESSAGE, &signed).unwrap();
    }
    let sha256 = certificate.fingerprint().to_string();
    let done = audited(&server, "sign", "done");
    assert_eq!(done.len(), 2);
    assert_eq!(done[0]["owner"], ALICE);
    assert_eq!(done[0]["key"], id.as_str());
    assert_eq!(done[0]["certificate"], sha256.as_str());
    assert_eq!(done[0]["purpose"], "sign");

    let id = kmip.key_for(ALICE, usage::DECRYPT);
    let certificate = Certificate::from_der(&kmip.certificate_of(&id)).unwrap();
    let public = || PublicEncryptingKey::from_der(certificate.public_key_info_der()).unwrap();
    let oaep = OaepPublicEncryptingKey::new(public()).unwrap();
    let mut room = [0; 256];
    for (algorithm, hashing) in
        [(&OAEP_SHA256_MGF1SHA256, Some(HashingAlgorithm::Sha256)), (&OAEP_SHA1_MGF1SHA1, None)]
    {
        let encrypted = oaep.encrypt(algorithm, MESSAGE, &mut room, None).unwrap();
        let plain = kmip.decrypt(&id, padded(PaddingMethod::Oaep, hashing), encrypted);
        assert_eq!(plain.unwrap(), MESSAGE);
    }
    let pkcs1 = Pkcs1PublicEncryptingKey::new(public()).unwrap();
    let encrypted = pkcs1.encrypt(MESSAGE, &mut room).unwrap();
    let plain = kmip.decrypt(&id, padded(PaddingMethod::Pkcs1, None), encrypted).unwrap();
    assert_eq!(plain, MESSAGE);
    assert_eq!(audited(&server, "decrypt", "done").len(), 3);
    assert!(verify_audit(&gate).ok());
    let mode = |name: &str| std::fs::metadata(gate.dir().join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("audit.log"), mode("keys.sock")), (0o600, 0o660));
    assert!(server.stop().success());
    assert!(!gate.dir().join("keys.sock").exists());
}

/// KMIP 1.4 §3.22: a key that was revoked protects nothing more and processes what is old.
#[test]
fn a_revoked_key_signs_no_more_and_decrypts_what_is_old() {
    let operations = ["sign", "decrypt", "destroy"];
    let (gate, server) = start("rsa2048", &["*@nec.example"], &operations);
    let mut kmip = connect(&server);
    let (signs, decrypts) = (kmip.key_for(ALICE, usage::SIGN), kmip.key_for(ALICE, usage::DECRYPT));
    let pss = padded(PaddingMethod::Pss, Some(HashingAlgorithm::Sha256));
    assert!(kmip.sign(&signs, pss).is_ok());
    let certificate = Certificate::from_der(&kmip.certificate_of(&decrypts)).unwrap();
    let public = PublicEncryptingKey::from_der(certificate.public_key_info_der()).unwrap();
    let mut room = [0; 256];
    let public = Pkcs1PublicEncryptingKey::new(public).unwrap();
    let encrypted = public.encrypt(MESSAGE, &mut room).unwrap();
    let revoke = |kmip: &mut Kmip, id: &str, reason| {
        assert!(kmip.call(Request::Revoke { id: id.to_owned(), reason }).is_ok());
    };
    let state = |kmip: &mut Kmip, id: &str| kmip.attributes(id, &["State"]);
    revoke(&mut kmip, &signs, RevocationReason::CessationOfOperation);
    assert_eq!(state(&mut kmip, &signs), [Attribute::State(State::Deactivated)]);
    assert_eq!(reason(kmip.sign(&signs, pss)), ResultReason::PermissionDenied);
    // Worse is taken over, better is not.
    revoke(&mut kmip, &signs, RevocationReason::KeyCompromise);
    revoke(&mut kmip, &signs, RevocationReason::Unspecified);
    assert_eq!(state(&mut kmip, &signs), [Attribute::State(State::Compromised)]);
    let again = kmip.call(Request::Activate { id: signs.clone() });
    assert_eq!(reason(again), ResultReason::IllegalOperation);
    assert_eq!(reason(kmip.sign(&signs, pss)), ResultReason::PermissionDenied);
    revoke(&mut kmip, &decrypts, RevocationReason::KeyCompromise);
    let plain = kmip.decrypt(&decrypts, padded(PaddingMethod::Pkcs1, None), encrypted).unwrap();
    assert_eq!(plain, MESSAGE);
    assert_eq!(audited(&server, "revoke", "done").len(), 4);
    assert_eq!(audited(&server, "revoke", "done")[1]["reason"], "compromised");
    assert_eq!(audited(&server, "sign", "refused").len(), 2);
    // The program itself neither signs with the one nor encrypts to the other.
    let message = format!("From: {ALICE}\r\nTo: {ALICE}\r\n\r\nhello\r\n");
    let seal = ["seal", "--from", ALICE, "--to", ALICE];
    gate.set(&["policy", "sign"], "always");
    gate.set(&["policy", "encrypt"], "never");
    assert_eq!(gate.run(&seal, message.as_bytes()).code, 65, "nothing to sign with");
    gate.set(&["policy", "sign"], "never");
    gate.set(&["policy", "encrypt"], "require");
    assert_eq!(gate.run(&seal, message.as_bytes()).code, 65, "nothing to encrypt to");
    // Nor does it give out its certificate, and it says why.
    let refused = gate.run(&["secret-key", "certificate", ALICE], b"");
    assert!(refused.code == 65 && refused.stderr.contains("revoked"), "{}", refused.stderr);
    let listed = gate.run(&["secret-key", "list", "--json"], b"").stdout;
    let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    assert!(listed.as_array().unwrap().iter().all(|key| key["revoked"] == true), "{listed}");
    // A new key takes its place.
    gate.set(&["policy", "sign"], "always");
    gate.generate_key(ALICE, "p256");
    let fresh = kmip.keys_of(ALICE).into_iter().find(|id| ![&signs, &decrypts].contains(&id));
    assert!(fresh.is_some());
    let (sealed, report) = gate.process(&seal, message.as_bytes());
    assert!(sealed.ok(), "{}", sealed.stderr);
    let report = report.unwrap().to_string();
    assert!(report.contains("ecdsa") && !report.contains("rsa-"), "{report}");
    revoke_is_only_for_the_entitled(&gate, &server, &signs);
}

fn revoke_is_only_for_the_entitled(gate: &Gate, server: &KeyServer, id: &str) {
    configure(gate, vec![relay(own_uid(gate), &["*@nec.example"], USES)], |_| {});
    server.reload();
    let mut kmip = connect(server);
    let reason_given = RevocationReason::Unspecified;
    let refused = kmip.call(Request::Revoke { id: id.to_owned(), reason: reason_given });
    assert_eq!(reason(refused), ResultReason::PermissionDenied);
}

#[test]
fn curve_keys_sign_and_agree() {
    let (gate, server) = start("p256", &["*@nec.example"], USES);
    gate.generate_key("edward@nec.example", "ed25519");
    let mut kmip = connect(&server);
    let id = kmip.key_for(ALICE, usage::SIGN);
    let certificate = Certificate::from_der(&kmip.certificate_of(&id)).unwrap();
    let signed = kmip.sign(&id, Parameters::default()).unwrap();
    let algorithm = &signature::ECDSA_P256_SHA256_ASN1;
    let public = UnparsedPublicKey::new(algorithm, certificate.public_key_bytes());
    public.verify(MESSAGE, &signed).unwrap();

    let id = kmip.key_for(ALICE, usage::DECRYPT);
    let certificate = Certificate::from_der(&kmip.certificate_of(&id)).unwrap();
    let ephemeral = agreement::PrivateKey::generate(&ECDH_P256).unwrap();
    let algorithm = Some(CryptographicAlgorithm::Ecdh);
    let parameters = Parameters { algorithm, ..Parameters::default() };
    let public = ephemeral.compute_public_key().unwrap();
    let shared = kmip.decrypt(&id, parameters, public.as_ref()).unwrap();
    let peer = PeerKey::new(&ECDH_P256, certificate.public_key_bytes());
    let expected = agree(&ephemeral, peer, (), |z| Ok(z.to_vec())).unwrap();
    assert_eq!(shared, expected);

    let id = kmip.key_for("edward@nec.example", usage::SIGN);
    let certificate = Certificate::from_der(&kmip.certificate_of(&id)).unwrap();
    let signed = kmip.sign(&id, Parameters::default()).unwrap();
    let public = UnparsedPublicKey::new(&signature::ED25519, certificate.public_key_bytes());
    public.verify(MESSAGE, &signed).unwrap();
}

#[test]
fn versions_queries_and_batches_are_answered_as_kmip_says() {
    let (_gate, server) = start("p256", &["*"], USES);
    let mut kmip = connect(&server);
    let versions = kmip.call(Request::DiscoverVersions).unwrap();
    assert_eq!(versions, Response::Versions(Version::SPOKEN.to_vec()));
    for version in Version::SPOKEN {
        let functions = vec![QueryFunction::Operations, QueryFunction::ServerInformation];
        kmip.send(&RequestMessage::one(version, Request::Query(functions)).encode());
        let answer = kmip.receive().unwrap();
        assert_eq!(answer.version, version);
        let Ok(Response::Query { operations, vendor }) = &answer.items[0].result else {
            panic!("{answer:?}")
        };
        assert!(operations.contains(&Operation::Sign) && operations.contains(&Operation::Decrypt));
        assert_eq!(vendor.as_deref(), Some("sealgate"));
    }
    let item = |id: &[u8], request| RequestItem { batch_id: Some(id.to_vec()), request };
    let missing = || Request::Activate { id: "none".to_owned() };
    let items = vec![
        item(b"1", Request::DiscoverVersions),
        item(b"2", missing()),
        item(b"3", Request::DiscoverVersions),
    ];
    kmip.send(&RequestMessage { version: kmip.version, items }.encode());
    let answer = kmip.receive().unwrap();
    let [one, two] = answer.items.as_slice() else { panic!("{answer:?}") };
    assert_eq!((one.batch_id.as_deref(), one.result.is_ok()), (Some(&b"1"[..]), true));
    assert_eq!((two.batch_id.as_deref(), two.result.is_ok()), (Some(&b"2"[..]), false));
    let unknown = Request::Unsupported(Operation::Other(0x24));
    assert_eq!(reason(kmip.call(unknown)), ResultReason::OperationNotSupported);

    let foreign = Version { major: 2, minor: 0 };
    kmip.send(&RequestMessage::one(foreign, Request::DiscoverVersions).encode());
    let answer = kmip.receive().unwrap();
    let refused = answer.items[0].result.clone().unwrap_err();
    assert_eq!(
        (answer.version, refused.reason),
        (Version::SPOKEN[0], ResultReason::InvalidMessage)
    );
    assert!(refused.message.contains("2.0") && refused.message.contains("1.4"));
    assert!(kmip.receive().is_none(), "closed");
}

#[test]
fn what_a_relay_is_not_entitled_to_is_not_there_and_is_audited() {
    let (gate, server) = start("p256", &["*"], USES);
    gate.generate_key(BOB, "p256");
    gate.generate_key("@other.example", "p256");
    let mut kmip = connect(&server);
    let all = vec![Attribute::ObjectType(ObjectType::PrivateKey)];
    assert_eq!(kmip.locate(all.clone()).len(), 6);
    assert_eq!(kmip.keys_of("@other.example").len(), 2);
    let bobs = kmip.key_for(BOB, usage::SIGN);
    let link = format!(
        "certificate-{}",
        Certificate::from_der(&kmip.certificate_of(&bobs)).unwrap().fingerprint()
    );
    assert!(kmip.sign(&bobs, Parameters::default()).is_ok());

    configure(&gate, vec![relay(own_uid(&gate), &["*@nec.example"], &["sign"])], |_| {});
    server.reload();
    assert!(kmip.keys_of(BOB).is_empty());
    assert!(kmip.keys_of("@other.example").is_empty());
    assert_eq!(kmip.locate(all).len(), 2);
    let refused = kmip.sign(&bobs, Parameters::default()).unwrap_err();
    let missing = kmip.sign(&"0".repeat(32), Parameters::default()).unwrap_err();
    assert_eq!(refused, missing);
    assert_eq!(refused.reason, ResultReason::ItemNotFound);
    for id in [&bobs, &link] {
        let get = Request::Get { id: id.clone(), format: None };
        assert_eq!(kmip.call(get), Err(missing.clone()));
        let attributes = Request::GetAttributes { id: id.clone(), names: Vec::new() };
        assert_eq!(kmip.call(attributes), Err(missing.clone()));
        let destroy = Request::Destroy { id: id.clone() };
        assert_eq!(kmip.call(destroy), Err(missing.clone()));
    }
    let lines = audited(&server, "sign", "refused");
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["owner"], &lines[0]["key"]), (&BOB.into(), &bobs.as_str().into()));
    assert_eq!(lines[0]["reason"], "not this relay's owner");
    assert_eq!(audited(&server, "locate", "refused")[0]["owner"], BOB);

    let alices = kmip.key_for(ALICE, usage::DECRYPT);
    let refused = kmip.decrypt(&alices, Parameters::default(), b"x");
    assert_eq!(reason(refused), ResultReason::PermissionDenied);
    assert_eq!(
        audited(&server, "decrypt", "refused")[0]["reason"],
        "not among the relay's operations"
    );
    assert!(verify_audit(&gate).ok());
}

#[test]
fn a_key_is_used_only_for_what_it_is() {
    let (_gate, server) = start("rsa2048", &["*@nec.example"], USES);
    let mut kmip = connect(&server);
    let (signing, decrypting) =
        (kmip.key_for(ALICE, usage::SIGN), kmip.key_for(ALICE, usage::DECRYPT));
    let pkcs1 = padded(PaddingMethod::Pkcs1, Some(HashingAlgorithm::Sha256));
    assert_eq!(reason(kmip.sign(&decrypting, pkcs1)), ResultReason::IllegalOperation);
    assert_eq!(reason(kmip.decrypt(&signing, pkcs1, b"x")), ResultReason::IllegalOperation);
    assert_eq!(audited(&server, "sign", "refused")[0]["reason"], "this key is not for that");
    assert_eq!(audited(&server, "decrypt", "refused").len(), 1);
    let unpadded = Parameters::default();
    assert_eq!(reason(kmip.sign(&signing, unpadded)), ResultReason::InvalidField);
    assert_eq!(audited(&server, "sign", "refused").len(), 2);
}

#[test]
fn decryptions_that_fail_look_alike() {
    let (gate, server) = start("rsa2048", &["*@nec.example"], USES);
    let mut kmip = connect(&server);
    let id = kmip.key_for(ALICE, usage::DECRYPT);
    // One to any power is one, and zero zero: no padding is in them, whatever the key. The rest is no ciphertext at all.
    let mut one = [0; 256];
    one[255] = 1;
    let mut answers = Vec::new();
    for data in [&one[..], &[0; 256], &[0xff; 256], &[1; 10], &[]] {
        for (padding, hashing) in [
            (PaddingMethod::Pkcs1, None),
            (PaddingMethod::Oaep, Some(HashingAlgorithm::Sha256)),
            (PaddingMethod::Oaep, None),
        ] {
            answers.push(kmip.decrypt(&id, padded(padding, hashing), data).unwrap_err());
        }
    }
    assert_eq!(answers[0].reason, ResultReason::CryptographicFailure);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let failed = audited(&server, "decrypt", "failed");
    assert_eq!(failed.len(), answers.len());
    assert!(failed.iter().all(|line| line["reason"].is_null()), "{failed:?}");
    // What the file holds the log has too, octet for octet, so that a log that goes elsewhere proves it.
    let (log, file) =
        (server.log(), std::fs::read_to_string(gate.dir().join("audit.log")).unwrap());
    assert!(file.lines().count() >= failed.len());
    assert!(file.lines().all(|line| log.lines().any(|logged| logged == line)), "{file}\n{log}");
}

#[test]
fn a_user_who_is_not_named_is_turned_away_and_audited() {
    let (gate, server) = start("p256", &["*"], USES);
    let mut kmip = connect(&server);
    assert_eq!(kmip.keys_of(ALICE).len(), 2);
    configure(&gate, vec![relay(own_uid(&gate) + 1, &["*"], USES)], |_| {});
    server.reload();
    assert!(kmip.try_call(Request::DiscoverVersions).is_none(), "named no more");
    assert!(connect(&server).try_call(Request::DiscoverVersions).is_none());
    process::await_that("two audit lines", || audited(&server, "connect", "refused").len() == 2);
    let lines = audited(&server, "connect", "refused");
    assert_eq!(lines[1]["client"], format!("uid {}", own_uid(&gate)));
}

#[test]
fn keys_leave_only_where_server_and_entitlement_say_so() {
    let (gate, server) = start("p256", &["*"], USES);
    let mut kmip = connect(&server);
    let id = kmip.key_for(ALICE, usage::SIGN);
    let get = |format| Request::Get { id: id.clone(), format };
    let server_says = |get: bool, operations: &[&str]| {
        configure(&gate, vec![relay(own_uid(&gate), &["*"], operations)], |table| {
            table.insert("get".to_owned(), get.into());
        });
        server.reload();
    };
    assert_eq!(reason(kmip.call(get(None))), ResultReason::PermissionDenied);
    server_says(true, USES);
    assert_eq!(reason(kmip.call(get(None))), ResultReason::PermissionDenied);
    server_says(false, &["get"]);
    assert_eq!(reason(kmip.call(get(None))), ResultReason::PermissionDenied);
    assert_eq!(audited(&server, "get", "refused").len(), 3);
    server_says(true, &["get"]);
    let other = Some(KeyFormat::Pkcs1);
    assert_eq!(reason(kmip.call(get(other))), ResultReason::KeyFormatTypeNotSupported);
    let got = kmip.call(get(Some(KeyFormat::Pkcs8))).unwrap();
    let Response::Got { object: Object::PrivateKey(key), .. } = got else { panic!("{got:?}") };
    let parsed = sealgate_core::keys::SoftwareKey::from_pkcs8(&key.material).unwrap();
    let certificate = Certificate::from_der(&kmip.certificate_of(&id)).unwrap();
    assert_eq!(parsed.public_key_bytes(), certificate.public_key_bytes());
    assert_eq!(audited(&server, "get", "done").len(), 1);
}

#[test]
fn too_many_uses_of_one_key_are_put_off_and_audited_once() {
    let (gate, server) = start("p256", &["*"], USES);
    configure(&gate, vec![relay(own_uid(&gate), &["*"], USES)], |table| {
        table.insert("uses_per_minute".to_owned(), 3.into());
        table.insert("domain_uses_per_minute".to_owned(), 6.into());
    });
    gate.generate_key(NEC, "p256");
    server.reload();
    let mut kmip = connect(&server);
    for (owner, uses) in [(ALICE, 3), (NEC, 6)] {
        let id = kmip.key_for(owner, usage::SIGN);
        for _ in 0..uses {
            assert!(kmip.sign(&id, Parameters::default()).is_ok());
        }
        for _ in 0..5 {
            let refused = kmip.sign(&id, Parameters::default()).unwrap_err();
            assert_eq!(refused.reason, ResultReason::GeneralFailure);
            assert!(refused.message.contains("rate limit"), "{}", refused.message);
        }
    }
    let lines = audited(&server, "sign", "refused");
    let said: Vec<_> = lines.iter().map(|line| [&line["owner"], &line["reason"]]).collect();
    assert_eq!(said, [[ALICE, "rate limit"], [NEC, "rate limit"]]);
}

fn registered(address: &str, what: &str, object: Object) -> Request {
    let name = Attribute::Name(format!("sealgate/{address}/{what}"));
    Request::Register { object, attributes: vec![name] }
}

fn done(result: Result<Response, sealgate_keys::kmip::response::Failure>) -> String {
    match result.unwrap() {
        Response::Done { id } => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_brought_used_and_destroyed() {
    let all = ["sign", "decrypt", "register", "destroy"];
    let (gate, server) = start("p256", &["*@nec.example"], &all);
    let pki = Pki::new("NEC");
    let carol = pki.issue("carol@nec.example", KeyKind::Rsa2048, Reads::Unsaid);
    let certificate = || Object::Certificate(carol.certificate_der());
    let key = || {
        let material = pem_body(&carol.key).into();
        let (format, algorithm, bits) = (KeyFormat::Pkcs8, None, None);
        Object::PrivateKey(PrivateKey { format, algorithm, bits, material })
    };
    let address = carol.address.as_str();
    let mut kmip = connect(&server);
    let early = kmip.call(registered(address, "key", key())).unwrap_err();
    assert_eq!(early.reason, ResultReason::InvalidField);
    assert!(early.message.contains("without its certificate"), "{}", early.message);
    for elsewhere in [BOB, "alice@elsewhere.example"] {
        let refused = kmip.call(registered(elsewhere, "certificate", certificate()));
        assert_eq!(reason(refused), ResultReason::PermissionDenied);
    }
    done(kmip.call(registered(ALICE, "certificate", certificate())));
    let foreign = kmip.call(registered(ALICE, "key", key())).unwrap_err();
    assert!(foreign.message.contains(address), "{}", foreign.message);

    let certificate_id = done(kmip.call(registered(address, "certificate", certificate())));
    done(kmip.call(Request::Activate { id: certificate_id.clone() }));
    let id = done(kmip.call(registered(address, "key", key())));
    done(kmip.call(Request::Activate { id: id.clone() }));
    assert_eq!(kmip.keys_of(address), std::slice::from_ref(&id));
    assert_eq!(kmip.certificate_of(&id), carol.certificate_der());
    done(kmip.call(registered(address, "certificate", certificate())));
    let again = kmip.call(registered(address, "key", key()));
    assert_eq!(reason(again), ResultReason::IllegalOperation);

    let mut other = connect(&server);
    let sha256 = padded(PaddingMethod::Pss, Some(HashingAlgorithm::Sha256));
    assert!(other.sign(&id, sha256).is_ok());
    let with_key = other.call(Request::Destroy { id: certificate_id.clone() });
    assert_eq!(reason(with_key), ResultReason::IllegalOperation);
    done(other.call(Request::Revoke { id: id.clone(), reason: RevocationReason::Unspecified }));
    done(other.call(Request::Destroy { id: id.clone() }));
    assert_eq!(reason(other.sign(&id, sha256)), ResultReason::ItemNotFound);
    assert!(other.keys_of(address).is_empty());
    let gone = other.call(Request::Get { id: certificate_id, format: None });
    assert_eq!(reason(gone), ResultReason::ItemNotFound);
    for (operation, outcome) in [("register", "begun"), ("register", "done"), ("destroy", "done")] {
        assert!(!audited(&server, operation, outcome).is_empty(), "{operation} {outcome}");
    }
    assert!(verify_audit(&gate).ok());

    configure(&gate, vec![relay(own_uid(&gate), &["*@nec.example"], USES)], |_| {});
    server.reload();
    let refused = kmip.call(registered(address, "certificate", certificate()));
    assert_eq!(reason(refused), ResultReason::PermissionDenied);
    let alices = kmip.key_for(ALICE, usage::SIGN);
    let refused = kmip.call(Request::Destroy { id: alices });
    assert_eq!(reason(refused), ResultReason::PermissionDenied);
}

#[test]
fn what_is_no_kmip_ends_its_connection_and_no_other() {
    let (_gate, server) = start("p256", &["*"], USES);
    let mut good = connect(&server);
    assert_eq!(good.keys_of(ALICE).len(), 2);
    let whole = RequestMessage::one(kmip_client::V12, Request::DiscoverVersions).encode();
    let mut oversize = whole[..8].to_vec();
    oversize[4..8].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &oversize] {
        let mut kmip = connect(&server);
        kmip.send(bytes);
        assert!(kmip.receive().is_none(), "{bytes:?}");
    }
    let mut broken = whole.to_vec();
    broken[8..12].copy_from_slice(&[0xff; 4]);
    let mut kmip = connect(&server);
    kmip.send(&broken);
    let answer = kmip.receive().unwrap();
    assert_eq!(reason(answer.items[0].result.clone()), ResultReason::InvalidMessage);
    assert!(kmip.receive().is_none());
    // Half a message, and gone.
    connect(&server).send(&whole[..20]);
    assert_eq!(good.keys_of(ALICE).len(), 2);
    assert_eq!(connect(&server).keys_of(ALICE).len(), 2);
}

#[test]
fn a_key_is_used_only_for_an_address_that_it_is_for() {
    let (gate, server) = start("p256", &["*"], USES);
    gate.generate_key(NEC, "p256");
    gate.generate_key(BOB, "p256");
    let mut strict = relay(own_uid(&gate), &["*"], USES);
    strict.remove("require_address");
    configure(&gate, vec![strict], |_| {});
    server.reload();
    let mut kmip = connect(&server);
    let sign = Parameters::default();
    let (alices, nec) = (kmip.key_for(ALICE, usage::SIGN), kmip.key_for(NEC, usage::SIGN));
    let alices_mail = kmip.key_for(ALICE, usage::DECRYPT);
    assert_eq!(reason(kmip.sign(&alices, sign)), ResultReason::PermissionDenied);
    for (used_for, may) in [
        (BOB, [false, false]),
        ("Alice@nec.example", [true, true]),
        ("carol@nec.example", [false, true]),
    ] {
        kmip.used_for = Some(used_for.to_owned());
        let signed = [kmip.sign(&alices, sign).is_ok(), kmip.sign(&nec, sign).is_ok()];
        assert_eq!(signed, may, "{used_for}");
    }
    kmip.used_for = Some(BOB.to_owned());
    assert_eq!(reason(kmip.decrypt(&alices_mail, sign, b"x")), ResultReason::PermissionDenied);
    let done = audited(&server, "sign", "done");
    assert_eq!(done.len(), 3);
    assert_eq!(done[0]["used_for"], "Alice@nec.example");
    let not_the_keys = "the address that it is for is not the key's";
    let said = |operation| -> Vec<[String; 3]> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let of = |line: &serde_json::Value| {
            ["owner", "used_for", "reason"].map(|name| text(&line[name]))
        };
        audited(&server, operation, "refused").iter().map(of).collect()
    };
    let refused_signs = [
        [ALICE, "", "the use does not say for which address it is"],
        [ALICE, BOB, not_the_keys],
        [NEC, BOB, not_the_keys],
        [ALICE, "carol@nec.example", not_the_keys],
    ];
    assert_eq!(said("sign"), refused_signs);
    assert_eq!(said("decrypt"), [[ALICE, BOB, not_the_keys]]);
}

/// What is looked for in all rows is paid for as a listing, found or not: whoever asks on waits.
#[test]
fn certificates_that_nobody_has_are_not_looked_for_at_any_rate() {
    let (_gate, server) = start("p256", &["*"], USES);
    let mut kmip = connect(&server);
    let began = Instant::now();
    for number in 0..20 {
        let get = Request::Get { id: format!("certificate-{number:064x}"), format: None };
        assert_eq!(reason(kmip.call(get)), ResultReason::ItemNotFound);
    }
    // Ten are in the bucket, ten are waited for.
    assert!(began.elapsed() > Duration::from_millis(700), "{:?}", began.elapsed());
}
