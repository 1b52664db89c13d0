//! Supervision of gRPC: a call is as good as its status says, and one without a status has failed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::net::{SocketAddr, TcpListener};
use std::thread;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use lab::http2::{Http2, request, run};
use lab::{Lab, wait_until};
use serde_json::Value;

/// An endpoint of HTTP/2 that answers as the path says.
fn endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        answer(&request, respond);
                    }
                });
            }
        });
    });
    address
}

const MESSAGE: &[u8] = &[0, 0, 0, 0, 1, 7];

fn answer<B>(request: &Request<B>, mut respond: SendResponse<Bytes>) {
    let head = |content: &str| Response::builder().header("content-type", content);
    match request.uri().path() {
        "/status/0" | "/status/13" => {
            let mut send = respond.send_response(head("application/grpc").body(()).unwrap(), false).unwrap();
            send.send_data(MESSAGE.into(), false).unwrap();
            let status = request.uri().path().rsplit('/').next().unwrap();
            let trailers = [("grpc-status".parse().unwrap(), HeaderValue::from_str(status).unwrap())];
            send.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
        }
        "/no-status" => {
            let mut send = respond.send_response(head("application/grpc").body(()).unwrap(), false).unwrap();
            send.send_data(MESSAGE.into(), true).unwrap();
        }
        "/page" => {
            let mut send = respond.send_response(head("text/html").body(()).unwrap(), false).unwrap();
            send.send_data("<h1>soon</h1>".into(), true).unwrap();
        }
        "/page-of-known-length" => {
            let head = head("text/html").header("content-length", 4).body(()).unwrap();
            respond.send_response(head, false).unwrap().send_data("soon".into(), true).unwrap();
        }
        "/unavailable" => {
            respond.send_response(Response::builder().status(503).body(()).unwrap(), true).unwrap();
        }
        "/web" => {
            let head = head("application/grpc-web+proto").body(()).unwrap();
            let mut send = respond.send_response(head, false).unwrap();
            send.send_data([MESSAGE, b"\x80\0\0\0\x0fgrpc-status:0\r\n"].concat().into(), true).unwrap();
        }
        "/web-status-beside-head" => {
            let head = head("application/grpc-web+proto").header("grpc-status", 14).body(()).unwrap();
            respond.send_response(head, true).unwrap();
        }
        other => panic!("nobody asks for {other}"),
    }
}

/// `shop` on green, which is compared with blue and not taken back.
fn lab() -> Lab {
    let endpoint = endpoint();
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nsupervise = {{ mode = \"alert\" }}\noutliers = false\n\
         versions.blue = {{ endpoints = [\"{endpoint}\"], protocol = \"h2c\" }}\n\
         versions.green = {{ endpoints = [\"{endpoint}\"], protocol = \"h2c\" }}\n"
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![], &services);
    lab.flip("green");
    lab
}

/// So many calls of this content to these paths, each once.
fn call(lab: &Lab, content: &'static str, paths: &[&str]) {
    run(async {
        let client = Http2::to(lab.address()).await;
        for path in paths {
            let mut request = request(Method::POST, path);
            request.headers_mut().insert("content-type", HeaderValue::from_static(content));
            client.ask(request).await;
        }
    });
}

/// Waits until so many of the candidate's were decided; how many of them failed.
fn failed(lab: &Lab, decided: u64) -> u64 {
    let candidate = || {
        let verdict = lab.call("GET", "/v1/services/shop/verdict", &Value::Null).1;
        let counts = &verdict["verdict"]["candidate"];
        [&counts["requests"], &counts["failed"]].map(|count| count.as_u64().unwrap())
    };
    wait_until("all of them are decided", || candidate()[0] >= decided);
    let [requests, failed] = candidate();
    assert_eq!(requests, decided);
    failed
}

#[test]
fn a_call_that_ends_without_a_status_has_failed_whatever_came_before() {
    let lab = lab();
    call(&lab, "application/grpc", &["/status/0"]);
    assert_eq!(failed(&lab, 1), 0);
    call(&lab, "application/grpc", &["/status/13", "/unavailable"]);
    assert_eq!(failed(&lab, 3), 2);
    call(&lab, "Application/gRPC+proto", &["/no-status", "/page", "/page-of-known-length"]);
    assert_eq!(failed(&lab, 6), 5);
    let other = ["switchback_upstream_grpc_status_total{", "\"green\"", "grpc_status=\"other\""];
    assert_eq!(lab.metric(&other), Some(3.0), "what is no answer has no status to tell");
}

#[test]
fn grpc_web_is_judged_by_its_head_and_by_the_status_beside_it() {
    let lab = lab();
    call(&lab, "application/grpc-web+proto", &["/web", "/web", "/unavailable"]);
    assert_eq!(failed(&lab, 3), 1);
    call(&lab, "application/grpc-web+proto", &["/web-status-beside-head"]);
    assert_eq!(failed(&lab, 4), 2);
}
