//! Applying: the one door through which a cluster changes.
//!
//! Runs a plan's steps in order, journals each, and finishes or undoes a step when interrupted. It decides nothing but what
//! must be looked at again right before it is done: whether quorum still holds, and who leads. Every wait has a deadline.

mod both;
mod install;
mod interrupt;
mod membership;
mod probe;
mod ready;
mod records;
mod register;
mod run;
mod stop;
mod target;

pub use interrupt::{Interrupt, Second};
pub use probe::{Probe, Receipt};
pub use records::check as check_records;
pub use run::{Applied, Apply, Lifetime};
pub use stop::stop_all;
pub use target::{Stopped, Target, Until};
