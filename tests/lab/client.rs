//! A client that says exactly what it is told to, byte by byte, and reads exactly what comes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// An answer as it came.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Interim answers (1xx) that came before: status and headers.
    pub interim: Vec<(u16, Vec<(String, String)>)>,
    /// Fields behind a chunked body.
    pub trailers: Vec<(String, String)>,
    /// False when the connection ended before the body did.
    pub is_whole: bool,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Its status, and the proxy's reason where the answer is its own.
    pub fn said(&self) -> (u16, &str) {
        (self.status, self.header("switchback-reason").unwrap_or(""))
    }

    /// Which version answered: the lab's origins say so.
    pub fn version(&self) -> &str {
        self.header("x-version").unwrap_or("")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// All of the bytes of a connection that was closed after the answer.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { pending: bytes.to_vec(), source: io::empty() };
        reader.answer(false).ok()
    }
}

/// One connection.
pub struct Client {
    reader: Reader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("the proxy accepts"))
    }

    /// Asks again and again, each time over a connection of its own, and tells `served` of each answer, until nobody listens:
    /// how long it took to hear so.
    pub fn until_refused(address: SocketAddr, served: impl Fn()) -> Duration {
        loop {
            let since = Instant::now();
            match TcpStream::connect_timeout(&address, super::PATIENCE) {
                Ok(stream) => assert_eq!(Self::over(stream).get("/").status, 200),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return since.elapsed(),
                Err(error) => panic!("neither taken nor refused: {error}"),
            }
            served();
        }
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(super::PATIENCE)).expect("an option");
        Self { reader: Reader { pending: Vec::new(), source: stream } }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("the proxy takes it");
        self
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.source.write_all(bytes.as_ref())
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) {
        self.reader.source.shutdown(Shutdown::Write).expect("half closed");
    }

    /// The next answer.
    pub fn answer(&mut self) -> Answer {
        self.try_answer().expect("an answer")
    }

    pub fn try_answer(&mut self) -> io::Result<Answer> {
        self.reader.answer(false)
    }

    /// The next answer, to a HEAD.
    pub fn head_answer(&mut self) -> Answer {
        self.reader.answer(true).expect("an answer")
    }

    /// What comes until the proxy closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.reader.pending);
        // A reset is an end too.
        let _ = self.reader.source.read_to_end(&mut bytes);
        bytes
    }

    /// True when the proxy closes within `limit` without another byte.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.reader.source.set_read_timeout(Some(limit)).expect("an option");
        let end = self.reader.source.read(&mut [0]);
        self.reader.source.set_read_timeout(Some(super::PATIENCE)).expect("an option");
        match end {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Half of the connection, for another thread to send on.
    pub fn sender(&self) -> TcpStream {
        self.reader.source.try_clone().expect("a second handle")
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n")).answer()
    }

    /// A GET whose failure is an answer too.
    pub fn try_get(&mut self, path: &str) -> io::Result<Answer> {
        self.try_send(format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n"))?;
        self.try_answer()
    }

    pub fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        self.send(format!(
            "POST {path} HTTP/1.1\r\nhost: shop.test\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ));
        self.send(body).answer()
    }

    /// The next line, without its end: for protocols that are read by hand.
    pub fn line(&mut self) -> String {
        self.reader.line().expect("a line")
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        self.reader.take(count).expect("bytes")
    }
}

/// Bytes as they come, taken apart by lines and counts.
pub(super) struct Reader<S> {
    pub(super) pending: Vec<u8>,
    pub(super) source: S,
}

type Fields = Vec<(String, String)>;

impl<S: Read> Reader<S> {
    pub(super) fn answer(&mut self, is_head: bool) -> io::Result<Answer> {
        let mut interim = Vec::new();
        loop {
            let (status, headers) = self.head()?;
            if (100..200).contains(&status) && status != 101 {
                interim.push((status, headers));
                continue;
            }
            let mut answer = Answer { status, headers, interim, is_whole: true, ..Answer::default() };
            if !is_head && status != 204 && status != 304 && status != 101 {
                self.body(&mut answer)?;
            }
            return Ok(answer);
        }
    }

    fn head(&mut self) -> io::Result<(u16, Fields)> {
        let line = self.line()?;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
        Ok((status, self.fields()?))
    }

    pub(super) fn fields(&mut self) -> io::Result<Fields> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| io::Error::other(format!("not a field: {line:?}")))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn body(&mut self, answer: &mut Answer) -> io::Result<()> {
        if answer.header("transfer-encoding") == Some("chunked") {
            return self.chunks(answer);
        }
        let length = answer.header("content-length").map(|length| length.parse::<usize>().expect("a length"));
        match length {
            Some(length) => {
                answer.is_whole = self.fill(length).is_ok();
                let length = length.min(self.pending.len());
                answer.body = self.pending.drain(..length).collect();
            }
            None => {
                while self.more().is_ok() {}
                answer.body = std::mem::take(&mut self.pending);
            }
        }
        Ok(())
    }

    fn chunks(&mut self, answer: &mut Answer) -> io::Result<()> {
        let broken = |answer: &mut Answer| {
            answer.is_whole = false;
            Ok(())
        };
        loop {
            let Ok(line) = self.line() else { return broken(answer) };
            let size =
                usize::from_str_radix(line.split(';').next().unwrap_or(""), 16).map_err(io::Error::other)?;
            if size == 0 {
                match self.fields() {
                    Ok(trailers) => answer.trailers = trailers,
                    Err(_) => return broken(answer),
                }
                return Ok(());
            }
            let Ok(data) = self.take(size) else { return broken(answer) };
            answer.body.extend_from_slice(&data);
            if self.take(2).ok().as_deref() != Some(b"\r\n") {
                return broken(answer);
            }
        }
    }

    pub(super) fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.pending.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.pending.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.more()?;
        }
    }

    pub(super) fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.fill(count)?;
        Ok(self.pending.drain(..count).collect())
    }

    fn fill(&mut self, count: usize) -> io::Result<()> {
        while self.pending.len() < count {
            self.more()?;
        }
        Ok(())
    }

    pub(super) fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.source.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.pending.extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    }
}
