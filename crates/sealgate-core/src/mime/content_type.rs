//! Content-Type (RFC 2045 §5.1) with the parameter forms of RFC 2231.
//!
//! In: a field value as received. Out: type, subtype and parameters, or an error. A parameter that is given twice, in
//! two forms or with doubtful syntax has no value here, so that nobody acts on one of several readings.

use std::borrow::Cow;

use super::structured::{Cursor, is_wsp, unfold};
use super::{BOUNDARY_BYTES_MAX, MimeError, PARAMETERS_MAX};

/// A media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentType {
    /// The type, in lower case.
    pub kind: String,
    /// The subtype, in lower case.
    pub subtype: String,
    parameters: Vec<Parameter>,
    regular: bool,
}

impl ContentType {
    /// Reads a field value, folds included.
    ///
    /// # Errors
    /// [`MimeError::Malformed`] where there is no `type/subtype`, [`MimeError::OverLimit`] for too many parameters.
    pub fn parse(value: &[u8]) -> Result<Self, MimeError> {
        let value = unfold(value)?;
        let mut cursor = Cursor::new(&value);
        // A comment, or a space beside the slash, makes some take the whole for text (Python).
        cursor.take_while(is_wsp);
        let mut regular = !has_cfws(&mut cursor)?;
        let kind = lower_token(&mut cursor)?;
        regular &= !has_cfws(&mut cursor)?;
        if !cursor.eat(b'/') {
            return Err(NO_TYPE);
        }
        regular &= !has_cfws(&mut cursor)?;
        let subtype = lower_token(&mut cursor)?;
        let mut found = Self { kind, subtype, parameters: Vec::new(), regular };
        found.read_parameters(&mut cursor)?;
        Ok(found)
    }

    /// Reads a Content-Disposition (RFC 2183 §2): its type, no subtype, and parameters of the same grammar.
    ///
    /// # Errors
    /// As [`ContentType::parse`].
    pub fn parse_disposition(value: &[u8]) -> Result<Self, MimeError> {
        let value = unfold(value)?;
        let mut cursor = Cursor::new(&value);
        cursor.skip_cfws()?;
        let kind = lower_token(&mut cursor)?;
        let mut found =
            Self { kind, subtype: String::new(), parameters: Vec::new(), regular: true };
        found.read_parameters(&mut cursor)?;
        Ok(found)
    }

    /// Whether this is that type and subtype, both given in lower case.
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind == kind && self.subtype == subtype
    }

    /// Whether the parameters follow the grammar, so that other readers see the same.
    pub fn is_regular(&self) -> bool {
        self.regular
    }

    /// The value of a parameter, its name given in lower case. `None` where it is absent, or ambiguous.
    pub fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut forms = self.parameters.iter().filter(|p| p.is_form_of(name));
        let first = forms.next()?;
        if forms.next().is_none() && first.name.len() == name.len() {
            return Some(String::from_utf8_lossy(&first.value));
        }
        self.extended(name)
    }

    /// The boundary of a multipart.
    ///
    /// # Errors
    /// [`MimeError::Malformed`] where it is absent, ambiguous or no boundary of RFC 2046 §5.1.1,
    /// [`MimeError::OverLimit`] beyond 70 characters.
    pub fn boundary(&self) -> Result<Cow<'_, str>, MimeError> {
        let boundary = self.parameter("boundary").ok_or(NO_BOUNDARY)?;
        if boundary.len() > BOUNDARY_BYTES_MAX {
            return Err(MimeError::OverLimit("the boundary of a multipart"));
        }
        let printable = boundary.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if boundary.is_empty() || !printable || boundary.ends_with(' ') {
            return Err(NO_BOUNDARY);
        }
        Ok(boundary)
    }

    /// The parameters in order.
    pub(super) fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn read_parameters(&mut self, cursor: &mut Cursor<'_>) -> Result<(), MimeError> {
        loop {
            self.regular &= cursor.skip_cfws().is_ok();
            self.regular &= cursor.take_while(|b| b != b';').is_empty();
            if !cursor.eat(b';') {
                return Ok(());
            }
            if self.parameters.len() >= PARAMETERS_MAX {
                return Err(MimeError::OverLimit("the parameters of a Content-Type"));
            }
            match read_parameter(cursor) {
                Ok(Some(parameter)) => self.parameters.push(parameter),
                Ok(None) => {}
                Err(_) => self.regular = false,
            }
            let clean = cursor.skip_cfws().is_ok();
            self.regular &= clean && matches!(cursor.peek(), None | Some(b';'));
        }
    }

    /// RFC 2231: `name*=charset''value`, or `name*0=`, `name*1*=` and so on. Any mixture is ambiguous.
    fn extended(&self, name: &str) -> Option<Cow<'_, str>> {
        let forms: Vec<&Parameter> =
            self.parameters.iter().filter(|p| p.is_form_of(name)).collect();
        if let [only] = forms.as_slice()
            && only.suffix(name) == "*"
        {
            let text = percent_decoded(after_charset(&only.value));
            return Some(Cow::Owned(String::from_utf8_lossy(&text).into_owned()));
        }
        let mut whole = Vec::new();
        for number in 0..forms.len() {
            let plain = format!("*{number}");
            let encoded = format!("*{number}*");
            let mut hits = forms.iter().filter(|p| {
                let suffix = p.suffix(name);
                suffix == plain || suffix == encoded
            });
            let hit = hits.next()?;
            if hits.next().is_some() {
                return None;
            }
            if hit.suffix(name) == plain {
                whole.extend_from_slice(&hit.value);
            } else {
                let value = if number == 0 { after_charset(&hit.value) } else { &hit.value };
                whole.extend_from_slice(&percent_decoded(value));
            }
        }
        Some(Cow::Owned(String::from_utf8_lossy(&whole).into_owned()))
    }
}

/// One parameter as it stands: RFC 2231 is not undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    /// In lower case, with the asterisks of RFC 2231.
    pub(super) name: String,
    pub(super) value: Vec<u8>,
}

impl Parameter {
    /// Whether this is `name` or an RFC 2231 form of it.
    fn is_form_of(&self, name: &str) -> bool {
        self.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('*'))
    }

    /// What follows `name` in the parameter's name.
    fn suffix(&self, name: &str) -> &str {
        self.name.strip_prefix(name).unwrap_or_default()
    }
}

/// `attribute "=" value`; `None` for the empty parameter that a trailing semicolon leaves.
fn read_parameter(cursor: &mut Cursor<'_>) -> Result<Option<Parameter>, MimeError> {
    cursor.skip_cfws()?;
    if cursor.is_at_end() {
        return Ok(None);
    }
    let name = lower_token(cursor)?;
    cursor.skip_cfws()?;
    if !cursor.eat(b'=') {
        return Err(MimeError::Malformed("a parameter"));
    }
    cursor.skip_cfws()?;
    let value = if cursor.peek() == Some(b'"') {
        cursor.quoted_string()?
    } else {
        // Many write boundaries with "=", "/", ":" or "?" unquoted, and all readers agree on those.
        let value = cursor.take_while(|b| is_token(b) || b"=/:?,@[]".contains(&b) || b >= 0x80);
        if value.is_empty() {
            return Err(MimeError::Malformed("a parameter"));
        }
        value.to_vec()
    };
    Ok(Some(Parameter { name, value }))
}

/// Skips white space and comments; whether there were any.
fn has_cfws(cursor: &mut Cursor<'_>) -> Result<bool, MimeError> {
    let is_there = matches!(cursor.peek(), Some(b'(' | b' ' | b'\t'));
    cursor.skip_cfws()?;
    Ok(is_there)
}

fn lower_token(cursor: &mut Cursor<'_>) -> Result<String, MimeError> {
    let token = cursor.take_while(is_token);
    if token.is_empty() {
        return Err(NO_TYPE);
    }
    Ok(String::from_utf8_lossy(token).to_ascii_lowercase())
}

/// RFC 2045 §5.1 token: printable ASCII without space and tspecials.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}

/// RFC 2231 §4: `charset'language'text`.
fn after_charset(value: &[u8]) -> &[u8] {
    let mut pieces = value.splitn(3, |&b| b == b'\'');
    match (pieces.next(), pieces.next(), pieces.next()) {
        (Some(_), Some(_), Some(text)) => text,
        _ => value,
    }
}

/// Resolves `%XX`; a percent sign without two hexadecimal digits stays.
fn percent_decoded(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let octet = match tail {
            [high, low, ..] if first == b'%' => crate::hex::octet(*high, *low),
            _ => None,
        };
        match octet {
            Some(octet) => {
                out.push(octet);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => out.push(first),
        }
    }
    out
}

/// The token of a field such as Content-Transfer-Encoding or Content-Disposition: the first word, in lower case.
pub(super) fn first_token(value: &[u8]) -> Option<String> {
    let value = unfold(value).ok()?;
    let mut cursor = Cursor::new(&value);
    cursor.skip_cfws().ok()?;
    let token = lower_token(&mut cursor).ok()?;
    cursor.skip_cfws().ok()?;
    cursor.take_while(|b| is_wsp(b) || b == b';');
    cursor.is_at_end().then_some(token)
}

const NO_BOUNDARY: MimeError = MimeError::Malformed("the boundary of a multipart");
const NO_TYPE: MimeError = MimeError::Malformed("a Content-Type");

#[cfg(test)]
mod tests;
