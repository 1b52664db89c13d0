//! Who is not known over TCP, or not any more.

use super::*;

#[tokio::test]
async fn whoever_is_not_known_hears_the_same_whatever_he_shows() {
    let remote = Remote::usual().await;
    let mut answers = Vec::new();
    for header in [
        "x: y",
        "authorization: Bearer nobody",
        "authorization: Basic c2hvcDpzaG9w",
        "authorization: Bearer",
        "authorization: Bearer shop\r\nauthorization: Bearer shop",
    ] {
        let stream = TcpStream::connect(remote.address).await.unwrap();
        let reply = send_over(stream, "GET", "/nowhere", &[header], "").await;
        assert_eq!(reply.status, 401, "{header}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"switchback\""));
        assert_eq!(reply.header("connection"), Some("close"), "a guess costs a connection");
        answers.push(reply.text);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let stream = TcpStream::connect(remote.address).await.unwrap();
    let known = send_over(stream, "GET", "/nowhere", &["Authorization: bearer  shop"], "").await;
    assert_eq!(known.status, 404, "schemes have no case (RFC 9110 §11.1)");
}

#[tokio::test]
async fn who_is_known_no_more_is_refused_on_the_same_connection() {
    let remote = Remote::usual().await;
    let mut stream = BufReader::new(TcpStream::connect(remote.address).await.unwrap());
    let call = b"GET /healthz HTTP/1.1\r\nhost: x\r\nauthorization: Bearer shop\r\n\r\n";
    let mut status = String::new();
    stream.write_all(call).await.unwrap();
    stream.read_line(&mut status).await.unwrap();
    assert_eq!(status, "HTTP/1.1 200 OK\r\n");
    remote.door.send_replace(door(vec![known("cart", &["operate:cart"])]));
    stream.write_all(call).await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("HTTP/1.1 401"), "{rest}");
}

#[tokio::test]
async fn who_is_known_no_more_when_the_body_has_come_changes_nothing() {
    let remote = Remote::usual().await;
    let mut stream = TcpStream::connect(remote.address).await.unwrap();
    let head = format!(
        "POST /v1/services/shop/flip HTTP/1.1\r\nhost: x\r\nauthorization: Bearer shop\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        FLIP.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut told = [0; 25];
    stream.read_exact(&mut told).await.unwrap();
    assert_eq!(told, *b"HTTP/1.1 100 Continue\r\n\r\n");
    remote.door.send_replace(door(vec![known("root", &["admin"])]));
    stream.write_all(FLIP.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert_eq!(remote.get("root", "/v1/services/shop").await.json["stable"], "blue");
}

#[tokio::test]
async fn strangers_who_send_nothing_make_way() {
    let remote = Remote::usual().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(remote.address).await.unwrap());
    }
    assert_eq!(remote.get("reader", "/healthz").await.status, 200);
    assert_eq!(remote.world.get("/healthz").await.status, 200, "and the socket knows nothing of them");
}

#[tokio::test]
async fn strangers_whose_bodies_do_not_come_make_way_before_those_who_have_only_just_come() {
    let remote = Remote::usual().await;
    let mut early = TcpStream::connect(remote.address).await.unwrap();
    let mut strangers = Vec::new();
    for at in 0..300 {
        if at == 254 {
            // There is one place left, and whose answer comes has come behind those.
            assert_eq!(remote.get("reader", "/healthz").await.status, 200);
        }
        let mut stranger = TcpStream::connect(remote.address).await.unwrap();
        let head = b"POST /v1/undo HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n";
        stranger.write_all(head).await.unwrap();
        strangers.push(stranger);
    }
    assert_eq!(remote.get("reader", "/healthz").await.status, 200);
    let call =
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer reader\r\n\r\n";
    early.write_all(call).await.unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
