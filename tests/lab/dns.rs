//! A name server that says the same of every name, and changes its mind or fails when it is told to.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// What is said of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Address(Ipv4Addr),
    Address6(Ipv6Addr),
    /// That it has failed, when it is asked for this type (1: A, 28: AAAA).
    Failure(u16),
    /// Priority, port and host.
    Service(u16, u16, &'static str),
}

/// A running one.
pub struct NameServer {
    pub address: SocketAddr,
    /// `None`: that it has failed.
    says: Arc<Mutex<Option<Vec<Record>>>>,
}

impl NameServer {
    pub fn start(says: &[Record]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let says = Arc::new(Mutex::new(Some(says.to_vec())));
        let answer = Arc::clone(&says);
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let answer = answered(&query[..length], answer.lock().unwrap().as_deref());
                socket.send_to(&answer, from).unwrap();
            }
        });
        Self { address, says }
    }

    pub fn say(&self, says: Option<&[Record]>) {
        *self.says.lock().unwrap() = says.map(<[Record]>::to_vec);
    }
}

/// The answer to a query with one question (RFC 1035 §4.1), which holds for a second; that there is nothing, for an hour.
fn answered(query: &[u8], says: Option<&[Record]>) -> Vec<u8> {
    // Behind the name come type and class.
    let end = 12 + query[12..].iter().position(|length| *length == 0).unwrap() + 5;
    let asked = u16::from_be_bytes([query[end - 4], query[end - 3]]);
    let fails = says.is_none_or(|records| records.contains(&Record::Failure(asked)));
    let failure = if fails { 2 } else { 0 };
    let data: Vec<_> = says.into_iter().flatten().filter_map(|record| data(record, asked)).collect();
    let says_nothing = data.is_empty() && !fails;
    let mut answer = query[..2].to_vec();
    let (records, authorities) = (u8::try_from(data.len()).unwrap(), u8::from(says_nothing));
    answer.extend([0x81, 0x80 | failure, 0, 1, 0, records, 0, authorities, 0, 0]);
    answer.extend(&query[12..end]);
    for data in data {
        answer.extend(record_of(asked, 1, &data));
    }
    if says_nothing {
        // Names of the zone and of who keeps it, then five numbers (RFC 1035 §3.3.13), of which the last one counts (RFC 2308 §4).
        let data = [&[0, 0][..], &[1_u32, HOUR, HOUR, HOUR, HOUR].map(u32::to_be_bytes).concat()].concat();
        answer.extend(record_of(6, HOUR, &data));
    }
    answer
}

const HOUR: u32 = 3600;

/// A record of the name at offset 12, of this type.
fn record_of(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    let (kind, ttl, length) = (kind.to_be_bytes(), ttl.to_be_bytes(), length.to_be_bytes());
    [&[0xc0, 12][..], &kind, &[0, 1], &ttl, &length, data].concat()
}

fn data(record: &Record, asked: u16) -> Option<Vec<u8>> {
    match (record, asked) {
        (Record::Address(address), 1) => Some(address.octets().to_vec()),
        (Record::Address6(address), 28) => Some(address.octets().to_vec()),
        (Record::Service(priority, port, host), 33) => {
            let mut data = [*priority, 0, *port].map(u16::to_be_bytes).concat();
            for label in host.split('.') {
                data.push(u8::try_from(label.len()).unwrap());
                data.extend(label.as_bytes());
            }
            data.push(0);
            Some(data)
        }
        _ => None,
    }
}
