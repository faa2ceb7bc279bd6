//! `sealgate check`: well only if all is.

use std::os::unix::fs::PermissionsExt as _;

use super::bed::{bed_with_keys, checked, lay_servers};

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

/// As every correspondent does in time: the one before is no fault then, and can be taken out by itself.
#[test]
fn check_does_not_name_a_certificate_that_has_a_successor() {
    const X: &str = "x@abc.example";
    let bed = bed_with_keys();
    let _server = lay_servers(&bed);
    for (name, days) in [("old", 10), ("new", 800)] {
        bed.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k.pem \
             -subj /CN=x -days {days} -out {name}.pem -addext basicConstraints=CA:FALSE"
        ));
        bed.good(&["public-key", "import", "--address", X, &format!("{name}.pem")]);
        let (_, is_good, said) = checked(&bed, "public keys");
        assert_eq!(is_good, name == "new", "{said}");
    }
    let fingerprint = |name: &str| {
        let said = bed.openssl(&format!("x509 -in {name}.pem -noout -fingerprint -sha256"));
        said.trim().split_once('=').unwrap().1.to_owned()
    };
    let error = bed.bad(&["public-key", "remove", X, &"00".repeat(32)], 65);
    assert!(error.contains("no such public key"), "{error}");
    // A variable of a script that is not set must not forget the address.
    for nothing in ["", ":"] {
        let ended = bed.run_with(&["public-key", "remove", X, nothing], b"").status.code();
        assert_eq!(ended, Some(64), "{nothing}");
    }
    let removed = bed.good(&["public-key", "remove", X, &fingerprint("new")]);
    assert!(removed.contains("1 removed"), "{removed}");
    assert!(!checked(&bed, "public keys").1, "the one that ends is in use again");
    assert!(bed.good(&["public-key", "remove", X, &fingerprint("old")]).contains("1 removed"));
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
