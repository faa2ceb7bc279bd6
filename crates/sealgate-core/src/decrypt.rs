//! Mail decryption: with whose key, and what comes out.
//!
//! A key is used only for a recipient of the envelope who is entitled to it (REQUIREMENTS 0.4): somebody else's
//! ciphertext sent to bob stays ciphertext (D21).

use bytes::Bytes;

use crate::report::Layer;

pub mod smime;

/// What became of an encrypted layer.
#[derive(Debug)]
pub enum Opening {
    /// Something behind one of our keys failed; without a reason, because the reason is an oracle.
    Failed {
        /// Indices of the envelope's recipients whose own keys it names; public knowledge.
        named: Vec<usize>,
        /// For the report.
        layer: Layer,
    },
    /// No recipient of the envelope holds a key that it is encrypted to; public knowledge.
    NotForUs(Layer),
    /// Opened.
    Opened(Opened),
    /// A key store or the key's keeper is away.
    Unavailable,
    /// Well formed, in an algorithm that we do not do.
    Unsupported(Layer),
}

/// A decrypted layer.
#[derive(Debug)]
pub struct Opened {
    /// The plaintext; this buffer is wiped when the last reference goes (what is decoded from it is not).
    pub content: Bytes,
    /// Indices of the envelope's recipients whose own keys it was encrypted to.
    pub entitled: Vec<usize>,
    /// Indices of all those whose own keys it names.
    pub named: Vec<usize>,
    /// Whether somebody else of the envelope is named, and has no key that opens it.
    pub named_in_vain: bool,
    /// Whether the encryption itself proves that the content is whole.
    pub is_authenticated: bool,
    /// For the report.
    pub layer: Layer,
}
