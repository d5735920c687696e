//! What the kernel says of this process.

use std::time::Duration;

/// What the kernel says of this process.
pub(super) struct Process {
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) max_virtual_bytes: u64,
    pub(super) open_files: u64,
    pub(super) max_files: u64,
    pub(super) cpu: Duration,
}

impl Process {
    pub(super) fn read() -> Option<Self> {
        let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
        let mut pages = statm.split_whitespace();
        let virtual_pages: u64 = pages.next()?.parse().ok()?;
        let resident_pages: u64 = pages.next()?.parse().ok()?;
        let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
        let limit = |name| {
            limits
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|line| line.split_whitespace().next()?.parse().ok())
                // "unlimited"
                .unwrap_or(u64::MAX)
        };
        let open_files = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu = Duration::new(
            u64::try_from(clock.tv_sec).ok()?,
            u32::try_from(clock.tv_nsec).ok()?,
        );
        Some(Self {
            resident_bytes: resident_pages * rustix::param::page_size() as u64,
            virtual_bytes: virtual_pages * rustix::param::page_size() as u64,
            open_files,
            max_virtual_bytes: limit("Max address space"),
            max_files: limit("Max open files"),
            cpu,
        })
    }
}
