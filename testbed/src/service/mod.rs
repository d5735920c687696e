//! What clusters find each other with: a DNS server for zones that tests and labs write, and a discovery service.
//!
//! Both are given sockets' addresses and start no process. Invariant: both end with the value that owns them, and no
//! request of a client makes them wait without bound.

pub mod discovery;
pub mod dns;
pub mod zone;
