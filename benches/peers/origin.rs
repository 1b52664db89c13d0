//! The server behind every proxy: answers at once, with as little work as it can.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, str::FromStr, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use httparse::{Header, Request, Status};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    task::spawn_local,
    time::sleep,
};

use crate::{
    client,
    echo::{self, ECHO},
    grpc,
    process::{Process, Scratch, free_addresses},
    scenario::{FAST_MS, POOL, SLOW_MS},
};

/// The running origin.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    /// Where it takes its time: the first is slow.
    pub(crate) pool: Vec<SocketAddr>,
    /// Where it speaks gRPC.
    pub(crate) grpc: SocketAddr,
    _process: Process,
}

impl Origin {
    /// Starts this program once more, as the origin.
    pub(crate) fn start(scratch: &Scratch, cpu: usize) -> Result<Self> {
        let [address, grpc, pool @ ..] = free_addresses::<{ 2 + POOL }>()?;
        let mut argv = vec![
            std::env::current_exe()?.into(),
            "origin".into(),
            "--listen".into(),
            address.to_string().into(),
            "--grpc".into(),
            grpc.to_string().into(),
        ];
        for (address, delay) in pool.iter().zip(std::iter::once(SLOW_MS).chain(std::iter::repeat(FAST_MS))) {
            argv.extend(["--delayed".into(), format!("{address}={delay}").into()]);
        }
        let mut process = Process::start(&argv, cpu, scratch.subdirectory("origin-")?.join("output"))?;
        process.wait_until(Duration::from_secs(10), || client::get(address, "/1k").is_ok())?;
        Ok(Self { address, pool: pool.into(), grpc, _process: process })
    }
}

/// Serves until killed.
///
/// The size of an answer is in the path: `/1k`, `/64k`, `/1m`, `/0`. Request bodies are read and forgotten. WebSockets echo.
pub(crate) fn serve(listen: SocketAddr, grpc: SocketAddr, delayed: &[Delayed]) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let answers = Rc::new(Answers::default());
        let calls = spawn_local(grpc::serve(grpc));
        for Delayed { listen, delay } in delayed {
            let listener = TcpListener::bind(listen).await?;
            spawn_local(accept(listener, Some(*delay), Rc::clone(&answers)));
        }
        tokio::try_join!(accept(TcpListener::bind(listen).await?, None, answers), async { calls.await? })?;
        Ok(())
    })
}

/// Serves whoever comes to `listener`, each answer after `delay`.
async fn accept(listener: TcpListener, delay: Option<Duration>, answers: Rc<Answers>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection = Connection { stream, delay, buffer: vec![0; BUFFER], start: 0, end: 0 };
        let answers = Rc::clone(&answers);
        // A proxy that closes in the middle of an answer, as at the end of each round, is no news.
        spawn_local(async move { connection.serve(&answers).await.ok() });
    }
}

/// An address where every answer takes its time: `127.0.0.1:9001=20` for 20 ms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delayed {
    listen: SocketAddr,
    delay: Duration,
}

impl FromStr for Delayed {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        let (listen, millis) = text.split_once('=').context("no delay")?;
        Ok(Self { listen: listen.parse()?, delay: Duration::from_millis(millis.parse()?) })
    }
}

const BUFFER: usize = 64 << 10;

/// One connection; `buffer[start..end]` is received and not yet used.
struct Connection {
    stream: TcpStream,
    delay: Option<Duration>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Connection {
    async fn serve(mut self, answers: &Answers) -> Result<()> {
        loop {
            let Some(head) = self.head(answers).await? else { return Ok(()) };
            if let Some(key) = head.websocket {
                return echo::answer(self.stream, &key, self.buffer[self.start..self.end].to_vec()).await;
            }
            match head.body {
                Body::Sized(length) => self.skip(length).await?,
                Body::Chunked => self.skip_chunks().await?,
            }
            if let Some(delay) = self.delay {
                sleep(delay).await;
            }
            self.stream.write_all(head.answer.bytes(head.close)).await?;
            if head.close {
                return Ok(self.stream.shutdown().await?);
            }
        }
    }

    /// Receives the next request head; none when the client is done.
    async fn head(&mut self, answers: &Answers) -> Result<Option<Head>> {
        loop {
            if let Some((length, head)) = Head::parse(&self.buffer[self.start..self.end], answers)? {
                self.start += length;
                return Ok(Some(head));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    async fn skip(&mut self, mut length: usize) -> Result<()> {
        loop {
            let here = length.min(self.end - self.start);
            self.start += here;
            length -= here;
            if length == 0 {
                return Ok(());
            }
            if !self.fill().await? {
                bail!("closed within a body");
            }
        }
    }

    async fn skip_chunks(&mut self) -> Result<()> {
        loop {
            let received = &self.buffer[self.start..self.end];
            match httparse::parse_chunk_size(received).map_err(|_| anyhow!("no chunk size"))? {
                Status::Complete((line, size)) => {
                    // The chunk and the line end after it; the last one has no trailers.
                    self.skip(line + usize::try_from(size)? + 2).await?;
                    if size == 0 {
                        return Ok(());
                    }
                }
                Status::Partial => {
                    if !self.fill().await? {
                        bail!("closed within a body");
                    }
                }
            }
        }
    }

    /// Receives more; false when the client has closed its side.
    async fn fill(&mut self) -> Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            bail!("a head of more than {BUFFER} bytes");
        }
        let received = self.stream.read(&mut self.buffer[self.end..]).await?;
        self.end += received;
        Ok(received > 0)
    }
}

/// What matters of a request.
struct Head {
    answer: Rc<Answer>,
    body: Body,
    close: bool,
    /// The key of a WebSocket's handshake.
    websocket: Option<Vec<u8>>,
}

enum Body {
    Sized(usize),
    Chunked,
}

impl Head {
    /// The head with its length, once it is whole.
    fn parse(received: &[u8], answers: &Answers) -> Result<Option<(usize, Self)>> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = Request::new(&mut headers);
        let Status::Complete(length) = request.parse(received)? else { return Ok(None) };
        let mut head = Self {
            answer: answers.find(request.path.unwrap_or_default())?,
            body: Body::Sized(0),
            close: request.version == Some(0),
            websocket: None,
        };
        for Header { name, value } in request.headers {
            if name.eq_ignore_ascii_case("content-length") {
                head.body = Body::Sized(str::from_utf8(value)?.parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.body = Body::Chunked;
            } else if name.eq_ignore_ascii_case("connection") {
                head.close = value.eq_ignore_ascii_case(b"close");
            } else if name.eq_ignore_ascii_case("sec-websocket-key") {
                head.websocket = Some(value.to_vec());
            }
        }
        Ok(Some((length, head)))
    }
}

/// Answers by path, each built once.
#[derive(Default)]
struct Answers {
    built: RefCell<HashMap<String, Rc<Answer>>>,
}

impl Answers {
    fn find(&self, path: &str) -> Result<Rc<Answer>> {
        if let Some(answer) = self.built.borrow().get(path) {
            return Ok(Rc::clone(answer));
        }
        let answer = Rc::new(Answer::of(size(path)?));
        self.built.borrow_mut().insert(path.to_owned(), Rc::clone(&answer));
        Ok(answer)
    }
}

/// The bytes of an answer, in both of its forms.
struct Answer {
    keep_alive: Vec<u8>,
    close: Vec<u8>,
}

impl Answer {
    fn of(size: usize) -> Self {
        Self { keep_alive: answer(size, ""), close: answer(size, "Connection: close\r\n") }
    }

    fn bytes(&self, close: bool) -> &[u8] {
        if close { &self.close } else { &self.keep_alive }
    }
}

/// `/64k` is 65,536; `/echo` is for WebSockets.
fn size(path: &str) -> Result<usize> {
    if path == ECHO {
        return Ok(0);
    }
    let number = path.trim_start_matches('/');
    let (number, shift) = match number.strip_suffix('k') {
        Some(number) => (number, 10),
        None => number.strip_suffix('m').map_or((number, 0), |number| (number, 20)),
    };
    Ok(number.parse::<usize>()? << shift)
}

/// Seven headers and one more.
fn answer(size: usize, more: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\n\
         Server: origin\r\n\
         Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         Content-Type: application/octet-stream\r\n\
         Content-Length: {size}\r\n\
         Cache-Control: no-cache\r\n\
         ETag: \"5f3759df\"\r\n\
         X-Request-Cost: 1\r\n{more}\r\n"
    );
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + size, b'x');
    answer
}
