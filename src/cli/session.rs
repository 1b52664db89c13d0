//! What a verb works with: the client, and where its words go.

use std::process::ExitCode;

use serde::Serialize;

use super::Style;
use super::client::Client;

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: refused or failed.
    Failed,
    /// 2: not understood.
    Usage,
    /// 3: timed out.
    TimedOut,
    /// 4: supervision took the traffic back.
    Reverted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::TimedOut => 3,
            Exit::Reverted => 4,
        })
    }
}

/// For whom a verb writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For machines: one JSON document.
    Json,
}

/// One verb's surroundings.
pub struct Session<'o> {
    /// Who is asked.
    pub client: Client,
    /// For whom.
    pub format: Format,
    /// How it may look.
    pub style: Style,
    /// Takes each line as it comes, without a newline at its end; false when it could not be written.
    pub out: &'o mut dyn FnMut(&str) -> bool,
    /// False once something could not be written: there is nobody to go on for.
    pub is_heard: bool,
}

impl Session<'_> {
    /// One line, or several.
    pub(super) fn say(&mut self, text: impl AsRef<str>) {
        self.is_heard &= (self.out)(text.as_ref());
    }

    /// Empties the screen of somebody who watches one.
    pub(super) fn clear(&mut self) {
        if self.format == Format::Text && self.style.colour {
            // Home, then clear: less flicker than the other way round.
            self.say("\x1b[H\x1b[2J");
        }
    }

    /// What passes, for people: machines see that a document is late.
    pub(super) fn remark(&mut self, error: &anyhow::Error) {
        if self.format == Format::Text {
            self.say(format!("{error:#}"));
        }
    }

    /// `value` for machines, else what `text` makes of it for people.
    pub(super) fn tell<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T, Style) -> String,
    ) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(value)?,
            Format::Text => text(value, self.style),
        };
        self.say(text);
        Ok(())
    }
}
