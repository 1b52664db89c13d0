//! The process itself, from `/proc`, under the names that every Prometheus client uses.

use std::fs;

use super::family::Family;
use super::names;

/// Clock ticks a second in `/proc`: `USER_HZ`, 100 on every Linux that this builds for (proc(5), time(7)).
const TICKS: f64 = 100.0;

/// What can be read; without `/proc` nothing.
pub(super) fn families() -> Vec<Family> {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let system = fs::read_to_string("/proc/stat").unwrap_or_default();
    let open_fds = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let values = [
        (&names::PROCESS_CPU_SECONDS, cpu_seconds(&stat)),
        (&names::PROCESS_START_SECONDS, start_seconds(&stat, &system)),
        (&names::PROCESS_RESIDENT_BYTES, kibibytes(&status, "VmRSS:")),
        (&names::PROCESS_VIRTUAL_BYTES, kibibytes(&status, "VmSize:")),
        (&names::PROCESS_THREADS, word(&status, "Threads:", 0)),
        // One of them is the listing's own.
        (&names::PROCESS_OPEN_FDS, open_fds.map(|count| count.saturating_sub(1) as f64)),
        (&names::PROCESS_MAX_FDS, word(&limits, "Max open files", 0)),
    ];
    let family = |(metric, value): (_, Option<f64>)| {
        let mut family = Family::of(metric);
        family.value(&[], value?);
        Some(family)
    };
    values.into_iter().filter_map(family).collect()
}

/// Field `number` of `/proc/self/stat`, counted from 1 as in proc(5); the name in field 2 may hold anything.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS)
}

fn start_seconds(stat: &str, system: &str) -> Option<f64> {
    Some(word(system, "btime", 0)? + stat_field(stat, 22)? / TICKS)
}

fn kibibytes(status: &str, key: &str) -> Option<f64> {
    Some(word(status, key, 0)? * 1024.0)
}

/// The number that is word `index` after `key`, on the line that starts with it.
fn word(text: &str, key: &str, index: usize) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_spaces_and_parentheses_shifts_nothing() {
        let after_name = "S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 1000 4096 1";
        let stat = format!("42 (a ) (b c) {after_name}");
        assert_eq!(cpu_seconds(&stat), Some(2.0));
        assert_eq!(start_seconds(&stat, "cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_010.0));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(
            (cpu_seconds(""), start_seconds("1 (x) S", ""), kibibytes("", "VmRSS:")),
            (None, None, None)
        );
    }

    #[test]
    fn this_process_has_all_of_them() {
        assert_eq!(families().len(), 7);
    }
}
