//! Flips at a steady rate, to and fro, over a few connections to the admin socket.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

/// Connections that flip beside each other: a flip is acknowledged when it is on disk and in force.
const LINES: u32 = 4;

/// Flips that are being made.
pub(super) struct Flips(Vec<JoinHandle<Result<u64>>>);

impl Flips {
    /// `rate` a second for this time; none when it is 0.
    pub(super) fn start(socket: &Path, rate: u32, time: Duration) -> Self {
        let (began, next) = (Instant::now(), Arc::<AtomicU64>::default());
        let line = |_| {
            let (socket, next) = (socket.to_owned(), Arc::clone(&next));
            thread::spawn(move || flip(socket, rate, began, time, &next))
        };
        Self((0..LINES.min(rate)).map(line).collect())
    }

    /// Waits for the last one; how many were not answered with 200.
    pub(super) fn end(self) -> Result<u64> {
        let ended =
            self.0.into_iter().map(|line| line.join().map_err(|_| anyhow!("a line of flips has failed"))?);
        ended.sum()
    }
}

fn flip(socket: PathBuf, rate: u32, began: Instant, time: Duration, next: &AtomicU64) -> Result<u64> {
    let mut admin = Admin::connect(&socket)?;
    let mut refused = 0;
    loop {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        let due = Duration::from_secs_f64(turn as f64 / f64::from(rate));
        if due >= time {
            return Ok(refused);
        }
        thread::sleep(due.saturating_sub(began.elapsed()));
        if began.elapsed() >= time {
            // It cannot keep up: what is missing shows in the changes a second.
            return Ok(refused);
        }
        let to = if turn.is_multiple_of(2) { "green" } else { "blue" };
        let (status, _) = admin.call("POST", "/v1/services/s00000/flip", &format!(r#"{{"to":"{to}"}}"#))?;
        refused += u64::from(status != 200);
    }
}

/// A keep-alive connection to the admin socket.
pub(super) struct Admin(UnixStream);

impl Admin {
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("no admin socket")?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self(stream))
    }

    /// Status and body.
    pub(super) fn call(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all((head + body).as_bytes())?;
        let (mut received, mut chunk) = (Vec::new(), [0; 16 << 10]);
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut answer = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(head) = answer.parse(&received)? {
                let length = answer.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
                let length: usize = str::from_utf8(length.context("no length")?.value)?.parse()?;
                if received.len() >= head + length {
                    let status = answer.code.unwrap_or_default();
                    return Ok((
                        status,
                        String::from_utf8_lossy(&received[head..head + length]).into_owned(),
                    ));
                }
            }
            match self.0.read(&mut chunk)? {
                0 => bail!("the admin socket was closed"),
                length => received.extend_from_slice(&chunk[..length]),
            }
        }
    }
}
