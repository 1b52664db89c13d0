//! How text is laid out: colour, width, and the words for times and amounts.

use std::io::IsTerminal;

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// ANSI colours.
    pub colour: bool,
    /// Columns.
    pub width: usize,
    /// Lines; of what is printed once they don't count.
    pub height: usize,
}

/// What a piece of text means; how it looks follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// A name that the eye looks for.
    Strong,
    /// As it should be.
    Good,
    /// On the move.
    Moving,
    /// Do not.
    Bad,
    /// Beside the point.
    Faint,
}

impl Style {
    /// No colour, 100 columns: for the demo and tests.
    pub const PLAIN: Self = Self { colour: false, width: 100, height: usize::MAX };

    /// Columns where nobody looks: enough for a program to find everything.
    const PIPE: usize = 240;

    /// What standard output can show. `NO_COLOR` is respected (no-color.org).
    #[must_use]
    pub fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Self { width: Self::PIPE, ..Self::PLAIN };
        }
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let (width, height) =
            rustix::termios::tcgetwinsize(&stdout).map_or((0, 0), |size| (size.ws_col, size.ws_row));
        let or = |told: u16, plain| if told == 0 { plain } else { usize::from(told) };
        Self {
            colour: !refused && !dumb,
            width: or(width, Self::PLAIN.width),
            height: or(height, Self::PLAIN.height),
        }
    }

    /// `text` in this tone; pad it before.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Strong => "1",
            Tone::Good => "32",
            Tone::Moving => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Basis points as people write them: `5 %`, `0.25 %`.
pub(super) fn percent(points: u16) -> String {
    match (points / 100, points % 100) {
        (whole, 0) => format!("{whole} %"),
        (whole, cents) if cents % 10 == 0 => format!("{whole}.{} %", cents / 10),
        (whole, cents) => format!("{whole}.{cents:02} %"),
    }
}

/// `1 request`, `3 requests`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn and(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// `12 s`, `5 min`, `3 h 12 min`, `2 d 4 h`.
pub(super) fn span(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, _) => format!("{minutes} min"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, _, _) => format!("{days} d {hours} h"),
    }
}

/// At most `width` characters on one line, nothing that a terminal would obey: the text may be anybody's.
pub(super) fn line(text: &str, width: usize) -> String {
    let mut clean: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if clean.chars().count() > width {
        clean = clean.chars().take(width.saturating_sub(1)).chain(['…']).collect();
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_say_them() {
        assert_eq!([0, 25, 500, 1250, 10_000].map(percent), ["0 %", "0.25 %", "5 %", "12.5 %", "100 %"]);
        assert_eq!([5, 300, 11_520, 187_200].map(span), ["5 s", "5 min", "3 h 12 min", "2 d 4 h"]);
        assert_eq!(and(&["a".into(), "b".into(), "c".into()]), "a, b and c");
        assert_eq!(counted(1, "request"), "1 request");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        assert_eq!(line("a\x1b[2Jb\n", 80), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(line("abcdef", 4), "abc…");
    }
}
