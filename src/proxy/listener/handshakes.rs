//! The last handshakes of a socket that is about to close.
//!
//! What the kernel has queued for a socket, or shakes hands with, is reset when the socket closes. The queue can be taken, but
//! who comes behind the last look at it, or is still on the way with the last part of a handshake, cannot. So nobody may begin
//! a handshake any more a while before: whoever tries hears nothing, and asks the kernel again a second later, which refuses
//! then, or has somebody else who listens there. Nothing was sent by then, so that anybody may try elsewhere.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockFilter, SockRef};

/// How long a handshake that has begun may take to its end: a round trip around the world.
pub const HANDSHAKE: Duration = Duration::from_millis(200);

/// Where a TCP segment has its flags (RFC 9293 §3.1), and two of them.
const FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

/// Classic BPF (linux/filter.h): to load a byte, to mask it, to compare it, to end with so many bytes of the segment.
const LOAD: u16 = 0x30;
const MASK: u16 = 0x54;
const EQUALS: u16 = 0x15;
const KEEP: u16 = 0x06;

/// Lets nobody begin a handshake on this socket any more, which has to be ours alone: another process that goes on with it
/// would wait for ever. Those that have begun come to their end.
///
/// What is accepted takes the filter over, and has no such segments.
///
/// # Errors
/// When the kernel has no memory for it, or no TCP of its own.
pub fn begin_no_more(socket: impl AsFd) -> io::Result<()> {
    SockRef::from(&socket).attach_filter(&[
        SockFilter::new(LOAD, 0, 0, FLAGS),
        SockFilter::new(MASK, 0, 0, SYN | ACK),
        SockFilter::new(EQUALS, 0, 1, SYN),
        SockFilter::new(KEEP, 0, 0, 0),
        SockFilter::new(KEEP, 0, 0, u32::MAX),
    ])
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Longer than a handshake takes here, and shorter than the second after which the kernel tries it again.
    const A_WHILE: Duration = Duration::from_millis(300);

    #[test]
    fn who_has_come_is_served_and_who_comes_waits_and_is_refused() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let address = listener.local_addr().unwrap();
            let mut queued = TcpStream::connect(address).unwrap();
            begin_no_more(&listener).unwrap();
            let late = TcpStream::connect_timeout(&address, A_WHILE).unwrap_err();
            assert_eq!(late.kind(), ErrorKind::TimedOut, "neither taken nor refused: {late}");
            let waiting = std::thread::spawn(move || TcpStream::connect(address).unwrap_err().kind());

            let mut accepted = listener.accept().unwrap().0;
            drop(listener);
            let mut heard = [0; 4];
            queued.write_all(b"ping").unwrap();
            accepted.read_exact(&mut heard).unwrap();
            accepted.write_all(&heard).unwrap();
            queued.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"ping");
            assert_eq!(waiting.join().unwrap(), ErrorKind::ConnectionRefused);
        }
    }
}
