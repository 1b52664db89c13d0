//! Endpoints whose health a test says, and how the proxy sees it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use serde_json::Value;

use super::origin::Then;
use super::{Lab, Origin};

/// What an endpoint answers to its checks.
#[derive(Clone)]
pub struct Pulse(Arc<AtomicU16>);

impl Pulse {
    pub fn well() -> Self {
        Self::of(200)
    }

    pub fn of(status: u16) -> Self {
        Self(Arc::new(AtomicU16::new(status)))
    }

    pub fn set(&self, status: u16) {
        self.0.store(status, Ordering::SeqCst);
    }

    pub fn status(&self) -> u16 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Origin {
    /// Answers `/healthz` with what the pulse says, and everything else as an origin does.
    pub fn with_pulse(name: &str, pulse: &Pulse) -> Self {
        let (version, pulse) = (name.to_owned(), pulse.clone());
        Self::behaving(name, move |seen, stream| {
            let status = if seen.path() == "/healthz" { pulse.status() } else { 200 };
            write!(stream, "HTTP/1.1 {status} X\r\nx-version: {version}\r\ncontent-length: 2\r\n\r\nok")?;
            Ok(Then::Keep)
        })
    }

    /// Answers everything with what the pulse says.
    pub fn pulsing(name: &str, pulse: &Pulse) -> Self {
        let (version, pulse) = (name.to_owned(), pulse.clone());
        Self::behaving(name, move |_, stream| {
            let status = pulse.status();
            write!(stream, "HTTP/1.1 {status} X\r\nx-version: {version}\r\ncontent-length: 2\r\n\r\nok")?;
            Ok(Then::Keep)
        })
    }
}

impl Lab {
    /// `shop` with checks, on blue, which is well, with green, which is as the pulse says.
    pub fn checked(green: &Pulse) -> Self {
        let origins = vec![Origin::with_pulse("blue", &Pulse::well()), Origin::with_pulse("green", green)];
        let health = "health = { path = \"/healthz\", interval = \"100ms\", rise = 1, fall = 1 }";
        let services = format!(
            "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n{health}\n\
             [services.shop.versions.blue]\nendpoints = [\"{}\"]\n[services.shop.versions.green]\nendpoints = [\"{}\"]\n",
            origins[0].address, origins[1].address
        );
        let lab = Self::configured(tempfile::tempdir().unwrap(), origins, &services);
        lab.wait_health(lab.origin("blue").address, "up");
        lab
    }

    /// An endpoint of `shop`, by its address, as the API shows it.
    pub fn endpoint(&self, address: impl ToString) -> Value {
        let (shop, address) = (self.shop(), address.to_string());
        let versions = shop["versions"].as_array().expect("versions").iter();
        let mut endpoints = versions.flat_map(|version| version["endpoints"].as_array().expect("a pool"));
        endpoints.find(|endpoint| endpoint["address"] == address).expect("the endpoint").clone()
    }

    /// What a version of `shop` gets, in basis points.
    pub fn weight(&self, version: &str) -> u64 {
        let shop = self.shop();
        let versions = shop["versions"].as_array().expect("versions");
        let found = versions.iter().find(|known| known["name"] == version).expect("the version");
        found["weight"].as_u64().expect("a weight")
    }

    /// Waits until an endpoint stands like this; its health.
    pub fn wait_health(&self, address: impl ToString, state: &str) -> Value {
        let address = address.to_string();
        let mut health = Value::Null;
        super::wait_until(&format!("{address} is {state}"), || {
            health = self.endpoint(&address)["health"].take();
            health["state"] == state
        });
        health
    }
}

/// The first answer to a check of the only endpoint.
pub fn first_check(address: SocketAddr, health: &str, version: &str, files: &[(&str, &str)]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nhealth = {health}\n\
         [services.shop.versions.blue]\nendpoints = [\"{address}\"]\n{version}\n"
    );
    let lab = Lab::configured(dir, Vec::new(), &services);
    let mut last = Value::Null;
    super::wait_until("it is checked", || {
        last = lab.endpoint(address)["health"]["last"].take();
        !last.is_null()
    });
    last
}

/// So many endpoints, which are one server at as many addresses of 127.0.0.0/8; it gives every head this answer.
pub fn everywhere(endpoints: u32, answer: &'static str) -> Vec<String> {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let serve = move || {
                let mut head = [0; 4096];
                // A check's head comes in one piece.
                while stream.read(&mut head).is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(answer.as_bytes());
                }
            };
            thread::Builder::new().stack_size(64 * 1024).spawn(serve).unwrap();
        }
    });
    let address = |index: u32| format!("127.0.{}.{}:{port}", 1 + index / 250, 1 + index % 250);
    (0..endpoints).map(address).collect()
}
