//! The commands as a user runs them: what they print, what they leave behind, how they end.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sealgate_testkit::nameless;

/// A folder with a configuration of its own.
struct Bed(tempfile::TempDir);

impl Bed {
    fn new() -> Self {
        let bed = Self(tempfile::tempdir().unwrap());
        bed.good(&["init", "--domain", "nec.example", "--domain", "smime.example", "--dir", "."]);
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        name.to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn run_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sealgate"))
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that fails early does not read its input.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn good_with(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run_with(arguments, input);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
        assert!(error.is_empty(), "{arguments:?}: {error}");
        output.stdout
    }

    fn good(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.good_with(arguments, b"")).unwrap()
    }

    /// Runs a command that must fail with a status and one line on standard error.
    fn bad_with(&self, arguments: &[&str], input: &[u8], status: i32) -> String {
        let output = self.run_with(arguments, input);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
        error
    }

    fn bad(&self, arguments: &[&str], status: i32) -> String {
        self.bad_with(arguments, b"", status)
    }

    fn openssl(&self, arguments: &str) -> String {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.0.path())
            .output()
            .expect("these tests need the openssl program");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn fixture(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures/rfc9216");
    let path = Path::new(folder).join(name);
    assert!(path.exists(), "{}: these tests need the shared fixtures", path.display());
    path.to_str().unwrap().to_owned()
}

const MAIL: &str = "From: alice@nec.example\nTo: bob@nec.example\nSubject: a secret plan\n\
    Date: Mon, 23 Nov 2026 07:00:00 +0000\nMessage-ID: <1@nec.example>\n\nattack at dawn\n";

/// Alice and Bob with keys of our authority.
fn bed_with_keys() -> Bed {
    let bed = Bed::new();
    for address in ["alice@nec.example", "bob@nec.example"] {
        bed.good(&["secret-key", "generate", address, "--algorithm", "p256"]);
    }
    bed
}

#[test]
fn init_makes_four_things_and_overwrites_none() {
    let bed = Bed::new();
    for (name, mode) in [("master.key", 0o600), ("sealgate.db", 0o600), ("sealgate.toml", 0o644)] {
        let permissions = std::fs::metadata(bed.path(name)).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777 & mode, permissions.mode() & 0o777, "{name}");
    }
    let before = bed.read("master.key");
    let error = bed.bad(&["init", "--domain", "nec.example"], 65);
    assert!(error.contains("sealgate.toml") && error.contains("exists already"), "{error}");
    std::fs::remove_file(bed.path("sealgate.toml")).unwrap();
    let error = bed.bad(&["init", "--domain", "nec.example"], 65);
    assert!(error.contains("sealgate.db"), "{error}");
    assert_eq!(bed.read("master.key"), before);
    assert!(!bed.path("sealgate.toml").exists());
    let certificate = bed.good(&["init", "--domain", "abc.example", "--dir", "other/deep"]);
    assert!(certificate.contains("sealgate CA of abc.example"), "{certificate}");
}

#[test]
fn init_that_fails_leaves_nothing_behind() {
    let bed = Bed(tempfile::tempdir().unwrap());
    let there = || {
        let entries = std::fs::read_dir(bed.0.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    let init = ["init", "--domain", "nec.example"];
    for name in ["master.key", "sealgate.toml", "sealgate.db"] {
        // Not there, and cannot be made either.
        std::os::unix::fs::symlink("/proc/1/none/none", bed.path(name)).unwrap();
        let output = bed.run_with(&init, b"");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(name), "{error}");
        assert_eq!(there(), [name], "{error}");
        std::fs::remove_file(bed.path(name)).unwrap();
    }
    bed.bad(&[&init[..], &["--database", "sqlite:/proc/1/none/a.db"]].concat(), 69);
    assert_eq!(there().len(), 0);
    bed.good(&init);
}

#[test]
fn init_says_which_option_names_another_file() {
    let bed = Bed::new();
    let database = format!("sqlite:{}", bed.path("sealgate.db").display());
    let elsewhere = ["init", "--domain", "nec.example", "--dir", "other", "--database", &database];
    let error = bed.bad(&elsewhere, 65);
    assert!(error.contains("--database") && !error.contains("--dir"), "{error}");
    for (removed, option) in [("sealgate.toml", "--database"), ("sealgate.db", "--dir")] {
        std::fs::remove_file(bed.path(removed)).unwrap();
        let error = bed.bad(&["init", "--domain", "nec.example"], 65);
        assert!(error.contains(option), "{error}");
    }
}

#[test]
fn wrong_usage_ends_with_64() {
    let bed = Bed::new();
    for arguments in [
        &["init"][..],
        &["init", "--domain", "a b"],
        &["nonsense"],
        &["secret-key"],
        &["secret-key", "generate", "nobody"],
        &["secret-key", "generate", "a@nec.example", "--algorithm", "dsa"],
        &["seal", "--from", "a@nec.example"],
        &["open", "--to", "a@nec.example", "--at", "yesterday"],
        &["public-key", "import"],
    ] {
        let output = bed.run_with(arguments, b"");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(bed.run_with(&["--help"], b"").status.code(), Some(0));
    assert_eq!(bed.run_with(&["--version"], b"").status.code(), Some(0));
}

#[test]
fn a_configuration_that_cannot_be_used_ends_with_78() {
    let bed = Bed::new();
    bed.write("bad.toml", "version = 1\ndomains = [\"nec.example\"]\ncolour = \"red\"\n");
    let error = bed.bad(&["--config", "bad.toml", "secret-key", "list"], 78);
    assert!(error.contains("bad.toml:3:") && error.contains("colour"), "{error}");
    let error = bed.bad(&["--config", "missing.toml", "secret-key", "list"], 78);
    assert!(error.contains("missing.toml"), "{error}");
    let key = bed.path("master.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = bed.bad(&["secret-key", "list"], 78);
    assert!(error.contains("chmod 600"), "{error}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    bed.write("master.key", "00".repeat(32));
    let error = bed.bad(&["secret-key", "list"], 78);
    assert!(error.contains("not the key that this database is sealed under"), "{error}");
    std::fs::remove_file(bed.path("sealgate.db")).unwrap();
    let error = bed.bad(&["secret-key", "list"], 78);
    assert!(error.contains("no such database") && error.contains("sealgate init"), "{error}");
    std::fs::remove_file(bed.path("sealgate.toml")).unwrap();
    if !Path::new("/etc/sealgate/sealgate.toml").exists() {
        let error = bed.bad(&["secret-key", "list"], 78);
        assert!(error.contains("sealgate init --domain"), "{error}");
    }
}

#[test]
fn a_database_that_does_not_answer_ends_with_69() {
    let bed = Bed::new();
    bed.write("sealgate.db", "this is no database, and long enough to be looked at as one");
    let error = bed.bad(&["secret-key", "list"], 69);
    assert!(error.contains("sealgate.db"), "{error}");
}

#[test]
fn generated_certificates_serve_their_purpose_and_no_other() {
    let bed = Bed::new();
    bed.write("ca.pem", bed.good(&["ca", "certificate"]));
    let authority = bed.openssl("x509 -in ca.pem -noout -text");
    assert!(authority.contains("CA:TRUE"), "{authority}");
    for (algorithm, encrypting) in [
        ("rsa2048", "Key Encipherment"),
        ("rsa3072", "Key Encipherment"),
        ("p256", "Key Agreement"),
        ("p384", "Key Agreement"),
        ("ed25519", "Key Agreement"),
    ] {
        let address = format!("{algorithm}@nec.example");
        bed.good(&["secret-key", "generate", &address, "--algorithm", algorithm]);
        let pem = bed.good(&["secret-key", "certificate", &address]);
        let (sign, encrypt) = pem.split_at(pem.rfind("-----BEGIN").unwrap());
        bed.write("sign.pem", sign);
        bed.write("encrypt.pem", encrypt);
        bed.openssl("verify -x509_strict -CAfile ca.pem -purpose smimesign sign.pem");
        bed.openssl("verify -x509_strict -CAfile ca.pem sign.pem");
        let text = bed.openssl("x509 -in sign.pem -noout -text");
        assert!(text.contains("Digital Signature, Non Repudiation\n"), "{text}");
        if encrypting == "Key Encipherment" {
            bed.openssl("verify -x509_strict -CAfile ca.pem -purpose smimeencrypt encrypt.pem");
        }
        bed.openssl("verify -x509_strict -CAfile ca.pem encrypt.pem");
        let text = bed.openssl("x509 -in encrypt.pem -noout -text");
        assert!(text.contains(&format!("Key Usage: critical\n                {encrypting}\n")));
        for needed in [
            &format!("email:{address}"),
            "E-mail Protection",
            "Subject Key Identifier",
            "Authority Key Identifier",
            "S/MIME Capabilities",
            "CA:FALSE",
        ] {
            assert!(text.contains(needed), "{algorithm}: {needed} not in {text}");
        }
    }
}

#[test]
fn an_address_outside_our_domains_gets_no_key() {
    let bed = Bed::new();
    let error = bed.bad(&["secret-key", "generate", "eve@abc.example"], 65);
    assert!(error.contains("domains") && error.contains("sealgate.toml"), "{error}");
    let error = bed.bad(&["secret-key", "show", "nobody@nec.example"], 65);
    assert!(error.contains("no secret key") && error.contains("generate"), "{error}");
    bed.bad(&["secret-key", "certificate", "nobody@nec.example"], 65);
    bed.bad(&["secret-key", "remove", "nobody@nec.example"], 65);
    let error = bed.bad(&["secret-key", "move"], 64);
    assert!(error.contains("--to") && error.contains("[secret_keys.kmip]"), "{error}");
}

#[test]
fn secret_keys_are_imported_listed_shown_and_removed() {
    let bed = Bed::new();
    let (store, password) = (fixture("p12/alice.p12"), bed.write("password", "\u{feff}alice\n"));
    let alice = "alice@smime.example";
    let error = bed.bad(&["secret-key", "import", alice, &store], 65);
    assert!(error.contains("alice.p12") && error.contains("--password-file"), "{error}");
    let wrong = bed.write("wrong", "bob");
    let import = ["secret-key", "import", alice, &store, "--password-file"];
    let error = bed.bad(&[&import[..], &[&wrong]].concat(), 65);
    assert!(error.contains("alice.p12") && error.contains("wrong password"), "{error}");
    let other = ["secret-key", "import", "bob@smime.example", &store, "--password-file", &password];
    let error = bed.bad(&other, 65);
    assert!(error.contains("the certificate is for alice@smime.example"), "{error}");
    bed.good(&[&import[..], &[&password]].concat());
    let error = bed.bad(&[&import[..], &[&password]].concat(), 65);
    assert!(error.contains("in the store already"), "{error}");

    let list: serde_json::Value =
        serde_json::from_str(&bed.good(&["secret-key", "list", "--json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0]["address"], alice);
    assert_eq!(list[0]["purpose"], "sign");
    assert_eq!(list[1]["purpose"], "encrypt");
    let table = bed.good(&["secret-key", "list"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(bed.good(&["secret-key", "show", alice]).contains("CN=Alice Lovelace"));
    bed.good(&["secret-key", "show", alice, "--json"]);
    assert!(bed.good(&["secret-key", "remove", alice]).contains("2 removed"));
    assert_eq!(bed.good(&["secret-key", "list", "--json"]).trim(), "[]");
}

#[test]
fn keys_in_several_files_are_imported_together() {
    let bed = Bed::new();
    let (key, certificate) = (fixture("keys/alice.sign.key"), fixture("certs/alice.sign.crt"));
    let alice = "alice@smime.example";
    let error = bed.bad(&["secret-key", "import", alice, &key], 65);
    assert!(error.contains("without its certificate"), "{error}");
    bed.good(&["secret-key", "import", alice, &key, &certificate]);
    let nothing = bed.write("nothing", "hello\n");
    let error = bed.bad(&["secret-key", "import", alice, &nothing], 65);
    assert!(error.contains("nothing: neither certificate nor key"), "{error}");
    let error = bed.bad(&["secret-key", "import", alice, "missing.p12"], 65);
    assert!(error.contains("missing.p12: No such file"), "{error}");
}

#[test]
fn public_keys_are_imported_listed_shown_and_removed() {
    let bed = Bed::new();
    let bob = "bob@smime.example";
    let (encrypt, sign) = (fixture("certs/bob.encrypt.crt"), fixture("certs/bob.sign.crt"));
    let output = bed.run_with(&["public-key", "import", &sign], b"");
    let (printed, warned) = (String::from_utf8_lossy(&output.stdout), output.stderr);
    assert!(output.status.success() && printed.contains(bob), "{printed}");
    let warned = String::from_utf8(warned).unwrap();
    assert!(warned.contains(bob) && warned.contains("nothing can be encrypted"), "{warned}");
    let printed = bed.good(&["public-key", "import", &encrypt, &sign]);
    assert_eq!(printed.matches(bob).count(), 2, "{printed}");
    bed.good(&["public-key", "import", "--address", "@abc.example", &encrypt]);
    let list: serde_json::Value =
        serde_json::from_str(&bed.good(&["public-key", "list", "--json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert_eq!(list[0]["address"], "@abc.example");
    assert_eq!(list[0]["state"], "pinned");
    assert!(bed.good(&["public-key", "list"]).contains("pinned"));
    assert!(bed.good(&["public-key", "show", bob]).contains("CN=Bob Babbage"));
    let nothing = bed.write("nothing", "hello\n");
    let error = bed.bad(&["public-key", "import", &nothing, &encrypt], 65);
    assert!(error.contains("nothing: neither certificate nor key"), "{error}");
    let error = bed.bad(&["public-key", "import", &fixture("certs/rsa-ca-root.crt")], 65);
    assert!(error.contains("anchor import"), "{error}");
    let error = bed.bad(&["public-key", "show", "x@abc.example"], 65);
    assert!(error.contains("no public key"), "{error}");
    bed.bad(&["public-key", "accept", bob], 65);
    assert!(bed.good(&["public-key", "remove", bob]).contains("2 removed"));
    bed.bad(&["public-key", "remove", bob], 65);
}

/// `openssl req -x509` says CA:TRUE unless told otherwise.
#[test]
fn a_self_signed_certificate_that_calls_itself_an_authority_is_a_correspondents() {
    let bed = bed_with_keys();
    let (new, key) = ("req -x509 -newkey rsa:2048 -nodes -days 9", "-keyout k.pem");
    bed.openssl(&format!(
        "{new} {key} -out carol.pem -subj /CN=Carol -addext subjectAltName=email:carol@partner.example"
    ));
    bed.openssl(&format!("{new} {key} -out nameless.pem -subj /CN=Dave"));
    let usage = "-addext keyUsage=digitalSignature,keyCertSign,cRLSign";
    bed.openssl(&format!(
        "{new} {key} -out root.pem -subj /emailAddress=ca@partner.example {usage}"
    ));
    assert!(bed.good(&["public-key", "import", "carol.pem"]).starts_with("carol@partner.example "));
    let dave = "dave@partner.example";
    bed.good(&["public-key", "import", "--address", dave, "nameless.pem"]);
    for to in ["carol@partner.example", dave] {
        let seal = ["seal", "--from", "alice@nec.example", "--to", to];
        let sealed = bed.good_with(&seal, MAIL.as_bytes());
        assert!(String::from_utf8(sealed).unwrap().contains("enveloped-data"), "{to}");
    }
    let error = bed.bad(&["public-key", "import", "nameless.pem"], 65);
    assert!(error.contains("--address") && !error.contains("anchor"), "{error}");
    for more in [&[][..], &["--address", "@partner.example"]] {
        let import = [&["public-key", "import"], more, &["root.pem"]].concat();
        let error = bed.bad(&import, 65);
        assert!(error.contains("anchor import"), "{error}");
    }
}

#[test]
fn a_certificate_without_an_address_needs_one() {
    let bed = Bed::new();
    bed.openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k.pem \
        -subj /CN=x -days 90 -out c.pem -addext basicConstraints=CA:FALSE",
    );
    let error = bed.bad(&["public-key", "import", "c.pem"], 65);
    assert!(error.contains("c.pem") && error.contains("--address"), "{error}");
    bed.good(&["public-key", "import", "--address", "x@abc.example", "c.pem"]);
}

#[test]
fn anchors_are_imported_listed_and_removed() {
    let bed = Bed::new();
    let root = fixture("certs/rsa-ca-root.crt");
    let printed = bed.good(&["anchor", "import", &root]);
    let sha256 = printed.split_whitespace().next().unwrap().to_owned();
    assert_eq!(sha256.len(), 64, "{printed}");
    assert_eq!(bed.good(&["anchor", "list"]).lines().count(), 3);
    let list: serde_json::Value =
        serde_json::from_str(&bed.good(&["anchor", "list", "--json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    bed.openssl("genpkey -algorithm ed25519 -out no-certificate.pem");
    let error = bed.bad(&["anchor", "import", "no-certificate.pem"], 65);
    assert!(error.contains("no-certificate.pem") && error.contains("PKCS#7"), "{error}");
    let error = bed.bad(&["anchor", "import", &fixture("certs/bob.sign.crt")], 65);
    assert!(error.contains("not an authority"), "{error}");
    bed.good(&["anchor", "remove", &sha256.to_uppercase()]);
    let error = bed.bad(&["anchor", "remove", &sha256], 65);
    assert!(error.contains("no such anchor"), "{error}");
}

/// A list that has lapsed keeps its issuer's mail waiting: the administrator has to see it, and to be able to take it out.
#[test]
fn a_lapsed_revocation_list_is_named_replaced_and_removed() {
    let bed = Bed::new();
    bed.write(
        "ca.cnf",
        "[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\ndefault_md=sha256\ncrlnumber=number\n\
         [part]\nissuingDistributionPoint=critical,@idp\n[idp]\nonlyCA=TRUE\n",
    );
    bed.write("index.txt", "");
    bed.write("number", "01\n");
    for name in ["ca", "forger"] {
        bed.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -keyout {name}.key -subj /O=ABC/CN=ca -days 90 -out {name}.pem"
        ));
    }
    for (name, key, (begins, ends), more) in [
        ("lapsed.pem", "ca", ("2501", "26"), ""),
        ("current.pem", "ca", ("2501", "49"), ""),
        ("part.pem", "ca", ("2502", "49"), " -crlexts part"),
        ("forged.pem", "forger", ("2502", "49"), ""),
    ] {
        bed.openssl(&format!(
            "ca -gencrl -config ca.cnf -keyfile {key}.key -cert {key}.pem -crl_lastupdate \
             {begins}01000000Z -crl_nextupdate {ends}0101000000Z -out {name}{more}"
        ));
    }
    // The mail server that it looks for is not there, which is another row.
    lay_servers(&bed);
    let row = || {
        let stdout = String::from_utf8(bed.run_with(&["check"], b"").stdout).unwrap();
        stdout.lines().find(|line| line.starts_with("revocation lists")).unwrap().to_owned()
    };
    let lists = || -> serde_json::Value {
        serde_json::from_str(&bed.good(&["crl", "list", "--json"])).unwrap()
    };
    assert!(row().contains(" ok "), "{}", row());
    // The anchor that tells who signed the lists may come after them in one call.
    let told = bed.good(&["anchor", "import", "lapsed.pem", "part.pem", "ca.pem"]);
    assert_eq!(told.matches(": revocation list taken\n").count(), 2, "{told}");
    let refused = bed.bad(&["anchor", "import", "forged.pem"], 65);
    assert!(refused.contains("forged.pem") && refused.contains("not signed by"), "{refused}");
    // With others it keeps these out too: a mistake changes nothing.
    let others = fixture("certs/rsa-ca-root.crt");
    assert!(bed.bad(&["anchor", "import", &others, "forged.pem"], 65).contains("not signed by"));
    assert!(!bed.good(&["anchor", "list"]).contains("LAMPS"));
    // A current list of a part of its certificates is none of the others.
    let lapsed = row();
    assert!(lapsed.contains("FAILED") && lapsed.contains("lapsed 2026-01-01"), "{lapsed}");
    assert!(lapsed.contains("O=ABC") && lapsed.contains("sealgate crl remove"), "{lapsed}");
    assert_eq!(lists()[0]["next_update"], "2026-01-01T00:00:00Z");
    assert_eq!(lists()[0]["file"], serde_json::Value::Null);
    let issuer = lists()[0]["issuer"].as_str().unwrap().to_owned();

    // Of one issuer one current list is enough, wherever it is.
    let configuration = bed.read("sealgate.toml");
    let with_file = format!("{configuration}\n[trust]\ncrls = [\"current.pem\"]\n");
    bed.write("sealgate.toml", with_file);
    assert!(row().contains("3, by their dates a current one"), "{}", row());
    let shown = bed.good(&["crl", "list"]);
    assert!(shown.contains("current.pem") && shown.contains("authorities only"), "{shown}");

    let older = lists()[0]["sha256"].as_str().unwrap().to_owned();
    assert!(bed.good(&["crl", "remove", &older]).contains("1 removed"));
    assert_eq!(lists()[0]["covers"], "authorities only");
    assert!(bed.good(&["crl", "remove", &issuer]).contains("1 removed"));
    assert_eq!(lists().as_array().unwrap().len(), 1);
    let error = bed.bad(&["crl", "remove", &issuer], 65);
    assert!(error.contains("no such revocation list") && error.contains("[trust] crls"), "{error}");
}

#[test]
fn sealed_mail_is_opened_again() {
    let bed = bed_with_keys();
    let (from, to) = ("alice@nec.example", "bob@nec.example");
    let seal = ["seal", "--from", from, "--to", to, "--report", "seal.json"];
    let sealed = bed.good_with(&seal, MAIL.as_bytes());
    let text = String::from_utf8(sealed.clone()).unwrap();
    assert!(!text.contains("attack at dawn") && text.contains("application/pkcs7-mime"), "{text}");
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "CRLF throughout");
    assert_eq!(text.matches("Received:").count(), 1, "{text}");
    let report: serde_json::Value = serde_json::from_str(&bed.read("seal.json")).unwrap();
    assert_eq!(report["direction"], "outbound");
    assert_eq!(report["delivered"], "sealed");
    assert_eq!(report["layers"][0]["content"], "aes-256-gcm");

    let open = ["open", "--from", from, "--to", to, "--report", "open.json"];
    let opened = String::from_utf8(bed.good_with(&open, &sealed)).unwrap();
    assert!(opened.contains("attack at dawn"), "{opened}");
    assert!(opened.starts_with("Authentication-Results:"), "{opened}");
    let report: serde_json::Value = serde_json::from_str(&bed.read("open.json")).unwrap();
    assert_eq!(report["verdict"], "pass");
    assert_eq!(report["delivered"], "plain");

    // The same with the line ends of a file.
    let with_lf = text.replace("\r\n", "\n");
    let opened = String::from_utf8(bed.good_with(&open, with_lf.as_bytes())).unwrap();
    assert!(opened.contains("attack at dawn"), "{opened}");
}

#[test]
fn verification_takes_its_time_from_the_command_line() {
    let bed = bed_with_keys();
    let (from, to) = ("alice@nec.example", "bob@nec.example");
    let sealed = bed.good_with(&["seal", "--from", from, "--to", to], MAIL.as_bytes());
    let open =
        ["open", "--from", from, "--to", to, "--at", "2050-01-01T00:00:00Z", "--report", "r.json"];
    bed.good_with(&open, &sealed);
    let report: serde_json::Value = serde_json::from_str(&bed.read("r.json")).unwrap();
    assert_ne!(report["verdict"], "pass", "{report}");
}

#[test]
fn a_falsified_message_ends_with_65_and_its_reply() {
    let bed = bed_with_keys();
    let (from, to) = ("alice@nec.example", "bob@nec.example");
    let sealed = bed.good_with(&["seal", "--from", from, "--to", to], MAIL.as_bytes());
    let mut text = String::from_utf8(sealed).unwrap();
    let at = text.trim_end().len() - 100;
    let changed = if &text[at..=at] == "A" { "B" } else { "A" };
    text.replace_range(at..=at, changed);
    let open = ["open", "--from", from, "--to", to, "--report", "r.json"];
    let error = bed.bad_with(&open, text.as_bytes(), 65);
    assert!(error.starts_with("550 5.7.7 "), "{error}");
    let report: serde_json::Value = serde_json::from_str(&bed.read("r.json")).unwrap();
    assert_eq!(report["reply"]["code"], 550);
    assert_eq!(report["reply"]["enhanced"], "5.7.7");
}

#[test]
fn a_recipient_without_a_key_ends_with_65_and_one_outside_too() {
    let bed = bed_with_keys();
    let seal = ["seal", "--from", "alice@nec.example", "--to", "stranger@abc.example"];
    let error = bed.bad_with(&seal, MAIL.as_bytes(), 65);
    assert!(error.starts_with("550 5.7.3 ") && error.contains("stranger@abc.example"), "{error}");
    let error = bed.bad_with(&["open", "--to", "stranger@abc.example"], MAIL.as_bytes(), 65);
    assert!(error.starts_with("550 5.7.1 "), "{error}");
}

#[test]
fn what_the_relay_refuses_at_once_is_refused_so_and_reported() {
    let bed = bed_with_keys();
    let seal = ["seal", "--from", "alice@nec.example", "--to", "bob@abc.example"];
    let open = ["open", "--to", "alice@nec.example"];
    let stranger = ["open", "--to", "stranger@abc.example"];
    let loops = format!("{}{MAIL}", "Received: from a\n".repeat(101));
    let twice = format!("TLS-Required: No\nTLS-Required: No\n{MAIL}");
    let long = format!("{MAIL}{}\n", "x".repeat(70_000));
    for (command, message, reply) in [
        (&seal[..], b"From: a\rb\n".to_vec(), "550 5.5.2 message refused: bare carriage return"),
        (&seal, b"From: a\0b\n".to_vec(), "550 5.5.2 message refused: NUL octet"),
        (&seal, long.into_bytes(), "550 5.6.0 message refused: line too long"),
        (&seal, loops.clone().into_bytes(), "554 5.4.6 "),
        (&open, loops.into_bytes(), "554 5.4.6 "),
        (&seal, twice.into_bytes(), "550 5.6.0 "),
        (&stranger, MAIL.as_bytes().to_vec(), "550 5.7.1 "),
    ] {
        let _ = std::fs::remove_file(bed.path("r.json"));
        let command = [command, &["--report", "r.json"]].concat();
        let error = bed.bad_with(&command, &message, 65);
        assert!(error.starts_with(reply), "{reply}: {error}");
        let report: serde_json::Value = serde_json::from_str(&bed.read("r.json")).unwrap();
        assert_eq!(report["reply"]["code"].to_string(), reply[..3], "{reply}");
        assert_eq!(report["delivered"], "nothing", "{reply}");
    }
}

#[test]
fn a_key_store_that_cannot_answer_ends_with_75() {
    let bed = bed_with_keys();
    // A row that was changed outside sealgate makes the answer an error, not an absence.
    let database = bed.path("sealgate.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use sqlx::Connection as _;
        let url = format!("sqlite:{}", database.display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("UPDATE secret_keys SET wrapped = x'00'")
            .execute(&mut connection)
            .await
            .unwrap();
    });
    let seal = ["seal", "--from", "alice@nec.example", "--to", "bob@nec.example"];
    let error = bed.bad_with(&seal, MAIL.as_bytes(), 75);
    assert!(error.starts_with("451 4.7.5 "), "{error}");
}

#[test]
fn several_copies_need_a_directory() {
    let bed = bed_with_keys();
    let (from, to) = ("alice@nec.example", "bob@nec.example");
    bed.good(&["secret-key", "generate", "carol@nec.example", "--algorithm", "p256"]);
    // Carol is not named in the message: a blind copy, which goes apart (B10).
    let seal = ["seal", "--from", from, "--to", to, "--to", "carol@nec.example"];
    let error = bed.bad_with(&seal, MAIL.as_bytes(), 64);
    assert!(error.contains("2 copies") && error.contains("--out-dir"), "{error}");
    bed.good_with(&[&seal[..], &["--out-dir", "copies"]].concat(), MAIL.as_bytes());
    let mut recipients = Vec::new();
    for number in ["001", "002"] {
        let json: serde_json::Value =
            serde_json::from_str(&bed.read(&format!("copies/{number}.json"))).unwrap();
        assert_eq!(json["delivered"], "sealed");
        recipients.push(json["recipients"].clone());
        assert!(bed.read(&format!("copies/{number}.eml")).contains("application/pkcs7-mime"));
    }
    recipients.sort_by_key(ToString::to_string);
    assert_eq!(recipients, [serde_json::json!([to]), serde_json::json!(["carol@nec.example"])]);
}

/// A mail server that takes connections, as long as it is kept, and resolvers that answer.
fn lay_servers(bed: &Bed) -> std::net::TcpListener {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let configuration = bed.read("sealgate.toml").replace("2526", &port.to_string());
    let resolver = nameless::start();
    let resolvers = format!("\n[dns]\nresolvers = [\"{resolver}\"]\n");
    bed.write("sealgate.toml", configuration + &resolvers);
    server
}

/// The exit status of `check`, and what it says of one thing.
fn checked(bed: &Bed, what: &str) -> (i32, bool, String) {
    let output = bed.run_with(&["check", "--json"], b"");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["checks"].as_array().unwrap();
    let row = rows.iter().find(|row| row["check"] == what);
    let row = row.unwrap_or_else(|| panic!("{what}: {report}"));
    let detail = row["detail"].as_str().unwrap().to_owned();
    (output.status.code().unwrap(), row["ok"].as_bool().unwrap(), detail)
}

#[test]
fn check_fails_where_no_resolver_answers() {
    let bed = bed_with_keys();
    let _server = lay_servers(&bed);
    let (status, is_good, said) = checked(&bed, "next hop");
    assert!(status == 0 && is_good && said.contains("127.0.0.1:"), "{said}");
    let there = bed.read("sealgate.toml");
    let (before, _) = there.split_once("[dns]").unwrap();
    // Nobody is at port 9.
    bed.write("sealgate.toml", format!("{before}[dns]\nresolvers = [\"127.0.0.1:9\"]\n"));
    let (status, is_good, said) = checked(&bed, "next hop");
    assert!(status == 69 && !is_good, "{said}");
    assert!(said.contains("127.0.0.1:9") && said.contains("[dns] resolvers"), "{said}");
    // Nobody is asked where nothing goes out.
    let without = bed.read("sealgate.toml").replace("lmtp = ", "# lmtp = ");
    bed.write("sealgate.toml", without);
    assert_eq!(bed.run_with(&["check"], b"").status.code(), Some(0));
}

#[test]
fn check_fails_where_the_relay_would_not_start() {
    let bed = bed_with_keys();
    let server = lay_servers(&bed);
    let there = bed.read("sealgate.toml");
    let address = server.local_addr().unwrap();
    for next_hop in ["mx".to_owned(), format!("smtp://{address}")] {
        let fixed = there.replace("next_hop = \"mx\"", &format!("next_hop = \"{next_hop}\""));
        bed.write("sealgate.toml", &fixed);
        assert_eq!(bed.run_with(&["check"], b"").status.code(), Some(0), "{next_hop}");
        let missing = format!("{fixed}trust_anchor = \"no.key\"\n");
        bed.write("sealgate.toml", missing);
        let (status, _, said) = checked(&bed, "resolvers");
        assert!(status == 78 && said.contains("no.key"), "{next_hop}: {said}");
        assert_eq!(bed.run_with(&["relay"], b"").status.code(), Some(78));
        let missing = fixed.replace("[outside]", "[outside]\nca = \"no.pem\"");
        bed.write("sealgate.toml", missing);
        let (status, _, said) = checked(&bed, "authorities");
        assert!(status == 78 && said.contains("no.pem"), "{next_hop}: {said}");
        assert_eq!(bed.run_with(&["relay"], b"").status.code(), Some(78));
    }
}

#[test]
fn check_fails_where_the_key_server_would_not_start() {
    let bed = bed_with_keys();
    let head = "version = 1\ndomains = [\"nec.example\"]\n[key_server]\n";
    let relay = |identity: &str| {
        format!("[[key_server.relay]]\n{identity}\nkeys = [\"*\"]\noperations = [\"sign\"]\n")
    };
    let write = |text: &str, identity: &str| {
        bed.write("sealgate.toml", format!("{head}{text}{}", relay(identity)))
    };
    let (by_uid, audit) = ("uid = 1", "socket = \"keys.sock\"\naudit = \"audit.log\"\n");
    write(audit, by_uid);
    let (status, is_good, said) = checked(&bed, "key server");
    assert!(status == 0 && is_good, "{said}");
    for name in ["keys.sock", "audit.log"] {
        assert!(!bed.path(name).exists(), "{name}: looking makes nothing");
    }
    bed.write("audit.log", "{\"previous\"");
    assert_eq!(checked(&bed, "key server").0, 0);
    assert_eq!(bed.read("audit.log"), "{\"previous\"", "looking ends nothing");
    bed.openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k.pem \
         -subj /CN=x -days 90 -out c.pem -addext basicConstraints=CA:FALSE",
    );
    let tls = "listen = \"127.0.0.1:0\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n";
    for (text, identity, status, named) in [
        (format!("{tls}client_ca = \"no.pem\"\n"), "identity = \"x\"", 78, "no.pem"),
        (audit.replace("audit.log", "away/audit.log"), by_uid, 78, "away/audit.log"),
        (audit.replace("audit.log", "."), by_uid, 78, "audit"),
        (audit.replace("keys.sock", "away/keys.sock"), by_uid, 69, "away/keys.sock"),
        (audit.replace("keys.sock", "k.pem"), by_uid, 69, "is no socket"),
    ] {
        write(&text, identity);
        let (found, is_good, said) = checked(&bed, "key server");
        assert!(found == status && !is_good && said.contains(named), "{text}: {found} {said}");
        let ended = bed.run_with(&["key-server"], b"").status.code();
        assert_eq!(ended, Some(status), "{text}");
    }
    assert!(!bed.path("away").exists());
}

#[test]
fn check_is_good_only_if_all_is_well() {
    let bed = bed_with_keys();
    let server = lay_servers(&bed);
    let table = bed.good(&["check"]);
    assert!(table.contains("mail server") && !table.contains("FAILED"), "{table}");
    let report: serde_json::Value = serde_json::from_str(&bed.good(&["check", "--json"])).unwrap();
    assert_eq!(report["ok"], true);
    drop(server);
    let output = bed.run_with(&["check"], b"");
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAILED"));
    std::fs::remove_file(bed.path("master.key")).unwrap();
    let output = bed.run_with(&["check", "--json"], b"");
    assert_eq!(output.status.code(), Some(78));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    bed.write("sealgate.toml", "version = 3");
    assert_eq!(bed.run_with(&["check"], b"").status.code(), Some(78));
}

#[test]
fn check_warns_of_certificates_that_end_soon() {
    let bed = bed_with_keys();
    lay_servers(&bed);
    bed.openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k.pem \
        -subj /CN=x -days 10 -out c.pem -addext basicConstraints=CA:FALSE",
    );
    bed.good(&["public-key", "import", "--address", "x@abc.example", "c.pem"]);
    let output = bed.run_with(&["check"], b"");
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stdout).contains("x@abc.example ends"));
}

/// It is no fault for which a relay that ran yesterday would not start.
#[test]
fn check_and_the_log_warn_of_a_private_key_that_others_may_read() {
    let bed = bed_with_keys();
    let _server = lay_servers(&bed);
    bed.openssl("genpkey -algorithm ed25519 -out dkim.pem");
    let there = bed.read("sealgate.toml");
    let dkim = "\n[dkim]\nselector = \"s\"\nkey = \"dkim.pem\"\n";
    bed.write("sealgate.toml", format!("{there}{dkim}"));
    let set_mode = |name: &str, mode| {
        std::fs::set_permissions(bed.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(".", 0o755);
    for (mode, warns) in [(0o644, true), (0o640, false)] {
        set_mode("dkim.pem", mode);
        let (status, is_good, said) = checked(&bed, "private key files");
        assert!(status == 0 && is_good, "{said}");
        assert_eq!(said.contains("chmod o= "), warns, "{said}");
        assert_eq!(bed.good(&["check"]).contains("warning"), warns);
    }
    set_mode("dkim.pem", 0o644);
    // It need not run for this.
    bed.write("sealgate.toml", format!("{there}trust_anchor = \"no.key\"\n{dkim}"));
    let output = bed.run_with(&["relay"], b"");
    assert_eq!(output.status.code(), Some(78));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("a private key is open to others") && log.contains("dkim.pem"), "{log}");
}

#[test]
fn check_finds_a_tls_key_of_another_certificate_and_one_whose_certificate_ends_soon() {
    let bed = bed_with_keys();
    lay_servers(&bed);
    for (name, days) in [("good", "90"), ("other", "90"), ("soon", "10")] {
        bed.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key \
             -subj /CN={name} -days {days} -out {name}.pem -addext basicConstraints=CA:FALSE"
        ));
    }
    let configuration = bed.read("sealgate.toml");
    let of = |name: &str| bed.path(name).display().to_string();
    for (what, table) in [
        ("tls certificate", "[tls]".to_owned()),
        (
            "key server certificate",
            format!(
                "[[key_server.relay]]\nidentity = \"r\"\nkeys = [\"*\"]\noperations = [\"sign\"]\n\
                 [key_server]\nlisten = \"127.0.0.1:0\"\nclient_ca = \"{}\"",
                of("good.pem")
            ),
        ),
        (
            "kmip client certificate",
            format!("[secret_keys.kmip]\nservers = [\"localhost:1\"]\nca = \"{}\"", of("good.pem")),
        ),
        (
            "ldap client certificate",
            format!(
                "[public_keys.ldap]\nservers = [\"ldaps://localhost:1\"]\nca = \"{}\"\n\
                 base = \"dc=x\"",
                of("good.pem")
            ),
        ),
    ] {
        for (certificate, key, wrong) in [
            ("good", "good", None),
            ("good", "other", Some("")),
            ("soon", "soon", Some("CN=soon ends")),
        ] {
            let pem = of(&format!("{certificate}.pem"));
            let key = of(&format!("{key}.key"));
            let files = format!("certificate = \"{pem}\"\nkey = \"{key}\"\n");
            bed.write("sealgate.toml", format!("{configuration}\n{table}\n{files}"));
            let output = bed.run_with(&["check", "--json"], b"");
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let rows = report["checks"].as_array().unwrap();
            let row = rows.iter().find(|row| row["check"] == what);
            let row = row.unwrap_or_else(|| panic!("{what}: {report}"));
            assert_eq!(row["ok"], wrong.is_none(), "{row}");
            let detail = row["detail"].as_str().unwrap();
            assert!(detail.contains(&pem) || detail.contains(&key), "{row}");
            assert!(detail.contains(wrong.unwrap_or_default()), "{row}");
            if wrong.is_some() {
                assert_eq!(output.status.code(), Some(78));
            }
        }
    }
}

#[test]
fn manual_pages_and_completions_are_generated() {
    let bed = Bed::new();
    bed.good(&["man", "man"]);
    assert!(bed.read("man/sealgate.1").contains(".TH"));
    assert!(bed.read("man/sealgate-secret-key-generate.1").contains("algorithm"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(bed.good(&["completions", shell]).contains("secret-key"), "{shell}");
    }
}

/// Every command may hold keys or mail (REQUIREMENTS L5). This one waits for its message.
#[test]
fn no_command_leaves_a_core() {
    let bed = bed_with_keys();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sealgate"))
        .args(["open", "--to", "alice@nec.example"])
        .current_dir(bed.0.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let limits = || {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        core.split_whitespace().skip(4).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let begun = std::time::Instant::now();
    while limits() != ["0", "0"] {
        assert!(begun.elapsed().as_secs() < 5, "{:?}", limits());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Its successor is there before it can issue no more, and what it issued stays good.
#[test]
fn an_authority_that_ends_is_named_in_time_and_renewed() {
    const DAY_SECS: i64 = 24 * 3600;
    let bed = bed_with_keys();
    let clock = sealgate_testkit::clock::Clock::right();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
        command.args(arguments).current_dir(bed.0.path()).envs(clock.environment());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let generate = || run(&["secret-key", "generate", "carol@nec.example", "--algorithm", "p256"]);
    let row = || {
        let (_, table, _) = run(&["check"]);
        table.lines().find(|line| line.starts_with("own authority")).unwrap_or_default().to_owned()
    };
    assert!(row().contains(" ok "), "{}", row());
    clock.jump((3652 - 200) * DAY_SECS);
    assert!(row().contains("FAILED") && row().contains("sealgate ca renew"), "{}", row());
    assert_eq!(generate().0, Some(0));
    clock.jump((3652 - 50) * DAY_SECS);
    let (status, _, error) = generate();
    assert_eq!(status, Some(65), "{error}");
    assert!(error.contains("sealgate ca renew"), "{error}");
    let (_, before, _) = run(&["ca", "certificate"]);
    let (status, renewed, error) = run(&["ca", "renew"]);
    assert_eq!(status, Some(0), "{error}");
    assert!(renewed.contains("sealgate ca certificate"), "{renewed}");
    assert_eq!(generate().0, Some(0));
    assert!(row().contains(" ok "), "{}", row());
    assert_ne!(run(&["ca", "certificate"]).1, before);
    // Both are anchors, and what either issued is ours.
    assert_eq!(run(&["anchor", "list"]).1.lines().count(), 3);
    let (status, _, error) = run(&["master-key", "rotate"]);
    assert_eq!(status, Some(0), "{error}");
    assert_eq!(generate().0, Some(0));
}

/// By anybody who has it: the list is signed, and openssl reads it.
#[test]
fn what_the_own_authority_issued_is_revoked_and_correspondents_are_told() {
    let bed = bed_with_keys();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
        let output = command.args(arguments).current_dir(bed.0.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let path = |name: &str| bed.0.path().join(name);
    let good = |arguments: &[&str]| {
        let (status, output, error) = run(arguments);
        assert_eq!(status, Some(0), "{arguments:?}: {error}");
        output
    };
    let verifies = |certificate: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-crl_check", "-CAfile"]).arg(path("ca.pem")).arg("-CRLfile");
        let output = openssl.arg(path("list.pem")).arg(path(certificate)).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    std::fs::write(path("ca.pem"), good(&["ca", "certificate"])).unwrap();
    let (status, _, error) = run(&["ca", "crl"]);
    assert_eq!(status, Some(65), "{error}");
    for owner in ["carol", "dave"] {
        let address = format!("{owner}@nec.example");
        good(&["secret-key", "generate", &address, "--algorithm", "p256"]);
        let certificates = good(&["secret-key", "certificate", &address]);
        let first = certificates.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
        std::fs::write(path(&format!("{owner}.pem")), first).unwrap();
    }
    let said = good(&["ca", "revoke", "carol@nec.example", "--reason", "superseded"]);
    assert!(said.contains("2 revoked") && said.contains("sealgate ca crl"), "{said}");
    std::fs::write(path("list.pem"), good(&["ca", "crl"])).unwrap();
    let (is_good, why) = verifies("carol.pem");
    assert!(!is_good && why.contains("certificate revoked"), "{why}");
    assert!(verifies("dave.pem").0, "{:?}", verifies("dave.pem"));

    // Again; and once the key is gone, for a graver reason.
    let again = good(&["ca", "revoke", "carol@nec.example", "--reason", "superseded"]);
    assert!(again.contains("revoked before"), "{again}");
    good(&["secret-key", "remove", "carol@nec.example"]);
    let (status, _, error) = run(&["ca", "revoke", "carol@nec.example", "--reason", "superseded"]);
    assert_eq!(status, Some(65));
    assert!(error.contains("--certificate"), "{error}");
    let graver = ["ca", "revoke", "--certificate", "carol.pem", "--reason", "key-compromise"];
    assert!(good(&graver).contains("1 revoked"));
    assert!(good(&graver).contains("revoked before"));
    let own = ["ca", "revoke", "--certificate", "ca.pem", "--reason", "superseded"];
    assert_eq!(run(&own).0, Some(65));

    // The successor is of the same name: its certificates are good, and nothing of the one before is forgotten.
    good(&["ca", "renew"]);
    std::fs::write(path("ca.pem"), good(&["ca", "certificate"])).unwrap();
    good(&["secret-key", "generate", "erin@nec.example", "--algorithm", "p256"]);
    let certificates = good(&["secret-key", "certificate", "erin@nec.example"]);
    std::fs::write(path("erin.pem"), certificates).unwrap();
    std::fs::write(path("list.pem"), good(&["ca", "crl"])).unwrap();
    assert!(verifies("erin.pem").0, "{:?}", verifies("erin.pem"));
    assert_eq!(good(&["crl", "list"]).lines().count(), 3, "a head and two lists");
    good(&["ca", "revoke", "dave@nec.example", "--reason", "key-compromise"]);
    let listed = good(&["crl", "list"]);
    assert_eq!(listed.lines().count(), 3, "in the place of the one before");
    let first = listed.lines().nth(1).unwrap().split_whitespace().next().unwrap();
    let (status, _, error) = run(&["crl", "remove", first]);
    assert_eq!(status, Some(65), "{error}");
    assert_eq!(good(&["crl", "list"]), listed, "there is no other record");
}
