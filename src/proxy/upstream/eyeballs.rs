//! Connecting to a name that has several addresses: both families, one after the other, without waiting for the dead
//! (RFC 8305, "happy eyeballs").

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;

/// How long an address may take before the next one is tried beside it (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

/// A connection to the first of `addresses` that accepts; `turn` says which of each family comes first.
///
/// # Errors
/// The last one's, when none accepts.
pub async fn connect(addresses: &[IpAddr], port: u16, turn: usize) -> io::Result<TcpStream> {
    let mut waiting = in_order(addresses, turn).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut why = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    loop {
        match waiting.next() {
            Some(address) => attempts.push(TcpStream::connect((address, port))),
            None if attempts.is_empty() => return Err(why),
            None => {}
        }
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(tcp) => return Ok(tcp),
                Err(error) => why = error,
            },
            () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
}

/// The families in turn, IPv6 first (RFC 8305 §4); within each, another one first for each turn.
fn in_order(addresses: &[IpAddr], turn: usize) -> Vec<IpAddr> {
    let family = |is_v6: bool| {
        let mut family: Vec<_> =
            addresses.iter().copied().filter(|address| address.is_ipv6() == is_v6).collect();
        let count = family.len().max(1);
        let first = (turn % count).min(family.len());
        family.rotate_left(first);
        family
    };
    let (v6, v4) = (family(true), family(false));
    let longest = v6.len().max(v4.len());
    (0..longest).flat_map(|at| [v6.get(at), v4.get(at)]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_and_turns_rotate() {
        let addresses: Vec<IpAddr> =
            ["10.0.0.1", "10.0.0.2", "10.0.0.3", "::1"].iter().map(|text| text.parse().unwrap()).collect();
        let texts = |turn| in_order(&addresses, turn).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(0), ["::1", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(texts(4), ["::1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]);
        assert!(in_order(&[], 1).is_empty());
    }

    #[test]
    fn an_address_that_does_not_accept_costs_no_connection() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            // Only one of these listens, whichever comes first.
            let addresses = ["127.0.0.2", "127.0.0.1", "::1"].map(|text| text.parse().unwrap());
            for turn in 0..4 {
                let tcp = connect(&addresses, port, turn).await.unwrap();
                assert_eq!(tcp.peer_addr().unwrap().ip(), addresses[1]);
            }
            let nowhere = connect(&[], port, 0).await.unwrap_err();
            assert_eq!(nowhere.kind(), io::ErrorKind::AddrNotAvailable);
        });
    }

    /// A listener whose queue is full: connecting to it takes for ever. With what fills it.
    fn never_accepts(address: std::net::SocketAddr) -> (socket2::Socket, Vec<std::net::TcpStream>) {
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let fill = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
        (socket, std::iter::from_fn(fill).collect())
    }

    #[test]
    fn either_family_takes_the_place_of_one_that_is_silent_and_ipv6_comes_first_where_both_accept() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let addresses: [IpAddr; 2] = ["127.0.0.1", "::1"].map(|text| text.parse().unwrap());
            for silent in [None, Some(addresses[0]), Some(addresses[1])] {
                let first =
                    tokio::net::TcpListener::bind((addresses[usize::from(silent == Some(addresses[0]))], 0));
                let first = first.await.unwrap();
                let (there, port) = (first.local_addr().unwrap().ip(), first.local_addr().unwrap().port());
                let other = if there == addresses[0] { addresses[1] } else { addresses[0] };
                let (_second, _silent) = match silent {
                    None => (Some(tokio::net::TcpListener::bind((other, port)).await.unwrap()), None),
                    Some(silent) => (None, Some(never_accepts((silent, port).into()))),
                };
                let since = tokio::time::Instant::now();
                let tcp = connect(&addresses, port, 0).await.unwrap();
                let expected = if silent.is_none() { addresses[1] } else { there };
                assert_eq!(tcp.peer_addr().unwrap().ip(), expected, "{silent:?} is silent");
                // IPv4 is only tried when IPv6 has had its time.
                assert!(silent != Some(addresses[1]) || since.elapsed() >= STAGGER);
            }
        });
    }
}
