//! Every form of every command.

use super::*;

fn parse(line: &str) -> Result<Command, String> {
    Command::parse(line.as_bytes()).map_err(|reply| reply.to_string())
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn mail_of(line: &str) -> (Option<Address>, MailParameters) {
    match parse(line) {
        Ok(Command::Mail { reverse_path, parameters }) => (reverse_path, parameters),
        other => panic!("{line}: {other:?}"),
    }
}

fn rcpt_of(line: &str) -> (ForwardPath, Option<String>, Option<String>) {
    match parse(line) {
        Ok(Command::Rcpt { forward_path, notify, orcpt }) => (forward_path, notify, orcpt),
        other => panic!("{line}: {other:?}"),
    }
}

/// Lists and forwarders rewrite a sender so that a bounce tells whose mail it was.
#[test]
fn addresses_that_are_in_use_are_taken() {
    let long = format!("bounces+{}-alice=nec.example@em.abc.example", "1".repeat(80));
    for text in [&long, "foo..bar@abc.example", "foo.@abc.example"] {
        let (from, _) = mail_of(&format!("MAIL FROM:<{text}>"));
        assert_eq!(from.unwrap().to_string(), *text);
        assert!(parse(&format!("RCPT TO:<{text}>")).is_ok(), "{text}");
    }
}

/// A rule for a mailbox, and its keys, hold however the mailbox is written.
#[test]
fn quotes_that_are_not_needed_are_no_other_mailbox() {
    for written in ["\"alice\"@nec.example", "\"al\\ice\"@nec.example", "alice@nec.example"] {
        let (from, _) = mail_of(&format!("MAIL FROM:<{written}>"));
        assert_eq!(from.unwrap().lookup_key(), "alice@nec.example", "{written}");
        match rcpt_of(&format!("RCPT TO:<{written}>")).0 {
            ForwardPath::Mailbox(to) => assert_eq!(to.lookup_key(), "alice@nec.example"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn commands_without_arguments() {
    let table = [
        ("DATA", Command::Data),
        ("data", Command::Data),
        ("DATA  ", Command::Data),
        ("RSET", Command::Rset),
        ("QUIT", Command::Quit),
        ("StartTls", Command::StartTls),
        ("NOOP", Command::Noop),
        ("NOOP something", Command::Noop),
        ("HELP", Command::Help),
        ("HELP mail", Command::Help),
        ("VRFY alice", Command::Vrfy),
        ("EXPN list", Command::Expn),
        ("BDAT 0", Command::Bdat { size_bytes: 0, last: false }),
        ("bdat 86 last", Command::Bdat { size_bytes: 86, last: true }),
        ("EHLO a.example", Command::Hello(Greeting::Ehlo, "a.example".to_owned())),
        ("helo [127.0.0.1]", Command::Hello(Greeting::Helo, "[127.0.0.1]".to_owned())),
        ("LHLO host_1", Command::Hello(Greeting::Lhlo, "host_1".to_owned())),
        ("GET / HTTP/1.1", Command::Http),
        ("Host: a", Command::Http),
    ];
    for (line, command) in table {
        assert_eq!(parse(line), Ok(command), "{line}");
    }
}

/// Wrong commands, and how their replies start.
const WRONG: &[(&str, &str)] = &[
    ("", "500 5.5.1"),
    ("FOO", "500 5.5.1"),
    (" NOOP", "500 5.5.1"),
    ("DATA x", "501 5.5.4"),
    ("RSET x", "501 5.5.4"),
    ("QUIT now", "501 5.5.4"),
    ("STARTTLS x", "501 5.5.4"),
    ("VRFY", "501 5.5.4"),
    ("EHLO", "501 5.5.4"),
    ("EHLO a b", "501 5.5.4"),
    ("EHLO b\u{fc}cher", "501 5.5.4"),
    ("BDAT", "501 5.5.4"),
    ("BDAT x", "501 5.5.4"),
    ("BDAT -1", "501 5.5.4"),
    ("BDAT 1 FIRST", "501 5.5.4"),
    ("BDAT 1 LAST x", "501 5.5.4"),
    ("BDAT 99999999999999999999", "501 5.5.4"),
    ("MAIL", "501 5.5.4"),
    ("MAIL FROM", "501 5.5.4"),
    ("MAIL TO:<a@b>", "501 5.5.4"),
    ("MAIL FROM:a@b", "501 5.5.4"),
    ("MAIL FROM:<a@b", "501 5.5.4"),
    ("MAIL FROM:<a@b>SIZE=1", "501 5.5.4"),
    ("MAIL FROM:<a@b> SIZE=", "501 5.5.4"),
    ("MAIL FROM:<a@b> SIZE=x", "501 5.5.4"),
    ("MAIL FROM:<a@b> SIZE", "501 5.5.4"),
    ("MAIL FROM:<a@b> SIZE=1 SIZE=1", "501 5.5.4"),
    ("MAIL FROM:<a@b> BODY=7BIT BODY=8BITMIME", "501 5.5.4"),
    ("MAIL FROM:<a@b> BODY=BINARYMIME", "555 5.5.4"),
    ("MAIL FROM:<a@b> AUTH=<>", "555 5.5.4"),
    ("MAIL FROM:<a@b> FOO=bar", "555 5.5.4"),
    ("MAIL FROM:<a@b> SMTPUTF8=1", "501 5.5.4"),
    ("MAIL FROM:<a@b> RET=ALL", "501 5.5.4"),
    ("MAIL FROM:<a@b> ENVID=", "501 5.5.4"),
    ("MAIL FROM:<a@b> ENVID=a+2", "501 5.5.4"),
    ("MAIL FROM:<a@b> ENVID=a+2b", "501 5.5.4"),
    ("MAIL FROM:<a@b> ENVID=a=b", "501 5.5.4"),
    ("MAIL FROM:<a b@c>", "501 5.1.7"),
    ("MAIL FROM:<a>", "501 5.1.7"),
    ("MAIL FROM:<a@b@c>", "501 5.1.7"),
    ("MAIL FROM:<j\u{f6}rg@b>", "553 5.6.7"),
    ("MAIL FROM:<a@b\u{fc}cher.example>", "553 5.6.7"),
    ("RCPT TO:<>", "501 5.1.3"),
    ("RCPT TO:<a>", "501 5.1.3"),
    ("RCPT TO:<@x:>", "501 5.1.3"),
    ("RCPT TO:<@x a@b>", "501 5.1.3"),
    ("RCPT TO:<@a,b:c@d>", "501 5.1.3"),
    ("RCPT FROM:<a@b>", "501 5.5.4"),
    ("RCPT TO:<a@b> NOTIFY=", "501 5.5.4"),
    ("RCPT TO:<a@b> NOTIFY=NEVER,DELAY", "501 5.5.4"),
    ("RCPT TO:<a@b> NOTIFY=DELAY,DELAY", "501 5.5.4"),
    ("RCPT TO:<a@b> NOTIFY=NEVER NOTIFY=NEVER", "501 5.5.4"),
    ("RCPT TO:<a@b> ORCPT=a@b", "501 5.5.4"),
    ("RCPT TO:<a@b> ORCPT=;a", "501 5.5.4"),
    ("RCPT TO:<a@b> ORCPT=rfc822;", "501 5.5.4"),
    ("RCPT TO:<a@b> ORCPT=rfc822;\u{e9}", "501 5.5.4"),
    ("RCPT TO:<a@b> SIZE=1", "555 5.5.4"),
    ("NOOP \u{7}", "500 5.5.2"),
    ("NOOP a\rb", "500 5.5.2"),
    ("NOOP \0", "500 5.5.2"),
];

#[test]
fn wrong_commands_say_what_is_wrong() {
    let long = "x".repeat(300);
    let table = [
        (&*format!("EHLO {long}"), "501 5.5.4"),
        (&*format!("MAIL FROM:<a@b> ENVID={}", "x".repeat(101)), "501 5.5.4"),
        (&*format!("RCPT TO:<a@b> ORCPT=rfc822;{}", "x".repeat(494)), "501 5.5.4"),
    ];
    for (line, start) in WRONG.iter().copied().chain(table) {
        let reply = parse(line).expect_err(line);
        assert!(reply.starts_with(start), "{line}: {reply}");
        assert!(reply.is_ascii() || start.starts_with('5'), "{reply}");
    }
    assert!(Command::parse(b"NOOP \xff").is_err());
}

#[test]
fn senders() {
    assert_eq!(mail_of("MAIL FROM:<>").0, None);
    assert_eq!(mail_of("mail from: <a@b>").0, Some(address("a@b")));
    assert_eq!(mail_of("MAIL FROM:<@x,@y.z:a@b>").0, Some(address("a@b")));
    assert_eq!(mail_of("MAIL FROM:<a@[127.0.0.1]>").0, Some(address("a@[127.0.0.1]")));
    assert_eq!(mail_of("MAIL FROM:<a@[IPv6:::1]>").0, Some(address("a@[IPv6:::1]")));
    let quoted = mail_of("MAIL FROM:<\"a> SIZE=1 \\\" b\"@c> SIZE=2");
    assert_eq!(quoted.0, Some(address("\"a> SIZE=1 \\\" b\"@c")));
    assert_eq!(quoted.1.size_bytes, Some(2));
    let utf8 = mail_of("MAIL FROM:<j\u{f6}rg@b\u{fc}cher.example> SMTPUTF8");
    assert_eq!(utf8.0, Some(address("j\u{f6}rg@xn--bcher-kva.example")));
    assert!(utf8.1.smtputf8);
}

#[test]
fn parameters_of_mail() {
    let (_, parameters) = mail_of(
        "MAIL FROM:<> size=1000  body=8bitmime SMTPUTF8 RequireTLS ret=hdrs ENVID=QQ+2B314",
    );
    let expected = MailParameters {
        size_bytes: Some(1000),
        eight_bit: true,
        smtputf8: true,
        requiretls: true,
        ret: Some(Ret::Headers),
        envid: Some("QQ+2B314".to_owned()),
    };
    assert_eq!(parameters, expected);
    assert_eq!(mail_of("MAIL FROM:<> RET=FULL BODY=7BIT").1.ret, Some(Ret::Full));
    assert_eq!(mail_of("MAIL FROM:<> SIZE=99999999999999999999").1.size_bytes, Some(u64::MAX));
    assert_eq!(
        mail_of(&format!("MAIL FROM:<> ENVID={}", "x".repeat(100))).1.envid.unwrap().len(),
        100
    );
}

#[test]
fn recipients() {
    for text in ["postmaster", "POSTMASTER", "Postmaster"] {
        assert_eq!(rcpt_of(&format!("RCPT TO:<{text}>")).0, ForwardPath::Postmaster);
    }
    let mailbox = |text| ForwardPath::Mailbox(address(text));
    assert_eq!(rcpt_of("RCPT TO:<Bob@b>").0, mailbox("bob@b"));
    assert_eq!(rcpt_of("RCPT TO:<@x.example:bob@b>").0, mailbox("bob@b"));
    assert_eq!(rcpt_of("RCPT TO:<postmaster@b>").0, mailbox("postmaster@b"));
    let (_, notify, orcpt) =
        rcpt_of("RCPT TO:<bob@b> notify=success,DELAY ORCPT=rfc822;Bob+40old@b");
    assert_eq!(notify.as_deref(), Some("success,DELAY"));
    assert_eq!(orcpt.as_deref(), Some("rfc822;Bob+40old@b"));
    let (_, _, orcpt) = rcpt_of("RCPT TO:<bob@b> ORCPT=utf-8;b\u{f6}b@\\x{E9}");
    assert_eq!(orcpt.as_deref(), Some("utf-8;b\u{f6}b@\\x{E9}"));
    assert_eq!(rcpt_of("RCPT TO:<bob@b> NOTIFY=NEVER").1.as_deref(), Some("NEVER"));
}
