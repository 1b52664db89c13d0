//! Versions of a service: real HTTP/1.1 servers on threads, good ones and ones named after what they do wrong.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::client::Reader;
use super::wire::Parsed;

/// What an origin does with a request.
pub type Behave = dyn Fn(&Seen, &mut TcpStream) -> io::Result<Then> + Send + Sync;

/// What becomes of the connection afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Keep,
    Close,
}

/// A request as the origin saw it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub line: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or("")
    }
}

/// One endpoint.
pub struct Origin {
    pub name: String,
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// What is done with a connection.
enum Serve {
    Requests {
        behave: Box<Behave>,
        /// Reads bodies before it behaves; off for origins that answer early.
        reads_bodies: bool,
    },
    Script(Arc<Script>),
}

type Script = dyn Fn(&mut Peer) -> io::Result<()> + Send + Sync;

/// The proxy's end of a connection, as a scripted origin sees it.
pub struct Peer(Reader<TcpStream>);

impl Peer {
    /// The next request's line and fields; its body is still to be read.
    pub fn head(&mut self) -> io::Result<Seen> {
        let line = self.0.line()?;
        Ok(Seen { line, headers: self.0.fields()?, ..Seen::default() })
    }

    pub fn line(&mut self) -> io::Result<String> {
        self.0.line()
    }

    pub fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.0.take(count)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.source.write_all(bytes.as_ref())
    }

    /// True when the proxy ends the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.0.pending.is_empty() && self.0.more().is_err()
    }

    /// The bytes that have come and were not read, and those that still come.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.0.more().is_ok() {}
        std::mem::take(&mut self.0.pending)
    }

    /// What comes within `limit`, besides what was read already.
    pub fn within(&mut self, limit: Duration) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.0.pending);
        let _ = self.0.source.set_read_timeout(Some(limit));
        let _ = self.0.source.read_to_end(&mut bytes);
        let _ = self.0.source.set_read_timeout(Some(super::PATIENCE));
        bytes
    }

    pub fn stream(&self) -> &TcpStream {
        &self.0.source
    }

    /// The next message as `read` sees it; none when the proxy ends the connection before it is whole.
    ///
    /// # Errors
    /// As `read`.
    pub fn parse(&mut self, read: fn(&[u8]) -> Result<Parsed, String>) -> Result<Option<Seen>, String> {
        loop {
            match read(&self.0.pending)? {
                Parsed::Whole(seen, length) => {
                    self.0.pending.drain(..length);
                    return Ok(Some(seen));
                }
                Parsed::Partial if self.0.more().is_err() => return Ok(None),
                Parsed::Partial => {}
            }
        }
    }
}

struct Shared {
    serve: Serve,
    seen: Mutex<Vec<Seen>>,
    served: AtomicU64,
    connections: AtomicU64,
    is_closed: AtomicBool,
    /// By the number of the connection: to be cut, and gone when it ends.
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl Origin {
    /// Answers everything with 200 and `x-version: NAME`, the body says what was asked.
    pub fn start(name: &str) -> Self {
        let version = name.to_owned();
        Self::behaving(name, move |seen, stream| {
            let body = format!("{} {}\n", version, seen.line);
            let text = if seen.line.starts_with("HEAD") { "" } else { &body };
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nx-version: {version}\r\ncontent-length: {}\r\n\r\n{text}",
                body.len()
            )?;
            Ok(Then::Keep)
        })
    }

    /// Does what `behave` says with each request, whose body has been read.
    pub fn behaving(
        name: &str,
        behave: impl Fn(&Seen, &mut TcpStream) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        Self::listening(name, Serve::Requests { behave: Box::new(behave), reads_bodies: true })
    }

    /// The same at this address.
    pub fn at(
        listen: &str,
        name: &str,
        behave: impl Fn(&Seen, &mut TcpStream) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        let serve = Serve::Requests { behave: Box::new(behave), reads_bodies: true };
        Self::listening_on(TcpListener::bind(listen).expect("an address that is free"), name, serve)
    }

    /// The same, with the body still unread in the stream.
    pub fn answering_early(
        name: &str,
        behave: impl Fn(&Seen, &mut TcpStream) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        Self::listening(name, Serve::Requests { behave: Box::new(behave), reads_bodies: false })
    }

    /// Does what `script` says with each connection, byte by byte.
    pub fn scripted(
        name: &str,
        script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let script = Arc::new(script);
        Self::listening(name, Serve::Script(script))
    }

    /// Sends interim answers (1xx) without end.
    pub fn never_comes_to_the_point(name: &str) -> Self {
        let interims = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000);
        Self::scripted(name, move |peer| {
            peer.head()?;
            loop {
                peer.send(&interims)?;
            }
        })
    }

    fn listening(name: &str, serve: Serve) -> Self {
        Self::listening_on(TcpListener::bind("127.0.0.1:0").expect("a port"), name, serve)
    }

    fn listening_on(listener: TcpListener, name: &str, serve: Serve) -> Self {
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            serve,
            seen: Mutex::default(),
            served: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &serving));
        Self { name: name.to_owned(), address, shared }
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The only request so far.
    pub fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// How many requests it got.
    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::SeqCst)
    }

    /// How many connections it accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Cuts every connection it has open; it goes on accepting.
    pub fn cut(&self) {
        for (_, stream) in self.shared.open.lock().unwrap().drain() {
            // It may be gone already.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// An address on which nobody listens.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}

/// A listener whose queue is full: connecting to it takes for ever.
pub fn never_accepts() -> (SocketAddr, Socket, Vec<TcpStream>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        queued.push(stream);
    }
    (address, socket, queued)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_closed.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let _ = stream.set_nodelay(true);
        shared.open.lock().unwrap().extend(stream.try_clone().map(|clone| (number, clone)));
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // The proxy closes when it likes; that is no failure of the origin's.
            drop(serve(stream, &shared));
            shared.open.lock().unwrap().remove(&number);
        });
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let (behave, reads_bodies) = match &shared.serve {
        Serve::Requests { behave, reads_bodies } => (behave, *reads_bodies),
        Serve::Script(script) => {
            stream.set_read_timeout(Some(super::PATIENCE))?;
            let end = script(&mut Peer(Reader { pending: Vec::new(), source: stream.try_clone()? }));
            // The clone that is kept for cutting would hold it open.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return end;
        }
    };
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut seen = Seen { line: line(&mut reader)?, ..Seen::default() };
        seen.headers = fields(&mut reader)?;
        if seen.header("expect").is_some() && reads_bodies {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if reads_bodies {
            read_body(&mut reader, &mut seen)?;
        }
        shared.served.fetch_add(1, Ordering::SeqCst);
        let mut all = shared.seen.lock().unwrap();
        // Bounded: tests with many requests look at counts.
        if all.len() < 10_000 {
            all.push(seen.clone());
        }
        drop(all);
        if behave(&seen, &mut stream)? == Then::Close {
            return stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn read_body(reader: &mut impl BufRead, seen: &mut Seen) -> io::Result<()> {
    if let Some(length) = seen.header("content-length") {
        let mut body = vec![0; length.parse().map_err(io::Error::other)?];
        reader.read_exact(&mut body)?;
        seen.body = body;
    } else if seen.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&line(reader)?, 16).map_err(io::Error::other)?;
            if size == 0 {
                seen.trailers = fields(reader)?;
                return Ok(());
            }
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            seen.body.extend_from_slice(&chunk[..size]);
        }
    }
    Ok(())
}

fn fields(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(reader)?;
        let Some((name, value)) = line.split_once(':') else { return Ok(fields) };
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
