use sealgate_core::address::Address;
use sealgate_core::policy::{Encrypt, LinkTls, Order};
use sealgate_keys::database::DatabaseUrl;
use sealgate_keys::secret_source::SecretSource;

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    file_v1::parse(text, Path::new("sealgate.toml"), Path::new("/etc/sealgate"))
}

fn line_and_message(text: &str) -> (usize, String) {
    match parse(text) {
        Err(ConfigError::Invalid { line, message, .. }) => (line, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_shipped_example_is_valid() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
            count += 1;
        }
    }
    assert!(count >= 3, "{count} examples");
}

#[test]
fn the_template_of_init_is_valid() {
    let text = include_str!("../cli/init/sealgate.toml")
        .replace("@DOMAINS@", "\"nec.example\", \"nec.test\"")
        .replace("@FIRST@", "nec.example")
        .replace("@DATABASE@", "postgres:///sealgate?host=/run/postgresql");
    assert_eq!(parse(&text).unwrap().domains.len(), 2);
}

#[test]
fn the_complete_example_holds_the_defaults() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/complete.toml"));
    let complete = Config::load(path).unwrap();
    let least = parse("version = 1\ndomains = [\"nec.example\"]").unwrap();
    assert_eq!(complete.limits, least.limits);
    assert_eq!(complete.policy.defaults, least.policy.defaults);
    assert_eq!(complete.inside.allow, least.inside.allow);
    assert_eq!(complete.inside.client_address, least.inside.client_address);
    assert_eq!(complete.inside.check_recipients, least.inside.check_recipients);
    assert_eq!(complete.inside.reply_pause, least.inside.reply_pause);
    assert_eq!(complete.outside.next_hop, least.outside.next_hop);
    assert_eq!(complete.outside.authenticate, least.outside.authenticate);
    assert_eq!(complete.outside.dmarc, least.outside.dmarc);
    assert_eq!(complete.dkim.unwrap().domains, least.domains);
    assert_eq!(complete.outside.ca, least.outside.ca);
    assert_eq!(complete.dns, least.dns);
    assert_eq!(complete.done_record, least.done_record);
    assert_eq!(complete.observe.log, least.observe.log);
}

#[test]
fn relative_paths_start_at_the_configuration() {
    let config = parse(
        "version = 1\ndomains = [\"a.example\"]\n[tls]\ncertificate = \"c.pem\"\n\
         key = \"/k.pem\"\n[trust]\ncrls = [\"x.crl\"]\n[outside]\nca = \"ca.pem\"\n\
         [dns]\ntrust_anchor = \"root.key\"",
    )
    .unwrap();
    let tls = config.tls.unwrap();
    assert_eq!(tls.certificate, Path::new("/etc/sealgate/c.pem"));
    assert_eq!(tls.key, Path::new("/k.pem"));
    assert_eq!(config.stores.crls, [PathBuf::from("/etc/sealgate/x.crl")]);
    assert_eq!(config.outside.ca.as_deref(), Some(Path::new("/etc/sealgate/ca.pem")));
    assert_eq!(config.dns.trust_anchor.as_deref(), Some(Path::new("/etc/sealgate/root.key")));
    let database = DatabaseUrl::Sqlite(PathBuf::from("/etc/sealgate/sealgate.db"));
    assert_eq!(config.stores.database, database);
    let key = SecretSource::File(PathBuf::from("/etc/sealgate/master.key"));
    assert_eq!(config.stores.master_key, key);
}

#[test]
fn rules_override_in_order() {
    let config = parse(
        "version = 1\ndomains = [\"a.example\"]\n[policy]\nencrypt = \"prefer\"\n\
         [[rule]]\nto = [\"*@b.example\"]\nencrypt = \"require\"\n\
         tls = \"verify\"\n[[rule]]\nto = [\"*\"]\norder = \"triple\"",
    )
    .unwrap();
    let to = |text| config.policy.decide(None, &Address::parse(text).unwrap());
    assert_eq!(to("x@b.example").encrypt, Encrypt::Require);
    assert_eq!(to("x@b.example").order, Order::SignThenEncrypt);
    assert_eq!(to("x@b.example").tls, LinkTls::Verify);
    assert_eq!(to("x@c.example").tls, LinkTls::Opportunistic);
    assert_eq!(to("x@c.example").encrypt, Encrypt::Prefer);
    assert_eq!(to("x@c.example").order, Order::Triple);
}

#[test]
fn faults_are_named_with_their_line() {
    let head = "version = 1\ndomains = [\"a.example\"]\n";
    for (tail, line, word) in [
        ("colour = 1", 3, "colour"),
        ("[inside]\nlmpt = \"127.0.0.1:1\"", 4, "lmpt"),
        ("[inside]\nlmtp = \"here\"", 4, "socket address"),
        ("[inside]\nallow = [\"127.0.0.1/33\"]", 4, "no network"),
        ("[inside]\nmail_server = \"mail\"", 4, "smtp://HOST:PORT"),
        ("[outside]\nnext_hop = \"mail\"", 4, "\"mx\""),
        ("[inside]\nsmtp = \"127.0.0.1:1\"\n[outside]\nsmtp = \"127.0.0.1:2\"", 6, "mail_server"),
        ("[observe]\nlisten = \"0.0.0.0:9725\"", 4, "loopback"),
        ("[policy]\nencrypt = \"maybe\"", 4, "maybe"),
        ("[[rule]]\nto = [\"a\"]", 4, "address pattern"),
        ("[[rule]]\nuntil = 1", 4, "until"),
        ("[database]\nurl = \"postgres://db/x?sslmode=allow\"", 4, "sslmode=verify-full"),
        ("[database]\nurl = \"mysql://u:pw@db/x\"", 4, "postgres://USER@HOST/DATABASE"),
        ("[secret_keys]\nstore = \"kmip\"", 4, "kmip"),
        ("[master_key]\nfile = \"a\"\ncredential = \"b\"", 5, "exclude each other"),
        ("[master_key]\ncredential = \"../b\"", 4, "without slashes"),
        ("[public_keys]\nstores = []", 4, "empty"),
        ("[dns]\nresolvers = \"mine\"", 4, "system"),
        ("[dns]\nresolvers = []", 4, "empty"),
        ("[dns]\ndnssec = true", 4, "string"),
        ("[dns]\ndnssec = \"off\"\ntrust_anchor = \"root.key\"", 5, "keep one"),
        ("[policy]\ntls = \"may\"", 4, "opportunistic"),
        ("[limits]\nrecipients_max = 0", 4, "recipients_max"),
        ("[limits]\ndrain_secs_max = 9223372036854775807", 4, "drain_secs_max"),
        ("[limits]\ndrain_secs_max = 86401", 4, "more than a day"),
        ("[limits]\nrecipients = 1", 4, "recipients"),
        ("[limits]\nmessage_bytes_max = 100\nmemory_bytes_max = 299", 5, "300 or more"),
        ("[limits]\nmemory_bytes_max = 1000000", 4, "333333 or less"),
        ("[limits]\nmessage_bytes_max = 1000000000", 4, "3000000000 or more"),
        ("[limits]\nmessage_bytes_max = 9223372036854775807", 4, "or less"),
        ("[tls]\ncertificate = \"a\"", 3, "key"),
        ("[inside", 3, ""),
    ] {
        let (found, message) = line_and_message(&format!("{head}{tail}"));
        assert_eq!(found, line, "{tail}: {message}");
        assert!(message.contains(word), "{tail}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
    assert_eq!(line_and_message("version = 1\ndomains = []").0, 2);
    assert_eq!(line_and_message("version = 1\ndomains = [\"a b\"]").0, 2);
    assert!(line_and_message("version = 1").1.contains("domains"));
}

#[test]
fn memory_for_one_message_will_do() {
    let text = "version = 1\ndomains = [\"a.example\"]\n[limits]\nmessage_bytes_max = 100\nmemory_bytes_max = 300";
    assert_eq!(parse(text).unwrap().limits.memory_bytes_max, 300);
}

#[test]
fn a_server_that_is_sealgate_itself_is_refused() {
    for (tail, line, entrance) in [
        (
            "[inside]\nmail_server = \"smtp://127.0.0.1\"\n[outside]\nsmtp = \"0.0.0.0:25\"",
            4,
            "[outside] smtp",
        ),
        (
            "[outside]\nsmtp = \"[::1]:25\"\n[inside]\nmail_server = \"lmtp://[::1]:25\"",
            6,
            "[outside] smtp",
        ),
        (
            "[inside]\nmail_server = \"lmtp://127.0.0.1:24\"\nlmtp = \"127.0.0.1:24\"",
            4,
            "[inside] lmtp",
        ),
        ("[inside]\nsmtp = \"0.0.0.0:26\"\nmail_server = \"smtp://[::1]:26\"", 5, "[inside] smtp"),
        (
            "[outside]\nnext_hop = \"smtp://127.0.0.1:26\"\n[inside]\nsmtp = \"127.0.0.1:26\"",
            4,
            "[inside] smtp",
        ),
        (
            "[inside]\nlmtp = \"[::]:24\"\n[outside]\nnext_hop = \"lmtp://[::1]:24\"",
            6,
            "[inside] lmtp",
        ),
        (
            "[inside]\nmail_server = \"smtp://127.0.0.1:26\"\n[outside]\nsmtp = \"0.0.0.0:25\"\n\
             next_hop = \"smtp://127.0.0.1\"",
            7,
            "[outside] smtp",
        ),
    ] {
        let (found, message) =
            line_and_message(&format!("version = 1\ndomains = [\"a.example\"]\n{tail}"));
        assert_eq!(found, line, "{tail}: {message}");
        assert!(message.contains("sealgate itself"), "{tail}: {message}");
        assert!(message.contains(entrance), "{tail}: {message}");
    }
}

#[test]
fn a_mail_server_beside_us_is_another() {
    for (open, server) in [
        ("192.0.2.1:25", "smtp://127.0.0.1:25"),
        ("0.0.0.0:25", "smtp://127.0.0.1:2526"),
        ("0.0.0.0:25", "smtp://192.0.2.1:25"),
        ("127.0.0.1:0", "smtp://127.0.0.1:25"),
        ("0.0.0.0:25", "smtp://mail.nec.example:25"),
    ] {
        let text = format!(
            "version = 1\ndomains = [\"a.example\"]\n[inside]\nmail_server = \"{server}\"\n\
             [outside]\nsmtp = \"{open}\""
        );
        assert!(parse(&text).is_ok(), "{open} {server}");
        let next_hop = text.replace("mail_server", "smtp = \"127.0.0.1:26\"\nmail_server");
        let next_hop = format!("{next_hop}\nnext_hop = \"{server}\"");
        assert!(parse(&next_hop).is_ok(), "{open} {server}");
    }
}

#[test]
fn another_version_is_called_that() {
    let (line, message) = line_and_message("# new\nversion = 2\nsomething = 1");
    assert_eq!(line, 2);
    assert!(message.contains("version = 1"), "{message}");
    assert!(line_and_message("domains = [\"a.example\"]").1.contains("version = 1"));
}

#[test]
fn a_store_outside_must_be_described_whole() {
    const START: &str = "version = 1\ndomains = [\"a.example\"]\n";
    for (text, expected_line, part) in [
        ("[secret_keys]\nstore = \"kmip\"\n", 4, "[secret_keys.kmip]"),
        ("[secret_keys]\nstore = \"pkcs11\"\n", 4, "[secret_keys.pkcs11]"),
        ("[secret_keys.kmip]\nservers = []\n", 4, "`servers` is empty"),
        ("[secret_keys.kmip]\nservers = [\"keys.example\"]\n", 4, "`ca`"),
        ("[secret_keys.kmip]\nservers = [\"http://x\"]\n", 4, "HOST:PORT or unix:FILE"),
        ("[secret_keys.kmip]\nservers = [\"unix:k\"]\nconnections = 0\n", 5, "from 1 to 24"),
        ("[secret_keys.kmip]\nservers = [\"unix:k\"]\nconnections = 25\n", 5, "from 1 to 24"),
        ("[secret_keys.kmip]\nservers = [\"unix:k\"]\nkey_name = \"all\"\n", 5, "{address}"),
        ("[secret_keys.pkcs11]\nmodule = \"m\"\ntoken = \"t\"\n", 4, "PIN"),
        ("[public_keys]\nstores = []\n", 4, "`stores` is empty"),
        ("[public_keys]\nstores = [\"ldap\"]\n", 4, "[public_keys.ldap]"),
        (
            "[public_keys.ldap]\nservers = [\"ldaps://d\"]\nbase = \"\"\nbind_dn = \"cn=x\"\n",
            6,
            "go together",
        ),
    ] {
        let (line, message) = line_and_message(&format!("{START}{text}"));
        assert!(message.contains(part), "{text}: {message}");
        assert_eq!(line, expected_line, "{text}: {message}");
    }
}
