//! S/MIME decryption (RFC 8551 §3.3, §3.4; RFC 5652 §6, RFC 5083).

use bytes::Bytes;

use crate::cms::{Access, EnvelopedData, OpenFault};
use crate::decrypt::{Opened, Opening};
use crate::envelope::Envelope;
use crate::keys::OwnKey;
use crate::policy::RsaPkcs1;
use crate::report::{Format, Layer};
use crate::step::{KeyQuery, Keys};

/// Opens a layer with the key of the first recipient of the envelope who is entitled to one that it is encrypted to.
/// One key is tried, the one that its RecipientInfo names (REQUIREMENTS F8). Whoever else is named is entitled to what it
/// holds where his own key opens it too: anybody can add a name to somebody else's ciphertext. `reached`: who was entitled to the layers
/// outside this one, `None` for everyone; nobody else's key is used. `may_open`: `false` where an answer is missing
/// without which a plaintext cannot be judged; then what is for us stays closed.
pub fn open(
    enveloped: &EnvelopedData,
    envelope: &Envelope,
    keys: &Keys,
    reached: Option<&[usize]>,
    rsa_pkcs1: RsaPkcs1,
    may_open: bool,
) -> Opening {
    let named = match named(enveloped, envelope, keys, reached, rsa_pkcs1) {
        Ok(named) => named,
        Err(Closed::StoreAway) => return Opening::Unavailable,
        // No key was tried, so none is named.
        Err(Closed::ToUs) => return Opening::Unsupported(layer(enveloped, "", "")),
    };
    let Some(&(index, first)) = named.first() else {
        return Opening::NotForUs(layer(enveloped, "", ""));
    };
    if !may_open {
        return Opening::Unavailable;
    }
    let address =
        envelope.recipients.get(index).map(|one| one.address.to_string()).unwrap_or_default();
    let layer = layer(enveloped, enveloped.key_name(first.recipient), &address);
    // Many may share a domain's key; each is asked once.
    let mut others: Vec<Access<'_>> = Vec::new();
    for (_, access) in &named {
        if !is_same(access, &first) && others.iter().all(|other| !is_same(access, other)) {
            others.push(*access);
        }
    }
    let all = named.iter().map(|(index, _)| *index).collect();
    match enveloped.open_together(&first, &others) {
        Ok((content, have_it)) => Opening::Opened(Opened {
            content: Bytes::from_owner(content),
            entitled: named
                .iter()
                .filter(|(_, access)| {
                    let mut others = others.iter().zip(&have_it);
                    is_same(access, &first)
                        || others.any(|(other, has_it)| *has_it && is_same(access, other))
                })
                .map(|(index, _)| *index)
                .collect(),
            named: all,
            named_in_vain: have_it.iter().any(|has_it| !has_it),
            is_authenticated: enveloped.is_authenticated(),
            layer,
        }),
        Err(OpenFault::Failed) => Opening::Failed { named: all, layer },
        Err(OpenFault::Unavailable(_)) => Opening::Unavailable,
        Err(OpenFault::Unsupported) => Opening::Unsupported(layer),
    }
}

/// Why no key is used.
enum Closed {
    StoreAway,
    /// By policy, or because nothing that is for us came in a way that is supported: everybody can see which.
    ToUs,
}

/// Who of the envelope's recipients is named as one of the ciphertext's, by index, each with his key.
///
/// # Errors
/// What comes of it where a store is away, or where there would be somebody but for the policy or the way.
fn named<'a>(
    enveloped: &EnvelopedData,
    envelope: &Envelope,
    keys: &'a Keys,
    reached: Option<&[usize]>,
    rsa_pkcs1: RsaPkcs1,
) -> Result<Vec<(usize, Access<'a>)>, Closed> {
    let is_refused = |info: usize| {
        enveloped.is_unsupported(info) || rsa_pkcs1 == RsaPkcs1::Refuse && enveloped.is_pkcs1(info)
    };
    let mut refused = false;
    let mut named = Vec::new();
    for (index, recipient) in envelope.recipients.iter().enumerate() {
        if reached.is_some_and(|some| !some.contains(&index)) {
            continue;
        }
        let own = match keys.own.get(&KeyQuery::Decryption(recipient.address.clone())) {
            Some(Ok(own)) => own,
            Some(Err(_)) => return Err(Closed::StoreAway),
            None => continue,
        };
        let usable = own
            .iter()
            .filter(|key| key.address.as_ref().is_none_or(|address| *address == recipient.address))
            .filter_map(|key| enveloped.recipient_for(&key.certificate).map(|info| (key, info)))
            .find(|(_, info)| {
                refused |= is_refused(*info);
                !is_refused(*info)
            });
        named.extend(usable.map(|(key, info)| (index, access(key, info))));
    }
    if refused && named.is_empty() {
        return Err(Closed::ToUs);
    }
    Ok(named)
}

fn access(key: &OwnKey, recipient: usize) -> Access<'_> {
    Access { recipient, certificate: &key.certificate, key: key.secret.as_ref() }
}

/// Whether it is one key, named by one RecipientInfo.
fn is_same(one: &Access<'_>, other: &Access<'_>) -> bool {
    one.recipient == other.recipient
        && one.certificate.fingerprint() == other.certificate.fingerprint()
}

fn layer(enveloped: &EnvelopedData, key: &str, recipient: &str) -> Layer {
    Layer::Encrypted {
        format: Format::Smime,
        content: enveloped.cipher().map_or("unknown", |cipher| cipher.name()).to_owned(),
        key: key.to_owned(),
        recipient: recipient.to_owned(),
    }
}
