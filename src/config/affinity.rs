//! Which CPUs the workers stay on.

use std::str::FromStr;

use super::walk::Node;
use crate::table::Invalid;

/// Linux has none above (`CPU_SETSIZE`, sched_setaffinity(2)).
const MOST: usize = 1023;

const EXPECTED: &str = "\"auto\", \"off\" or a list of CPUs such as [0, 1]";

/// Which CPU each worker stays on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CpuAffinity {
    /// Wherever the system puts it.
    #[default]
    Off,
    /// On one of those that the process may run on, in turn.
    Auto,
    /// On one of these, in turn; never empty, none twice.
    Cpus(Vec<usize>),
}

/// `auto`, `off`, `0,2`, `0-3,8`: as the command line has it.
impl FromStr for CpuAffinity {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "off" => return Ok(Self::Off),
            "auto" => return Ok(Self::Auto),
            _ => {}
        }
        let cpus: Option<Vec<_>> = text.split(',').map(range).collect();
        let cpus: Vec<_> = cpus.into_iter().flatten().flatten().collect();
        match twice(&cpus) {
            Some((_, cpu)) => Err(Invalid(format!("CPU {cpu} is there twice"))),
            None if cpus.is_empty() => {
                let text = text.escape_default();
                Err(Invalid(format!(
                    "`{text}` names no CPUs: expected auto, off, or a list such as 0,1 or 0-3"
                )))
            }
            None => Ok(Self::Cpus(cpus)),
        }
    }
}

fn range(text: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse().ok().filter(|number| *number <= MOST);
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

/// The first CPU that is there a second time, and where.
fn twice(cpus: &[usize]) -> Option<(usize, usize)> {
    let again = |(index, cpu): &(usize, &usize)| cpus[..*index].contains(cpu);
    cpus.iter().enumerate().find(again).map(|(index, cpu)| (index, *cpu))
}

/// `"auto"`, `"off"` or `[0, 1]`.
pub(super) fn read(node: Node<'_>) -> Option<CpuAffinity> {
    if !node.is_list() {
        return match node.text(EXPECTED)? {
            "auto" => Some(CpuAffinity::Auto),
            "off" => Some(CpuAffinity::Off),
            _ => node.unexpected(EXPECTED),
        };
    }
    let nodes = node.list(EXPECTED)?;
    if nodes.is_empty() {
        node.at.error_with("there is no CPU in the list", "to pin no worker: cpu_affinity = \"off\"");
        return None;
    }
    // Each of them, so that all that is wrong is told.
    let cpus: Vec<_> = nodes.iter().map(|node| node.count(&(0..=MOST))).collect();
    let cpus: Vec<_> = cpus.into_iter().collect::<Option<_>>()?;
    if let Some((index, cpu)) = twice(&cpus) {
        nodes[index].at.error(format_args!("CPU {cpu} is there twice"));
        return None;
    }
    Some(CpuAffinity::Cpus(cpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_form_is_read() {
        let read = |text: &str| text.parse().ok();
        assert_eq!(read("auto"), Some(CpuAffinity::Auto));
        assert_eq!(read("off"), Some(CpuAffinity::Off));
        assert_eq!(read("3"), Some(CpuAffinity::Cpus(vec![3])));
        assert_eq!(read("8,0-2"), Some(CpuAffinity::Cpus(vec![8, 0, 1, 2])));
        for bad in ["", "on", "1,", "2-1", "-1", "0,0", "0-2,1", "1024", "0-99999999999", "1 ,2", "a-b"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
