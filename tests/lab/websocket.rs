//! WebSockets: an endpoint that sends back what it hears, and a client.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use tokio_tungstenite::tungstenite::{Message, WebSocket, accept, client};

use super::PATIENCE;

/// An endpoint that sends every message back, and follows a close.
pub fn echoes() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let Ok(mut socket) = accept(stream) else { return };
                while let Ok(message) = socket.read() {
                    if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// An endpoint that echoes, until it is told to [`SPEAK`]: then it sends what it is given to say, as it is,
/// and ends.
pub fn speaks() -> (SocketAddr, mpsc::Sender<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, (say, words)) = (listener.local_addr().unwrap(), mpsc::channel::<Vec<u8>>());
    let words = Arc::new(Mutex::new(words));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let words = Arc::clone(&words);
            thread::spawn(move || {
                let Ok(mut socket) = accept(stream) else { return };
                while let Ok(message) = socket.read() {
                    if message == Message::text(SPEAK) {
                        let said = words.lock().unwrap();
                        said.iter().for_each(|words| socket.get_mut().write_all(&words).unwrap());
                        return;
                    } else if message.is_text() && socket.send(message).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, say)
}

/// What a client says to an endpoint that [`speaks`], whose words it is to hear.
pub const SPEAK: &str = "speak";

/// A client of the proxy at `address`.
pub fn connect(address: SocketAddr, path: &str) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client(format!("ws://{address}{path}"), stream).expect("a WebSocket").0
}

/// A client of a proxy of which some version, but not every one, speaks WebSocket: once it has come to that.
pub fn connect_to_who_speaks(address: SocketAddr) -> WebSocket<TcpStream> {
    (0..1_000)
        .find_map(|_| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            client(format!("ws://{address}/"), stream).ok()
        })
        .expect("a WebSocket")
        .0
}

/// Sends a message, and says whether it comes back.
pub fn echoed(socket: &mut WebSocket<TcpStream>, text: &str) -> bool {
    socket.send(Message::text(text)).unwrap();
    socket.read().unwrap() == Message::text(text)
}
