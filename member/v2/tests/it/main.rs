//! The tree against a naive model of it, and what watches see.

mod model;
mod random;
mod table;
mod watch;
