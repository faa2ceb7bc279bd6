//! A token of the test's own, people with keys, and the process that a test runs in.

use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use cryptoki::context::Pkcs11;
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::SessionState;
use sealgate_core::keys::Certificate;
use sealgate_keys::secret_key_store::pkcs11::{Pkcs11Config, Token, end_modules};
use sealgate_keys::secret_key_store::{KeyPurpose, NewSecretKey};
use sealgate_keys::secret_source::SecretSource;
use sealgate_testkit::pki::pem_body;
use sealgate_testkit::process;
use sealgate_testkit::softhsm::{Remoting, SoftHsm, TOKEN};
use zeroize::Zeroizing;

/// A token and where its files are.
pub(crate) struct Bed {
    pub(crate) directory: PathBuf,
    pub(crate) token: SoftHsm,
}

/// Somebody's key and self-signed certificate.
pub(crate) struct Person {
    pub(crate) address: String,
    pub(crate) key: PathBuf,
    pub(crate) certificate: PathBuf,
}

impl Bed {
    pub(crate) fn config(&self) -> Pkcs11Config {
        Pkcs11Config {
            module: self.token.module(),
            token: TOKEN.to_owned(),
            pin: SecretSource::File(self.token.pin_file()),
            label: "{address}".to_owned(),
            keys: Vec::new(),
        }
    }

    /// The token opened at the other end of a socket.
    pub(crate) fn open_behind_a_socket(&self) -> (Remoting, Token) {
        let remoting = self.token.serve();
        let config = Pkcs11Config { module: remoting.module(), ..self.config() };
        (remoting, Token::open(config).unwrap())
    }

    pub(crate) fn person(&self, address: &str, kind: &[&str], usage: &str) -> Person {
        let [key, certificate] =
            ["key", "pem"].map(|end| self.directory.join(format!("{address}.{end}")));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "30", "-newkey"]).args(kind);
        command.args(["-subj", &format!("/CN={address}"), "-addext", &format!("keyUsage={usage}")]);
        command.args(["-addext", &format!("subjectAltName=email:{address}")]);
        command.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        process::run(&mut command, b"").expect_ok("openssl req");
        Person { address: address.to_owned(), key, certificate }
    }

    /// Somebody with a P-256 key and a certificate by an issuer.
    pub(crate) fn issued(&self, name: &str, issuer: &Person, constraint: &str) -> Person {
        let person = self.person(name, P256, SIGN_AND_ENCRYPT);
        let request = self.directory.join("request");
        let extensions = self.directory.join("extensions");
        fs::write(&extensions, format!("basicConstraints=critical,{constraint}\n")).unwrap();
        let mut command = Command::new("openssl");
        command.args(["req", "-new", "-subj", &format!("/CN={name}"), "-key"]).arg(&person.key);
        process::run(command.arg("-out").arg(&request), b"").expect_ok("openssl req");
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-days", "30", "-in"]).arg(&request);
        command.arg("-CA").arg(&issuer.certificate).arg("-CAkey").arg(&issuer.key);
        command.args(["-CAcreateserial", "-extfile"]).arg(&extensions);
        process::run(command.arg("-out").arg(&person.certificate), b"").expect_ok("openssl x509");
        person
    }

    pub(crate) fn import(&self, person: &Person, label: &str, id: &str) {
        self.token.import_key(&person.key, label, id);
        self.token.import_certificate(&person.certificate, label, id);
    }

    /// As some vendors' tools do.
    pub(crate) fn import_without_id(&self, person: &Person, label: &str) {
        for (pem, kind) in [(&person.key, "privkey"), (&person.certificate, "cert")] {
            let der = self.directory.join("object.der");
            fs::write(&der, pem_body(pem)).unwrap();
            let mut arguments = vec!["--write-object", der.to_str().unwrap(), "--type", kind];
            arguments.extend(["--label", label]);
            if kind == "privkey" {
                arguments.extend([
                    "--sensitive",
                    "--usage-sign",
                    "--usage-decrypt",
                    "--usage-derive",
                ]);
            }
            self.token.tool(&arguments);
        }
    }

    /// Takes mechanisms from the token; before the module is loaded.
    pub(crate) fn forbid_mechanisms(&self, names: &str) {
        let path = self.directory.join("softhsm2.conf");
        let configuration = fs::read_to_string(&path).unwrap();
        // SoftHSM does not see the first of those names.
        let line = format!("slots.mechanisms = -CKM_DES_ECB,{names}\n");
        fs::write(&path, format!("{configuration}{line}")).unwrap();
    }

    /// Changes what the key with a label may do.
    pub(crate) fn change(&self, label: &str, attributes: &[Attribute]) {
        let module = Pkcs11::new(self.token.module()).unwrap();
        let slots = module.get_slots_with_initialized_token().unwrap();
        let session = module.open_rw_session(slots[0]).unwrap();
        let label = Attribute::Label(label.as_bytes().to_vec());
        let named = [Attribute::Class(ObjectClass::PRIVATE_KEY), label];
        let keys = session.find_objects(&named).unwrap();
        assert_eq!(keys.len(), 1);
        session.update_attributes(keys[0], attributes).unwrap();
    }

    /// Puts the one key with a label into the token again and again, under ids of their own.
    pub(crate) fn copy_key(&self, label: &str, ids: RangeInclusive<usize>) {
        let module = Pkcs11::new(self.token.module()).unwrap();
        let slots = module.get_slots_with_initialized_token().unwrap();
        let session = module.open_rw_session(slots[0]).unwrap();
        let label = Attribute::Label(label.as_bytes().to_vec());
        let named = [Attribute::Class(ObjectClass::PRIVATE_KEY), label, Attribute::Id(vec![0x01])];
        let keys = session.find_objects(&named).unwrap();
        for id in ids {
            let id = Attribute::Id(u32::try_from(id).unwrap().to_be_bytes().to_vec());
            session.copy_object(keys[0], &[id]).unwrap();
        }
    }

    /// A module that logs calls and passes them on.
    pub(crate) fn spy(&self) -> PathBuf {
        PathBuf::from(format!("/usr/lib/{}-linux-gnu/pkcs11/pkcs11-spy.so", std::env::consts::ARCH))
    }

    /// Of each secret key in the token what a program that is logged in gets of its secret.
    pub(crate) fn secrets_that_can_be_read(&self) -> Vec<Vec<u8>> {
        let module = Pkcs11::new(self.token.module()).unwrap();
        let slots = module.get_slots_with_initialized_token().unwrap();
        let session = module.open_ro_session(slots[0]).unwrap();
        assert_eq!(session.get_session_info().unwrap().session_state(), SessionState::RoUser);
        let keys = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap();
        keys.into_iter()
            .map(|key| {
                let wanted =
                    [AttributeType::PrivateExponent, AttributeType::Prime1, AttributeType::Value];
                let read = session.get_attributes(key, &wanted).unwrap();
                read.into_iter()
                    .flat_map(|attribute| format!("{attribute:?}").into_bytes())
                    .collect()
            })
            .collect()
    }

    /// SoftHSM as a module that says that it opens so many sessions, and opens so many.
    pub(crate) fn few_sessions(&self, said: &str, opened: usize) -> PathBuf {
        let defined = [format!("-DSAID={said}"), format!("-DOPENED={opened}")];
        self.compiled("few_sessions", &defined)
    }

    /// SoftHSM as a module that finds objects whatever their label.
    pub(crate) fn labels_not_minded(&self) -> PathBuf {
        self.compiled("labels_not_minded", &[])
    }

    /// SoftHSM as a module whose decryptions fail where this has an `x`, in their order.
    pub(crate) fn troubled(&self, troubles: &str) -> PathBuf {
        self.compiled("troubled", &[format!("-DTROUBLES=\"{troubles}\"")])
    }

    fn compiled(&self, name: &str, defined: &[String]) -> PathBuf {
        let module = self.directory.join(format!("{name}.so"));
        let mut command = Command::new("cc");
        command.args(["-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&module);
        command.arg(format!("{}/tests/pkcs11/{name}.c", env!("CARGO_MANIFEST_DIR")));
        process::run(command.args(defined), b"").expect_ok("cc");
        module
    }

    /// How often the spy's module was called so.
    pub(crate) fn calls(&self, function: &str) -> usize {
        fs::read_to_string(self.directory.join(SPY_LOG)).unwrap().matches(function).count()
    }
}

/// Runs a test's body in a process of its own.
pub(crate) fn inside(test: &str, body: impl Fn(&Bed)) {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let directory = PathBuf::from(directory);
        let token = SoftHsm::at(&directory);
        body(&Bed { directory, token });
        // Else the module's destructors would run, and crash, while threads of ours are in it.
        assert!(end_modules(), "a thread is left in a module");
        return;
    }
    let directory = process::open_temp_dir("pkcs11");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]);
    command.env(DIRECTORY, directory.path());
    command.envs(SoftHsm::environment_at(directory.path()));
    command.envs(Remoting::environment_at(directory.path()));
    command.env("PKCS11SPY", "/usr/lib/softhsm/libsofthsm2.so");
    command.env("PKCS11SPY_OUTPUT", directory.path().join(SPY_LOG));
    let ran = process::run(&mut command, b"");
    let stdout = String::from_utf8_lossy(&ran.stdout).into_owned();
    let passed = ran.ok() && stdout.contains("test result: ok. 1 passed");
    assert!(passed, "{stdout}\n{}\nexit status {}", ran.stderr, ran.code);
}

/// How many threads of this process are a token's.
pub(crate) fn threads_of_tokens() -> usize {
    let names = fs::read_dir("/proc/self/task").unwrap();
    names
        .filter(|task| {
            let name = fs::read_to_string(task.as_ref().unwrap().path().join("comm"));
            name.is_ok_and(|name| name == "pkcs11\n")
        })
        .count()
}

pub(crate) fn new_key(person: &Person, certified: &Person) -> NewSecretKey {
    let certificate = Certificate::from_der(&pem_body(&certified.certificate)).unwrap();
    NewSecretKey {
        owner: person.address.clone(),
        purpose: KeyPurpose::of(&certificate).unwrap(),
        pkcs8: Zeroizing::new(pem_body(&person.key)),
        certificate: Arc::new(certificate),
        chain: Vec::new(),
    }
}

pub(crate) const RSA: &[&str] = &["rsa:2048"];
pub(crate) const P256: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub(crate) const P384: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
pub(crate) const ED25519_KEY: &[&str] = &["ed25519"];
pub(crate) const SIGN_AND_ENCRYPT: &str = "digitalSignature,keyEncipherment,keyAgreement";
const DIRECTORY: &str = "SEALGATE_TEST_TOKEN_DIRECTORY";
const SPY_LOG: &str = "spy.log";
