//! The socket's file and the connections to it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::task::JoinSet;

use super::World;
use crate::admin::{App, Metrics, Readiness, Socket, api, serve, serve_metrics};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_socket_is_for_its_owner_alone_and_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/switchback/admin.sock");
    let socket = Socket::bind(&path).unwrap();
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_process_socket_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    Socket::bind(&path).unwrap();
}

#[tokio::test]
async fn a_live_process_socket_is_refused() {
    let world = World::new();
    let refused = Socket::bind(&world.socket).unwrap_err().to_string();
    assert_eq!(
        refused,
        format!(
            "another process serves this socket: {}; stop that one, or set another admin.socket",
            world.socket.display()
        )
    );
    assert_eq!(world.get("/healthz").await.status, 200, "and goes on");
}

#[tokio::test]
async fn a_file_in_the_sockets_place_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    std::fs::write(&path, "precious").unwrap();
    assert!(Socket::bind(&path).unwrap_err().to_string().contains("not a socket"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let long = dir.path().join("x".repeat(120));
    assert!(Socket::bind(&long).is_err());
}

#[tokio::test]
async fn who_has_just_connected_when_it_ends_is_answered() {
    let world = World::new();
    let path = world.socket.with_extension("other");
    let app = App::new(world.control.clone(), Arc::clone(&world.status), Arc::new(String::new));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut serving = JoinSet::new();
    serving.spawn(serve(Socket::bind(&path).unwrap(), app, async { drop(stopped.await) }));
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        open.push(stream);
    }
    // That it has taken them shows when the one behind them is answered.
    let mut last = UnixStream::connect(&path).await.unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    last.read_to_end(&mut Vec::new()).await.unwrap();
    drop(stop);
    while UnixStream::connect(&path).await.is_ok() {}
    for stream in &mut open {
        stream.write_all(b"host: x\r\n\r\n").await.unwrap();
    }
    for mut stream in open {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    serving.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_successors_socket_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let first = Socket::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let _second = Socket::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
}

#[tokio::test]
async fn too_many_connections_are_turned_away_with_a_word() {
    let world = World::new();
    let mut open = Vec::new();
    for _ in 0..256 {
        let mut busy = UnixStream::connect(&world.socket).await.unwrap();
        busy.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        busy.read_exact(&mut [0; 12]).await.unwrap();
        open.push(busy);
    }
    let mut late = UnixStream::connect(&world.socket).await.unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("too many admin connections"),
        "{answer}"
    );
    let length: usize = "too many admin connections".len();
    assert!(answer.contains(&format!("content-length: {length}\r\n")));
}

#[tokio::test]
async fn who_says_nothing_keeps_no_operator_out() {
    let world = World::new();
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(UnixStream::connect(&world.socket).await.unwrap());
    }
    assert_eq!(world.get("/healthz").await.status, 200);
    assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0, "the oldest has made way");
    let last = silent.last_mut().unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(last.read(&mut [0]).await.unwrap(), 1, "the others have not");
}

#[tokio::test]
async fn who_does_not_send_its_body_keeps_no_operator_out() {
    let world = World::new();
    let mut silent = Vec::new();
    for _ in 0..256 {
        let mut client = UnixStream::connect(&world.socket).await.unwrap();
        let head =
            "POST /v1/changes HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let mut told = [0; 25];
        client.read_exact(&mut told).await.unwrap();
        assert_eq!(told, *b"HTTP/1.1 100 Continue\r\n\r\n");
        silent.push(client);
    }
    assert_eq!(world.get("/healthz").await.status, 200);
    assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0, "the oldest has made way");
    let last = silent.last_mut().unwrap();
    last.write_all(b"{}").await.unwrap();
    assert_eq!(last.read(&mut [0]).await.unwrap(), 1, "the others have not");
}

/// More than any socket takes.
fn endless() -> Metrics {
    Arc::new(|| "a_metric 1\n".repeat(400_000))
}

/// Asks for that on each, and returns when all get it. Nobody reads on.
async fn ask_all<S: AsyncRead + AsyncWrite + Unpin>(clients: &mut [S]) {
    for client in &mut *clients {
        client.write_all(&b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2)).await.unwrap();
    }
    for client in clients {
        client.read_exact(&mut [0; 12]).await.unwrap();
    }
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_keeps_no_operator_out() {
    let world = World::new();
    let path = world.socket.with_extension("other");
    let app = App::new(world.control.clone(), Arc::clone(&world.status), endless());
    let mut serving = JoinSet::new();
    serving.spawn(serve(Socket::bind(&path).unwrap(), app, std::future::pending()));
    let mut idle = Vec::new();
    for _ in 0..256 {
        idle.push(UnixStream::connect(&path).await.unwrap());
    }
    ask_all(&mut idle).await;
    let mut operator = UnixStream::connect(&path).await.unwrap();
    operator.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    operator.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, *b"HTTP/1.1 200");
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_keeps_no_probe_waiting() {
    let world = World::new();
    let (at, _server) = metrics_of(&world, endless()).await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        idle.push(socket.connect(at).await.unwrap());
    }
    ask_all(&mut idle).await;
    // Less than the time that each has for all of its answer.
    let answer = tokio::time::timeout(Duration::from_secs(10), get(at, "/healthz")).await;
    assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn who_still_sends_a_body_hears_why_it_is_refused() {
    let world = World::new();
    for (call, size, status) in [
        ("POST /v1/nothing", 1_000_000, "404"),
        ("PATCH /v1/services", 1_000_000, "405"),
        ("POST /v1/changes", 3_000_000, "413"),
    ] {
        let mut client = UnixStream::connect(&world.socket).await.unwrap();
        let head =
            format!("{call} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        // More than a socket holds: it fails where the connection is closed meanwhile.
        client.write_all(&vec![b'x'; size]).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn readiness_and_listeners_are_told() {
    let world = World::new();
    assert_eq!((world.get("/readyz").await.status, world.get("/healthz").await.status), (503, 200));
    let listener = api::Listener { listen: "0.0.0.0:0".to_owned(), bound: "0.0.0.0:8080".to_owned() };
    world.status.set_listeners(vec![listener], None);
    world.status.set_readiness(Readiness::Ready);
    assert_eq!(world.get("/readyz").await.status, 200);
    let status = world.get("/v1/status").await.json;
    assert_eq!((&status["ready"], &status["workers"]), (&true.into(), &2.into()));
    assert_eq!(status["listeners"][0]["bound"], "0.0.0.0:8080");
    world.status.set_readiness(Readiness::Stopping);
    assert_eq!(world.get("/readyz").await.text, "stopping\n");
}

/// The metrics listener of `world`.
async fn metrics_of(world: &World, metrics: Metrics) -> (SocketAddr, JoinSet<()>) {
    let app = App::new(world.control.clone(), Arc::clone(&world.status), metrics);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(serve_metrics(listener, app, std::future::pending()));
    (at, server)
}

async fn get(at: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn who_says_nothing_keeps_no_probe_waiting() {
    let world = World::new();
    let (at, _server) = metrics_of(&world, Arc::new(|| "a_metric 1\n".to_owned())).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    // Less than the time that each has for a head.
    let answer = tokio::time::timeout(Duration::from_secs(3), get(at, "/healthz")).await;
    assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_metrics_listener_serves_nothing_else() {
    let world = World::new();
    let (at, _server) = metrics_of(&world, Arc::new(|| "a_metric 1\n".to_owned())).await;
    let get = async |path: &str| get(at, path).await;
    let metrics = get("/metrics").await;
    assert!(metrics.contains("text/plain; version=0.0.4") && metrics.ends_with("a_metric 1\n"), "{metrics}");
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/v1/services").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_scrape_that_takes_its_time_keeps_nobody_else_waiting_and_is_shared() {
    let (go, gate) = mpsc::channel::<()>();
    let (gate, made) = (Mutex::new(gate), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&made);
    let render = move || {
        count.fetch_add(1, Ordering::SeqCst);
        gate.lock().unwrap().recv().unwrap();
        "a_metric 1\n".to_owned()
    };
    let world = World::new();
    let (at, _server) = metrics_of(&world, Arc::new(render)).await;
    let probes = async {
        while made.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(get(at, "/healthz").await.starts_with("HTTP/1.1 200"));
        go.send(()).unwrap();
    };
    let scrapes = async { tokio::join!(get(at, "/metrics"), get(at, "/metrics"), get(at, "/metrics")) };
    let ((one, two, three), ()) = tokio::join!(scrapes, probes);
    assert!([one, two, three].iter().all(|text| text.ends_with("a_metric 1\n")));
    assert_eq!(made.load(Ordering::SeqCst), 1, "one for all of them");
}
