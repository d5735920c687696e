//! The layout of pages. Numbers are little endian, as on every machine that etcd supports.

/// Size of the pages that are written; any legal size is read.
pub(crate) const PAGE: usize = 4096;

pub(crate) const MAGIC: u32 = 0xED0C_DAED;
pub(crate) const VERSION: u32 = 2;

pub(crate) const BRANCH: u16 = 0x01;
pub(crate) const LEAF: u16 = 0x02;
pub(crate) const META: u16 = 0x04;
pub(crate) const FREELIST: u16 = 0x10;

/// Flag of a leaf element whose value is a bucket.
pub(crate) const BUCKET: u32 = 1;

/// Length of a page's header, and of an element of a leaf or a branch.
pub(crate) const HEADER: usize = 16;
pub(crate) const ELEMENT: usize = 16;
/// Length of what a bucket's value begins with: root page and sequence.
pub(crate) const BUCKET_HEADER: usize = 16;
/// Length of a meta record after its page's header.
pub(crate) const META_LEN: usize = 64;
/// What of it the checksum covers.
const META_SUMMED: usize = 56;

/// bbolt's limits.
pub(crate) const MAX_KEY: usize = 32768;
pub(crate) const MAX_VALUE: usize = (1 << 31) - 2;

/// bbolt looks for the second meta page at these powers of two, and nowhere else.
pub(crate) const SMALLEST_PAGE: u32 = 1 << 10;
pub(crate) const LARGEST_PAGE: u32 = 1 << 24;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The header of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub(crate) id: u64,
    pub(crate) flags: u16,
    pub(crate) count: u16,
    pub(crate) overflow: u32,
}

impl PageHeader {
    pub(crate) fn read(page: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(page, 0)?,
            flags: u16_at(page, 8)?,
            count: u16_at(page, 10)?,
            overflow: u32_at(page, 12)?,
        })
    }

    pub(crate) fn bytes(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(&self.id.to_le_bytes());
        out[8..10].copy_from_slice(&self.flags.to_le_bytes());
        out[10..12].copy_from_slice(&self.count.to_le_bytes());
        out[12..].copy_from_slice(&self.overflow.to_le_bytes());
        out
    }
}

/// The record that says where everything is. The valid one with the larger transaction counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_size: u32,
    pub(crate) root: u64,
    pub(crate) freelist: u64,
    /// One past the last page.
    pub(crate) high_water: u64,
    pub(crate) txid: u64,
}

/// Why a meta record does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaFault {
    NotOne,
    Version(u32),
    Checksum,
}

impl Meta {
    /// Reads the record after a page's header.
    pub(crate) fn read(record: &[u8]) -> Result<Self, MetaFault> {
        let fault = MetaFault::NotOne;
        let number = |at| u32_at(record, at).ok_or(fault);
        let long = |at| u64_at(record, at).ok_or(fault);
        if number(0)? != MAGIC {
            return Err(fault);
        }
        match number(4)? {
            VERSION => {}
            other => return Err(MetaFault::Version(other)),
        }
        let summed = record.get(..META_SUMMED).ok_or(fault)?;
        if long(META_SUMMED)? != fnv1a(summed) {
            return Err(MetaFault::Checksum);
        }
        Ok(Self {
            page_size: number(8)?,
            root: long(16)?,
            freelist: long(32)?,
            high_water: long(40)?,
            txid: long(48)?,
        })
    }

    pub(crate) fn bytes(&self) -> [u8; META_LEN] {
        let mut out = [0; META_LEN];
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&VERSION.to_le_bytes());
        out[8..12].copy_from_slice(&self.page_size.to_le_bytes());
        out[16..24].copy_from_slice(&self.root.to_le_bytes());
        out[32..40].copy_from_slice(&self.freelist.to_le_bytes());
        out[40..48].copy_from_slice(&self.high_water.to_le_bytes());
        out[48..56].copy_from_slice(&self.txid.to_le_bytes());
        let sum = fnv1a(&out[..META_SUMMED]);
        out[META_SUMMED..].copy_from_slice(&sum.to_le_bytes());
        out
    }
}

/// FNV-1a of 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_record_is_read_back_and_a_changed_bit_is_seen() {
        let meta = Meta {
            page_size: 4096,
            root: 7,
            freelist: 2,
            high_water: 8,
            txid: 1,
        };
        let mut bytes = meta.bytes();
        assert_eq!(Meta::read(&bytes), Ok(meta));
        bytes[41] ^= 1;
        assert_eq!(Meta::read(&bytes), Err(MetaFault::Checksum));
        assert_eq!(Meta::read(&bytes[..20]), Err(MetaFault::NotOne));
    }

    #[test]
    fn the_checksum_is_fnv_1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
