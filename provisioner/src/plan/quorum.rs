//! The quorum ledger: the arithmetic that every step shows.

use std::fmt;

use serde::Serialize;

/// Voters of the cluster and how many are up at the worst moment of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Members that count for quorum.
    pub voters: usize,
    /// How many of them must be up.
    pub need: usize,
    /// How many are up at the step's worst moment.
    pub up: usize,
    /// `up - need`; below zero nothing can be written.
    pub margin: isize,
}

impl Ledger {
    /// The ledger of so many voters of which so many are up.
    #[must_use]
    pub fn new(voters: usize, up: usize) -> Self {
        let need = voters / 2 + 1;
        Self {
            voters,
            need,
            up,
            margin: up.cast_signed() - need.cast_signed(),
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "voters {}, need {}, up {}, margin {:+}",
            self.voters, self.need, self.up, self.margin
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn need_is_a_majority() {
        let needs: Vec<usize> = (1..=7).map(|voters| Ledger::new(voters, 0).need).collect();
        assert_eq!(needs, [1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(Ledger::new(3, 1).margin, -1);
        assert_eq!(
            Ledger::new(3, 3).to_string(),
            "voters 3, need 2, up 3, margin +1"
        );
    }
}
