//! The stage: two versions, and the proxy as a process of its own, on free ports, in a directory that goes with it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::origin::{Origin, Quality};
use crate::admin::api;
use crate::cli::client::Client;

/// A free port, for nobody but this machine.
const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// How long the proxy may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(10);

/// Everything that runs, but the clients.
pub(super) struct Stage {
    proxy: Proxy,
    /// The versions, as long as they run.
    origins: Vec<Origin>,
    /// Declared last: dropped when nobody writes to it any more.
    dir: TempDir,
}

impl Stage {
    /// Starts the versions and then the proxy; it may not be ready yet.
    ///
    /// # Errors
    /// When a port, a directory or a process is not to be had.
    pub(super) fn set_up() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("switchback-demo-").tempdir()?;
        let origins = vec![
            Origin::start("blue", Quality::Good, ANYWHERE)?,
            Origin::start("green", Quality::Good, ANYWHERE)?,
        ];
        fs::write(dir.path().join("switchback.toml"), configuration(&origins))?;
        let proxy = Proxy::start(&dir)?;
        Ok(Self { proxy, origins, dir })
    }

    /// The proxy's configuration.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.path().join("switchback.toml")
    }

    /// The proxy's admin socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// Where an operator stands.
    pub(super) fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// Where clients connect, once the proxy is ready.
    ///
    /// # Errors
    /// The proxy's log, when it does not become ready.
    pub(super) async fn ready(&mut self) -> Result<SocketAddr> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && self.proxy.child.try_wait()?.is_none() {
            let status = self.client().get::<api::Status>(&["v1", "status"]).await;
            if let Ok(status) = status
                && status.ready
            {
                let listener = status.listeners.first().context("the proxy does not listen")?;
                return Ok(listener.bound.parse()?);
            }
            sleep(PAUSE).await;
        }
        bail!("the proxy does not start; its log ends with:\n{}", self.last_words());
    }

    /// The end of the proxy's log.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// The versions that run.
    pub(super) fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// Deploys another version; it listens on the address that is returned.
    ///
    /// # Errors
    /// When there is no port for it.
    pub(super) fn deploy(&mut self, name: &'static str, quality: Quality) -> Result<SocketAddr> {
        let origin = Origin::start(name, quality, ANYWHERE)?;
        let address = origin.address;
        self.origins.push(origin);
        Ok(address)
    }

    /// Stops a version as a kill would.
    pub(super) fn stop(&mut self, name: &str) {
        self.origins.retain(|origin| origin.name != name);
    }

    /// Winds the proxy down, then everything else.
    ///
    /// # Errors
    /// When it does not end; it is killed then.
    pub(super) async fn strike(mut self) -> Result<ExitStatus> {
        let child = &mut self.proxy.child;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process")?;
        if child.try_wait()?.is_none() {
            kill_process(pid, Signal::TERM)?;
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            sleep(PAUSE).await;
        }
        bail!("the proxy (pid {}) did not end when told to, and was killed", child.id())
    }
}

/// The proxy's process; killed when dropped.
struct Proxy {
    child: Child,
}

impl Proxy {
    /// What an operator would have typed. In a process group of its own: ctrl-c is for the demo, which then tells it.
    fn start(dir: &TempDir) -> Result<Self> {
        let log = fs::File::create(dir.path().join("log"))?;
        let child = Command::new(std::env::current_exe()?)
            .args(["run", "--config"])
            .arg(dir.path().join("switchback.toml"))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("the proxy's process")?;
        Ok(Self { child })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn configuration(origins: &[Origin]) -> String {
    let mut text = r#"# The demo's proxy. A change of this file takes effect at once.
[[listeners]]
listen = "127.0.0.1:0"

[admin]
socket = "admin.sock"

[state]
dir = "state"

[services.shop]
routes = [{ path = "/" }]
stable = "blue"
"#
    .to_owned();
    for Origin { name, address, .. } in origins {
        text.push_str(&format!("\n[services.shop.versions.{name}]\nendpoints = [\"{address}\"]\n"));
    }
    text
}
