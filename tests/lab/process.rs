//! Endpoints that are processes of their own, to be killed. A test binary starts itself once more, as a server.
//!
//! ```ignore
//! #[test]
//! fn serves_as_an_endpoint() { lab::process::serve_if_asked() }
//! let endpoint = Endpoint::start("serves_as_an_endpoint", "127.0.0.1:0");
//! endpoint.kill();
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

use super::origin::{Origin, Seen, Then};

const LISTEN: &str = "LAB_SERVES_ON";

/// A running process that serves HTTP/1.1, and echoes on WebSockets.
pub struct Endpoint {
    child: Child,
    pub address: SocketAddr,
}

impl Endpoint {
    /// Starts the test `name` of this binary as a server on `listen`, and waits until it accepts.
    pub fn start(name: &str, listen: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(LISTEN, listen)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.split_once("serves on ")?.1.trim().parse().ok());
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("an address") }
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a process that was started as a server: serves until whoever started it has ended. Else nothing.
pub fn serve_if_asked() {
    let Ok(listen) = std::env::var(LISTEN) else { return };
    let origin = Origin::at(&listen, "endpoint", answer);
    println!("serves on {}", origin.address);
    io::stdout().flush().expect("told");
    // Ends when the other end of the pipe does.
    let _ = io::stdin().read(&mut [0]);
}

fn answer(seen: &Seen, stream: &mut TcpStream) -> io::Result<Then> {
    match seen.header("sec-websocket-key") {
        Some(key) => echo(key, stream),
        None => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx-version: endpoint\r\ncontent-length: 3\r\n\r\nok\n")?;
            Ok(Then::Keep)
        }
    }
}

fn echo(key: &str, stream: &mut TcpStream) -> io::Result<Then> {
    let accept = derive_accept_key(key.as_bytes());
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    )?;
    let mut socket = WebSocket::from_raw_socket(stream.try_clone()?, Role::Server, None);
    while let Ok(message) = socket.read() {
        if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
            break;
        }
    }
    Ok(Then::Close)
}
