//! What the sender's domain says about a message as it came: SPF (RFC 7208), DKIM (RFC 6376), DMARC (RFC 9989), ARC (RFC 8617).
//!
//! In: the client, the envelope's sender, the octets. Out: results for Authentication-Results, the state of the ARC chain, and whether the
//! author's domain asks that such mail be refused. Look-ups are bounded in number ([`super::look_ups`]) and time; without DNS the
//! results are `temperror`, and the mail goes on. An SPF record that takes too many is a `permerror`.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use hickory_resolver::TokioResolver;
use mail_auth::common::crypto::Algorithm;
use mail_auth::dkim::{DkimError, Signature};
use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{
    ArcOutput, AuthenticatedMessage, DkimOutput, DkimResult, DmarcOutput, DmarcResult, DnsError,
    Error, MessageAuthenticator, SpfOutput, SpfResult,
};
use sealgate_core::address::{Address, Domain};
use sealgate_core::dkim::arc::Chain;
use sealgate_core::message::Message;
use sealgate_core::mime::Header;
use sealgate_core::report::AuthenticationResult;
use tokio::time::{Instant, timeout_at};

use super::look_ups::{LookUps, OF_ARC, OF_DKIM, OF_DMARC, OF_SPF};

/// Asks DNS.
pub(crate) struct Authenticator(MessageAuthenticator);

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator")
    }
}

/// Who hands the message over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    /// Its address.
    pub(crate) client: IpAddr,
    /// The name in its hello.
    pub(crate) hello: &'a str,
    /// MAIL FROM.
    pub(crate) from: Option<&'a Address>,
    /// No answer is waited for after this.
    pub(crate) deadline: Instant,
}

/// What was found out.
#[derive(Clone, Debug)]
pub(crate) struct Authentication {
    /// One result a method, of DKIM one a signature.
    pub(crate) results: Vec<AuthenticationResult>,
    /// The ARC chain, where it is known.
    pub(crate) chain: Option<Chain>,
    /// Why DMARC has the message refused, where the administrator wants that too.
    pub(crate) rejection: Option<Rejection>,
}

/// Why a message is one to refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// DMARC fails for certain, and this domain, the author's, asks for it.
    ByAuthor(String),
    /// Programs read different domains in From (RFC 7489 §6.6.1): it is known of none of them that it is the author's.
    AuthorUnclear,
}

impl Authenticator {
    /// Over the relay's own resolver.
    pub(crate) fn new(resolver: TokioResolver) -> Self {
        Self(MessageAuthenticator(resolver))
    }

    /// Looks at a message as it came; `hostname` is ours.
    pub(crate) async fn authenticate(
        &self,
        sender: Sender<'_>,
        hostname: &str,
        message: &Message,
    ) -> Authentication {
        let mut results = Vec::new();
        let Some(parsed) = parse(message) else {
            // No header section, or one over a limit: nothing to ask about, and the core refuses it.
            return Authentication { results, chain: None, rejection: None };
        };
        let [of_spf, of_dkim, of_arc] = [OF_SPF, OF_DKIM, OF_ARC].map(LookUps::at_most);
        // Name servers of the sender's own that are slow to answer must not leave DMARC without time.
        let now = Instant::now();
        let first = now + sender.deadline.saturating_duration_since(now) * 2 / 3;
        let is_author_clear = is_author_clear(message, &parsed);
        let one_by_one = one_by_one(&parsed);
        let (spf, mut dkim, arc) = tokio::join!(
            self.spf(sender, first, hostname, &of_spf),
            self.dkim(&one_by_one, first, &of_dkim),
            self.arc(&parsed, first, &of_arc)
        );
        results.push(spf_result(&spf, of_spf.is_over(), sender));
        results.extend(dkim_results(&dkim));
        if of_dkim.is_over() {
            // What the sender himself brought about, with signatures without end, is no reason to spare him: neither here
            // nor in DMARC, which would call it a failure of the moment.
            let is_of_the_moment =
                |one: &DkimOutput<'_>| matches!(one.result(), DkimResult::TempError(_));
            dkim.retain(|one| !is_of_the_moment(one));
        }
        let dmarc = match is_author_clear {
            true => Ok(self.dmarc(&parsed, &dkim, &spf, sender).await),
            false => Err(Rejection::AuthorUnclear),
        };
        results.push(dmarc_result(dmarc.as_ref().map(Option::as_ref)));
        let chain = arc.as_ref().and_then(chain);
        if let Some(chain) = chain.filter(|chain| *chain != Chain::None) {
            let result = if chain == Chain::Pass { "pass" } else { "fail" };
            results.push(AuthenticationResult { method: "arc", result, properties: Vec::new() });
        }
        let rejection = match dmarc {
            // What could not be found out of who is not aligned with the author changes nothing, and a forger arranges it.
            Ok(dmarc) => {
                dmarc.filter(is_rejection).map(|dmarc| Rejection::ByAuthor(dmarc.into_domain()))
            }
            Err(unclear) => Some(unclear),
        };
        Authentication { results, chain, rejection }
    }

    /// Where too many look-ups are wanted, a result that passes nobody (RFC 7208 §4.6.4).
    async fn spf(
        &self,
        sender: Sender<'_>,
        deadline: Instant,
        hostname: &str,
        look_ups: &LookUps,
    ) -> SpfOutput {
        let client = sender.client.to_canonical();
        let from = sender.from.map(ToString::to_string);
        let parameters = match &from {
            Some(from) => SpfParameters::verify_mail_from(client, sender.hello, hostname, from),
            // RFC 7208 §2.4: a bounce comes from nobody but the host.
            None => SpfParameters::verify_ehlo(client, sender.hello, hostname),
        };
        let verifying = self.0.verify_spf(look_ups.bound(parameters));
        let found = timeout_at(deadline, verifying).await;
        if !look_ups.is_over() {
            let silent = |_| SpfOutput::new(domain_of(sender)).with_result(SpfResult::TempError);
            return found.unwrap_or_else(silent);
        }
        // Of nobody: asks for nothing.
        let nobody = SpfParameters::verify_ehlo(client, "", hostname);
        self.0.verify_spf(look_ups.bound(nobody)).await
    }

    /// Each signature has its share of the time: one whose name server does not answer must not make the others uncertain.
    async fn dkim<'m>(
        &self,
        one_by_one: &'m [AuthenticatedMessage<'m>],
        deadline: Instant,
        look_ups: &'m LookUps,
    ) -> Vec<DkimOutput<'m>> {
        let mut found = Vec::new();
        let left = (1..=u32::try_from(one_by_one.len()).unwrap_or(u32::MAX)).rev();
        for (one, left) in one_by_one.iter().zip(left) {
            let now = Instant::now();
            let until = now + deadline.saturating_duration_since(now) / left;
            let silent = |field: &'m mail_auth::common::headers::Header<'_, Signature>| {
                let error = Error::Dns(DnsError::Resolver("no answer in time".to_owned()));
                DkimOutput::temp_err(error).with_signature(&field.header)
            };
            match timeout_at(until, self.0.verify_dkim(look_ups.bound(one))).await {
                Ok(outputs) => found.extend(outputs),
                Err(_) => found.extend(one.dkim_headers.iter().map(silent)),
            }
        }
        found
    }

    async fn arc<'m>(
        &self,
        message: &'m AuthenticatedMessage<'m>,
        deadline: Instant,
        look_ups: &'m LookUps,
    ) -> Option<ArcOutput<'m>> {
        if message.as_headers.len() > SIGNATURES_MAX {
            return None;
        }
        timeout_at(deadline, self.0.verify_arc(look_ups.bound(message))).await.ok()
    }

    async fn dmarc<'m>(
        &self,
        message: &'m AuthenticatedMessage<'m>,
        dkim: &'m [DkimOutput<'m>],
        spf: &'m SpfOutput,
        sender: Sender<'_>,
    ) -> Option<DmarcOutput> {
        let domain = domain_of(sender);
        let parameters = DmarcParameters::new(message, dkim, &domain, spf);
        let look_ups = LookUps::at_most(OF_DMARC);
        timeout_at(sender.deadline, self.0.verify_dmarc(look_ups.bound(parameters))).await.ok()
    }
}

/// Digests of a large body take their time: not on the thread's other sessions' account.
pub(super) fn parse(message: &Message) -> Option<AuthenticatedMessage<'_>> {
    // Every field and every address in it would be kept, many times as large as the octets.
    Header::parse(message.header_section()).ok()?;
    let octets = message.bytes();
    let mut parsed = if octets.len() > INLINE_BYTES_MAX {
        tokio::task::block_in_place(|| AuthenticatedMessage::parse(octets))?
    } else {
        AuthenticatedMessage::parse(octets)?
    };
    // Each name is looked for in all fields: many names of one signature would hold up everybody.
    // A signature with SHA-1 (RFC 8301 §3.1) or that does not cover From (RFC 6376 §6.1.1) says nothing.
    let is_sound = |signature: &Signature| {
        signature.h.len() <= SIGNED_FIELDS_MAX
            && signature.a != Algorithm::RsaSha1
            && signature.h.iter().any(|name| name.eq_ignore_ascii_case("From"))
    };
    parsed.dkim_headers.retain(|field| is_sound(&field.header));
    parsed.ams_headers.retain(|field| field.header.h.len() <= SIGNED_FIELDS_MAX);
    parsed.dkim_headers.truncate(SIGNATURES_MAX);
    parsed.errors.truncate(SIGNATURES_MAX);
    // One more is enough to see that they are too many.
    parsed.from.truncate(AUTHORS_MAX.saturating_add(1));
    parsed.from.shrink_to_fit();
    Some(parsed)
}

/// The message with what is malformed of its signatures, and once more for each of the others.
fn one_by_one<'m>(message: &AuthenticatedMessage<'m>) -> Vec<AuthenticatedMessage<'m>> {
    let bare = AuthenticatedMessage {
        headers: message.headers.clone(),
        from: message.from.clone(),
        raw_message: message.raw_message,
        body_offset: message.body_offset,
        body_hashes: message.body_hashes.clone(),
        ..AuthenticatedMessage::default()
    };
    let with_errors = AuthenticatedMessage { errors: message.errors.clone(), ..bare.clone() };
    let signatures = message.dkim_headers.iter().cloned();
    let with_one = |one| AuthenticatedMessage { dkim_headers: vec![one], ..bare.clone() };
    std::iter::once(with_errors).chain(signatures.map(with_one)).collect()
}

/// Whether From has the same domains for `mail_auth`, which DMARC is judged by, and for whoever shows the message to a reader:
/// `mail_auth` takes a spaced-out name for From, and of `a@bank.example <b@evil.example>` the last domain.
fn is_author_clear(message: &Message, parsed: &AuthenticatedMessage<'_>) -> bool {
    let Ok(header) = Header::parse(message.header_section()) else { return false };
    if parsed.from.len() > AUTHORS_MAX {
        return false;
    }
    // A domain that is none to us, or none that DMARC can be asked of, is none to look up.
    let domain = |address: &String| {
        let domain = Domain::parse(address.rsplit_once('@')?.1).ok();
        Some(domain.filter(|one| !one.is_literal() && one.as_str().len() <= DMARC_BYTES_MAX))
    };
    let Some(judged) = parsed.from.iter().filter_map(domain).collect::<Option<HashSet<_>>>() else {
        return false;
    };
    let shown: HashSet<Domain> = match header.from_mailboxes() {
        Ok(from) => from.iter().map(|one| one.domain().clone()).collect(),
        // Not a list of addresses by the letter, as of `Foo, Inc. <a@foo.example>`.
        Err(_) => {
            header.all("From").flat_map(|field| domains_in(&field.value_unfolded())).collect()
        }
    };
    // Of two domains none is known to be the author's, and DMARC is asked of none (RFC 7489 §6.6.1).
    judged.len() <= 1 && judged == shown
}

/// The domains of whatever may be taken for an address in a value: in angle brackets; elsewhere those of more than one label, and
/// in quotes and comments only where nothing is in angle brackets.
fn domains_in(value: &str) -> Vec<Domain> {
    let (mut depth, mut is_quoted, mut is_escaped) = (0_usize, false, false);
    let mut domains = Vec::new();
    let (mut whole, mut bare) = (String::new(), String::new());
    for c in value.chars().chain([',']) {
        let was_escaped = std::mem::replace(&mut is_escaped, false);
        let is_hidden = is_quoted || depth > 0;
        match c {
            ',' | ';' if !is_hidden && !was_escaped => {
                domains.extend(domains_in_element(&whole, &bare));
                whole.clear();
                bare.clear();
                continue;
            }
            _ if was_escaped => {}
            '\\' => is_escaped = true,
            '"' if depth == 0 => is_quoted = !is_quoted,
            '(' if !is_quoted => depth = depth.saturating_add(1),
            ')' if !is_quoted => depth = depth.saturating_sub(1),
            _ if !is_hidden => bare.push(c),
            _ => {}
        }
        whole.push(c);
    }
    // Quotes or comments without an end hide nothing.
    domains.extend(domains_in_element(&whole, &whole));
    domains
}

fn domains_in_element(whole: &str, bare: &str) -> Vec<Domain> {
    let all = |text: &str| {
        let is_end = |c: char| c.is_whitespace() || "<>[](),;:\"@".contains(c);
        let domain = |rest: &str| Domain::parse(rest.split(is_end).next()?).ok();
        text.split('@').skip(1).filter_map(domain).collect::<Vec<_>>()
    };
    let is_long = |domain: &Domain| domain.as_str().contains('.');
    let Some((name, angle)) = bare.split_once('<') else {
        return all(whole).into_iter().filter(is_long).collect();
    };
    all(name).into_iter().filter(is_long).chain(all(angle)).collect()
}

fn domain_of(sender: Sender<'_>) -> String {
    sender.from.map_or_else(|| sender.hello.to_owned(), |from| from.domain().to_string())
}

fn spf_result(spf: &SpfOutput, is_over: bool, sender: Sender<'_>) -> AuthenticationResult {
    let result = match spf.result() {
        _ if is_over => "permerror",
        SpfResult::Fail => "fail",
        SpfResult::Neutral => "neutral",
        SpfResult::None => "none",
        SpfResult::Pass => "pass",
        SpfResult::PermError => "permerror",
        SpfResult::SoftFail => "softfail",
        SpfResult::TempError => "temperror",
    };
    let property = match sender.from {
        Some(from) => ("smtp.mailfrom", from.to_string()),
        None => ("smtp.helo", sender.hello.to_owned()),
    };
    AuthenticationResult { method: "spf", result, properties: vec![property] }
}

fn dkim_results(outputs: &[DkimOutput<'_>]) -> Vec<AuthenticationResult> {
    let result = |result, properties| AuthenticationResult { method: "dkim", result, properties };
    if outputs.is_empty() {
        return vec![result("none", Vec::new())];
    }
    let of_one = |one: &DkimOutput<'_>| {
        let word = match one.result() {
            DkimResult::Fail(_)
            | DkimResult::Neutral(Error::Dkim(DkimError::FailedBodyHashMatch)) => "fail",
            DkimResult::Neutral(_) => "neutral",
            DkimResult::None => "none",
            DkimResult::Pass => "pass",
            DkimResult::PermError(_) => "permerror",
            DkimResult::TempError(_) => "temperror",
        };
        let about = one.signature().map(|signature| {
            vec![("header.d", signature.d.clone()), ("header.s", signature.s.clone())]
        });
        result(word, about.unwrap_or_default())
    };
    outputs.iter().take(SIGNATURES_MAX).map(of_one).collect()
}

/// `None`: no answer in time.
fn dmarc_result(output: Result<Option<&DmarcOutput>, &Rejection>) -> AuthenticationResult {
    let bare = |result| AuthenticationResult { method: "dmarc", result, properties: Vec::new() };
    let output = match output {
        Ok(Some(output)) => output,
        Ok(None) => return bare("temperror"),
        Err(_) => return bare("permerror"),
    };
    let result = match output.result() {
        DmarcResult::Fail(_) => "fail",
        DmarcResult::None => "none",
        DmarcResult::Pass => "pass",
        DmarcResult::PermError(_) => "permerror",
        DmarcResult::TempError(_) => "temperror",
    };
    let mut properties = Vec::new();
    if !output.domain().is_empty() {
        properties.push(("header.from", output.domain().to_owned()));
    }
    let policy = match output.policy() {
        Policy::None => Some("none"),
        Policy::Quarantine => Some("quarantine"),
        Policy::Reject => Some("reject"),
        Policy::Unspecified => None,
    };
    if output.dmarc_record().is_some() {
        properties.extend(policy.map(|policy| ("policy.dmarc", policy.to_owned())));
    }
    AuthenticationResult { method: "dmarc", result, properties }
}

fn is_rejection(dmarc: &DmarcOutput) -> bool {
    dmarc.policy() == Policy::Reject && matches!(dmarc.result(), DmarcResult::Fail(_))
}

fn chain(output: &ArcOutput<'_>) -> Option<Chain> {
    match output.result() {
        DkimResult::None => Some(Chain::None),
        DkimResult::Pass => Some(Chain::Pass),
        DkimResult::TempError(_) => None,
        DkimResult::Fail(_) | DkimResult::Neutral(_) | DkimResult::PermError(_) => {
            Some(Chain::Fail)
        }
    }
}

/// Signatures of a message that are verified, and sets of an ARC chain.
const SIGNATURES_MAX: usize = 10;
/// Of a domain that `_dmarc.` fits before.
const DMARC_BYTES_MAX: usize = 253 - "_dmarc.".len();
/// Mailboxes in From that are looked at.
const AUTHORS_MAX: usize = 100;
/// Fields that one signature may name; usual ones name a dozen.
const SIGNED_FIELDS_MAX: usize = 100;
/// Messages up to this size are digested on the thread that received them.
const INLINE_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sealgate_core::mime::{FIELD_BYTES_MAX, FIELDS_MAX};

    use super::*;

    #[test]
    fn signatures_that_name_too_many_fields_or_are_too_many_are_left_out() {
        for (names, signatures, kept) in [
            (SIGNED_FIELDS_MAX, 1, 1),
            (SIGNED_FIELDS_MAX + 1, 1, 0),
            (1, SIGNATURES_MAX + 1, SIGNATURES_MAX),
        ] {
            let names = vec!["From"; names].join(":");
            let tags = format!("a=rsa-sha256; d=abc.example; s=s1; h={names}; bh=AAAA; b=AAAA\r\n");
            let dkim = format!("DKIM-Signature: v=1; {tags}").repeat(signatures);
            let arc = format!("ARC-Message-Signature: i=1; {tags}");
            let message = format!("{arc}{dkim}From: bob@abc.example\r\n\r\nx\r\n");
            let message = Message::new(Bytes::from(message));
            let parsed = parse(&message).unwrap();
            assert_eq!(parsed.dkim_headers.len(), kept, "{message:?}");
            assert_eq!(parsed.ams_headers.len(), kept.min(1), "{message:?}");
        }
    }

    #[test]
    fn a_signature_with_sha_1_or_without_from_is_left_out() {
        for (algorithm, names, kept) in
            [("rsa-sha256", "To:from", 1), ("rsa-sha1", "From", 0), ("rsa-sha256", "To:Subject", 0)]
        {
            let tags = format!("a={algorithm}; d=abc.example; s=s1; h={names}; bh=AAAA; b=AAAA");
            let message =
                format!("DKIM-Signature: v=1; {tags}\r\nFrom: b@abc.example\r\n\r\nx\r\n");
            let message = Message::new(Bytes::from(message));
            assert_eq!(parse(&message).unwrap().dkim_headers.len(), kept, "{message:?}");
        }
    }

    #[test]
    fn an_author_is_clear_where_all_readers_see_his_domain() {
        for (fields, is_clear) in [
            ("From: Ceo <ceo@Bank.example>", true),
            ("From: ceo@b\u{fc}cher.example", true),
            ("From: a@bank.example, b@bank.example", true),
            ("From: \"b@evil.example\" <ceo@bank.example>", true),
            ("From: Bank, Inc. <ceo@bank.example>", true),
            // What nobody takes for an address.
            ("From: Sales @ Bank <ceo@bank.example>", true),
            ("From: Bank, Inc. \"Sales@evil.example\" <ceo@bank.example>", true),
            ("From: Smith, John (js@evil.example) <ceo@bank.example>", true),
            ("From: Foo, Inc. <root@mail01>", true),
            // Here it is all that there is.
            ("From: \"ceo@bank.example\", x@evil.example", false),
            ("From: \"ceo@bank.example\"", false),
            ("From: \"x, <x@evil.example>, ceo@bank.example", false),
            // Who cannot be asked about.
            ("From: ceo@bank.example.", false),
            ("From: Ceo <ceo@[bank.example]>", false),
            ("From: ceo@bank.example, x@evil.example", false),
            ("From: Ceo <ceo@bank.example'>", false),
            ("Subject: nobody's", true),
            ("From: ceo@bank.example <x@evil.example>", false),
            ("From: x@evil.example <ceo@bank.example>", false),
            ("From: ceo@bank.example\r\nF r o m: x@evil.example", false),
            ("From: <ceo(x)@bank.example> <x@evil.example>", false),
        ] {
            let message = Message::new(Bytes::from(format!("{fields}\r\n\r\nx\r\n")));
            let parsed = parse(&message).unwrap();
            assert_eq!(is_author_clear(&message, &parsed), is_clear, "{fields}: {:?}", parsed.from);
        }
    }

    #[test]
    fn a_domain_that_dmarc_cannot_be_asked_of_is_no_clear_author() {
        for (octets, is_clear) in [(246, true), (247, false)] {
            let labels = ["x".repeat(60), "x".repeat(60), "x".repeat(60), String::new()].join(".");
            let domain = format!("{labels}{}.bank.example", "x".repeat(octets - 13 - labels.len()));
            assert_eq!(domain.len(), octets);
            let message = format!("From: Ceo <ceo@{domain}>\r\n\r\nx\r\n");
            let message = Message::new(Bytes::from(message));
            let parsed = parse(&message).unwrap();
            assert_eq!(is_author_clear(&message, &parsed), is_clear, "{octets}");
        }
    }

    #[test]
    fn many_mailboxes_are_no_clear_author() {
        for (count, is_clear) in [(AUTHORS_MAX, true), (AUTHORS_MAX + 1, false)] {
            let list = vec!["a@abc.example"; count].join(", ");
            let message = Message::new(Bytes::from(format!("From: {list}\r\n\r\nx\r\n")));
            let parsed = parse(&message).unwrap();
            assert_eq!(is_author_clear(&message, &parsed), is_clear);
        }
        let message =
            Message::new(Bytes::from("From: @,@,@,".to_owned() + &"@,".repeat(9000) + "\r\n\r\n"));
        assert!(parse(&message).unwrap().from.capacity() <= AUTHORS_MAX + 1);
    }

    /// REQUIREMENTS K1 and K10: nobody asks about what the core refuses, and nothing keeps its fields meanwhile.
    #[test]
    fn a_header_section_over_a_limit_is_not_read() {
        let message = |head: String| Message::new(Bytes::from(format!("{head}\r\nx\r\n")));
        let many = |fields| message("From: b@abc.example\r\n".repeat(fields));
        assert!(parse(&many(FIELDS_MAX)).is_some());
        assert!(parse(&many(FIELDS_MAX + 1)).is_none());
        let long = format!("From: {}\r\n", "b@abc.example,".repeat(FIELD_BYTES_MAX / 14 + 1));
        assert!(parse(&message(long)).is_none());
    }
}
