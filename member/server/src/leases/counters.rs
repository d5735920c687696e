//! What is counted of leases, under etcd's names.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets of TTLs: 1 s, doubling; etcd's.
const BUCKETS: usize = 24;

/// Counts since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    granted: AtomicU64,
    revoked: AtomicU64,
    renewed: AtomicU64,
    expired: AtomicU64,
    ttls: [AtomicU64; BUCKETS],
    ttl_sum: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn granted(&self, ttl: i64) {
        let ttl = u64::try_from(ttl).unwrap_or(0);
        add(&self.granted, 1);
        add(&self.ttl_sum, ttl);
        let bucket = ttl.max(1).next_power_of_two().trailing_zeros();
        if let Some(bucket) = self.ttls.get(bucket as usize) {
            add(bucket, 1);
        }
    }

    pub(super) fn revoked(&self) {
        add(&self.revoked, 1);
    }

    pub(super) fn renewed(&self) {
        add(&self.renewed, 1);
    }

    pub(super) fn expired(&self) {
        add(&self.expired, 1);
    }

    /// Prometheus's text.
    pub(crate) fn render(&self, out: &mut String) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, counter) in [
            (
                "etcd_debugging_lease_granted_total",
                "The total number of granted leases.",
                &self.granted,
            ),
            (
                "etcd_debugging_lease_revoked_total",
                "The total number of revoked leases.",
                &self.revoked,
            ),
            (
                "etcd_debugging_lease_renewed_total",
                "The number of renewed leases seen by the leader.",
                &self.renewed,
            ),
            (
                "etcd_debugging_server_lease_expired_total",
                "The total number of expired leases.",
                &self.expired,
            ),
        ] {
            let value = get(counter);
            let _ = writeln!(
                out,
                "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}"
            );
        }
        let name = "etcd_debugging_lease_ttl_total";
        let _ = writeln!(
            out,
            "# HELP {name} Bucketed histogram of lease TTLs.\n# TYPE {name} histogram"
        );
        let mut below = 0;
        for (power, bucket) in self.ttls.iter().enumerate() {
            below += get(bucket);
            let _ = writeln!(out, "{name}_bucket{{le=\"{}\"}} {below}", bound(power));
        }
        let (sum, count) = (get(&self.ttl_sum), get(&self.granted));
        let _ = writeln!(
            out,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}"
        );
    }
}

/// A bucket's bound as Go prints it: with an exponent from a million on.
fn bound(power: usize) -> String {
    let seconds = 1_u64 << power;
    if seconds < 1_000_000 {
        seconds.to_string()
    } else {
        let (whole, rest) = (seconds / 1_000_000, seconds % 1_000_000);
        format!("{whole}.{}e+06", format!("{rest:06}").trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttls_are_counted_in_etcds_buckets() {
        let counters = Counters::default();
        for ttl in [1, 2, 3, 5_000_000, 9_000_000_000] {
            counters.granted(ttl);
        }
        let mut out = String::new();
        counters.render(&mut out);
        for line in [
            "etcd_debugging_lease_granted_total 5\n",
            "etcd_debugging_lease_ttl_total_bucket{le=\"1\"} 1\n",
            "etcd_debugging_lease_ttl_total_bucket{le=\"2\"} 2\n",
            "etcd_debugging_lease_ttl_total_bucket{le=\"4\"} 3\n",
            "etcd_debugging_lease_ttl_total_bucket{le=\"4.194304e+06\"} 3\n",
            "etcd_debugging_lease_ttl_total_bucket{le=\"8.388608e+06\"} 4\n",
            "etcd_debugging_lease_ttl_total_bucket{le=\"+Inf\"} 5\n",
            "etcd_debugging_lease_ttl_total_count 5\n",
        ] {
            assert!(out.contains(line), "{line}{out}");
        }
    }
}
