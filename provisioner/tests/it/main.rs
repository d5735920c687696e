//! The program and the library from outside. Tests that start processes do so on loopback, each with a state root of its own.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers as well"
)]

mod again;
mod backup;
mod bad_input;
mod bench;
mod broken;
mod cli;
mod conformance;
mod daily;
mod diagnostics;
mod durability;
mod ephemeral;
mod hosts;
mod lab;
mod life;
mod living;
mod machines;
mod membership;
mod outside;
mod pki;
mod preflight;
mod recover;
mod rendered;
mod restore;
mod rotate;
mod sandbox;
mod services;
mod shipped;
mod up;
mod upgrade;
