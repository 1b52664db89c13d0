//! The screen: a story that scrolls, and below it one picture that is drawn again in place. Without a terminal the
//! picture is written once, when the step is over.

use std::io::{self, IsTerminal, Write};

use super::picture::NARROWEST;
use crate::cli::Style;

/// The longest lines that are made: more is hard to read.
const WIDEST: usize = 100;

/// Standard output.
pub(super) struct Screen {
    /// What it can show.
    pub(super) style: Style,
    is_live: bool,
    /// Lines of the picture that is there now.
    drawn: usize,
}

impl Screen {
    /// As standard output is.
    pub(super) fn of_stdout() -> Self {
        let mut style = Style::of_stdout();
        style.width = style.width.min(WIDEST);
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        // Wrapped lines cannot be drawn over.
        let is_live = io::stdout().is_terminal() && !is_dumb && style.width >= NARROWEST;
        Self { style, is_live, drawn: 0 }
    }

    /// Writes on; a picture that is there makes room.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        let erase = self.erase();
        write(&format!("{erase}{text}\n"))
    }

    /// Draws the picture in place of the last one, where that can be done.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub(super) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        if !self.is_live {
            return Ok(());
        }
        // Up, then line over line: less flicker than to erase first.
        let up = if self.drawn == 0 { String::new() } else { format!("\x1b[{}A", self.drawn) };
        let text: String = lines.iter().map(|line| format!("{line}\x1b[K\n")).collect();
        self.drawn = lines.len();
        write(&format!("\r{up}{text}\x1b[J"))
    }

    /// Leaves the picture in the story.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub(super) fn leave(&mut self, lines: &[String]) -> io::Result<()> {
        let erase = self.erase();
        write(&format!("{erase}{}\n", lines.join("\n")))
    }

    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\r\x1b[{lines}A\x1b[J"),
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
