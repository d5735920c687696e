//! SRV records as a machine sees them.

use serde::{Deserialize, Serialize};

use crate::apply::check_records;
use crate::error::Error;
use crate::host::remote::Ask;
use crate::render::SrvRecord;

/// Asks a machine whether its name servers have these records, and no others of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AskRecords(pub Vec<SrvRecord>);

impl Ask for AskRecords {
    const NAME: &'static str = "records";
    /// What is wrong.
    type Answer = Result<(), String>;

    async fn answer(self) -> Result<Self::Answer, Error> {
        Ok(check_records(&self.0).await.map_err(|error| {
            let mut all = vec![error.to_string()];
            all.extend(error.causes());
            all.join(": ")
        }))
    }
}
