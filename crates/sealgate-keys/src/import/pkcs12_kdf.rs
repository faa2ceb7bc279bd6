//! Key derivation of PKCS#12 (RFC 7292 appendix B.2).

use std::num::NonZeroU32;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

/// What the derived bytes are for: the diversifier (appendix B.3).
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Iv,
    Key,
    Mac,
}

impl Purpose {
    fn diversifier(self) -> u8 {
        match self {
            Self::Key => 1,
            Self::Iv => 2,
            Self::Mac => 3,
        }
    }
}

/// Derives `length` bytes from a password.
pub(super) fn derive(
    algorithm: &'static digest::Algorithm,
    purpose: Purpose,
    password: &str,
    salt: &[u8],
    iterations: NonZeroU32,
    length: usize,
) -> Zeroizing<Vec<u8>> {
    let block_bytes = algorithm.block_len();
    let diversifier = vec![purpose.diversifier(); block_bytes];
    let mut input = Zeroizing::new(fill(salt, block_bytes));
    input.extend_from_slice(&Zeroizing::new(fill(&bmp_string(password), block_bytes)));
    let mut derived = Zeroizing::new(Vec::with_capacity(length));
    while derived.len() < length {
        let mut context = digest::Context::new(algorithm);
        context.update(&diversifier);
        context.update(&input);
        let mut hash = context.finish();
        for _ in 1..iterations.get() {
            hash = digest::digest(algorithm, hash.as_ref());
        }
        let take = hash.as_ref().len().min(length.saturating_sub(derived.len()));
        derived.extend(hash.as_ref().iter().take(take));
        let addend: Vec<u8> = hash.as_ref().iter().copied().cycle().take(block_bytes).collect();
        for block in input.chunks_mut(block_bytes) {
            add_with_one(block, &addend);
        }
    }
    derived
}

/// The password as a BMPString with its terminator (appendix B.1).
fn bmp_string(password: &str) -> Zeroizing<Vec<u8>> {
    let units = password.encode_utf16().chain([0]);
    Zeroizing::new(units.flat_map(u16::to_be_bytes).collect())
}

/// As many copies as fill whole blocks; nothing of nothing.
fn fill(bytes: &[u8], block_bytes: usize) -> Vec<u8> {
    let length = bytes.len().div_ceil(block_bytes).saturating_mul(block_bytes);
    bytes.iter().copied().cycle().take(length).collect()
}

/// block = block + addend + 1, as big-endian numbers, without the carry out of the first octet.
fn add_with_one(block: &mut [u8], addend: &[u8]) {
    let mut carry = 1_u16;
    for (byte, more) in block.iter_mut().zip(addend).rev() {
        let sum = u16::from(*byte) + u16::from(*more) + carry;
        let [high, low] = sum.to_be_bytes();
        *byte = low;
        carry = u16::from(high);
    }
}
