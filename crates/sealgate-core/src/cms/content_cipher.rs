//! Encrypting and decrypting content with aws-lc-rs, in place.
//!
//! In: key, nonce, octets. Out: the whole plaintext, or nothing and no reason. AEAD: a failed tag
//! wipes the buffer. CBC: the padding is looked at only after the whole buffer was decrypted, and
//! without branching on its octets.
//!
//! GCM tags of 12 to 15 octets (RFC 5084 §3.2 allows them, the library opens whole tags only): the
//! counter stream is undone with AES-CTR, the whole tag is computed anew by sealing, and its first
//! octets are compared in constant time.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
    UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

use super::CmsError;
use super::algorithm::ContentCipher;

/// Everything but the key.
#[derive(Clone, Debug, Default)]
pub(super) struct Sealed {
    pub(super) ciphertext: Vec<u8>,
    /// IV or nonce.
    pub(super) nonce: Vec<u8>,
    pub(super) tag: Vec<u8>,
    /// The tag's length by the parameters' word.
    pub(super) tag_bytes: usize,
    /// Additional authenticated data.
    pub(super) additional: Vec<u8>,
}

/// The plaintext; none for every reason.
pub(super) fn decrypt(
    cipher: ContentCipher,
    key: &[u8],
    sealed: &Sealed,
) -> Option<Zeroizing<Vec<u8>>> {
    if cipher.is_authenticated() {
        open(cipher, key, sealed)
    } else {
        decrypt_cbc(cipher, key, sealed)
    }
}

/// Seals `buffer` from `start` on in place and gives the tag.
pub(super) fn seal(
    cipher: ContentCipher,
    key: &[u8],
    nonce: [u8; NONCE_BYTES],
    content: &mut [u8],
) -> Result<Vec<u8>, CmsError> {
    let key = aead_key(cipher, key).ok_or(CmsError::Unsupported)?;
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), content);
    tag.map(|tag| tag.as_ref().to_vec()).map_err(|_| CmsError::Unsupported)
}

/// Encrypts padded octets in place.
pub(super) fn encrypt_cbc(
    cipher: ContentCipher,
    key: &[u8],
    iv: [u8; AES_BLOCK_BYTES],
    padded: &mut [u8],
) -> Result<(), CmsError> {
    let algorithm = match cipher {
        ContentCipher::Aes128Cbc => &AES_128,
        ContentCipher::Aes256Cbc => &AES_256,
        _ => return Err(CmsError::Unsupported),
    };
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    UnboundCipherKey::new(algorithm, key)
        .and_then(EncryptingKey::cbc)
        .and_then(|key| key.less_safe_encrypt(padded, context))
        .map(|_| ())
        .map_err(|_| CmsError::Unsupported)
}

/// AEAD (RFC 5083 §2.4: nothing is released when the tag is wrong).
fn open(cipher: ContentCipher, key: &[u8], sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
    let nonce: [u8; NONCE_BYTES] = sealed.nonce.as_slice().try_into().ok()?;
    // RFC 5084 §3.2: 12 to 16, and as long as the mac is (CVE-2026-57062 took what came).
    if !(TAG_BYTES_MIN..=TAG_BYTES_MAX).contains(&sealed.tag_bytes)
        || sealed.tag.len() != sealed.tag_bytes
    {
        return None;
    }
    let aead = aead_key(cipher, key)?;
    let mut content = Zeroizing::new(sealed.ciphertext.clone());
    if sealed.tag_bytes == TAG_BYTES_MAX {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let additional = Aad::from(&sealed.additional);
        aead.open_in_place_separate_tag(nonce, additional, &sealed.tag, &mut content).ok()?;
        return Some(content);
    }
    undo_counter_stream(cipher, key, nonce, &mut content)?;
    let mut again = Zeroizing::new(content.to_vec());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let additional = Aad::from(&sealed.additional);
    let tag = aead.seal_in_place_separate_tag(nonce, additional, &mut again).ok()?;
    let expected = tag.as_ref().get(..sealed.tag_bytes)?;
    verify_slices_are_equal(expected, &sealed.tag).ok()?;
    Some(content)
}

/// GCM's encryption is CTR from nonce || 2 (NIST SP 800-38D §7.1).
fn undo_counter_stream(
    cipher: ContentCipher,
    key: &[u8],
    nonce: [u8; NONCE_BYTES],
    content: &mut [u8],
) -> Option<()> {
    let algorithm = match cipher {
        ContentCipher::Aes128Gcm => &AES_128,
        ContentCipher::Aes256Gcm => &AES_256,
        _ => return None,
    };
    let mut iv = [0; AES_BLOCK_BYTES];
    let (front, counter) = iv.split_at_mut(NONCE_BYTES);
    front.copy_from_slice(&nonce);
    counter.copy_from_slice(&2_u32.to_be_bytes());
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let key = UnboundCipherKey::new(algorithm, key).and_then(DecryptingKey::ctr).ok()?;
    key.decrypt(content, context).ok()?;
    Some(())
}

fn decrypt_cbc(cipher: ContentCipher, key: &[u8], sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
    let (algorithm, context, block) = match cipher {
        ContentCipher::Aes128Cbc | ContentCipher::Aes256Cbc => {
            let iv: [u8; AES_BLOCK_BYTES] = sealed.nonce.as_slice().try_into().ok()?;
            let is_short = cipher == ContentCipher::Aes128Cbc;
            let algorithm = if is_short { &AES_128 } else { &AES_256 };
            (algorithm, DecryptionContext::Iv128(FixedLength::from(iv)), AES_BLOCK_BYTES)
        }
        ContentCipher::TripleDesCbc => {
            let iv: [u8; DES_BLOCK_BYTES] = sealed.nonce.as_slice().try_into().ok()?;
            let context = DecryptionContext::Iv64(FixedLength::from(iv));
            (triple_des(), context, DES_BLOCK_BYTES)
        }
        _ => return None,
    };
    if sealed.ciphertext.is_empty() || !sealed.ciphertext.len().is_multiple_of(block) {
        return None;
    }
    let mut content = Zeroizing::new(sealed.ciphertext.clone());
    let key = UnboundCipherKey::new(algorithm, key).and_then(DecryptingKey::cbc).ok()?;
    key.decrypt(&mut content, context).ok()?;
    let plain = padding_removed(&content, block)?;
    content.truncate(plain);
    Some(content)
}

#[expect(
    deprecated,
    reason = "old mail must stay readable (RFC 8551 §2.7); nothing is encrypted with it"
)]
fn triple_des() -> &'static aws_lc_rs::cipher::Algorithm {
    &aws_lc_rs::cipher::DES_EDE3_FOR_LEGACY_USE_ONLY
}

/// How long the content is without its padding (RFC 5652 §6.3); the last block is looked at whole
/// in any case.
fn padding_removed(content: &[u8], block: usize) -> Option<usize> {
    let last_block = content.len().checked_sub(block).and_then(|start| content.get(start..))?;
    let count = *last_block.last()?;
    let mut wrong = u8::from(count == 0) | u8::from(usize::from(count) > block);
    for (from_end, octet) in last_block.iter().rev().enumerate() {
        let is_padding = u8::from(from_end < usize::from(count));
        wrong |= is_padding.wrapping_neg() & (octet ^ count);
    }
    if wrong == 0 { content.len().checked_sub(usize::from(count)) } else { None }
}

fn aead_key(cipher: ContentCipher, key: &[u8]) -> Option<LessSafeKey> {
    let algorithm = match cipher {
        ContentCipher::Aes128Gcm => &AES_128_GCM,
        ContentCipher::Aes256Gcm => &AES_256_GCM,
        ContentCipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        _ => return None,
    };
    UnboundKey::new(algorithm, key).ok().map(LessSafeKey::new)
}

/// A GCM nonce as RFC 5084 §3.2 recommends it.
pub(super) const NONCE_BYTES: usize = 12;
/// AES's block, and CBC's IV.
pub(super) const AES_BLOCK_BYTES: usize = 16;
/// DES's block, and CBC's IV.
const DES_BLOCK_BYTES: usize = 8;
/// GCM tags of RFC 5084 §3.2.
const TAG_BYTES_MIN: usize = 12;
const TAG_BYTES_MAX: usize = 16;
