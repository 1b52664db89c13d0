//! The show: the stage, its clients and the screen, and what can be done with them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, interval};

use super::judge::{Change, Verdict, judge};
use super::log::Log;
use super::operator::{Typed, shown, type_in};
use super::picture::Picture;
use super::screen::Screen;
use super::stage::Stage;
use super::story::FAULTY;
use super::traffic::Traffic;
use crate::admin::api::Service;
use crate::cli::session::Exit;
use crate::cli::style::Tone;

/// Between two pictures.
const FRAME: Duration = Duration::from_millis(200);

/// Everything that runs, and all that was seen so far.
pub(super) struct Show {
    /// The clients; declared before the stage: they end before it does.
    traffic: Option<Traffic>,
    /// The proxy and the versions.
    pub(super) stage: Stage,
    /// What the clients saw.
    pub(super) log: Log,
    screen: Screen,
    changes: Vec<Change>,
    /// The picture's shares and errors count from here on.
    step: Instant,
}

impl Show {
    /// Starts everything but the traffic.
    ///
    /// # Errors
    /// When a port, a directory or a process is not to be had.
    pub(super) fn set_up() -> Result<Self> {
        Ok(Self {
            traffic: None,
            stage: Stage::set_up()?,
            log: Log::default(),
            screen: Screen::of_stdout(),
            changes: Vec::new(),
            step: Instant::now(),
        })
    }

    /// Lets the clients loose on a proxy whose split is `carriers`' so far.
    ///
    /// # Errors
    /// When the proxy does not become ready.
    pub(super) async fn open(&mut self, carriers: &'static [&'static str]) -> Result<()> {
        let address = self.stage.ready().await?;
        self.step = Instant::now();
        self.changes.push(Change { asked: self.step, acknowledged: self.step, carriers });
        self.resume(address)
    }

    /// Lets the clients go on, or begin.
    ///
    /// # Errors
    /// When they cannot be started.
    pub(super) fn resume(&mut self, proxy: std::net::SocketAddr) -> Result<()> {
        self.traffic = Some(Traffic::start(proxy, self.log.clone())?);
        Ok(())
    }

    /// Ends the clients, each after its request, and judges what they saw.
    pub(super) fn verdict(&mut self) -> Verdict {
        drop(self.traffic.take());
        judge(&self.log.samples(), &self.changes, FAULTY)
    }

    /// One line or several for the reader.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub(super) fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.screen.say(text)?)
    }

    /// The same, in this tone.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub(super) fn say_in(&mut self, tone: Tone, text: &str) -> Result<()> {
        let lines: Vec<_> = text.lines().map(|line| self.screen.style.paint(tone, line)).collect();
        self.say(&lines.join("\n"))
    }

    /// A new act.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub(super) fn headline(&mut self, title: &str, text: &str) -> Result<()> {
        let rule = "─".repeat(self.screen.style.width.min(80).saturating_sub(title.chars().count() + 4));
        self.say("")?;
        self.say_in(Tone::Strong, &format!("── {title} {rule}"))?;
        self.say(text)
    }

    /// Types a command and shows what it says.
    ///
    /// # Errors
    /// When it fails.
    pub(super) async fn command(&mut self, words: &[&str]) -> Result<Typed> {
        self.expect(words, Exit::Done).await
    }

    /// Types a command and shows what it says, and that it ended so.
    ///
    /// # Errors
    /// When it fails, or ends otherwise.
    pub(super) async fn expect(&mut self, words: &[&str], expected: Exit) -> Result<Typed> {
        self.say("")?;
        self.say_in(Tone::Strong, &format!("$ {}", shown(words)))?;
        let typed = type_in(&self.stage.client(), words, self.screen.style).await;
        let typed = typed.with_context(|| format!("`{}` failed", shown(words)))?;
        self.say(&typed.lines.join("\n"))?;
        let exit = typed.exit;
        ensure!(exit == expected, "`{}` ended with {exit:?}", shown(words));
        if expected != Exit::Done {
            self.say("$ echo $?\n4")?;
        }
        Ok(typed)
    }

    /// Types a command after which these versions carry the traffic.
    ///
    /// # Errors
    /// When it fails.
    pub(super) async fn split(
        &mut self,
        words: &[&str],
        carriers: &'static [&'static str],
    ) -> Result<Change> {
        let typed = self.command(words).await?;
        Ok(self.changed(&typed, carriers))
    }

    /// From that command on these versions carry the traffic.
    pub(super) fn changed(&mut self, typed: &Typed, carriers: &'static [&'static str]) -> Change {
        let Typed { asked, acknowledged, .. } = *typed;
        let change = Change { asked, acknowledged, carriers };
        self.changes.push(change.clone());
        self.step = acknowledged;
        change
    }

    /// Shows the traffic for so long, and leaves the last picture in the story.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub(super) async fn watch(&mut self, time: Duration) -> Result<()> {
        self.animate(time).await?;
        let last = self.picture().await?;
        self.say("")?;
        Ok(self.screen.leave(&last)?)
    }

    /// Shows the traffic for so long.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub(super) async fn animate(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        let mut frames = interval(FRAME);
        while frames.tick().await < end {
            let mut lines = vec![String::new()];
            lines.extend(self.picture().await?);
            self.screen.draw(&lines)?;
        }
        Ok(())
    }

    async fn picture(&mut self) -> Result<Vec<String>> {
        let service = self.stage.client().get::<Service>(&["v1", "services", "shop"]).await;
        let service = service.with_context(|| {
            format!("the proxy does not answer; its log ends with:\n{}\n", self.stage.last_words())
        })?;
        let picture = Picture::of(&service, &self.log.samples(), self.step, Instant::now());
        Ok(picture.lines(self.screen.style))
    }

    /// Ends everything: the clients, the proxy, the versions.
    ///
    /// # Errors
    /// When the proxy does not end well.
    pub(super) async fn end(mut self) -> Result<()> {
        drop(self.traffic.take());
        let status = self.stage.strike().await?;
        ensure!(status.success(), "the proxy did not end well: {status}");
        Ok(())
    }
}
