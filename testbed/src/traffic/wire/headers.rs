//! The header block of a gRPC request (HPACK, RFC 7541): spelled out once per connection, then a few index bytes.
//!
//! Every request of a connection has the same headers, so the first block puts them into the server's
//! dynamic table and each later one names them by index, as any HTTP/2 client's encoder would.

/// The two header blocks of a connection.
#[derive(Debug)]
pub(super) struct Blocks {
    /// For the first request: fills the server's table.
    pub(super) first: Vec<u8>,
    /// For every other one.
    pub(super) later: Vec<u8>,
}

// Indices of the static table.
const AUTHORITY: u8 = 1;
const METHOD_POST: u8 = 3;
const PATH: u8 = 4;
const SCHEME_HTTP: u8 = 6;
const SCHEME_HTTPS: u8 = 7;
const CONTENT_TYPE: u8 = 31;
const USER_AGENT: u8 = 58;
/// Where the dynamic table begins: its newest entry.
const NEWEST: u8 = 62;
const INDEXED: u8 = 0x80;
const LITERAL_AND_INDEX: u8 = 0x40;

impl Blocks {
    /// The blocks for calls of `path` on `authority`.
    pub(super) fn new(authority: &str, https: bool, path: &str) -> Self {
        let scheme = if https { SCHEME_HTTPS } else { SCHEME_HTTP };
        let mut first = vec![INDEXED | METHOD_POST, INDEXED | scheme];
        let later = first.clone();
        let named: [(u8, &str); 4] = [
            (PATH, path),
            (AUTHORITY, authority),
            (CONTENT_TYPE, "application/grpc"),
            (
                USER_AGENT,
                concat!("provision-load/", env!("CARGO_PKG_VERSION")),
            ),
        ];
        for (name, value) in named {
            first.push(LITERAL_AND_INDEX | name);
            put_string(value, &mut first);
        }
        first.push(LITERAL_AND_INDEX);
        put_string("te", &mut first);
        put_string("trailers", &mut first);

        let mut later = later;
        // Oldest first; five entries were added.
        later.extend((0..5).rev().map(|age| INDEXED | (NEWEST + age)));
        Self { first, later }
    }
}

/// A string without Huffman coding: length with a 7-bit prefix, then the bytes.
fn put_string(text: &str, out: &mut Vec<u8>) {
    let len = text.len() as u64;
    if len < 127 {
        out.push((len & 0x7f) as u8);
    } else {
        out.push(127);
        let mut rest = len - 127;
        while rest >= 0x80 {
            out.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        out.push((rest & 0x7f) as u8);
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_blocks_decode_to_the_same_headers() {
        let long_host = format!("{}.example.com:2379", "h".repeat(200));
        for authority in ["127.0.0.1:2379", &long_host] {
            let blocks = Blocks::new(authority, true, "/etcdserverpb.KV/Put");
            let mut decoder = loona_hpack::Decoder::new();
            let first = decoder.decode(&blocks.first).unwrap();
            let text = |(name, value): &(Vec<u8>, Vec<u8>)| {
                format!(
                    "{}={}",
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value)
                )
            };
            let lines: Vec<_> = first.iter().map(text).collect();
            assert_eq!(
                lines[..4],
                [
                    ":method=POST".to_owned(),
                    ":scheme=https".to_owned(),
                    ":path=/etcdserverpb.KV/Put".to_owned(),
                    format!(":authority={authority}"),
                ]
            );
            assert_eq!(lines[4], "content-type=application/grpc");
            assert_eq!(lines[6], "te=trailers");
            assert_eq!(decoder.decode(&blocks.later).unwrap(), first);
            assert_eq!(decoder.decode(&blocks.later).unwrap(), first);
        }
    }
}
