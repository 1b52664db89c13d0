//! The PROXY header: one that is read ends where it ends, whatever follows; `ppp` reads the same client from it.

#![cfg_attr(fuzzing, no_main)]

use std::net::SocketAddr;

use ppp::{v1, v2};
use switchback::proxy::proxy_protocol::{Parsed, Told, parse};
use switchback_fuzz::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    for cut in 0..bytes.len() {
        let begun = parse(&bytes[..cut]);
        match whole {
            // Nothing is taken for one before all of it is there, and nothing behind it matters.
            Parsed::Header(_, length) => {
                assert_eq!(begun, if cut < length { Parsed::Partial } else { whole }, "cut at {cut}");
            }
            Parsed::Partial => assert_eq!(begun, Parsed::Partial, "cut at {cut}"),
            Parsed::Malformed => {
                assert!(matches!(begun, Parsed::Partial | Parsed::Malformed), "cut at {cut}")
            }
        }
    }
    if let Parsed::Header(told, length) = whole {
        assert!(length <= bytes.len());
        others_read_the_same(&bytes[..length], told);
    }
});

fn others_read_the_same(header: &[u8], told: Told) {
    let theirs = if header.starts_with(b"PROXY") { first(header) } else { second(header) };
    match told {
        Told::Client { client, server } => {
            assert_eq!(theirs, Some((client, server)), "{}", header.escape_ascii())
        }
        Told::Itself | Told::Unknown => assert_eq!(theirs, None, "{}", header.escape_ascii()),
    }
}

fn first(header: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    match v1::Header::try_from(header).ok()?.addresses {
        v1::Addresses::Tcp4(pair) => Some((
            (pair.source_address, pair.source_port).into(),
            (pair.destination_address, pair.destination_port).into(),
        )),
        v1::Addresses::Tcp6(pair) => Some((
            (pair.source_address, pair.source_port).into(),
            (pair.destination_address, pair.destination_port).into(),
        )),
        v1::Addresses::Unknown => None,
    }
}

fn second(header: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let header = v2::Header::try_from(header).ok()?;
    match header.addresses {
        _ if header.command == v2::Command::Local => None,
        v2::Addresses::IPv4(pair) => Some((
            (pair.source_address, pair.source_port).into(),
            (pair.destination_address, pair.destination_port).into(),
        )),
        v2::Addresses::IPv6(pair) => Some((
            (pair.source_address, pair.source_port).into(),
            (pair.destination_address, pair.destination_port).into(),
        )),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    }
}
