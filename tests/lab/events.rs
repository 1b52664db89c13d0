//! The event stream of the admin API, as a controller listens to it.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;

/// An open stream.
pub struct Events {
    stream: UnixStream,
    received: Receiver<Value>,
    /// What has been read so far.
    pub past: Vec<Value>,
}

impl Events {
    /// Subscribes; everything after this call is told.
    pub fn of(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).expect("the admin socket");
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: switchback\r\n\r\n").expect("the call");
        let (tell, received) = channel();
        let lines = BufReader::new(stream.try_clone().expect("the stream")).lines();
        // Each event is one `data` line; what frames it is left out.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(data) = line.strip_prefix("data:") {
                    let _ = tell.send(serde_json::from_str(data).expect("JSON"));
                }
            }
        });
        let mut events = Self { stream, received, past: Vec::new() };
        events.wait_for(|event| event["type"] == "hello");
        events
    }

    /// The next event.
    pub fn next(&mut self) -> Value {
        let event = self.received.recv_timeout(super::PATIENCE);
        let event = event.unwrap_or_else(|_| panic!("no further event after {:#?}", self.past));
        self.past.push(event.clone());
        event
    }

    /// The next event that is `wanted`.
    pub fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.next();
            if wanted(&event) {
                return event;
            }
        }
    }

    /// The next change.
    pub fn change(&mut self) -> Value {
        self.wait_for(|event| event["type"] == "changed")["change"].take()
    }

    /// Waits until `version` of `shop` has drained.
    pub fn drained(&mut self, version: &str) -> Value {
        self.wait_for(|event| event["type"] == "drained" && event["version"] == version)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // The proxy may have closed it already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
