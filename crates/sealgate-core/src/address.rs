//! Mail addresses: RFC 5321 §4.1.2 Mailbox, with RFC 6531 UTF-8, parsed once and never re-checked.

use std::fmt;
use std::hash::{Hash, Hasher};

/// A domain name in lower-case A-label form, or an address literal as `[...]` (RFC 5321 §4.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// Parses a domain name or address literal.
    ///
    /// # Errors
    /// [`AddressError`] when the text is neither.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let literal = !inner.is_empty()
                && inner.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'[' | b']' | b'\\'));
            return if literal { Ok(Self(text.to_ascii_lowercase())) } else { Err(AddressError) };
        }
        if text.len() > DOMAIN_BYTES_MAX {
            return Err(AddressError);
        }
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii_strict(text).map_err(|_| AddressError)?
        };
        let label_ok = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if ascii.split('.').all(label_ok) { Ok(Self(ascii)) } else { Err(AddressError) }
    }

    /// The domain as text: lower case, A-labels, or `[literal]`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is an address literal.
    pub fn is_literal(&self) -> bool {
        self.0.starts_with('[')
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A mailbox, `local-part@domain`. Compared as REQUIREMENTS G2 asks: both sides without regard to ASCII case.
#[derive(Clone, Debug)]
pub struct Address {
    local_part: String,
    domain: Domain,
}

impl Address {
    /// Parses an addr-spec without angle brackets: dot-atom or quoted-string local part (RFC 5321 §4.1.2),
    /// UTF-8 allowed (RFC 6531 §3.3).
    ///
    /// # Errors
    /// [`AddressError`] for anything else, among them white space, NUL, comments and two `@`.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let strict = |local: &str| local.len() <= LOCAL_PART_BYTES_MAX && is_local_part(local);
        Self::parse_with(text, strict)
    }

    /// Parses what others use as an address: also a longer local part, as rewriting for bounces makes it (RFC 5321 §4.5.3.1
    /// asks for no limit where that is possible), and dots anywhere in it, as some providers gave them out. Good for
    /// envelopes and for who wrote a message; certificates are matched by [`Address::parse`]'s alone. Quotes that are not needed
    /// mean nothing (RFC 5321 §4.1.2), so they go: `"alice"@nec.example` has Alice's rules and keys.
    ///
    /// # Errors
    /// [`AddressError`] for anything else.
    pub fn parse_foreign(text: &str) -> Result<Self, AddressError> {
        let lax = |local: &str| {
            local.len() <= FOREIGN_LOCAL_PART_BYTES_MAX
                && (is_local_part(local) || is_lax_dot_atom(local))
        };
        let mut parsed = Self::parse_with(text, lax)?;
        if let Some(content) = quoted_content(&parsed.local_part) {
            parsed.local_part = if is_dot_atom(&content) { content } else { quoted(&content) };
        }
        Ok(parsed)
    }

    fn parse_with(text: &str, is_valid: impl Fn(&str) -> bool) -> Result<Self, AddressError> {
        let at = text.rfind('@').ok_or(AddressError)?;
        let (local, rest) = text.split_at(at);
        let domain = Domain::parse(rest.get(1..).unwrap_or_default())?;
        if local.is_empty() || !is_valid(local) {
            return Err(AddressError);
        }
        Ok(Self { local_part: local.to_owned(), domain })
    }

    /// The postmaster of a domain (RFC 5321 §4.5.1).
    pub fn postmaster(domain: &Domain) -> Self {
        Self { local_part: "postmaster".to_owned(), domain: domain.clone() }
    }

    /// The part before the `@`, as received.
    pub fn local_part(&self) -> &str {
        &self.local_part
    }

    /// The part after the `@`.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The form that look-ups and comparisons use: ASCII lower case, without quotes where nothing but dots needs them, because not
    /// everybody writes them there.
    pub fn lookup_key(&self) -> String {
        let content = quoted_content(&self.local_part);
        let bare = content.filter(|text| !text.is_empty() && is_lax_dot_atom(text));
        let local_part = bare.as_deref().unwrap_or(&self.local_part);
        format!("{}@{}", local_part.to_ascii_lowercase(), self.domain)
    }

    /// Whether the local part names a mailbox somewhere else, by which a host can be made to send mail on: `user%host`, `host!user`
    /// or `"user@host"` (RFC 5321 §F.4 and appendix C).
    pub fn is_routed(&self) -> bool {
        let content = quoted_content(&self.local_part);
        content.as_deref().unwrap_or(&self.local_part).contains(['@', '%', '!'])
    }

    /// Whether the local part needs SMTPUTF8 (the domain is always in A-labels).
    pub fn needs_smtputf8(&self) -> bool {
        !self.local_part.is_ascii()
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        let is_quoted = |one: &Self| one.local_part.starts_with('"');
        self.domain == other.domain
            && (self.local_part.eq_ignore_ascii_case(&other.local_part)
                || is_quoted(self) != is_quoted(other) && self.lookup_key() == other.lookup_key())
    }
}

impl Eq for Address {}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.lookup_key().hash(state);
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local_part, self.domain)
    }
}

impl std::str::FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is no mail address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressError;

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a mail address of the form local-part@domain")
    }
}

impl std::error::Error for AddressError {}

fn is_local_part(local: &str) -> bool {
    if let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return quoted_content_is_valid(inner);
    }
    is_dot_atom(local)
}

fn is_dot_atom(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// Dots anywhere.
fn is_lax_dot_atom(text: &str) -> bool {
    text.split('.').all(|atom| atom.chars().all(is_atext))
}

/// What a quoted local part says: without the quotes, each quoted pair as the character that it is.
fn quoted_content(local: &str) -> Option<String> {
    let inner = local.strip_prefix('"')?.strip_suffix('"')?;
    let mut content = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        content.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    Some(content)
}

/// In quotes, with quoted pairs where they are needed.
fn quoted(content: &str) -> String {
    let mut text = String::with_capacity(content.len().saturating_add(2));
    text.push('"');
    for c in content.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

/// qcontentSMTP of RFC 5321 §4.1.2: printable, quotes and backslashes only as quoted pairs.
fn quoted_content_is_valid(inner: &str) -> bool {
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(' '..='~') => {}
                _ => return false,
            },
            '"' => return false,
            ' '..='~' => {}
            c if !c.is_ascii() && !c.is_control() => {}
            _ => return false,
        }
    }
    true
}

fn is_atext(c: char) -> bool {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' => true,
        '!' | '#' | '$' | '%' | '&' | '\'' | '*' | '+' | '-' | '/' | '=' | '?' | '^' | '_'
        | '`' | '{' | '|' | '}' | '~' => true,
        c => !c.is_ascii() && !c.is_control() && !c.is_whitespace(),
    }
}

/// RFC 5321 §4.5.3.1.1.
const LOCAL_PART_BYTES_MAX: usize = 64;
/// A command line holds less; a header field may hold more.
const FOREIGN_LOCAL_PART_BYTES_MAX: usize = 1024;
/// RFC 5321 §4.5.3.1.2.
const DOMAIN_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_compare_without_regard_to_ascii_case() {
        let lower = Address::parse("alice@nec.example").unwrap();
        assert_eq!(lower, Address::parse("Alice@NEC.example").unwrap());
        assert_ne!(lower, Address::parse("alice@abc.example").unwrap());
    }

    #[test]
    fn forms_of_rfc_5321_are_taken() {
        for text in
            ["a@b", "a.b+c@[127.0.0.1]", "\"a b\"@c.example", "\"a\\\"b\"@c", "jörg@bücher.example"]
        {
            assert!(Address::parse(text).is_ok(), "{text}");
        }
        assert_eq!(
            Address::parse("x@bücher.example").unwrap().domain().as_str(),
            "xn--bcher-kva.example"
        );
    }

    #[test]
    fn what_others_use_is_taken_where_it_is_theirs() {
        let long = format!("bounces+{}=some.example@em.example", "x".repeat(100));
        for text in [&long, "foo..bar@c.example", "foo.@c.example", ".foo@c.example"] {
            assert!(Address::parse(text).is_err(), "{text}");
            assert_eq!(Address::parse_foreign(text).unwrap().to_string(), text);
        }
        let too_long = format!("{}@c.example", "x".repeat(FOREIGN_LOCAL_PART_BYTES_MAX + 1));
        for text in [&too_long, "", "@b", "a b@c", "a@@b", "a\0@b", "(x)a@b", "a\"b@c", "a@b..c"] {
            assert!(Address::parse_foreign(text).is_err(), "{text:?}");
        }
        assert!(Address::parse_foreign(&too_long[1..]).is_ok());
    }

    #[test]
    fn quotes_that_are_not_needed_mean_nothing() {
        for (text, same) in [
            ("\"alice\"@c.example", "alice@c.example"),
            ("\"al\\ice\"@c.example", "alice@c.example"),
            ("\"a.b+c\"@c.example", "a.b+c@c.example"),
            ("\"a b\"@c.example", "\"a b\"@c.example"),
            ("\"a\\ \\b\"@c.example", "\"a b\"@c.example"),
            ("\"a\\\"b\\\\\"@c.example", "\"a\\\"b\\\\\"@c.example"),
            ("\"a..b\"@c.example", "\"a..b\"@c.example"),
            ("\"\"@c.example", "\"\"@c.example"),
            ("\"\\\"a\\\"\"@c.example", "\"\\\"a\\\"\"@c.example"),
        ] {
            let parsed = Address::parse_foreign(text).unwrap();
            assert_eq!(parsed.to_string(), same);
            assert_eq!(Address::parse_foreign(same).unwrap().to_string(), same);
        }
    }

    /// Postfix quotes such a local part, and others do not.
    #[test]
    fn quotes_for_the_sake_of_dots_are_no_other_mailbox() {
        for (bare, quoted) in [("abc.@c.example", "\"abc.\"@c.example"), ("A..b@c", "\"a..B\"@c")] {
            let [bare, quoted] = [bare, quoted].map(|text| Address::parse_foreign(text).unwrap());
            assert_eq!(bare, quoted);
            assert_eq!(bare.lookup_key(), quoted.lookup_key());
            assert_ne!(bare.to_string(), quoted.to_string(), "as its mail server writes it");
        }
        let [one, other] = ["\"a b\"@c", "ab@c"].map(|text| Address::parse_foreign(text).unwrap());
        assert_ne!(one, other);
    }

    #[test]
    fn an_address_that_leads_on_is_told() {
        for text in ["a%b.example@c.example", "b!a@c.example", "\"a@b.example\"@c.example"] {
            assert!(Address::parse_foreign(text).unwrap().is_routed(), "{text}");
        }
        for text in ["a=b.example@c.example", "SRS0=x=y=z=a@c.example", "\"a b\"@c.example"] {
            assert!(!Address::parse_foreign(text).unwrap().is_routed(), "{text}");
        }
    }

    #[test]
    fn look_alikes_are_refused() {
        for text in [
            "", "a", "@b", "a@", "a b@c", "a@b c", "a@@b", "a@b@c", "a\0@b", ".a@b", "a..b@c",
            "a@b..c", "(x)a@b", "a@[", "a\n@b",
        ] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
    }
}
