//! The preflight checks by name, and their waivers: `[checks] allow = { swap = "no memory to spare on these hosts" }`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::schema;
use super::spans::Path;
use super::suggest::nearest;
use super::validate::Check as Validation;

macro_rules! checks {
    ($($check:ident $code:literal $meaning:literal)*) => {
        /// A preflight check.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Check {
            $(
                #[doc = $meaning]
                #[serde(rename = $code)]
                $check,
            )*
        }

        impl Check {
            /// Every check, in the order in which they are reported.
            pub const ALL: &'static [Self] = &[$(Self::$check),*];

            /// What `[checks] allow` names.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$check => $code),* }
            }

            /// What it asks for.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$check => $meaning),* }
            }
        }
    };
}

checks! {
    Reachable "reachable" "the machine can be logged in to and worked on"
    Architecture "architecture" "all machines have the processor of this one"
    Libc "libc" "all machines have the same C library"
    Memory "memory" "there is memory for the member"
    Swap "swap" "there is no swap, which makes a member pause"
    OpenFiles "open-files" "a member may open enough files"
    Directories "directories" "programs and data can be written where they go"
    DiskSpace "disk-space" "there is room for the data"
    DiskSync "disk-sync" "the disk flushes a small write fast enough"
    TimeZone "time-zone" "all machines have the same time zone"
    TimeSync "time-sync" "the clock is kept right"
    Clock "clock" "all clocks agree"
    Names "names" "every machine finds every advertised name, at the same addresses"
    ReverseNames "reverse-names" "the addresses of advertised names have these names"
    ListenAddress "listen-address" "the member's address is one of its machine"
    Ports "ports" "nobody else holds the member's ports"
    PortClaims "port-claims" "no other cluster of this state directory wants the member's ports"
    Data "data" "the data directory is empty or the member's own"
    PeerPorts "peer-ports" "every machine reaches the peer ports of the others"
    ClientPorts "client-ports" "every machine reaches the client ports of the others"
    RoundTrip "round-trip" "heartbeats and elections have time for the round trips"
    Firewall "firewall" "no firewall stands in the way"
    Certificates "certificates" "certificates name the advertised addresses and are valid"
    SrvRecords "srv-records" "the DNS has the SRV records that the members need"
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Checks `[checks]`.
pub(super) fn waived(raw: &schema::Checks, check: &mut Validation<'_>) -> BTreeMap<Check, String> {
    let base = Path::root().key("checks").key("allow");
    let mut waived = BTreeMap::new();
    for (code, reason) in &raw.allow {
        let path = base.key(code);
        let Some(known) = Check::ALL.iter().find(|check| check.code() == code) else {
            let codes = || Check::ALL.iter().map(|check| check.code());
            let help = match nearest(code, codes()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the checks are: {}", codes().collect::<Vec<_>>().join(", ")),
            };
            check.fault(
                &path,
                format!("there is no check `{code}`"),
                "unknown check",
                help,
            );
            continue;
        };
        if reason.trim().is_empty() {
            check.fault(
                &path,
                format!("the waiver of `{code}` gives no reason"),
                "empty",
                "say why it is right here, for the next reader",
            );
        }
        waived.insert(*known, reason.clone());
    }
    waived
}
