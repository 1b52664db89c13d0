//! `h2load`, the load generator for HTTP/2.

use std::{ffi::OsString, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    grpc,
    load::{Answered, Errors},
    process::{Argv, Process, Scratch, find_program},
    scenario::{Load, Upstream},
};

/// Puts this load on one address for a number of seconds, `streams` requests at a time on each connection.
///
/// # Errors
/// When it is not installed, does not end in time, or its output is not understood.
pub(crate) fn run(
    load: &Load,
    streams: u16,
    to: SocketAddr,
    seconds: u16,
    cpu: usize,
    scratch: &Scratch,
) -> Result<Answered> {
    let Some(h2load) = find_program("h2load") else {
        bail!("`h2load` is not installed: apt install nghttp2-client")
    };
    let dir = scratch.subdirectory("load-")?;
    let log = dir.join("requests");
    let mut log_option = OsString::from("--log-file=");
    log_option.push(&log);
    let mut argv: Argv = vec![
        h2load.into(),
        "--threads=1".into(),
        format!("--clients={}", load.connections).into(),
        format!("--max-concurrent-streams={streams}").into(),
        format!("--duration={seconds}").into(),
        log_option,
    ];
    if load.upload > 0 {
        let body = dir.join("body");
        fs::write(&body, message(load))?;
        argv.extend(["--data".into(), body.into()]);
    }
    if load.upstream == Upstream::Grpc {
        argv.extend(["--header=content-type: application/grpc", "--header=te: trailers"].map(Into::into));
    }
    argv.push(format!("{}://{to}{}", if load.tls { "https" } else { "http" }, load.path).into());
    let mut process = Process::start(&argv, cpu, dir.join("output"))?;
    if !process.wait_for_end(Duration::from_secs(u64::from(seconds) + 15))? {
        bail!("`h2load` did not end");
    }
    let output = fs::read_to_string(dir.join("output"))?;
    let mut answered = summary(&output).with_context(|| format!("output of `h2load`: {output}"))?;
    [answered.p50_us, answered.p99_us, answered.p999_us] = percentiles(&log)?;
    fs::remove_file(log)?;
    Ok(answered)
}

/// Reads `finished in 2.00s, …`, `requests: 9 total, … 9 done, …` and `traffic: … 9MB (99) data`.
fn summary(output: &str) -> Option<Answered> {
    let line = |begin: &str| output.lines().find_map(|line| line.strip_prefix(begin));
    let count = |line: &str, name: &str| {
        let before = line.split(", ").find_map(|part| part.strip_suffix(name))?;
        before.trim().rsplit(' ').next()?.parse::<u64>().ok()
    };
    let requests = line("requests: ")?;
    let status = line("status codes: ")?;
    let data = line("traffic: ")?.rsplit_once('(')?.1.split(')').next()?;
    Some(Answered {
        seconds: seconds(line("finished in ")?.split(',').next()?)?,
        requests: count(requests, " succeeded")?,
        bytes: data.parse().ok()?,
        p50_us: 0.0,
        p99_us: 0.0,
        p999_us: 0.0,
        errors: Errors {
            read: count(requests, " errored")?,
            timeout: count(requests, " timeout")?,
            status: count(status, " 4xx")? + count(status, " 5xx")?,
            ..Errors::default()
        },
    })
}

/// `2.00s`, `950.21ms`.
fn seconds(text: &str) -> Option<f64> {
    match text.strip_suffix("ms") {
        Some(milliseconds) => milliseconds.parse::<f64>().ok().map(|milliseconds| milliseconds / 1e3),
        None => text.strip_suffix('s')?.parse().ok(),
    }
}

/// Its log has a line a request: when, the status, how long in microseconds.
fn percentiles(log: &Path) -> Result<[f64; 3]> {
    let text = fs::read_to_string(log)?;
    let mut times: Vec<u32> =
        text.lines().filter_map(|line| line.rsplit('\t').next()?.trim().parse().ok()).collect();
    times.sort_unstable();
    let of =
        |thousandths: usize| times.get(times.len() * thousandths / 1000).map_or(0.0, |time| f64::from(*time));
    ensure!(!times.is_empty(), "`h2load` logged no request");
    Ok([500, 990, 999].map(of))
}

/// The body of each request; for gRPC it begins with the message's prefix, uncompressed and with its length.
fn message(load: &Load) -> Vec<u8> {
    match load.upstream {
        Upstream::Http1 => vec![b'x'; load.upload],
        Upstream::Grpc => grpc::message(),
    }
}
