//! How tight memory is: first new connections are refused, then new requests, long before the kernel kills anybody.
//!
//! Limit: what was let in before goes on, and may take what its windows let it.

use std::fs;
use std::path::PathBuf;

/// How tight memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Pressure {
    /// Not at all.
    #[default]
    Calm,
    /// At the limit: no new connections.
    Tight,
    /// Beyond: no new requests either.
    Critical,
}

impl From<u8> for Pressure {
    fn from(level: u8) -> Self {
        match level {
            0 => Self::Calm,
            1 => Self::Tight,
            _ => Self::Critical,
        }
    }
}

/// How much memory may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// As much as there is.
    None,
    /// So many percent of what there is: the control group's limit, or the machine's memory.
    Percent(u8),
    /// So many bytes.
    Bytes(u64),
}

impl Default for MemoryLimit {
    fn default() -> Self {
        Self::Percent(90)
    }
}

/// What is used, and what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes in use, which nobody but us could give back.
    pub used: u64,
    /// Bytes there are.
    pub all: u64,
}

impl MemoryLimit {
    /// How tight `memory` is, when it was `before`.
    ///
    /// Tight at the limit, critical half-way from there to all there is (a tenth above a limit in bytes); calm again 5 %
    /// below, so that it does not flutter.
    #[must_use]
    pub fn judge(self, memory: Memory, before: Pressure) -> Pressure {
        let percent = |percent: u64| memory.all / 100 * percent;
        let (tight, critical) = match self {
            Self::None => return Pressure::Calm,
            Self::Percent(limit) => {
                (percent(u64::from(limit)), percent(u64::midpoint(u64::from(limit), 100)))
            }
            Self::Bytes(limit) => (limit, limit.saturating_add(limit / 10)),
        };
        let is_over =
            |bar: u64, level: Pressure| memory.used >= if before >= level { bar - bar / 20 } else { bar };
        if is_over(critical, Pressure::Critical) {
            Pressure::Critical
        } else if is_over(tight, Pressure::Tight) {
            Pressure::Tight
        } else {
            Pressure::Calm
        }
    }
}

/// Looks at the memory of this process, or of its control group where that has a limit. Blocks on the file system.
///
/// `None` without `/proc`.
#[must_use]
pub fn memory() -> Option<Memory> {
    let own = kibibytes("/proc/self/status", "VmRSS:")?;
    let machine = kibibytes("/proc/meminfo", "MemTotal:")?;
    let Some(group) = group().filter(|group| group.all < machine) else {
        return Some(Memory { used: own, all: machine });
    };
    Some(Memory { used: group.used.max(own), all: group.all })
}

/// The control group's memory, if it has a limit: version 2's, then version 1's, as it is mounted in a container, then
/// where `/proc/self/cgroup` says.
fn group() -> Option<Memory> {
    let paths = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = |controller: &str| {
        let mut lines = paths.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        lines.find(|(names, _)| names.split(',').any(|name| name == controller)).map(|(_, path)| path)
    };
    let place = |root: &str, controller: &str| {
        PathBuf::from(root).join(path(controller).unwrap_or("").trim_start_matches('/'))
    };
    let v2 = ["memory.max", "memory.current", "inactive_file"];
    let v1 = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"];
    [
        (place("/sys/fs/cgroup", ""), v2),
        (PathBuf::from("/sys/fs/cgroup"), v2),
        (place("/sys/fs/cgroup/memory", "memory"), v1),
        (PathBuf::from("/sys/fs/cgroup/memory"), v1),
    ]
    .into_iter()
    .find_map(|(folder, [all, used, cached])| {
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        let (all, used) = (number(all)?, number(used)?);
        // The kernel takes this back before it kills: files that were read and are not in use.
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix(cached)?.trim().parse().ok());
        Some(Memory { used: used.saturating_sub(cached.unwrap_or(0)), all })
    })
}

fn kibibytes(file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|count| count * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_refused_before_requests_and_later_again_let_in() {
        use Pressure::{Calm, Critical, Tight};
        let limit = MemoryLimit::Percent(80);
        let mut level = Calm;
        for (used, expected) in [
            (799, Calm),
            (800, Tight),
            (780, Tight),
            (899, Tight),
            (900, Critical),
            (860, Critical),
            (854, Tight),
            (761, Tight),
            (759, Calm),
            (780, Calm),
            (950, Critical),
            (100, Calm),
        ] {
            level = limit.judge(Memory { used, all: 1000 }, level);
            assert_eq!(level, expected, "{used}");
        }
        let bytes = MemoryLimit::Bytes(1000);
        assert_eq!(bytes.judge(Memory { used: 1000, all: 10 }, Calm), Tight);
        assert_eq!(bytes.judge(Memory { used: 1100, all: 10 }, Calm), Critical);
        assert_eq!(MemoryLimit::None.judge(Memory { used: 9, all: 1 }, Critical), Calm);
    }

    #[test]
    fn there_is_memory_and_some_of_it_is_used() {
        let memory = memory().unwrap();
        assert!(memory.used > 1 << 20 && memory.used < memory.all, "{memory:?}");
    }
}
