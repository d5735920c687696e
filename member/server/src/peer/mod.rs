//! The peer port: links to the other members and the service that they call.
//!
//! Knows the wire, not consensus: openraft's types stop at [`crate::consensus`].

mod line;
pub(crate) mod link;
pub(crate) mod links;
pub(crate) mod service;
