//! The state of one HTTP/2 connection, without its socket: bytes in, completed calls and bytes out.
//!
//! A call is named by the slot of the client that made it. Invariant: each slot given to [`Session::call`] comes back in
//! exactly one [`Done`], or the session ended with an error and [`Session::in_flight`] counts it.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::frame::{self, Head, u32_at};
use super::headers::Blocks;

/// Calls in flight on one connection.
pub(crate) struct Session {
    blocks: Blocks,
    /// The first request's headers are out, so the server's table holds them.
    indexed: bool,
    ready: bool,
    next_stream: u32,
    streams: HashMap<u32, Stream>,
    /// Calls that the server's limit on concurrent streams keeps back.
    waiting: VecDeque<(Call, Vec<u8>)>,
    max_streams: usize,
    /// Streams whose message did not fit the server's windows, oldest first.
    blocked: VecDeque<u32>,
    send_window: i64,
    stream_window: i64,
    /// Received since the connection's window was last opened again.
    received: usize,
    decoder: loona_hpack::Decoder<'static>,
    /// A header block that CONTINUATION frames go on with: stream, END_STREAM, bytes.
    partial: Option<(u32, bool, Vec<u8>)>,
    output: Vec<u8>,
    scratch: Vec<u8>,
}

/// A call that ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// Which client made it.
    pub(crate) slot: usize,
    /// When the request was made.
    pub(crate) since: Instant,
    /// Bytes of the answer's message, or why there is none.
    pub(crate) outcome: Result<usize, String>,
}

/// What ends a connection.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum WireError {
    #[error("server sent a frame of {0} bytes, more than the {max} allowed", max = frame::MAX_PAYLOAD)]
    FrameTooLarge(usize),
    #[error("server sent a malformed frame of kind {0}")]
    Malformed(u8),
    #[error("server sent a header block that does not decode: {0}")]
    Headers(String),
    #[error("server closed the connection with HTTP/2 error {code} {debug}")]
    GoAway { code: u32, debug: String },
    #[error("server asks for a header table of {0} bytes; the load generator needs 4096")]
    HeaderTable(u32),
}

#[derive(Debug)]
struct Stream {
    call: Call,
    /// What of the request is still to be sent.
    unsent: Vec<u8>,
    send_window: i64,
    received: usize,
    http_status: Option<String>,
    grpc_status: Option<String>,
    grpc_message: String,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    slot: usize,
    since: Instant,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// RFC 9113: both windows begin with this.
const DEFAULT_WINDOW: u32 = 65_535;
const MAX_WINDOW: u32 = 0x7fff_ffff;
/// The connection's window is opened again after this much; far below [`MAX_WINDOW`], far above an answer.
const REOPEN_AFTER: usize = 1 << 24;
/// A gRPC message follows one byte of flags and four of length.
const MESSAGE_HEAD: usize = 5;

impl Session {
    /// A session whose calls all go to `path`; its output begins with the connection preface.
    pub(crate) fn new(authority: &str, https: bool, path: &str) -> Self {
        let mut output = PREFACE.to_vec();
        Head {
            len: 12,
            kind: frame::SETTINGS,
            flags: 0,
            stream: 0,
        }
        .put(&mut output);
        for (setting, value) in [
            (frame::ENABLE_PUSH, 0),
            (frame::INITIAL_WINDOW_SIZE, MAX_WINDOW),
        ] {
            output.extend_from_slice(&setting.to_be_bytes());
            output.extend_from_slice(&value.to_be_bytes());
        }
        put_window_update(MAX_WINDOW - DEFAULT_WINDOW, &mut output);
        Self {
            blocks: Blocks::new(authority, https, path),
            indexed: false,
            ready: false,
            next_stream: 1,
            streams: HashMap::new(),
            waiting: VecDeque::new(),
            max_streams: usize::MAX,
            blocked: VecDeque::new(),
            send_window: i64::from(DEFAULT_WINDOW),
            stream_window: i64::from(DEFAULT_WINDOW),
            received: 0,
            decoder: loona_hpack::Decoder::new(),
            partial: None,
            output,
            scratch: Vec::new(),
        }
    }

    /// Whether the server's settings have arrived, so that calls keep to them.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Calls that have not ended.
    pub(crate) fn in_flight(&self) -> usize {
        self.streams.len() + self.waiting.len()
    }

    /// Bytes for the socket; the caller empties the buffer.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Makes a call for client `slot` with the message that `encode` appends.
    pub(crate) fn call(&mut self, slot: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut message = std::mem::take(&mut self.scratch);
        message.clear();
        message.resize(MESSAGE_HEAD, 0);
        encode(&mut message);
        let len = (message.len() - MESSAGE_HEAD).to_be_bytes();
        message[1..MESSAGE_HEAD].copy_from_slice(&len[len.len() - 4..]);
        let call = Call {
            slot,
            since: Instant::now(),
        };
        if self.streams.len() < self.max_streams {
            self.open(call, &message);
            self.scratch = message;
        } else {
            self.waiting.push_back((call, message));
        }
    }

    /// Takes what was read; returns how many bytes were used up, the rest is an incomplete frame.
    pub(crate) fn receive(
        &mut self,
        input: &[u8],
        done: &mut Vec<Done>,
    ) -> Result<usize, WireError> {
        let mut used = 0;
        while let Some(head) = Head::parse(&input[used..]) {
            if head.len > frame::MAX_PAYLOAD {
                return Err(WireError::FrameTooLarge(head.len));
            }
            let start = used + frame::HEAD;
            let Some(payload) = input.get(start..start + head.len) else {
                break;
            };
            self.take(head, payload, done)?;
            used = start + head.len;
        }
        Ok(used)
    }

    fn take(&mut self, head: Head, payload: &[u8], done: &mut Vec<Done>) -> Result<(), WireError> {
        let ends = head.flags & frame::END_STREAM != 0;
        match head.kind {
            frame::DATA => {
                self.received += payload.len();
                if self.received >= REOPEN_AFTER {
                    let increment = u32::try_from(self.received).unwrap_or(MAX_WINDOW);
                    put_window_update(increment, &mut self.output);
                    self.received = 0;
                }
                let data = unpadded(head, payload)?;
                if let Some(stream) = self.streams.get_mut(&head.stream) {
                    stream.received += data.len();
                    if ends {
                        self.finish(head.stream, None, done);
                    }
                }
            }
            frame::HEADERS => {
                let mut block = unpadded(head, payload)?;
                if head.flags & frame::PRIORITY != 0 {
                    block = block.get(5..).ok_or(WireError::Malformed(head.kind))?;
                }
                if head.flags & frame::END_HEADERS != 0 {
                    self.headers(head.stream, ends, block, done)?;
                } else {
                    self.partial = Some((head.stream, ends, block.to_vec()));
                }
            }
            frame::CONTINUATION => {
                let Some((stream, ends, mut block)) = self.partial.take() else {
                    return Err(WireError::Malformed(head.kind));
                };
                block.extend_from_slice(payload);
                if head.flags & frame::END_HEADERS != 0 {
                    self.headers(stream, ends, &block, done)?;
                } else {
                    self.partial = Some((stream, ends, block));
                }
            }
            frame::RST_STREAM => {
                let why = format!(
                    "server reset the stream with HTTP/2 error {}",
                    u32_at(payload)
                );
                self.finish(head.stream, Some(why), done);
            }
            frame::SETTINGS if head.flags & frame::ACK == 0 => self.settings(payload)?,
            frame::PING if head.flags & frame::ACK == 0 => {
                Head {
                    flags: frame::ACK,
                    ..head
                }
                .put(&mut self.output);
                self.output.extend_from_slice(payload);
            }
            frame::GOAWAY => {
                let debug = payload.get(8..).unwrap_or_default();
                return Err(WireError::GoAway {
                    code: payload.get(4..).map_or(0, u32_at),
                    debug: String::from_utf8_lossy(debug).into_owned(),
                });
            }
            frame::WINDOW_UPDATE => {
                let increment = i64::from(u32_at(payload) & MAX_WINDOW);
                if head.stream == 0 {
                    self.send_window += increment;
                } else if let Some(stream) = self.streams.get_mut(&head.stream) {
                    stream.send_window += increment;
                }
                self.send_blocked();
            }
            _ => {}
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), WireError> {
        for setting in payload.chunks_exact(6) {
            let value = u32_at(&setting[2..]);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                // The blocks of later requests name entries that a smaller table would have dropped.
                frame::HEADER_TABLE_SIZE if value < 4096 => {
                    return Err(WireError::HeaderTable(value));
                }
                frame::MAX_CONCURRENT_STREAMS => self.max_streams = value as usize,
                frame::INITIAL_WINDOW_SIZE => {
                    let grown = i64::from(value) - self.stream_window;
                    self.stream_window += grown;
                    self.streams
                        .values_mut()
                        .for_each(|stream| stream.send_window += grown);
                }
                _ => {}
            }
        }
        Head {
            len: 0,
            kind: frame::SETTINGS,
            flags: frame::ACK,
            stream: 0,
        }
        .put(&mut self.output);
        self.ready = true;
        self.send_blocked();
        self.open_waiting();
        Ok(())
    }

    fn headers(
        &mut self,
        id: u32,
        ends: bool,
        block: &[u8],
        done: &mut Vec<Done>,
    ) -> Result<(), WireError> {
        // Also for a stream that is gone: the block may change the shared table.
        let mut stream = self.streams.get_mut(&id);
        self.decoder
            .decode_with_cb(block, |name, value| {
                let Some(stream) = stream.as_mut() else {
                    return;
                };
                let text = || String::from_utf8_lossy(&value).into_owned();
                match &*name {
                    b":status" if &*value != b"200" => stream.http_status = Some(text()),
                    b"grpc-status" => stream.grpc_status = Some(text()),
                    b"grpc-message" => stream.grpc_message = text(),
                    _ => {}
                }
            })
            .map_err(|error| WireError::Headers(format!("{error:?}")))?;
        if ends {
            self.finish(id, None, done);
        }
        Ok(())
    }

    fn finish(&mut self, id: u32, reset: Option<String>, done: &mut Vec<Done>) {
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        let outcome = match (reset, &stream.http_status, stream.grpc_status.as_deref()) {
            (Some(why), _, _) => Err(why),
            (None, Some(status), _) => Err(format!("HTTP status {status}")),
            (None, None, Some("0")) if stream.received >= MESSAGE_HEAD => {
                Ok(stream.received - MESSAGE_HEAD)
            }
            (None, None, Some("0")) => Err("answer without a message".to_owned()),
            (None, None, Some(code)) => Err(format!("gRPC status {code}: {}", stream.grpc_message)),
            (None, None, None) => Err("answer without a gRPC status".to_owned()),
        };
        done.push(Done {
            slot: stream.call.slot,
            since: stream.call.since,
            outcome,
        });
        self.open_waiting();
    }

    fn open_waiting(&mut self) {
        while self.streams.len() < self.max_streams {
            let Some((call, message)) = self.waiting.pop_front() else {
                return;
            };
            self.open(call, &message);
        }
    }

    fn open(&mut self, call: Call, message: &[u8]) {
        let id = self.next_stream;
        self.next_stream += 2;
        let block = if self.indexed {
            &self.blocks.later
        } else {
            &self.blocks.first
        };
        self.indexed = true;
        Head {
            len: block.len(),
            kind: frame::HEADERS,
            flags: frame::END_HEADERS,
            stream: id,
        }
        .put(&mut self.output);
        self.output.extend_from_slice(block);
        let len = i64::try_from(message.len()).unwrap_or(i64::MAX);
        let mut stream = Stream {
            call,
            unsent: Vec::new(),
            send_window: self.stream_window,
            received: 0,
            http_status: None,
            grpc_status: None,
            grpc_message: String::new(),
        };
        let fits =
            message.len() <= frame::MAX_PAYLOAD && len <= self.send_window.min(stream.send_window);
        if fits && self.blocked.is_empty() {
            self.send_window -= len;
            stream.send_window -= len;
            put_data(id, message, true, &mut self.output);
            self.streams.insert(id, stream);
        } else {
            stream.unsent = message.to_vec();
            self.streams.insert(id, stream);
            self.blocked.push_back(id);
            self.send_blocked();
        }
    }

    /// Sends what the windows allow of the messages that did not fit, in their order.
    fn send_blocked(&mut self) {
        while let Some(id) = self.blocked.front().copied() {
            // A stream that ended early needs no more of its message.
            if let Some(stream) = self.streams.get_mut(&id) {
                let window = usize::try_from(self.send_window.min(stream.send_window)).unwrap_or(0);
                let take = stream.unsent.len().min(window).min(frame::MAX_PAYLOAD);
                if take == 0 {
                    return;
                }
                let rest = stream.unsent.split_off(take);
                let len = i64::try_from(take).unwrap_or(i64::MAX);
                self.send_window -= len;
                stream.send_window -= len;
                put_data(id, &stream.unsent, rest.is_empty(), &mut self.output);
                stream.unsent = rest;
                if !stream.unsent.is_empty() {
                    continue;
                }
            }
            self.blocked.pop_front();
        }
    }
}

fn put_data(stream: u32, data: &[u8], last: bool, out: &mut Vec<u8>) {
    let flags = if last { frame::END_STREAM } else { 0 };
    Head {
        len: data.len(),
        kind: frame::DATA,
        flags,
        stream,
    }
    .put(out);
    out.extend_from_slice(data);
}

fn put_window_update(increment: u32, out: &mut Vec<u8>) {
    Head {
        len: 4,
        kind: frame::WINDOW_UPDATE,
        flags: 0,
        stream: 0,
    }
    .put(out);
    out.extend_from_slice(&increment.to_be_bytes());
}

fn unpadded(head: Head, payload: &[u8]) -> Result<&[u8], WireError> {
    if head.flags & frame::PADDED == 0 {
        return Ok(payload);
    }
    let (padding, rest) = payload
        .split_first()
        .ok_or(WireError::Malformed(head.kind))?;
    let len = rest
        .len()
        .checked_sub(usize::from(*padding))
        .ok_or(WireError::Malformed(head.kind))?;
    Ok(&rest[..len])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server's side: frames it sends, and what it got.
    struct Server {
        session: Session,
        encoder: loona_hpack::Encoder<'static>,
        done: Vec<Done>,
    }

    impl Server {
        fn new(settings: &[(u16, u32)]) -> Self {
            let mut server = Self {
                session: Session::new("127.0.0.1:1", false, "/etcdserverpb.KV/Put"),
                encoder: loona_hpack::Encoder::new(),
                done: Vec::new(),
            };
            let payload: Vec<u8> = settings
                .iter()
                .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
                .collect();
            server.send(frame::SETTINGS, 0, 0, &payload);
            server.got();
            server
        }

        fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
            let mut bytes = Vec::new();
            Head {
                len: payload.len(),
                kind,
                flags,
                stream,
            }
            .put(&mut bytes);
            bytes.extend_from_slice(payload);
            // Byte by byte: a frame may be cut anywhere.
            let mut pending = Vec::new();
            for byte in bytes {
                pending.push(byte);
                let used = self.session.receive(&pending, &mut self.done).unwrap();
                pending.drain(..used);
            }
            assert!(pending.is_empty());
        }

        fn send_headers(&mut self, ends: bool, stream: u32, headers: &[(&str, &str)]) {
            let block = self.encoder.encode(
                headers
                    .iter()
                    .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
            );
            let flags = frame::END_HEADERS | if ends { frame::END_STREAM } else { 0 };
            self.send(frame::HEADERS, flags, stream, &block);
        }

        fn answer(&mut self, stream: u32, message: &[u8]) {
            self.send_headers(
                false,
                stream,
                &[(":status", "200"), ("content-type", "application/grpc")],
            );
            self.send(
                frame::DATA,
                0,
                stream,
                &[&[0, 0, 0, 0, 3], message].concat(),
            );
            self.send_headers(true, stream, &[("grpc-status", "0"), ("grpc-message", "")]);
        }

        /// The frames that the client sent since the last call: kind, stream, payload.
        fn got(&mut self) -> Vec<(u8, u8, u32, Vec<u8>)> {
            let output = std::mem::take(self.session.output());
            let mut rest = output.strip_prefix(PREFACE).unwrap_or(&output);
            let mut frames = Vec::new();
            while let Some(head) = Head::parse(rest) {
                let payload = rest[frame::HEAD..frame::HEAD + head.len].to_vec();
                frames.push((head.kind, head.flags, head.stream, payload));
                rest = &rest[frame::HEAD + head.len..];
            }
            assert!(rest.is_empty());
            frames
        }

        fn data_sent(&mut self) -> usize {
            self.got()
                .iter()
                .filter(|frame| frame.0 == frame::DATA)
                .map(|frame| frame.3.len())
                .sum()
        }

        fn outcomes(&mut self) -> Vec<(usize, Result<usize, String>)> {
            self.done
                .drain(..)
                .map(|done| (done.slot, done.outcome))
                .collect()
        }
    }

    #[test]
    fn answered_call_comes_back_with_its_slot_and_size() {
        let mut server = Server::new(&[]);
        server.session.call(4, |out| out.extend_from_slice(b"abc"));
        let frames = server.got();
        assert_eq!(frames[0].0, frame::HEADERS);
        assert_eq!(
            (frames[1].0, frames[1].1, frames[1].2),
            (frame::DATA, frame::END_STREAM, 1)
        );
        assert_eq!(frames[1].3, b"\0\0\0\0\x03abc");
        server.answer(1, b"xyz");
        assert_eq!(server.outcomes(), [(4, Ok(3))]);
        assert_eq!(server.session.in_flight(), 0);
    }

    #[test]
    fn refusal_carries_etcds_text() {
        let mut server = Server::new(&[]);
        server.session.call(0, |_| {});
        let trailers = [
            (":status", "200"),
            ("grpc-status", "3"),
            ("grpc-message", "etcdserver: key is not provided"),
        ];
        server.send_headers(true, 1, &trailers);
        assert_eq!(
            server.outcomes(),
            [(
                0,
                Err("gRPC status 3: etcdserver: key is not provided".to_owned())
            )]
        );
    }

    #[test]
    fn success_without_message_and_reset_are_errors() {
        let mut server = Server::new(&[]);
        (0..3).for_each(|slot| server.session.call(slot, |_| {}));
        server.send_headers(true, 1, &[(":status", "200"), ("grpc-status", "0")]);
        server.send(frame::RST_STREAM, 0, 3, &8_u32.to_be_bytes());
        server.send_headers(true, 5, &[(":status", "503")]);
        let failed = server.outcomes();
        assert_eq!(failed.len(), 3);
        assert!(
            failed.iter().all(|(_, outcome)| outcome.is_err()),
            "{failed:?}"
        );
    }

    #[test]
    fn call_beyond_the_servers_stream_limit_waits_for_an_answer() {
        let mut server = Server::new(&[(frame::MAX_CONCURRENT_STREAMS, 1)]);
        server.session.call(0, |_| {});
        server.session.call(1, |_| {});
        assert_eq!(server.got().len(), 2);
        assert_eq!(server.session.in_flight(), 2);
        server.answer(1, b"abc");
        assert_eq!(server.got().iter().filter(|frame| frame.2 == 3).count(), 2);
        server.answer(3, b"abc");
        assert_eq!(server.outcomes(), [(0, Ok(3)), (1, Ok(3))]);
    }

    #[test]
    fn message_beyond_the_windows_waits_for_updates() {
        let mut server = Server::new(&[(frame::INITIAL_WINDOW_SIZE, 1000)]);
        server
            .session
            .call(0, |out| out.resize(MESSAGE_HEAD + 100_000, 1));
        assert_eq!(server.data_sent(), 1000);
        server.send(frame::WINDOW_UPDATE, 0, 1, &1_000_000_u32.to_be_bytes());
        assert_eq!(
            server.data_sent(),
            64_535,
            "the connection's window still holds it back"
        );
        server.send(frame::WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes());
        let frames = server.got();
        assert_eq!(
            1000 + 64_535 + frames.iter().map(|frame| frame.3.len()).sum::<usize>(),
            100_005
        );
        assert!(
            frames
                .iter()
                .rev()
                .skip(1)
                .all(|frame| frame.1 & frame::END_STREAM == 0)
        );
        assert_eq!(frames.last().unwrap().1, frame::END_STREAM);
    }

    #[test]
    fn ping_is_answered_and_goaway_ends_the_session() {
        let mut server = Server::new(&[]);
        server.send(frame::PING, 0, 0, b"12345678");
        assert_eq!(
            server.got(),
            [(frame::PING, frame::ACK, 0, b"12345678".to_vec())]
        );
        let mut bytes = Vec::new();
        Head {
            len: 12,
            kind: frame::GOAWAY,
            flags: 0,
            stream: 0,
        }
        .put(&mut bytes);
        bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 11, b'c', b'a', b'l', b'm']);
        let error = server
            .session
            .receive(&bytes, &mut server.done)
            .unwrap_err();
        assert_eq!(
            error,
            WireError::GoAway {
                code: 11,
                debug: "calm".to_owned()
            }
        );
    }

    #[test]
    fn header_block_may_be_continued() {
        let mut server = Server::new(&[]);
        server.session.call(9, |_| {});
        let block = server
            .encoder
            .encode([(&b":status"[..], &b"200"[..]), (b"grpc-status", b"14")]);
        let (head, tail) = block.split_at(2);
        server.send(frame::HEADERS, frame::END_STREAM, 1, head);
        server.send(frame::CONTINUATION, frame::END_HEADERS, 1, tail);
        assert_eq!(server.outcomes(), [(9, Err("gRPC status 14: ".to_owned()))]);
    }
}
