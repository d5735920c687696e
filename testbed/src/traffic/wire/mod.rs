//! As much HTTP/2 as a closed loop of unary gRPC calls needs, and no more.
//!
//! A general client spends more CPU on a request than the servers under test should, and it runs on their
//! cores. Here one task owns a connection: it parses everything that one read brought, answers each
//! completed call with the next request, and writes them all at once. [`session`] is sans-IO, [`frame`] holds the
//! layout, [`headers`] the request's header block, [`connection`] the socket.
//! It does not check response headers beyond the gRPC status, and does not take pushed streams.

pub(super) mod connection;
mod frame;
mod headers;
pub(super) mod session;
