//! Finds secret keys and the certificates that belong to them.
//!
//! A certificate belongs to a key where it has the key's id or label and its public key is the key's: by the modulus, by
//! the public key object beside it, or else by a proof ([`super::proof`]). A key that belongs to none is an error: as an
//! absence it would let mail out unsigned, and in unread. So is one where the token refuses the proof.

use std::collections::HashMap;
use std::ffi::c_ulong;
use std::path::PathBuf;
use std::sync::Arc;

use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use der::asn1::{OctetStringRef, UintRef};
use der::{Decode, Sequence};
use sealgate_core::hex;
use sealgate_core::keys::{Certificate, KeyKind};

use super::connection::Here;
use super::fault::Fault;
use super::{Pkcs11Config, Pkcs11Key, proof};
use crate::error::StoreError;
use crate::import::{Material, chain_of};

/// By what an object is found again: its `CKA_LABEL` and, where it has one, its `CKA_ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyName {
    pub(super) label: Vec<u8>,
    pub(super) id: Vec<u8>,
}

impl KeyName {
    /// The label as text for messages.
    pub(super) fn label_text(&self) -> String {
        String::from_utf8_lossy(&self.label).into_owned()
    }
}

/// How keys are looked for.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    template: Vec<Attribute>,
    certificate: Option<PathBuf>,
}

impl Selector {
    /// By the label that the template makes of an owner.
    pub(super) fn of_label(label: &str) -> Self {
        Self { template: vec![Attribute::Label(label.as_bytes().to_vec())], certificate: None }
    }

    fn of_key(key: &Pkcs11Key) -> Self {
        let label = key.label.as_ref().map(|label| Attribute::Label(label.as_bytes().to_vec()));
        let id = key.id.as_ref().map(|id| Attribute::Id(id.clone()));
        let template = label.into_iter().chain(id).collect();
        Self { template, certificate: key.certificate.clone() }
    }

    /// Whether a key is what was looked for, as far as it says so.
    fn names(&self, facts: &KeyFacts) -> bool {
        self.template.iter().all(|wanted| match wanted {
            Attribute::Label(label) => is_label(&facts.label, label),
            Attribute::Id(id) => facts.id.is_empty() || facts.id == *id,
            _ => true,
        })
    }

    /// All of one owner.
    pub(super) fn of_owner(config: &Pkcs11Config, owner: &str) -> Vec<Self> {
        let named = config.keys.iter().filter(|key| key.owner == owner).map(Self::of_key);
        label_of(config, owner)
            .map(|label| Self::of_label(&label))
            .into_iter()
            .chain(named)
            .collect()
    }
}

/// A key with a certificate of it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: KeyName,
    /// The key itself, which others may share the name with.
    pub(super) object: ObjectHandle,
    /// What the object's handle is good in.
    pub(super) generation: u64,
    pub(super) certificate: Arc<Certificate>,
    pub(super) chain: Vec<Arc<Certificate>>,
}

/// Whether an object's label is this one, as addresses are compared. Modules may write nothing, or more behind it.
fn is_label(label: &[u8], wanted: &[u8]) -> bool {
    let label = std::str::from_utf8(label)
        .map_or(label, |text| text.trim_end_matches([' ', '\0']).as_bytes());
    label.is_empty() || label.eq_ignore_ascii_case(wanted)
}

/// Sees that all of these objects have this label: before something is done to them because of it.
pub(super) fn confirm_label(
    here: &Here<'_>,
    objects: &[ObjectHandle],
    wanted: &str,
) -> Result<(), Fault> {
    for object in objects {
        for attribute in here.session.get_attributes(*object, &[AttributeType::Label])? {
            if let Attribute::Label(label) = attribute
                && !is_label(&label, wanted.as_bytes())
            {
                return Err(not_it(&label, &format!("label `{wanted}`")));
            }
        }
    }
    Ok(())
}

fn not_it(label: &[u8], wanted: &str) -> Fault {
    let label = String::from_utf8_lossy(label);
    Fault::Incapable(format!("the token's module gave the object `{label}` for {wanted}"))
}

/// The label of an owner's objects, where there is a template.
pub(super) fn label_of(config: &Pkcs11Config, owner: &str) -> Option<String> {
    config.label.contains(PLACEHOLDER).then(|| config.label.replace(PLACEHOLDER, owner))
}

/// The owner in a label that the template made.
pub(super) fn owner_of(config: &Pkcs11Config, label: &str) -> Option<String> {
    let (before, after) = config.label.split_once(PLACEHOLDER)?;
    let owner = label.strip_prefix(before)?.strip_suffix(after)?;
    let owner = owner.parse::<crate::owner::Owner>().ok()?.lookup_key();
    // A label with capitals is never looked for.
    (label_of(config, &owner).as_deref() == Some(label)).then_some(owner)
}

/// All pairs of key and certificate, each once.
pub(super) fn find_keys(here: &Here<'_>, selectors: &[Selector]) -> Result<Vec<Found>, Fault> {
    here.confirm()?;
    let mut found: Vec<Found> = Vec::new();
    let mut paired = Vec::new();
    let mut alone = Vec::new();
    let mut read = ReadCertificates::new();
    for selector in selectors {
        for object in secret_keys(here, &selector.template, KEYS_OF_OWNER_MAX)? {
            let pairs = match pairs(here, object, selector, &mut read) {
                // Another selector may name a file with its certificate.
                Err(fault @ Fault::Incapable(_)) => {
                    alone.push((object, fault));
                    continue;
                }
                pairs => pairs?,
            };
            paired.push(object);
            for pair in pairs {
                if !found
                    .iter()
                    .any(|known| known.name == pair.name && known.certificate == pair.certificate)
                {
                    found.push(pair);
                }
            }
        }
    }
    match alone.into_iter().find(|(object, _)| !paired.contains(object)) {
        Some((_, fault)) => Err(fault),
        None if found.is_empty() => here.confirm_keys().map(|()| found),
        None => Ok(found),
    }
}

/// The object of a key that was found before: of those with its name the one that is the other half of its certificate.
pub(super) fn key_object(
    here: &Here<'_>,
    name: &KeyName,
    certificate: &Certificate,
) -> Result<ObjectHandle, Fault> {
    here.confirm()?;
    let label = (!name.label.is_empty()).then(|| Attribute::Label(name.label.clone()));
    let id = (!name.id.is_empty()).then(|| Attribute::Id(name.id.clone()));
    let template: Vec<_> = label.into_iter().chain(id).collect();
    let mut refused = None;
    for object in secret_keys(here, &template, KEYS_OF_OWNER_MAX)? {
        let facts = facts(here, object)?;
        if facts.label != name.label || facts.id != name.id {
            continue;
        }
        match belongs(here, object, &facts, certificate) {
            Ok(true) => return Ok(object),
            Ok(false) => {}
            Err(fault @ (Fault::Incapable(_) | Fault::Refused(_))) => refused = Some(fault),
            Err(fault) => return Err(fault),
        }
    }
    let label = name.label_text();
    Err(refused.unwrap_or_else(|| {
        Fault::Gone(format!("the key `{label}` of this certificate is no longer in the token"))
    }))
}

/// All private keys with these attributes.
pub(super) fn secret_keys(
    here: &Here<'_>,
    template: &[Attribute],
    most: usize,
) -> Result<Vec<ObjectHandle>, Fault> {
    search(here, ObjectClass::PRIVATE_KEY, template, most)
}

/// All objects of a class with these attributes. Where they are more than this it is an error: those that are left out
/// would be taken for absent.
pub(super) fn search(
    here: &Here<'_>,
    class: ObjectClass,
    template: &[Attribute],
    most: usize,
) -> Result<Vec<ObjectHandle>, Fault> {
    let objects = first(here, class, template, most.saturating_add(1))?;
    if objects.len() <= most {
        return Ok(objects);
    }
    let what = match class {
        ObjectClass::PRIVATE_KEY => "private keys",
        ObjectClass::CERTIFICATE => "certificates",
        _ => "public keys",
    };
    let named = named(template);
    let of = if named.is_empty() { "in it".to_owned() } else { format!("of {named}") };
    Err(Fault::Incapable(format!(
        "more than {most} {what} {of}: take those out that are no longer used, or give them another label"
    )))
}

/// A template in words.
fn named(template: &[Attribute]) -> String {
    let named = template.iter().filter_map(|attribute| match attribute {
        Attribute::Label(label) => Some(format!("label `{}`", String::from_utf8_lossy(label))),
        Attribute::Id(id) => {
            let mut digits = String::new();
            hex::write(&mut digits, id);
            Some(format!("id {digits}"))
        }
        _ => None,
    });
    named.collect::<Vec<_>>().join(", ")
}

/// So many of the objects of a class with these attributes.
pub(super) fn first(
    here: &Here<'_>,
    class: ObjectClass,
    template: &[Attribute],
    most: usize,
) -> Result<Vec<ObjectHandle>, Fault> {
    let mut whole = vec![Attribute::Class(class)];
    whole.extend_from_slice(template);
    let objects = here.session.iter_objects(&whole)?.take(most).collect::<Result<_, _>>()?;
    Ok(objects)
}

/// What a private key object says of itself.
#[derive(Debug, Default)]
pub(super) struct KeyFacts {
    pub(super) label: Vec<u8>,
    pub(super) id: Vec<u8>,
    kind: Option<KeyType>,
    modulus: Vec<u8>,
    asks_each_time: bool,
    pub(super) may: Uses,
}

/// What a private key object may be used for; `None` where the token does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uses {
    pub(super) sign: Option<bool>,
    pub(super) decrypt: Option<bool>,
    pub(super) derive: Option<bool>,
}

/// Reads them; what the token does not tell stays empty.
pub(super) fn facts(here: &Here<'_>, object: ObjectHandle) -> Result<KeyFacts, Fault> {
    let wanted = [
        AttributeType::Label,
        AttributeType::Id,
        AttributeType::KeyType,
        AttributeType::Modulus,
        AttributeType::AlwaysAuthenticate,
        AttributeType::Sign,
        AttributeType::Decrypt,
        AttributeType::Derive,
    ];
    let mut facts = KeyFacts::default();
    for attribute in here.session.get_attributes(object, &wanted)? {
        match attribute {
            Attribute::Label(label) => facts.label = label,
            Attribute::Id(id) => facts.id = id,
            Attribute::KeyType(kind) => facts.kind = Some(kind),
            Attribute::Modulus(modulus) => facts.modulus = modulus,
            Attribute::AlwaysAuthenticate(asks) => facts.asks_each_time = asks,
            Attribute::Sign(may) => facts.may.sign = Some(may),
            Attribute::Decrypt(may) => facts.may.decrypt = Some(may),
            Attribute::Derive(may) => facts.may.derive = Some(may),
            _ => {}
        }
    }
    Ok(facts)
}

/// Certificates that were read, by their objects: keys of one label share them. Nothing where one cannot be used.
type ReadCertificates = HashMap<c_ulong, Option<Arc<Certificate>>>;

fn pairs(
    here: &Here<'_>,
    object: ObjectHandle,
    selector: &Selector,
    read: &mut ReadCertificates,
) -> Result<Vec<Found>, Fault> {
    let facts = facts(here, object)?;
    if !selector.names(&facts) {
        // Somebody would sign with another's key.
        return Err(not_it(&facts.label, &named(&selector.template)));
    }
    let name = KeyName { label: facts.label.clone(), id: facts.id.clone() };
    let label = name.label_text();
    let token = &here.connection.config.token;
    if facts.asks_each_time {
        // Not "no key": mail would go out unsigned.
        let why =
            format!("the key `{label}` wants the PIN for each use, which a relay cannot give");
        return Err(Fault::Incapable(why));
    }
    let candidates = match &selector.certificate {
        Some(path) => certificates_of_file(path)?,
        None => certificates(here, &name, read)?,
    };
    let mut found = Vec::new();
    let mut refused = None;
    for certificate in &candidates {
        match belongs(here, object, &facts, certificate) {
            Ok(true) => found.push(Found {
                name: name.clone(),
                object,
                generation: here.generation,
                certificate: Arc::clone(certificate),
                chain: chain_of(certificate, &candidates),
            }),
            Ok(false) => {}
            Err(fault @ (Fault::Incapable(_) | Fault::Refused(_))) => refused = Some(fault),
            Err(fault) => return Err(fault),
        }
    }
    // A key with a certificate of its own has no other public key, whatever a trial with another one came to. Without one
    // nobody knows whether this key is there, and "none" would let mail go out unsigned.
    if found.is_empty()
        && let Some(fault) = refused
    {
        tracing::warn!(token, label, "the token refuses the trial that pairs key and certificate");
        return Err(fault);
    }
    if found.is_empty() {
        // Nor is this "no key".
        let why = match &selector.certificate {
            Some(path) => {
                format!("the key `{label}` has no certificate in {}; put it there", path.display())
            }
            None => format!(
                "the key `{label}` has no certificate with its id or label; put it into the token"
            ),
        };
        return Err(Fault::Incapable(why));
    }
    Ok(found)
}

/// Those with the key's id, and those with its label.
fn certificates(
    here: &Here<'_>,
    name: &KeyName,
    read: &mut ReadCertificates,
) -> Result<Vec<Arc<Certificate>>, Fault> {
    let mut templates = Vec::new();
    if !name.id.is_empty() {
        templates.push([Attribute::Id(name.id.clone())]);
    }
    if !name.label.is_empty() {
        templates.push([Attribute::Label(name.label.clone())]);
    }
    let mut certificates: Vec<Arc<Certificate>> = Vec::new();
    for template in templates {
        for object in search(here, ObjectClass::CERTIFICATE, &template, CERTIFICATES_OF_KEY_MAX)? {
            let certificate = match read.get(&object.handle()) {
                Some(certificate) => certificate.clone(),
                None => {
                    let certificate = read_certificate(here, object, name)?;
                    read.insert(object.handle(), certificate.clone());
                    certificate
                }
            };
            certificates.extend(certificate.filter(|new| !certificates.contains(new)));
        }
    }
    Ok(certificates)
}

fn read_certificate(
    here: &Here<'_>,
    object: ObjectHandle,
    name: &KeyName,
) -> Result<Option<Arc<Certificate>>, Fault> {
    let Some(der) = value(here, object)? else { return Ok(None) };
    match Certificate::from_der(&der) {
        Ok(certificate) => Ok(Some(Arc::new(certificate))),
        Err(error) => {
            let label = name.label_text();
            tracing::warn!(label, %error, "a certificate in the token is not usable");
            Ok(None)
        }
    }
}

fn value(here: &Here<'_>, object: ObjectHandle) -> Result<Option<Vec<u8>>, Fault> {
    let attributes = here.session.get_attributes(object, &[AttributeType::Value])?;
    Ok(attributes.into_iter().find_map(|attribute| match attribute {
        Attribute::Value(value) => Some(value),
        _ => None,
    }))
}

fn certificates_of_file(path: &PathBuf) -> Result<Vec<Arc<Certificate>>, Fault> {
    let fault = |why: String| {
        Fault::Store(StoreError::Input(format!("certificate file {}: {why}", path.display())))
    };
    let bytes = std::fs::read(path).map_err(|why| fault(why.to_string()))?;
    let material = Material::read(&bytes, None).map_err(|why| fault(why.to_string()))?;
    Ok(material.certificates)
}

/// Whether the certificate's public key is the other half of this key.
fn belongs(
    here: &Here<'_>,
    object: ObjectHandle,
    facts: &KeyFacts,
    certificate: &Certificate,
) -> Result<bool, Fault> {
    let wanted = match certificate.key_kind() {
        KeyKind::Rsa { .. } => KeyType::RSA,
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => KeyType::EC,
        KeyKind::Ed25519 => KeyType::EC_EDWARDS,
        KeyKind::X25519 => KeyType::EC_MONTGOMERY,
        _ => return Ok(false),
    };
    if facts.kind != Some(wanted) {
        return Ok(false);
    }
    if !facts.modulus.is_empty() {
        let public = RsaPublicKey::from_der(certificate.public_key_bytes()).ok();
        let modulus = UintRef::new(&facts.modulus).ok();
        return Ok(public.is_some_and(|public| Some(public.n) == modulus));
    }
    match public_point(here, facts)? {
        Some(point) => Ok(is_point(&point, certificate.public_key_bytes())),
        None => proof::is_proven(here, object, facts.may, certificate),
    }
}

/// The point of the public key object with the key's id, which few tokens need and many have. `None` also where several
/// keys share that id: then it tells nothing.
fn public_point(here: &Here<'_>, facts: &KeyFacts) -> Result<Option<Vec<u8>>, Fault> {
    if facts.id.is_empty() {
        return Ok(None);
    }
    let template = [Attribute::Id(facts.id.clone())];
    let objects = first(here, ObjectClass::PUBLIC_KEY, &template, 2)?;
    let [object] = *objects.as_slice() else { return Ok(None) };
    if first(here, ObjectClass::PRIVATE_KEY, &template, 2)?.len() != 1 {
        return Ok(None);
    }
    let attributes = here.session.get_attributes(object, &[AttributeType::EcPoint])?;
    Ok(attributes.into_iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(point) => Some(point),
        _ => None,
    }))
}

/// Whether `CKA_EC_POINT` is this point. Tokens write it in DER, as the standard has it, or bare; a bare one begins as DER
/// would, and one of 256 reads as such.
fn is_point(value: &[u8], point: &[u8]) -> bool {
    value == point
        || <&OctetStringRef>::from_der(value).is_ok_and(|inner| inner.as_bytes() == point)
}

/// RSAPublicKey (RFC 8017 §A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    n: UintRef<'a>,
    e: UintRef<'a>,
}

/// What stands for the owner in the label's template.
pub(super) const PLACEHOLDER: &str = "{address}";

/// Keys of one owner, and of one entry in the configuration: of those that are renewed every month, as many as in
/// 85 years.
const KEYS_OF_OWNER_MAX: usize = 1024;

/// Certificates under one id or label.
const CERTIFICATES_OF_KEY_MAX: usize = 1024;

/// Objects of one kind that are listed, counted or destroyed.
pub(super) const OBJECTS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_source::SecretSource;

    #[test]
    fn an_owner_is_read_from_the_label_that_the_template_made() {
        let mut config = Pkcs11Config {
            module: PathBuf::new(),
            token: "t".to_owned(),
            pin: SecretSource::File(PathBuf::new()),
            label: "mail {address} key".to_owned(),
            keys: Vec::new(),
        };
        for (label, owner) in [
            ("mail a@nec.example key", Some("a@nec.example")),
            ("mail @nec.example key", Some("@nec.example")),
            ("mail A@nec.example key", None),
            ("mail a@nec.example", None),
            ("mail key", None),
            ("other", None),
        ] {
            assert_eq!(owner_of(&config, label).as_deref(), owner, "{label}");
        }
        assert_eq!(label_of(&config, "@b.example").unwrap(), "mail @b.example key");
        config.label = String::new();
        assert_eq!(label_of(&config, "@b.example"), None);
        assert_eq!(owner_of(&config, "@b.example"), None);
    }

    #[test]
    fn a_point_is_known_in_der_and_bare_whatever_it_begins_with() {
        // The second reads as an OCTET STRING of 63 octets.
        for first in [0x11, 0x3f] {
            let mut point = vec![0x22; 65];
            point[..2].copy_from_slice(&[4, first]);
            let in_der = [&[4, 65], &point[..]].concat();
            assert!(is_point(&point, &point) && is_point(&in_der, &point), "{first:#x}");
            assert!(!is_point(&point[2..], &point) && !is_point(&in_der[1..], &point));
        }
    }
}
