//! How tight memory is: first new connections are refused, then new requests, long before the kernel kills anybody.
//!
//! Limit: what was let in before goes on, and may take what its windows let it.

use std::fs;
use std::path::Path;

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
    /// So many percent of what there is: the limit of the control group or of one above it, or the machine's memory.
    Percent(u8),
    /// So many bytes of our own.
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
    /// Bytes in use that the kernel could not take back, where least of them is left: in our control group, or in one above it
    /// by whoever is in that.
    pub used: u64,
    /// Bytes there are, there.
    pub all: u64,
    /// Those in use by us: this process, or all of its control group where that has a limit.
    pub own: u64,
}

impl MemoryLimit {
    /// How tight `memory` is, when it was `before`.
    ///
    /// Tight at the limit, critical half-way from there to all there is (a tenth above a limit in bytes); calm again 5 %
    /// below, so that it does not flutter.
    #[must_use]
    pub fn judge(self, memory: Memory, before: Pressure) -> Pressure {
        let percent = |percent: u64| memory.all / 100 * percent;
        let (used, tight, critical) = match self {
            Self::None => return Pressure::Calm,
            Self::Percent(limit) => {
                let half_way = u64::midpoint(u64::from(limit), 100);
                (memory.used, percent(u64::from(limit)), percent(half_way))
            }
            Self::Bytes(limit) => (memory.own, limit, limit.saturating_add(limit / 10)),
        };
        let is_over = |bar: u64, level: Pressure| used >= if before >= level { bar - bar / 20 } else { bar };
        if is_over(critical, Pressure::Critical) {
            Pressure::Critical
        } else if is_over(tight, Pressure::Tight) {
            Pressure::Tight
        } else {
            Pressure::Calm
        }
    }
}

/// Looks at the memory of this process, or of its control groups where those have a limit. Blocks on the file system.
///
/// `None` without `/proc`.
#[must_use]
pub fn memory() -> Option<Memory> {
    let process = kibibytes("/proc/self/status", "VmRSS:")?;
    let machine = kibibytes("/proc/meminfo", "MemTotal:")?;
    let paths = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = [V2, V1].map(|version| version.groups(&paths)).into_iter().find(|groups| !groups.is_empty());
    Some(Memory::of(process, machine, &groups.unwrap_or_default()))
}

impl Memory {
    /// Of a process that uses so much, on a machine that has so much, in these groups.
    fn of(process: u64, machine: u64, groups: &[Group]) -> Self {
        let limited = |group: &&Group| group.limit < machine;
        let own = groups.iter().find(|group| group.is_own).filter(limited);
        let own = own.map_or(process, |group| group.used.max(process));
        // In parts of a million: the one that the kernel would kill in first.
        let share = |group: &&Group| u128::from(group.used) * 1_000_000 / u128::from(group.limit.max(1));
        let Some(tightest) = groups.iter().filter(limited).max_by_key(share) else {
            return Self { used: process, all: machine, own };
        };
        Self { used: tightest.used.max(process), all: tightest.limit, own }
    }
}

/// A control group that accounts for memory.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    /// Bytes in use that the kernel could not take back.
    used: u64,
    /// Bytes that it may use; the largest number where it may use any.
    limit: u64,
    /// It is the one that this process is in, none above it.
    is_own: bool,
}

/// How a version of control groups tells of memory (the kernel's `cgroup-v2.rst`; `cgroup-v1/memory.rst`).
struct Version {
    root: &'static str,
    /// As `/proc/self/cgroup` names it.
    controller: &'static str,
    limit: &'static str,
    used: &'static str,
    /// What of that the kernel takes back before it kills anybody: files that were read, however often, and its own caches.
    given_back: &'static [&'static str],
}

const V2: Version = Version {
    root: "/sys/fs/cgroup",
    controller: "",
    limit: "memory.max",
    used: "memory.current",
    given_back: &["inactive_file", "active_file", "slab_reclaimable"],
};
const V1: Version = Version {
    root: "/sys/fs/cgroup/memory",
    controller: "memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    given_back: &["total_inactive_file", "total_active_file"],
};

impl Version {
    /// The groups that this process is in by `/proc/self/cgroup`, those above it last. In a container the root may be its own group,
    /// by another name than `paths` has.
    fn groups(&self, paths: &str) -> Vec<Group> {
        let mut lines = paths.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let path = lines.find(|(names, _)| names.split(',').any(|name| name == self.controller));
        let path = path.map_or("", |(_, path)| path).trim_start_matches('/');
        let own = Path::new(self.root).join(path);
        let above = own.ancestors().take_while(|folder| folder.starts_with(self.root));
        let there = above.filter(|folder| folder.is_dir()).enumerate();
        there.filter_map(|(above, folder)| self.group(folder, above == 0)).collect()
    }

    fn group(&self, folder: &Path, is_own: bool) -> Option<Group> {
        let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let used: u64 = text(self.used)?.trim().parse().ok()?;
        // `max` is no number.
        let limit = text(self.limit)?.trim().parse().unwrap_or(u64::MAX);
        let stat = text("memory.stat").unwrap_or_default();
        let fields = stat.lines().filter_map(|line| line.split_once(' '));
        let given_back = fields.filter(|(name, _)| self.given_back.contains(name));
        let given_back: u64 = given_back.filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok()).sum();
        Some(Group { used: used.saturating_sub(given_back), limit, is_own })
    }
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
            level = limit.judge(Memory { used, all: 1000, own: 0 }, level);
            assert_eq!(level, expected, "{used}");
        }
        let bytes = MemoryLimit::Bytes(1000);
        let own = |own: u64| Memory { used: 9, all: 10, own };
        assert_eq!(bytes.judge(own(999), Calm), Calm);
        assert_eq!(bytes.judge(own(1000), Calm), Tight);
        assert_eq!(bytes.judge(own(1100), Calm), Critical);
        assert_eq!(MemoryLimit::None.judge(Memory { used: 9, all: 1, own: 9 }, Critical), Calm);
    }

    #[test]
    fn there_is_memory_and_some_of_it_is_used() {
        let memory = memory().unwrap();
        assert!(memory.used > 1 << 20 && memory.used < memory.all, "{memory:?}");
    }
    #[test]
    fn the_group_with_the_least_room_counts_and_what_somebody_else_uses_there_is_not_ours() {
        let group = |used: u64, limit: u64, is_own: bool| Group { used, limit, is_own };
        let of = |groups: &[Group]| {
            let Memory { used, all, own } = Memory::of(10, 1000, groups);
            (used, all, own)
        };
        assert_eq!(of(&[]), (10, 1000, 10));
        assert_eq!(of(&[group(50, u64::MAX, true), group(900, 1000, false)]), (10, 1000, 10));
        assert_eq!(of(&[group(50, 100, true)]), (50, 100, 50));
        assert_eq!(of(&[group(5, 100, true)]), (10, 100, 10));
        assert_eq!(of(&[group(50, 100, true), group(300, 400, false)]), (300, 400, 50));
        assert_eq!(of(&[group(80, 100, true), group(300, 400, false)]), (80, 100, 80));
        assert_eq!(of(&[group(50, u64::MAX, true), group(300, 400, false)]), (300, 400, 10));
    }
}
