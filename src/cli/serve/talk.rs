//! What two processes of the same proxy say to one another: one JSON document a line.
//!
//! ```text
//!    old                                  new
//!     │ ── starts it, hello ───────────────▶ │  reads the file, takes the sockets
//!     │ ◀─────────────────────────── ready to start: prepared
//!     │ ── has closed the store: yours ────▶ │  opens it, leaves alone who is left alone, publishes, accepts
//!     │ ◀──────────────────────────────────── ready
//!     │ stops accepting                      │
//!     │ ◀── ask (what leaves, and pools) ─── │  again and again
//!     │ ─── left ──────────────────────────▶ │
//! ```
//!
//! A message that one side does not know is an error there: [`PROTOCOL`] tells the two apart before. A member that it does not know is
//! passed over, and one that is not told has a default: so an older build and a newer one take over from one another.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The version of what is spoken here; a process that speaks another one is not taken over from.
pub(super) const PROTOCOL: u32 = 2;
/// The longest line that is read.
const MOST: u64 = 16 << 20;
/// How long the other side may take to read a line.
const PATIENCE: Duration = Duration::from_secs(5);

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    /// The old process says who it is.
    Hello(Hello),
    /// The new one could start now.
    Prepared,
    /// The store is closed, and the new process's.
    Yours(Legacy),
    /// The new one serves.
    Ready(Ready),
    /// The new one cannot start.
    Failed {
        /// Why.
        reason: String,
    },
    /// What is left?
    Ask {
        /// The versions that get no new requests: their work is to end.
        leaving: Vec<(String, String)>,
        /// For how long each of these is left alone before that, in milliseconds; nothing where none is.
        #[serde(default)]
        alone_ms: Vec<u64>,
        /// Whoever asks does not know yet what leaves: the two above are not to be gone by.
        #[serde(default)]
        unsure: bool,
        /// Where the others' work may go.
        #[serde(default)]
        pools: Vec<Pool>,
    },
    /// This is left.
    Left(Left),
    /// It is to wind down as after SIGTERM.
    End,
}

/// Who the old process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// [`PROTOCOL`].
    pub(super) protocol: u32,
    /// 1 is the first process, each upgrade adds one.
    pub(super) generation: u64,
    /// Its process.
    pub(super) pid: u32,
    /// Its program's version.
    pub(super) version: String,
    /// The names of sockets whose files a service manager keeps.
    pub(super) kept: Vec<String>,
    /// Older processes that still have work.
    pub(super) elders: Vec<Older>,
    /// Where the state is that the new process is given; `None`: it is not told, or no text.
    #[serde(default)]
    pub(super) state: Option<String>,
}

/// A process that has been taken over from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Older {
    pub(super) pid: u32,
    pub(super) generation: u64,
    pub(super) version: String,
}

/// Who the new process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) pid: u32,
    pub(super) generation: u64,
    pub(super) version: String,
    pub(super) epoch: u64,
}

/// What the old process knows and the store does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Legacy {
    /// The endpoints that get no requests.
    pub(super) sidelined: Vec<Sidelined>,
    /// What is over by time.
    #[serde(default)]
    pub(super) terms: Vec<Term>,
}

/// So much is left of what is over by time: a `step` of a ramp, a `trial`, a `retirement`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Term {
    pub(super) service: String,
    pub(super) of: String,
    /// When it is over as the store has it, in milliseconds since 1970.
    pub(super) until: u64,
    pub(super) left_ms: u64,
}

/// An endpoint that gets no requests. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sidelined {
    pub(super) service: String,
    pub(super) version: String,
    pub(super) endpoint: String,
    pub(super) state: String,
    pub(super) since: u64,
    /// What its last check said that was not good, and when.
    pub(super) failure: Option<(String, u64)>,
    pub(super) ejection: Option<Ejected>,
}

/// Why it is left alone, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ejected {
    pub(super) cause: String,
    pub(super) said: String,
    pub(super) until: u64,
    /// How long that is, whatever the calendar says.
    #[serde(default)]
    pub(super) left_ms: Option<u64>,
    pub(super) count: u32,
}

/// What is left in a process that accepts nothing any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Left {
    pub(super) pid: u32,
    pub(super) generation: u64,
    pub(super) version: String,
    /// No new requests can begin there.
    pub(super) quiet: bool,
    /// Open client connections.
    pub(super) connections: u64,
    pub(super) work: Vec<Work>,
    /// Those of the pools that it was told of by which all of it goes.
    #[serde(default)]
    pub(super) pools: Vec<Pool>,
    /// The versions of which the other process tells from now on when they are drained, and this one does not; said once.
    #[serde(default)]
    pub(super) untold: Vec<Untold>,
}

/// The endpoints that a version's requests go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pool {
    pub(super) service: String,
    pub(super) version: String,
    pub(super) endpoints: Vec<String>,
}

/// A version that is being left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Untold {
    pub(super) service: String,
    pub(super) version: String,
    pub(super) age_ms: u64,
    /// For how long yet what lasts there is left alone.
    #[serde(default)]
    pub(super) alone_ms: u64,
}

/// So much of one kind on one version with one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) service: String,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) endpoint: Option<String>,
    pub(super) count: u64,
    pub(super) oldest_ms: u64,
}

/// One side of the conversation.
#[derive(Debug)]
pub(super) struct Line(BufReader<UnixStream>);

impl Line {
    /// Over this connection.
    pub(super) fn over(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(BufReader::new(UnixStream::from_std(stream)?)))
    }

    /// Both sides of a new one.
    pub(super) fn pair() -> io::Result<(Self, std::os::unix::net::UnixStream)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        Ok((Self::over(ours)?, theirs))
    }

    /// Says something.
    pub(super) async fn tell(&mut self, told: &Told) -> io::Result<()> {
        let mut text = serde_json::to_vec(told)?;
        text.push(b'\n');
        timeout(PATIENCE, self.0.get_mut().write_all(&text)).await?
    }

    /// What the other side says next; `None` when it has ended. Cancel-safe between two lines only.
    pub(super) async fn hear(&mut self) -> io::Result<Option<Told>> {
        let mut text = Vec::new();
        (&mut self.0).take(MOST).read_until(b'\n', &mut text).await?;
        if text.last() != Some(&b'\n') {
            return Ok(None);
        }
        serde_json::from_slice(&text).map(Some).map_err(io::Error::other)
    }

    /// Keeps it open until the process ends, whatever becomes of this side: the other one takes its end for the process's.
    pub(super) fn hold(&self) {
        use std::os::fd::IntoRawFd;
        // Without a descriptor for that it ends with the runtime, a moment before.
        let _never_closed = self.handle().map(IntoRawFd::into_raw_fd);
    }

    /// A second handle of it, for a process that goes on with the conversation.
    pub(super) fn handle(&self) -> io::Result<std::os::fd::OwnedFd> {
        use std::os::fd::AsFd;
        self.0.get_ref().as_fd().try_clone_to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_build_tells_less_and_a_newer_one_more() {
        let older = r#"{"yours":{"sidelined":[{"service":"shop","version":"blue","endpoint":"127.0.0.1:1","state":"up","since":1,
            "failure":null,"ejection":{"cause":"failures","said":"","until":2,"count":1}}]}}"#;
        let Told::Yours(Legacy { sidelined, terms }) = serde_json::from_str(older).unwrap() else { panic!() };
        assert_eq!((sidelined[0].ejection.as_ref().unwrap().left_ms, terms), (None, Vec::new()));
        let newer = r#"{"yours":{"sidelined":[],"terms":[],"more":1}}"#;
        assert_eq!(serde_json::from_str::<Told>(newer).unwrap(), Told::Yours(Legacy::default()));
    }
}
