//! What a machine can be asked, and how an error comes back.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A question to a machine, or an order.
pub trait Ask: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Unique among all.
    const NAME: &'static str;
    /// What comes back.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// Answers it for the machine that this process runs on.
    fn answer(self) -> impl Future<Output = Result<Self::Answer, Error>> + Send;
}

/// An [`Error`] on its way from a machine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Trouble {
    what: String,
    fix: Option<String>,
    causes: Vec<String>,
}

impl From<&Error> for Trouble {
    fn from(error: &Error) -> Self {
        Self {
            what: error.to_string(),
            fix: error.fix(),
            causes: error.causes(),
        }
    }
}

impl Trouble {
    /// The error, with the machine that it comes from.
    pub(super) fn of(self, host: &str) -> Error {
        let Self { what, fix, causes } = self;
        Error::Failed {
            what: format!("{host}: {what}"),
            fix,
            source: (!causes.is_empty()).then(|| causes.join(": ").into()),
        }
    }
}
