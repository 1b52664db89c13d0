//! What the proxy tells about itself on standard error is nothing that anybody waits for: whatever becomes of that, changes,
//! answers and the end go on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::process::{Child, Command, Stdio};

use lab::{Lab, wait_until};
use serde_json::{Value, json};

/// A proxy of whose log nothing is heard.
struct Unheard {
    lab: Lab,
    child: Child,
}

impl Unheard {
    fn start(stderr: impl Into<Stdio>) -> Self {
        let mut lab = Lab::start(&["blue", "green"]);
        assert!(lab.proxy.take().unwrap().stop().0.success());
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
        command.args(["run", "--workers", "2", "--config"]).arg(lab.config()).stderr(stderr);
        let child = command.spawn().unwrap();
        let unheard = Self { lab, child };
        unheard.wait_ready(unheard.child.id());
        unheard
    }

    fn wait_ready(&self, pid: u32) {
        wait_until("it is ready", || {
            let answer = lab::admin::call(&self.lab.socket(), "GET", "/v1/status", &[], "");
            answer.is_ok_and(|answer| {
                let status = answer.json();
                status["ready"] == true && status["pid"] == pid
            })
        });
    }

    fn assert_works(&self, epoch: u64) {
        assert_eq!(self.lab.flip("green")["epoch"], epoch);
        assert_eq!(self.lab.flip("blue")["epoch"], epoch + 1);
        assert_eq!(self.lab.call("GET", "/v1/services/shop", &Value::Null).0, 200);
    }

    fn end(mut self) {
        signal("TERM", self.child.id());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// A pipe in which there is no room, and that nobody reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let room = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
    writer.write_all(&vec![b'.'; room]).unwrap();
    (reader, writer)
}

#[test]
fn a_reader_that_stands_still_holds_nobody_up() {
    let (_reader, writer) = full_pipe();
    let unheard = Unheard::start(writer);
    unheard.assert_works(2);
    unheard.end();
}

#[test]
fn a_reader_that_stands_still_holds_no_upgrade_up() {
    let (_reader, writer) = full_pipe();
    let mut unheard = Unheard::start(writer);
    let (status, answer) = unheard.lab.call("POST", "/v1/upgrade", &json!({}));
    assert_eq!(status, 200, "{answer}");
    let pid = u32::try_from(answer["pid"].as_u64().unwrap()).unwrap();
    unheard.wait_ready(pid);
    unheard.assert_works(2);
    signal("TERM", pid);
    assert!(unheard.child.wait().unwrap().success());
    wait_until("both have ended", || !unheard.lab.socket().exists());
}

#[test]
fn a_reader_that_is_gone_takes_nobody_along() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let unheard = Unheard::start(writer);
    unheard.assert_works(2);
    unheard.end();
}

#[test]
fn a_full_disk_takes_nobody_along() {
    let unheard = Unheard::start(File::options().write(true).open("/dev/full").unwrap());
    unheard.assert_works(2);
    unheard.end();
}
