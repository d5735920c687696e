//! FNV-1a: a short name for a text or a place, stable across runs and releases, unlike the standard library's hashers.

/// The 64-bit hash.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
