//! What the program's own readers are fuzzed with: one function a target, called by the fuzz targets and by the test
//! command. Compiled as a part of `relay`, in the program and in the fuzz targets' crate.
#![allow(dead_code, unreachable_pub, reason = "the fuzz targets call these from another crate")]

use std::path::Path;

use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::op::{Message, Query};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use crate::config::{Config, ConfigError};
use crate::relay::authentication;
use crate::relay::dane::Tlsa;
use crate::relay::mta_sts::policy::{self, Policy};
use crate::relay::names::bailiwick::narrow;
use crate::relay::names::wildcard::is_proven;
use crate::relay::names::{self, read};

/// A target's name and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// The targets by name, each with what it runs.
pub const TARGETS: &[Target] = &[
    ("configuration", configuration),
    ("dns_answer", dns_answer),
    ("mail_authentication", mail_authentication),
    ("mta_sts_policy", mta_sts_policy),
];

/// A configuration is read or refused with a line of the file, in one line.
pub fn configuration(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Config::read(text, Path::new("sealgate.toml")) {
        Ok(config) => {
            assert!(!config.domains.is_empty() && !config.hostname.is_empty());
            assert!(config.stores.crls.iter().all(|path| path.is_absolute()));
            assert!(!format!("{config:?}").is_empty());
        }
        Err(ConfigError::Invalid { line, message, .. }) => {
            let lines = text.matches('\n').count() + 1;
            assert!((1..=lines).contains(&line), "line {line} of {lines}: {message}");
            assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
        }
        Err(other) => panic!("{other}"),
    }
}

/// An answer from DNS, with two octets before it that say what was found out about its signatures: nothing is taken for
/// secure that is not, and data is of the type and the name that was asked for.
pub fn dns_answer(data: &[u8]) {
    let [choice, proofs, octets @ ..] = data else { return };
    let Ok(mut message) = Message::from_vec(octets) else { return };
    for (index, record) in message.answers.iter_mut().chain(&mut message.authorities).enumerate() {
        record.proof = PROOFS[usize::from(proofs >> (index % 4 * 2) & 3)];
    }
    let Message { queries, answers, authorities, .. } = &message;
    let (name, kind) = match (queries.first(), answers.first()) {
        (Some(query), _) => (&query.name, query.query_type),
        (None, Some(record)) => (&record.name, record.record_type()),
        (None, None) => return,
    };
    check_answer(answers, name, kind, choice & 1 == 1);
    if is_proven(answers, authorities) {
        let mut bare = answers.iter().filter(|record| !record.record_type().is_rrsig());
        assert!(bare.all(|record| record.proof == Proof::Secure));
        assert!(answers.iter().any(|record| record.record_type().is_rrsig()));
    }
    for record in answers {
        let _ = names::text(&record.name);
    }
    check_narrowed(&message, Query::query(name.clone(), kind));
}

/// Nothing is added but a cut that was asked for, or the zone of one; the answer is of the type asked for or an alias, and in the authority section stands only what may belong
/// to a denial.
fn check_narrowed(message: &Message, question: Query) {
    let mut narrowed = message.clone();
    let _ = narrow(&mut narrowed, &question);
    let kinds = [question.query_type(), RecordType::CNAME, RecordType::RRSIG];
    let is_cut = question.query_type() == RecordType::NS;
    assert!(narrowed.answers.iter().all(|record| kinds.contains(&record.record_type())));
    assert!(narrowed.answers.iter().all(|record| is_cut || message.answers.contains(record)));
    assert!(narrowed.additionals.is_empty());
    assert!(narrowed.authorities.iter().all(|record| KEPT.contains(&record.record_type())));
}

const KEPT: [RecordType; 5] =
    [RecordType::NS, RecordType::NSEC, RecordType::NSEC3, RecordType::RRSIG, RecordType::SOA];

fn check_answer(answers: &[Record], name: &Name, kind: RecordType, validated: bool) {
    let Ok(found) = read(answers, name, kind, validated) else { return };
    assert!(!found.data.is_empty());
    assert!(found.data.iter().all(|data| data.record_type() == kind));
    assert!(validated || !found.secure && !found.alias_secure);
    let of_name = |record: &&Record| record.name == *name && record.record_type() == kind;
    if found.secure && found.alias.is_none() {
        assert!(answers.iter().filter(of_name).all(|record| record.proof == Proof::Secure));
    }
    let tlsa = found.data.iter().filter_map(|data| match data {
        RData::TLSA(tlsa) => Some(tlsa),
        _ => None,
    });
    assert_eq!(Tlsa::new(tlsa) == Tlsa::Absent, kind != RecordType::TLSA);
    for data in &found.data {
        let RData::TXT(txt) = data else { continue };
        let text = String::from_utf8_lossy(&txt.txt_data.concat()).into_owned();
        if policy::is_record(&text) {
            assert!(policy::id_of(&text).is_none_or(|id| (1..=32).contains(&id.len())));
        }
    }
}

/// SPF, DKIM, DMARC and ARC begin with this reading of the whole mail; no mail makes us look at more than a few signatures.
pub fn mail_authentication(data: &[u8]) {
    let message = sealgate_core::message::Message::new(bytes::Bytes::copy_from_slice(data));
    let Some(parsed) = authentication::parse(&message) else { return };
    assert!(parsed.dkim_headers.len() <= 10);
    assert!(parsed.dkim_headers.iter().all(|field| field.header.h.len() <= 100));
}

/// A policy is the same whatever ends its lines, and lists a host however it is written.
pub fn mta_sts_policy(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let policy = Policy::parse(text);
    assert_eq!(Policy::parse(&text.replace('\n', "\r\n")), policy);
    let Some(policy) = policy else { return };
    for value in text.lines().filter_map(|line| line.trim().strip_prefix("mx:")) {
        let host = value.trim().replacen('*', "host", 1);
        assert_eq!(policy.lists(&host), policy.lists(&format!("{}.", host.to_ascii_uppercase())));
    }
    let named = text.to_ascii_lowercase().contains("names.this.host.example");
    assert!(named || !policy.lists("nobody.names.this.host.example"));
}

const PROOFS: [Proof; 4] = [Proof::Secure, Proof::Insecure, Proof::Bogus, Proof::Indeterminate];
