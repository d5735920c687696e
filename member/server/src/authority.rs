//! Lets in clients whose `:authority` is a URL.
//!
//! etcd's own clients up to 3.4 dial single endpoints (`etcdctl endpoint status`, `move-leader`, `snapshot save`) with
//! `:authority` set to the whole endpoint, `http://127.0.0.1:2379`. Go's HTTP/2 server takes any text there; h2 takes
//! only what RFC 3986 allows, and resets the stream. Nothing here reads the authority, so one byte sequence of it is
//! replaced on its way in: `://` by `x--`, which has the same length in HPACK's Huffman code, character by character,
//! and is allowed. Everything else passes unchanged.

/// Walks the frames of one connection's inbound bytes and mends the authority in HEADERS frames, in place.
#[derive(Debug)]
pub(crate) struct AuthorityFix {
    state: State,
}

#[derive(Debug)]
enum State {
    /// In the connection preface; how much of it was seen.
    Preface(usize),
    /// In a frame's nine-byte header.
    Header { seen: usize, header: [u8; 9] },
    /// In a frame's payload that is of no interest.
    Skip(usize),
    /// In a HEADERS payload: how much is left, and the last bytes seen.
    Headers { left: usize, window: Window },
    /// Not HTTP/2.
    Done,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;

/// What precedes the place to mend: a literal field that is named by index 1 (`:authority`) and enters the dynamic
/// table, then the length of a Huffman-coded value (any), then the first bytes of the value.
const LITERAL_AUTHORITY: u8 = 0x41;
const HUFFMAN: u8 = 0x80;

/// Huffman codes of `http://` and `https://`, what they become, and which bits of the last byte belong to them.
const RULES: [Rule; 2] = [
    // http:// -> httpx--; the 41st bit is 0 in both.
    Rule {
        find: &[0x9d, 0x29, 0xae, 0xe3, 0x0c],
        put: &[0x9d, 0x29, 0xaf, 0xca, 0xcb],
        last_mask: 0xff,
    },
    // https:// -> httpsx--; 46 bits.
    Rule {
        find: &[0x9d, 0x29, 0xad, 0x17, 0x18, 0x60],
        put: &[0x9d, 0x29, 0xad, 0x1e, 0x56, 0x58],
        last_mask: 0xfc,
    },
];

struct Rule {
    find: &'static [u8],
    put: &'static [u8],
    last_mask: u8,
}

impl Rule {
    /// How many bytes of the rule `value` begins with; `None` when it does not match.
    fn matches(&self, value: &[u8]) -> bool {
        value.len() == self.find.len()
            && value
                .iter()
                .zip(self.find)
                .enumerate()
                .all(|(i, (byte, wanted))| {
                    let mask = if i + 1 == self.find.len() {
                        self.last_mask
                    } else {
                        0xff
                    };
                    byte & mask == *wanted
                })
    }
}

/// Where in the field of interest the walk stands.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// 0: nothing; 1: saw the literal; 2 and on: saw the length and `at - 2` bytes of the value.
    at: usize,
    value: [u8; 6],
}

impl AuthorityFix {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Preface(0),
        }
    }

    /// Mends the next inbound bytes.
    ///
    /// Bytes that were handed on cannot be changed any more, so a value that is split between two reads stays as it
    /// is. Clients send their first request's headers in one write.
    pub(crate) fn mend(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.state {
                State::Done => return,
                State::Preface(seen) => {
                    if bytes[at] != PREFACE[*seen] {
                        self.state = State::Done;
                        return;
                    }
                    at += 1;
                    *seen += 1;
                    if *seen == PREFACE.len() {
                        self.state = State::Header {
                            seen: 0,
                            header: [0; 9],
                        };
                    }
                }
                State::Header { seen, header } => {
                    header[*seen] = bytes[at];
                    at += 1;
                    *seen += 1;
                    if *seen == header.len() {
                        let length = usize::from(header[0]) << 16
                            | usize::from(header[1]) << 8
                            | usize::from(header[2]);
                        self.state = match (header[3], length) {
                            (_, 0) => State::Header {
                                seen: 0,
                                header: [0; 9],
                            },
                            (HEADERS, left) => State::Headers {
                                left,
                                window: Window::default(),
                            },
                            (_, left) => State::Skip(left),
                        };
                    }
                }
                State::Skip(left) => {
                    let step = (*left).min(bytes.len() - at);
                    at += step;
                    *left -= step;
                    if *left == 0 {
                        self.state = State::Header {
                            seen: 0,
                            header: [0; 9],
                        };
                    }
                }
                State::Headers { left, window } => {
                    window.step(bytes, at);
                    at += 1;
                    *left -= 1;
                    if *left == 0 {
                        self.state = State::Header {
                            seen: 0,
                            header: [0; 9],
                        };
                    }
                }
            }
        }
    }
}

impl Window {
    fn step(&mut self, bytes: &mut [u8], at: usize) {
        let byte = bytes[at];
        match self.at {
            0 => self.at = usize::from(byte == LITERAL_AUTHORITY),
            1 if byte & HUFFMAN != 0 => self.at = 2,
            1 => self.at = usize::from(byte == LITERAL_AUTHORITY),
            seen => {
                self.value[seen - 2] = byte;
                let value = &self.value[..seen - 1];
                if let Some(rule) = RULES.iter().find(|rule| rule.matches(value)) {
                    let length = rule.find.len();
                    if let Some(place) = (at + 1)
                        .checked_sub(length)
                        .and_then(|start| bytes.get_mut(start..=at))
                    {
                        let rest = place[length - 1] & !rule.last_mask;
                        place.copy_from_slice(rule.put);
                        place[length - 1] |= rest;
                    }
                    self.at = 0;
                } else if RULES
                    .iter()
                    .any(|rule| rule.find.len() > value.len() && rule.find.starts_with(value))
                {
                    self.at += 1;
                } else {
                    self.at = usize::from(byte == LITERAL_AUTHORITY);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection's first bytes: preface, empty SETTINGS, HEADERS with one authority field and one byte after it.
    fn connection(value: &[u8]) -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let field = 3 + value.len();
        bytes.extend([0, 0, u8::try_from(field).unwrap(), HEADERS, 4, 0, 0, 0, 1]);
        bytes.extend([
            LITERAL_AUTHORITY,
            HUFFMAN | u8::try_from(value.len()).unwrap(),
        ]);
        bytes.extend(value);
        bytes.push(0x82);
        bytes
    }

    #[test]
    fn urls_become_host_names_of_the_same_length() {
        for (from, to) in [
            (
                &[0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x11][..],
                &[0x9d, 0x29, 0xaf, 0xca, 0xcb, 0x11][..],
            ),
            (
                &[0x9d, 0x29, 0xad, 0x17, 0x18, 0x63][..],
                &[0x9d, 0x29, 0xad, 0x1e, 0x56, 0x5b][..],
            ),
        ] {
            let mut bytes = connection(from);
            AuthorityFix::new().mend(&mut bytes);
            assert_eq!(bytes, connection(to));
        }
    }

    #[test]
    fn the_rest_passes_unchanged() {
        let host = connection(&[0x08, 0x9d, 0x5c, 0x0b, 0x81, 0x70]);
        let mut body = connection(&[0x08, 0x9d]);
        body.extend([
            0,
            0,
            8,
            0,
            0,
            0,
            0,
            0,
            1,
            LITERAL_AUTHORITY,
            0x8f,
            0x9d,
            0x29,
            0xae,
            0xe3,
            0x0c,
            0,
        ]);
        let http1 = b"GET /health HTTP/1.1\r\n\r\n".to_vec();
        for unchanged in [host, body, http1] {
            let mut bytes = unchanged.clone();
            AuthorityFix::new().mend(&mut bytes);
            assert_eq!(bytes, unchanged);
        }
    }

    #[test]
    fn frames_may_come_in_any_pieces() {
        let whole = connection(&[0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x11]);
        let field = whole.len() - 9;
        for cut in (1..field).chain(whole.len() - 1..whole.len()) {
            let (mut first, mut second) = (whole[..cut].to_vec(), whole[cut..].to_vec());
            let mut fix = AuthorityFix::new();
            fix.mend(&mut first);
            fix.mend(&mut second);
            assert_eq!(
                [first, second].concat()[field + 2..field + 7],
                [0x9d, 0x29, 0xaf, 0xca, 0xcb],
                "cut at {cut}"
            );
        }
    }
}
