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

#[path = "cli/authority.rs"]
mod authority;
#[path = "cli/backup.rs"]
mod backup;
#[path = "cli/bed.rs"]
mod bed;
#[path = "cli/check.rs"]
mod check;
#[path = "cli/messages.rs"]
mod messages;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use bed::{Bed, MAIL, bed_with_keys, fixture, lay_servers};

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
