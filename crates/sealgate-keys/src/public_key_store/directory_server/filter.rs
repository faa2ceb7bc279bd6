//! The search filter of an address: a template (RFC 4515) with the address put in so that it can only be a value.

use ldap3::{ldap_escape, parse_filter};
use sealgate_core::address::Address;

/// A filter with places for the address.
#[derive(Clone, Debug)]
pub(super) struct FilterTemplate(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Address,
    Domain,
    Local,
    Text(String),
}

impl FilterTemplate {
    /// Reads a template.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let template = Self(parts(text));
        if !template.0.iter().any(|part| matches!(part, Part::Address | Part::Local)) {
            return Err(format!("`{text}` has no place for the address: {EXAMPLE}"));
        }
        parse_filter(template.fill_with("postmaster", "example.org"))
            .map_err(|()| format!("`{text}` is no LDAP filter (RFC 4515): {EXAMPLE}"))?;
        Ok(template)
    }

    /// The filter that finds an address.
    pub(super) fn fill(&self, address: &Address) -> String {
        self.fill_with(address.local_part(), address.domain().as_str())
    }

    fn fill_with(&self, local_part: &str, domain: &str) -> String {
        let fill = |part: &Part| match part {
            Part::Address => ldap_escape(format!("{local_part}@{domain}")).into_owned(),
            Part::Domain => ldap_escape(domain).into_owned(),
            Part::Local => ldap_escape(local_part).into_owned(),
            Part::Text(text) => text.clone(),
        };
        self.0.iter().map(fill).collect()
    }
}

/// Cuts the template at its places, once, so that braces of an address are never taken for one.
fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let place = PLACES.iter().find_map(|(name, part)| Some((rest.strip_prefix(name)?, part)));
        if let Some((after, part)) = place {
            parts.push(Part::Text(std::mem::take(&mut literal)));
            parts.push(part.clone());
            rest = after;
        } else {
            literal.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    parts.push(Part::Text(literal));
    parts
}

const PLACES: [(&str, Part); 3] =
    [("{address}", Part::Address), ("{domain}", Part::Domain), ("{local}", Part::Local)];

/// What a right one looks like.
const EXAMPLE: &str = "write it like `(mail={address})`";

#[cfg(test)]
mod tests {
    use ldap3::asn1::{Tag, write};
    use proptest::prelude::*;

    use super::*;

    fn fill(template: &str, address: &str) -> String {
        FilterTemplate::new(template).unwrap().fill(&Address::parse(address).unwrap())
    }

    #[test]
    fn the_address_takes_its_places_escaped() {
        for (template, address, filter) in [
            ("(mail={address})", "a@b.example", "(mail=a@b.example)"),
            (
                "(|(mail={address})(&(uid={local})(o={domain})))",
                "a@b.example",
                "(|(mail=a@b.example)(&(uid=a)(o=b.example)))",
            ),
            ("(mail={address})", "*@b.example", r"(mail=\2a@b.example)"),
            (
                "(mail={address})",
                r#""*)(mail=*"@b.example"#,
                r#"(mail="\2a\29\28mail=\2a"@b.example)"#,
            ),
            ("(mail={address})", "{local}@b.example", "(mail={local}@b.example)"),
            ("(cn=\u{fc} {local})", "\u{fc}@b.example", "(cn=\u{fc} \u{fc})"),
        ] {
            assert_eq!(fill(template, address), filter);
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in
            ["", "(mail=*)", "(mail={domain})", "(mail={address}", "mail={address})", "{address}"]
        {
            assert!(FilterTemplate::new(text).is_err(), "{text}");
        }
    }

    proptest! {
        /// Whatever an address holds, the filter keeps its form: one equality whose value is that address.
        #[test]
        fn an_address_is_never_more_than_a_value(
            local in r#"([*()\\!#$%&'+/=?^_`{|}~a-z0-9-]{1,20}|"[*()a-z=|&! \u{80}-\u{ff}]{0,20}")"#
        ) {
            let Ok(address) = Address::parse(&format!("{local}@b.example")) else { return Ok(()) };
            let filter = FilterTemplate::new("(mail={address})").unwrap().fill(&address);
            let value = filter.strip_prefix("(mail=").and_then(|rest| rest.strip_suffix(')')).unwrap();
            prop_assert!(!value.contains(['*', '(', ')', '\0']), "{}", filter);
            let escapes_only = value.split('\\').skip(1).all(|after| {
                after.get(..2).is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            });
            prop_assert!(escapes_only, "{}", filter);
            // On the wire: [3] { "mail", the address as it is } (RFC 4511 §4.5.1).
            let tag: Tag = parse_filter(&filter).unwrap();
            let mut wire = bytes::BytesMut::new();
            write::encode_into(&mut wire, ldap3::asn1::ASNTag::into_structure(tag)).unwrap();
            prop_assert_eq!(wire[0], 0xa3);
            prop_assert!(wire.ends_with(address.to_string().as_bytes()), "{:?}", wire);
        }
    }
}
