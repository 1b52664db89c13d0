//! An HTTP/2 client that sends exactly the frames it is told to, and reads exactly what comes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustls::{ClientConnection, StreamOwned};

use super::tls::{Authority, Caller, Offer};
use super::{Lab, Origin};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags (RFC 9113 §6); `ACK` is that of SETTINGS and PING.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITIZED: u8 = 32;
/// What most requests need: everything is in this frame.
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How the bytes get to the proxy.
pub trait Wire: Read + Write + Send {
    /// The socket below.
    fn socket(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Wire for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref()
    }
}

/// A way to the shop.
pub enum Way {
    Clear(SocketAddr),
    /// Under TLS, with HTTP/2 agreed on by ALPN.
    Tls(SocketAddr, Caller),
}

impl Way {
    pub fn frames(&self) -> Frames {
        self.with(&[])
    }

    /// A connection with these settings of the client's.
    pub fn with(&self, values: &[(u16, u32)]) -> Frames {
        match self {
            Self::Clear(address) => Frames::silent(*address).open(values),
            Self::Tls(address, caller) => {
                let stream = caller.connect(*address, "shop.test").expect("a handshake").into_stream();
                assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
                Frames::over(Box::new(stream)).open(values)
            }
        }
    }
}

/// A lab with this origin, and the ways to it.
pub fn ways_to(origin: Origin, extra: &str) -> (Lab, [Way; 2]) {
    let (authority, dir) = (Authority::new("ca"), tempfile::tempdir().expect("a directory"));
    authority.issue(&["shop.test"]).write(dir.path(), "shop");
    let config = format!(
        "{extra}\n[[listeners]]\nlisten = \"127.0.0.2:0\"\n\
         tls = {{ certificates = [{{ cert = \"shop.pem\", key = \"shop.key\" }}] }}\n\
         [services.shop]\nroutes = [{{ path = \"/\" }}]\n[services.shop.versions.blue]\nendpoints = [\"{}\"]\n",
        origin.address
    );
    let lab = Lab::configured(dir, vec![origin], &config);
    let caller = Offer { alpn: &["h2"], ..Offer::to(&authority) }.caller();
    let ways = [Way::Clear(lab.address()), Way::Tls(lab.bound("127.0.0.2:0"), caller)];
    (lab, ways)
}

/// One frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Piece {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, flags, stream, payload } = self;
        write!(f, "(kind {kind}, flags {flags}, stream {stream}, {:?})", &payload[..payload.len().min(32)])
    }
}

impl Piece {
    /// A code in the last four bytes of a RST_STREAM, or the second four of a GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        self.payload.get(at..at + 4).map_or(u32::MAX, |code| u32::from_be_bytes(code.try_into().unwrap()))
    }

    /// The status that an answer's header block begins with.
    pub fn status(&self) -> Option<u16> {
        let block = if self.flags & PADDED == 0 { &self.payload[..] } else { &self.payload[1..] };
        let indexed = [(8, 200), (9, 204), (10, 206), (11, 304), (12, 400), (13, 404), (14, 500)];
        match block {
            // Behind a change of the table's size.
            [0x20..=0x3f, rest @ ..] => Self { payload: rest.to_vec(), flags: 0, ..*self }.status(),
            [first @ 0x80..=0xff, ..] => {
                indexed.iter().find(|(index, _)| *index == first & 0x7f).map(|(_, status)| *status)
            }
            [0x08 | 0x48 | 0x18, 0x03, digits @ ..] => std::str::from_utf8(&digits[..3]).ok()?.parse().ok(),
            [0x08 | 0x48 | 0x18, length @ 0x80..=0xff, digits @ ..] => {
                huffman_digits(&digits[..usize::from(length & 0x7f)])
            }
            _ => None,
        }
    }
}

/// Three digits in the code of RFC 7541, appendix B: 0 to 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> Option<u16> {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = u16::from_str_radix(bits.get(at..at + 5)?, 2).ok()?;
        let (digit, length) = if five < 3 {
            (five, 5)
        } else {
            (u16::from_str_radix(bits.get(at..at + 6)?, 2).ok()?.checked_sub(0x16)?, 6)
        };
        (at, number) = (at + length, number * 10 + digit);
    }
    Some(number)
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals that are not indexed, without Huffman's code (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, 7, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// RFC 7541 §5.1, its first bits zero.
fn integer(out: &mut Vec<u8>, bits: u8, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        return out.push(u8::try_from(value).unwrap());
    }
    out.push(u8::try_from(most).unwrap());
    let mut rest = value - most;
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap());
}

/// The pseudo-fields of a request.
pub fn request<'f>(method: &'f str, path: &'f str) -> Vec<(&'f str, &'f str)> {
    vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "shop.test")]
}

/// The header block of a GET.
pub fn get(path: &str) -> Vec<u8> {
    block(&request("GET", path))
}

/// Settings, each a number and a value.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let values = values.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, values.collect::<Vec<_>>())
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

pub fn ping(text: &[u8; 8]) -> Vec<u8> {
    frame(PING, 0, 0, text)
}

/// One connection.
pub struct Frames {
    wire: Box<dyn Wire>,
    pending: Vec<u8>,
}

impl Frames {
    /// Over a connection of its own, before the preface.
    pub fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the proxy accepts");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(super::PATIENCE)).expect("an option");
        stream.set_write_timeout(Some(super::PATIENCE)).expect("an option");
        Self::over(Box::new(stream))
    }

    pub fn over(wire: Box<dyn Wire>) -> Self {
        Self { wire, pending: Vec::new() }
    }

    /// The same with these settings sent, and the proxy's settings acknowledged.
    pub fn open(mut self, values: &[(u16, u32)]) -> Self {
        // No table: so that each answer's status can be read by itself.
        self.send([PREFACE, &settings(&[&[(1, 0)], values].concat())].concat());
        assert_eq!(self.piece().kind, SETTINGS, "the first frame");
        self.send(frame(SETTINGS, ACK, 0, []));
        self
    }

    pub fn to(address: SocketAddr) -> Self {
        Self::silent(address).open(&[])
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("the proxy takes it");
        self
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.write_all(bytes.as_ref())?;
        self.wire.flush()
    }

    pub fn socket(&self) -> &TcpStream {
        self.wire.socket()
    }

    /// The next frame, whatever it is.
    pub fn piece(&mut self) -> Piece {
        self.try_piece().expect("a frame")
    }

    /// The next frame; an error when the connection is over.
    pub fn try_piece(&mut self) -> io::Result<Piece> {
        self.fill(9)?;
        let length = u32::from_be_bytes([0, self.pending[0], self.pending[1], self.pending[2]]) as usize;
        self.fill(9 + length)?;
        let bytes: Vec<_> = self.pending.drain(..9 + length).collect();
        let stream = u32::from_be_bytes(bytes[5..9].try_into().unwrap());
        Ok(Piece { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() })
    }

    fn fill(&mut self, count: usize) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        while self.pending.len() < count {
            match self.wire.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.pending.extend_from_slice(&buffer[..read]),
            }
        }
        Ok(())
    }

    /// The next frame that `is_it`; others are passed over, except for the connection's end.
    pub fn until(&mut self, is_it: impl Fn(&Piece) -> bool) -> Piece {
        loop {
            let piece = self.piece();
            if is_it(&piece) {
                return piece;
            }
            assert_ne!(piece.kind, GOAWAY, "it was not meant to be over: {piece:?}");
        }
    }

    /// The next frame of that kind on that stream.
    pub fn next(&mut self, kind: u8, stream: u32) -> Piece {
        self.until(|piece| (piece.kind, piece.stream) == (kind, stream))
    }

    /// The status of the stream's next answer.
    pub fn status(&mut self, stream: u32) -> u16 {
        let head = self.next(HEADERS, stream);
        head.status().unwrap_or_else(|| panic!("a head without a status: {head:?}"))
    }

    /// Asks with GET, and gives the status when the whole answer is there.
    pub fn ask(&mut self, stream: u32, path: &str) -> u16 {
        self.send(frame(HEADERS, WHOLE, stream, get(path)));
        let head = self.next(HEADERS, stream);
        if head.flags & END_STREAM == 0 {
            self.until(|piece| piece.stream == stream && piece.kind == DATA && piece.flags & END_STREAM != 0);
        }
        head.status().expect("a status")
    }

    /// Everything until the proxy closes; a reset is an end too.
    pub fn rest(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        loop {
            match self.try_piece() {
                Ok(piece) => pieces.push(piece),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("not closed: {pieces:?}"),
                Err(_) => return pieces,
            }
        }
    }

    /// The code of the GOAWAY with which the proxy ends the connection, if it came through.
    pub fn end(&mut self) -> Option<u32> {
        let pieces = self.rest();
        pieces.iter().rev().find(|piece| piece.kind == GOAWAY).map(Piece::code)
    }

    /// True when the connection answers a ping: everything before was taken.
    pub fn is_alive(&mut self) -> bool {
        let text = *b"alive???";
        if self.try_send(ping(&text)).is_err() {
            return false;
        }
        loop {
            match self.try_piece() {
                Ok(piece) if piece.kind == GOAWAY => return false,
                Ok(piece) if piece.kind == PING && piece.flags == ACK && piece.payload == text => {
                    return true;
                }
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}
