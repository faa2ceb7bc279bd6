//! RSAES-OAEP's decoding (RFC 8017 §7.1.2 step 3) for tokens that do raw RSA and not this.
//!
//! In: the encoded message, as long as the modulus. Out: what was encrypted, or nothing without a reason, in a time that
//! tells nothing of the reason (Manger's attack, CRYPTO 2001).

use aws_lc_rs::digest;
use zeroize::Zeroizing;

/// Decodes with an empty label and MGF1 with the same digest.
pub(super) fn decode(
    algorithm: &'static digest::Algorithm,
    encoded: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let length = algorithm.output_len();
    // Lengths are public.
    let (first, rest) = encoded.split_first()?;
    let (masked_seed, masked_block) = rest.split_at_checked(length)?;
    if masked_block.len() <= length {
        return None;
    }
    let seed = unmask(algorithm, masked_seed, masked_block);
    let block = unmask(algorithm, masked_block, &seed);
    let (label, padded) = block.split_at_checked(length)?;
    let empty = digest::digest(algorithm, b"");
    let difference = label.iter().zip(empty.as_ref()).fold(*first, |all, (a, b)| all | (a ^ b));
    let mut bad = !mask_if_equal(difference, 0);
    // Zeros, a one, the message: every octet is looked at in the same way.
    let mut is_padding = 0xff;
    let mut end = 0;
    for (position, octet) in padded.iter().enumerate() {
        let is_zero = mask_if_equal(*octet, 0);
        let is_end = is_padding & mask_if_equal(*octet, 1);
        end |= position & 0_usize.wrapping_sub(usize::from(is_end & 1));
        bad |= is_padding & !is_zero & !is_end;
        is_padding &= is_zero;
    }
    bad |= is_padding;
    if std::hint::black_box(bad) != 0 {
        return None;
    }
    padded.get(end + 1..).map(|message| Zeroizing::new(message.to_vec()))
}

/// XOR with MGF1 of the seed (RFC 8017 §B.2.1).
fn unmask(algorithm: &'static digest::Algorithm, masked: &[u8], seed: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut plain = Zeroizing::new(masked.to_vec());
    for (counter, chunk) in (0_u32..).zip(plain.chunks_mut(algorithm.output_len())) {
        let mut context = digest::Context::new(algorithm);
        context.update(seed);
        context.update(&counter.to_be_bytes());
        let mask = context.finish();
        chunk.iter_mut().zip(mask.as_ref()).for_each(|(octet, mask)| *octet ^= mask);
    }
    plain
}

/// All ones where they are the same, else zero; without a branch.
fn mask_if_equal(a: u8, b: u8) -> u8 {
    let difference = std::hint::black_box(a ^ b);
    let is_different = (difference | difference.wrapping_neg()) >> 7;
    (is_different ^ 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8017 §7.1.1 step 2, with a seed that is given.
    fn encode(algorithm: &'static digest::Algorithm, message: &[u8], size: usize) -> Vec<u8> {
        let length = algorithm.output_len();
        let mut block = digest::digest(algorithm, b"").as_ref().to_vec();
        block.resize(size - length - 2 - message.len(), 0);
        block.push(1);
        block.extend_from_slice(message);
        let seed = vec![0x5a; length];
        let masked_block = unmask(algorithm, &block, &seed);
        let masked_seed = unmask(algorithm, &seed, &masked_block);
        [&[0], masked_seed.as_slice(), masked_block.as_slice()].concat()
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for algorithm in [&digest::SHA1_FOR_LEGACY_USE_ONLY, &digest::SHA256, &digest::SHA512] {
            for message in [&b""[..], &[0], &[1, 0, 1], &[7; 32]] {
                let encoded = encode(algorithm, message, 256);
                assert_eq!(encoded.len(), 256);
                assert_eq!(decode(algorithm, &encoded).unwrap().as_slice(), message);
            }
        }
    }

    #[test]
    fn every_changed_octet_is_refused_or_changes_nothing_but_the_message() {
        let encoded = encode(&digest::SHA256, &[7; 32], 256);
        for position in 0..encoded.len() {
            let mut changed = encoded.clone();
            changed[position] ^= 0x80;
            let decoded = decode(&digest::SHA256, &changed);
            let is_message = position >= encoded.len() - 32;
            assert!(decoded.is_none() || is_message, "octet {position}");
            assert!(decoded.is_none_or(|decoded| decoded.as_slice() != [7; 32]));
        }
        for short in [0, 1, 33, 65] {
            assert!(decode(&digest::SHA256, &encoded[..short]).is_none(), "{short} octets");
        }
    }

    #[test]
    fn a_message_without_its_mark_is_refused() {
        let mut block = digest::digest(&digest::SHA256, b"").as_ref().to_vec();
        block.resize(223, 0);
        let seed = [9; 32];
        let masked_block = unmask(&digest::SHA256, &block, &seed);
        let masked_seed = unmask(&digest::SHA256, &seed, &masked_block);
        let encoded = [&[0], masked_seed.as_slice(), masked_block.as_slice()].concat();
        assert!(decode(&digest::SHA256, &encoded).is_none());
    }
}
