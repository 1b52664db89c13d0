//! A small blocking HTTP/1.1 client, for everything that is not load.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// One keep-alive connection.
pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    pub(crate) fn connect(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream })
    }

    /// Sends a GET.
    pub(crate) fn send(&mut self, path: &str) -> Result<()> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: s00000.example.com\r\nUser-Agent: peers\r\n\r\n");
        Ok(self.stream.write_all(head.as_bytes())?)
    }

    /// Receives one whole answer.
    ///
    /// # Errors
    /// When it is not 200, or its body is not as long as it says.
    pub(crate) fn receive(&mut self) -> Result<usize> {
        let mut received = Vec::new();
        let mut chunk = [0; 16 << 10];
        loop {
            if let Some((head, length)) = parse(&received)? {
                while received.len() < head + length {
                    let more = self.read(&mut chunk)?;
                    received.extend_from_slice(more);
                }
                return Ok(length);
            }
            let more = self.read(&mut chunk)?;
            received.extend_from_slice(more);
        }
    }

    /// True when the other side has not closed this connection, and has nothing to say on it.
    pub(crate) fn is_quiet(&self) -> io::Result<bool> {
        self.stream.set_nonblocking(true)?;
        let mut byte = [0];
        Ok(matches!(self.stream.peek(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock))
    }

    fn read<'chunk>(&mut self, chunk: &'chunk mut [u8]) -> Result<&'chunk [u8]> {
        match self.stream.read(chunk)? {
            0 => bail!("the connection was closed before the answer was whole"),
            length => Ok(&chunk[..length]),
        }
    }
}

/// One GET on a connection of its own.
pub(crate) fn get(to: SocketAddr, path: &str) -> Result<usize> {
    let mut client = Client::connect(to)?;
    client.send(path)?;
    client.receive()
}

/// Length of the head and of the body, once the head is whole.
fn parse(received: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(received)? else { return Ok(None) };
    if response.code != Some(200) {
        bail!("answered {}", response.code.unwrap_or_default());
    }
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.context("an answer without Content-Length")?;
    Ok(Some((head, str::from_utf8(length.value)?.parse()?)))
}
