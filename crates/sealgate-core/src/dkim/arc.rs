//! ARC sets (RFC 8617): what was found out about a message before it was changed, sealed together with what it is now.

use bytes::Bytes;

use crate::dkim::canonical::{self, Content};
use crate::dkim::{SIGNED, Signer, with_signature};
use crate::keys::{KeyError, Timestamp};
use crate::mime::{Field, Header};

/// What a message's ARC chain was found to be when it came (§5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// It did not hold.
    Fail,
    /// There was none.
    None,
    /// It held.
    Pass,
}

impl Signer {
    /// The ARC set for a message, three fields each with its CRLF; `results` is what follows the authserv-id in
    /// Authentication-Results, of the message as it came. `None` where its chain cannot be continued: it had failed before or is
    /// malformed or too long.
    ///
    /// # Errors
    /// Those of the key.
    pub fn seal(
        &self,
        message: &[Bytes],
        chain: Chain,
        authserv_id: &str,
        results: &str,
        now: Timestamp,
    ) -> Result<Option<Bytes>, KeyError> {
        let content = Content::of(message);
        let Some(header) = &content.header else { return Ok(None) };
        let (Some(sets), Some(domain)) = (sets(header), self.domains.first()) else {
            return Ok(None);
        };
        if sets.is_empty() != (chain == Chain::None) {
            return Ok(None);
        }
        let instance = sets.len().saturating_add(1);
        let aar =
            format!("ARC-Authentication-Results: i={instance}; {authserv_id};\r\n\t{results}\r\n");
        let start = format!("ARC-Message-Signature: i={instance}");
        // §4.1.2: neither ARC fields nor Authentication-Results.
        let names: Vec<&str> = SIGNED.into_iter().chain([canonical::ADDED_BY_OTHERS]).collect();
        let ams = self.signed_field(&start, domain, &names, &content, now)?;
        let seal = format!(
            "ARC-Seal: i={instance}; a={}; t={}; cv={};\r\n\td={}; s={};\r\n\tb=",
            self.algorithm.name(),
            now.0,
            match chain {
                Chain::Fail => "fail",
                Chain::None => "none",
                Chain::Pass => "pass",
            },
            super::ascii(domain),
            self.selector
        );
        let mut data = Vec::new();
        // §5.1.2: a chain that failed is sealed by its own end alone.
        for field in sets.iter().flatten().filter(|_| chain != Chain::Fail) {
            canonical::relaxed(field.name().as_bytes(), field.value(), &mut data);
        }
        for field in [&aar, &ams] {
            canonical::relaxed_unended(field, &mut data);
            data.extend_from_slice(b"\r\n");
        }
        canonical::relaxed_unended(&seal, &mut data);
        let seal = with_signature(seal, &self.signature(&data)?);
        Ok(Some(Bytes::from([seal, ams, aar].concat())))
    }
}

/// The sets of a message in order, each as results, signature, seal; `None` where they are no chain to continue (§5.1.1).
fn sets(header: &Header) -> Option<Vec<[Field<'_>; 3]>> {
    let count = header.count("ARC-Seal");
    if count >= SETS_MAX || MEMBERS.iter().any(|name| header.count(name) != count) {
        return None;
    }
    let member = |name: &'static str, instance: usize| {
        header
            .all(name)
            .find(|field| tag(field, "i=").and_then(|i| i.parse().ok()) == Some(instance))
    };
    let [results, signature, seal] = MEMBERS;
    (1..=count)
        .map(|i| {
            let seal = member(seal, i)?;
            let held = tag(&seal, "cv=")? != "fail";
            held.then_some([member(results, i)?, member(signature, i)?, seal])
        })
        .collect()
}

fn tag(field: &Field<'_>, name: &str) -> Option<String> {
    let value = field.value_unfolded();
    value.split(';').find_map(|tag| tag.trim().strip_prefix(name).map(|v| v.trim().to_owned()))
}

/// In the order in which they are sealed.
const MEMBERS: [&str; 3] = ["ARC-Authentication-Results", "ARC-Message-Signature", "ARC-Seal"];
/// §4.2.1.
const SETS_MAX: usize = 50;
