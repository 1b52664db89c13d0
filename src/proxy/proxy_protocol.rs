//! The PROXY protocol, versions 1 and 2 (haproxy's `proxy-protocol.txt`): before anything else, a proxy in front says
//! whose connection it passes on.
//!
//! Comes right behind accept, also before TLS. Strict: one way to write an address, nothing beyond the bounds.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::io::{AsyncReadExt, Interest};

use super::upstream::Stream;
use crate::table::ProxyHeader;

/// Longest header of version 1, with its line end.
const MAX_V1: usize = 107;
/// Longest header of version 2; what is behind the addresses (TLS facts, a cloud's identifiers) is passed over.
const MAX_V2: usize = 4096;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and protocol, length.
const FIXED: usize = 16;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The proxy connects on its own behalf: to see whether we are alive, say.
    Itself,
    /// Somebody, whose address it does not know or cannot tell.
    Unknown,
    /// Who connected to it, and where.
    Client {
        /// Whose connection it is.
        client: SocketAddr,
        /// Where it was accepted.
        server: SocketAddr,
    },
}

/// What some bytes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A header of so many bytes.
    Header(Told, usize),
    /// The beginning of one.
    Partial,
    /// Something else.
    Malformed,
}

/// The header at the front of `bytes`. Pure, and never reads beyond the header.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let is_second = bytes.len().min(SIGNATURE.len());
    if bytes.is_empty() {
        Parsed::Partial
    } else if bytes[..is_second] == SIGNATURE[..is_second] {
        parse_v2(bytes)
    } else {
        parse_v1(bytes)
    }
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    const BEGINNING: &[u8] = b"PROXY ";
    let known = bytes.len().min(BEGINNING.len());
    let window = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        let is_hopeless = bytes[..known] != BEGINNING[..known] || bytes.len() >= MAX_V1;
        return if is_hopeless { Parsed::Malformed } else { Parsed::Partial };
    };
    let line = window[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(BEGINNING));
    let told = line.and_then(|line| std::str::from_utf8(line).ok()).and_then(told_v1);
    told.map_or(Parsed::Malformed, |told| Parsed::Header(told, end + 1))
}

fn told_v1(line: &str) -> Option<Told> {
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(Told::Unknown);
    }
    let mut words = line.split(' ');
    let (family, from, to) = (words.next()?, words.next()?, words.next()?);
    let (from, to) = match family {
        "TCP4" => (address::<Ipv4Addr>(from)?, address::<Ipv4Addr>(to)?),
        "TCP6" => (address::<Ipv6Addr>(from)?, address::<Ipv6Addr>(to)?),
        _ => return None,
    };
    let (client, server) = (port(words.next()?)?, port(words.next()?)?);
    let told = Told::Client { client: (from, client).into(), server: (to, server).into() };
    words.next().is_none().then_some(told)
}

fn address<A: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<A>().ok().map(Into::into)
}

/// Digits, no sign, no leading zero.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

fn parse_v2(bytes: &[u8]) -> Parsed {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else { return Parsed::Partial };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED + length > MAX_V2 || !matches!(fixed[12], 0x20 | 0x21) {
        return Parsed::Malformed;
    }
    let Some(rest) = rest.get(..length) else { return Parsed::Partial };
    let told = if fixed[12] == 0x20 { Some(Told::Itself) } else { told_v2(fixed[13], rest) };
    told.map_or(Parsed::Malformed, |told| Parsed::Header(told, FIXED + length))
}

/// What a version 2 header says whose family and protocol are `kind`.
fn told_v2(kind: u8, rest: &[u8]) -> Option<Told> {
    let (told, behind) = match kind {
        // Unspecified: whatever follows says nothing.
        0x00 => return Some(Told::Unknown),
        0x11 => {
            let (addresses, behind) = rest.split_first_chunk::<12>()?;
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *addresses;
            let client = SocketAddr::from(([a, b, c, d], u16::from_be_bytes([i, j])));
            let server = SocketAddr::from(([e, f, g, h], u16::from_be_bytes([k, l])));
            (Told::Client { client, server }, behind)
        }
        0x21 => {
            let (from, behind) = rest.split_first_chunk::<16>()?;
            let (to, behind) = behind.split_first_chunk::<16>()?;
            let ([i, j, k, l], behind) = behind.split_first_chunk::<4>()?;
            let client = SocketAddr::from((*from, u16::from_be_bytes([*i, *j])));
            let server = SocketAddr::from((*to, u16::from_be_bytes([*k, *l])));
            (Told::Client { client, server }, behind)
        }
        // A Unix socket's two paths of 108 bytes: no address that means anything here.
        0x31 => (Told::Unknown, rest.get(216..)?),
        // Datagrams and what is not assigned.
        _ => return None,
    };
    are_vectors(behind).then_some(told)
}

/// True for whole type-length-value triples and nothing else.
fn are_vectors(mut rest: &[u8]) -> bool {
    while let [_, high, low, behind @ ..] = rest {
        match behind.get(usize::from(u16::from_be_bytes([*high, *low]))..) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    rest.is_empty()
}

/// Takes the header off `stream`, and not a byte more. It is up to the caller to bound the time.
///
/// # Errors
/// When what comes is no header, or the connection ends.
pub async fn read(stream: &mut Stream) -> io::Result<Told> {
    let mut header = Vec::with_capacity(MAX_V1);
    loop {
        let mut window = vec![0; MAX_V2];
        let peeked = peek(stream, &mut window).await?;
        let known = header.len();
        header.extend_from_slice(&window[..peeked]);
        let (told, length) = match parse(&header) {
            Parsed::Header(told, length) => (Some(told), length),
            Parsed::Partial if peeked > 0 => (None, header.len()),
            Parsed::Partial => return Err(io::ErrorKind::UnexpectedEof.into()),
            Parsed::Malformed => return Err(io::ErrorKind::InvalidData.into()),
        };
        // What was looked at is taken: it is there, so this does not wait.
        stream.read_exact(&mut header[known..length]).await?;
        if let Some(told) = told {
            return Ok(told);
        }
    }
}

/// The header for a connection with these ends: whose it is, and where it was accepted; `None`: nobody knows.
#[must_use]
pub fn header(version: ProxyHeader, ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    // Both of one family, or they cannot be told.
    let ends = ends.filter(|(client, server)| client.is_ipv4() == server.is_ipv4());
    match (version, ends) {
        (ProxyHeader::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (ProxyHeader::V1, Some((client, server))) => {
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (client.ip(), server.ip());
            format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), server.port()).into_bytes()
        }
        (ProxyHeader::V2, ends) => header_v2(ends),
    }
}

fn header_v2(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    const PROXY: u8 = 0x21;
    let (family, addresses) = match ends {
        None => (0, Vec::new()),
        Some((client, server)) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            let ports = [client.port().to_be_bytes(), server.port().to_be_bytes()].concat();
            let family = if client.is_ipv4() { 0x11 } else { 0x21 };
            (family, [octets(client.ip()), octets(server.ip()), ports].concat())
        }
    };
    // At most 36.
    let length = u16::try_from(addresses.len()).unwrap_or(0).to_be_bytes();
    [&SIGNATURE[..], &[PROXY, family], &length, &addresses].concat()
}

/// Looks at what has come without taking it.
async fn peek(stream: &mut Stream, window: &mut [u8]) -> io::Result<usize> {
    stream.settle()?;
    match stream {
        Stream::Tcp(tcp) => tcp.peek(window).await,
        Stream::Unix(unix) => {
            let look = || Ok(rustix::net::recv(&*unix, &mut *window, rustix::net::RecvFlags::PEEK)?.0);
            unix.async_io(Interest::READABLE, look).await
        }
        // The header comes before the handshake.
        Stream::Fresh(_) | Stream::Tls(_) | Stream::Secured(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        let (four, six) = ("192.0.2.1:5000".parse().unwrap(), "[2001:db8::1]:6000".parse().unwrap());
        for version in [ProxyHeader::V1, ProxyHeader::V2] {
            for ends in [Some((four, four)), Some((six, six)), Some((four, six)), None] {
                let bytes = header(version, ends);
                let told = match ends.filter(|(client, server)| client.is_ipv4() == server.is_ipv4()) {
                    Some((client, server)) => Told::Client { client, server },
                    None => Told::Unknown,
                };
                assert_eq!(parse(&bytes), Parsed::Header(told, bytes.len()), "{version:?} {ends:?}");
            }
        }
    }

    fn told(client: &str, server: &str) -> Told {
        Told::Client { client: client.parse().unwrap(), server: server.parse().unwrap() }
    }

    fn v2(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, kind], &length, rest].concat()
    }

    #[test]
    fn version_1_is_read() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n", told("192.0.2.1:4711", "198.51.100.2:443")),
            ("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", told("[2001:db8::1]:1", "[::1]:65535")),
            ("PROXY UNKNOWN\r\n", Told::Unknown),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Told::Unknown),
        ] {
            assert_eq!(
                parse(format!("{line}GET /").as_bytes()),
                Parsed::Header(expected, line.len()),
                "{line}"
            );
        }
    }

    #[test]
    fn version_2_is_read() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x67, 1, 187];
        let header = v2(0x21, 0x11, &v4);
        assert_eq!(parse(&header), Parsed::Header(told("192.0.2.1:4711", "198.51.100.2:443"), 28));
        let header = v2(0x21, 0x11, &[&v4[..], &[4, 0, 2, 9, 9, 5, 0, 0]].concat());
        assert!(matches!(parse(&header), Parsed::Header(Told::Client { .. }, 36)), "with vectors behind");
        let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &Ipv6Addr::LOCALHOST.octets(), &[0, 1, 0, 2]].concat();
        assert_eq!(parse(&v2(0x21, 0x21, &v6)), Parsed::Header(told("[::1]:1", "[::1]:2"), 52));
        assert_eq!(parse(&v2(0x20, 0x00, &[])), Parsed::Header(Told::Itself, 16));
        assert_eq!(parse(&v2(0x20, 0x11, &v4)), Parsed::Header(Told::Itself, 28));
        assert_eq!(parse(&v2(0x21, 0x00, &[1, 2, 3])), Parsed::Header(Told::Unknown, 19));
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), Parsed::Header(Told::Unknown, 232));
    }

    #[test]
    fn what_could_be_read_otherwise_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\n",
            "PROXY TCP4  192.0.2.1 198.51.100.2 4711 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 4711 443 \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 4711\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.2 4711 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 04711 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +4711 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY \r\n",
            "proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "GET / HTTP/1.1\r\n",
            "\r\n\r\nGET",
        ] {
            assert_eq!(parse(line.as_bytes()), Parsed::Malformed, "{line:?}");
        }
        assert_eq!(parse(&[b"PROXY UNKNOWN ", &[b'x'; 100][..]].concat()), Parsed::Malformed, "too long");
        for header in [
            v2(0x31, 0x11, &[0; 12]),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x12, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x11, &[0; 13]),
            v2(0x21, 0x11, &[&[0; 12][..], &[1, 0, 2, 0]].concat()),
            v2(0x21, 0x11, &[0; 5000]),
        ] {
            assert_eq!(parse(&header), Parsed::Malformed, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_judged_within_its_bounds(noise in prop::collection::vec(any::<u8>(), 0..300), how in 0..3) {
            let bytes = match how {
                0 => noise,
                1 => [b"PROXY ".to_vec(), noise].concat(),
                _ => [SIGNATURE.to_vec(), noise].concat(),
            };
            match parse(&bytes) {
                Parsed::Header(_, length) => prop_assert!(length <= bytes.len()),
                Parsed::Partial => prop_assert!(bytes.len() < MAX_V2),
                Parsed::Malformed => {}
            }
        }

        /// However it is cut, a header is a beginning until it is whole.
        #[test]
        fn a_header_in_pieces_is_the_same(client: [u8; 4], port: u16, cut in any::<prop::sample::Index>(), second: bool) {
            let told = Told::Client { client: (client, port).into(), server: ([127, 0, 0, 1], 80).into() };
            let header = if second {
                v2(0x21, 0x11, &[&client[..], &[127, 0, 0, 1], &port.to_be_bytes(), &[0, 80]].concat())
            } else {
                let client = Ipv4Addr::from(client);
                format!("PROXY TCP4 {client} 127.0.0.1 {port} 80\r\n").into_bytes()
            };
            prop_assert_eq!(parse(&header), Parsed::Header(told, header.len()));
            prop_assert_eq!(parse(&header[..cut.index(header.len())]), Parsed::Partial);
        }
    }
}
