//! The load generators, each with one thread: `wrk`, `h2load` for HTTP/2, or our own for WebSockets and where every request
//! needs a full TLS handshake.

use std::{env, fmt, fmt::Write, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    echo, h2load, handshakes,
    process::{Argv, Process, Scratch, find_program},
    scenario::{Load, Protocol, Reuse},
};

/// What came back in one run.
#[derive(Deserialize)]
pub(crate) struct Answered {
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) errors: Errors,
}

/// Requests that were not answered as they should have been. The first five are named and counted by `wrk`.
#[derive(Deserialize, Serialize, Clone, Default)]
pub(crate) struct Errors {
    pub(crate) connect: u64,
    pub(crate) read: u64,
    pub(crate) write: u64,
    pub(crate) timeout: u64,
    /// Answers above 399.
    pub(crate) status: u64,
    /// Answers whose body cannot have been whole, judged by the bytes received in all.
    #[serde(default)]
    pub(crate) short: u64,
}

impl Errors {
    pub(crate) fn count(&self) -> u64 {
        self.named().iter().map(|(_, count)| count).sum()
    }

    fn named(&self) -> [(&'static str, u64); 6] {
        let Self { connect, read, write, timeout, status, short } = *self;
        [
            ("connect", connect),
            ("read", read),
            ("write", write),
            ("timeout", timeout),
            ("status", status),
            ("short", short),
        ]
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.named().into_iter().filter(|(_, count)| *count > 0);
        let seen: Vec<String> = seen.map(|(name, count)| format!("{name} {count}")).collect();
        f.write_str(&seen.join(", "))
    }
}

/// Puts this load on one address for a number of seconds.
///
/// # Errors
/// When a generator is needed and not installed, when the load does not end in time, or prints no summary.
pub(crate) fn run(
    load: &Load,
    to: SocketAddr,
    seconds: u16,
    cpu: usize,
    scratch: &Scratch,
) -> Result<Answered> {
    let mut answered = match load.protocol {
        Protocol::Http1 | Protocol::WebSocket => http1(load, to, seconds, cpu, scratch)?,
        Protocol::Http2 { streams } => h2load::run(load, streams, to, seconds, cpu, scratch)?,
    };
    if answered.bytes < answered.requests * load.answer {
        answered.errors.short = answered.requests - answered.bytes / load.answer.max(1);
    }
    Ok(answered)
}

fn http1(load: &Load, to: SocketAddr, seconds: u16, cpu: usize, scratch: &Scratch) -> Result<Answered> {
    let dir = scratch.subdirectory("load-")?;
    let argv = match (load.protocol, load.tls, load.reuse) {
        (Protocol::WebSocket, _, _) => own(echo::arguments(to, load, seconds))?,
        (_, true, Reuse::Close) => own(handshakes::arguments(to, load, seconds))?,
        (_, _, Reuse::KeepAlive | Reuse::Close) => wrk(load, to, seconds, &dir)?,
    };
    let mut process = Process::start(&argv, cpu, dir.join("output"))?;
    if !process.wait_for_end(Duration::from_secs(u64::from(seconds) + 15))? {
        bail!("the load did not end");
    }
    read_summary(&dir.join("output"))
}

fn wrk(load: &Load, to: SocketAddr, seconds: u16, dir: &Path) -> Result<Argv> {
    let Some(wrk) = find_program("wrk") else { bail!("`wrk` is not installed: apt install wrk") };
    fs::write(dir.join("load.lua"), script(load)?)?;
    let scheme = if load.tls { "https" } else { "http" };
    Ok(vec![
        wrk.into(),
        "--threads=1".into(),
        format!("--connections={}", load.connections).into(),
        format!("--duration={seconds}s").into(),
        "--script".into(),
        dir.join("load.lua").into(),
        format!("{scheme}://{to}{}", load.path).into(),
    ])
}

/// This same program, as a load.
fn own(arguments: Vec<String>) -> Result<Argv> {
    Ok(std::iter::once(env::current_exe()?.into()).chain(arguments.into_iter().map(Into::into)).collect())
}

fn read_summary(output: &Path) -> Result<Answered> {
    let output = fs::read_to_string(output)?;
    let summary = output.lines().find_map(|line| line.strip_prefix("summary: "));
    let summary = summary.with_context(|| format!("the load printed no summary: {output}"))?;
    serde_json::from_str(summary).with_context(|| format!("summary of the load: {summary}"))
}

/// The script that shapes the requests and prints the summary.
fn script(load: &Load) -> Result<String> {
    let mut lua = String::new();
    if load.upload > 0 {
        writeln!(lua, r#"wrk.method = "POST"; wrk.body = string.rep("x", {})"#, load.upload)?;
    }
    if load.reuse == Reuse::Close {
        writeln!(lua, r#"wrk.headers["Connection"] = "close""#)?;
    }
    if load.hosts > 1 {
        write!(lua, "local hosts = {}{MANY_HOSTS}", load.hosts)?;
    }
    lua.push_str(SUMMARY);
    Ok(lua)
}

/// Every request is built before the first is sent; sending takes the next one.
const MANY_HOSTS: &str = r#"
local requests, turn = {}, 0
function init()
    for host = 1, hosts do
        requests[host] = wrk.format(nil, nil, { Host = string.format("s%05d.example.com", host - 1) })
    end
end
function request()
    turn = turn % hosts + 1
    return requests[turn]
end
"#;

const SUMMARY: &str = r#"
function done(summary, latency)
    local errors = summary.errors
    io.write("\nsummary: ", string.format(
        '{"seconds": %.6f, "requests": %d, "bytes": %d, "p50_us": %.1f, "p99_us": %.1f, "p999_us": %.1f, ' ..
        '"errors": {"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}}',
        summary.duration / 1e6, summary.requests, summary.bytes,
        latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
        errors.connect, errors.read, errors.write, errors.timeout, errors.status), "\n")
end
"#;
