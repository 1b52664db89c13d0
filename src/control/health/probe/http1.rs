//! A request over HTTP/1.1.

use bytes::Bytes;
use http::Request;
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, Builder, SendRequest};
use hyper_util::rt::TokioIo;

use super::{MOST_BODY, Unwell, broken, driven, ended};
use crate::proxy::upstream::{Allowance, Dialed};

/// A connection that can be asked.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    connection: http1::Connection<TokioIo<Dialed>, Empty<Bytes>>,
    allowance: Allowance,
}

impl Connection {
    pub(super) async fn open(stream: Dialed) -> Result<Self, Unwell> {
        let allowance = stream.allowance();
        // A single `send` for what is never long.
        let opened = Builder::new().writev(false).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = opened.map_err(|error| broken(&error))?;
        Ok(Self { sender, connection, allowance })
    }

    /// The answer's status, and the beginning of its body if somebody `reads_body`; true when it can be asked again.
    pub(super) async fn ask(
        &mut self,
        request: Request<()>,
        reads_body: bool,
    ) -> Result<(u16, Vec<u8>, bool), Unwell> {
        self.allowance.renew();
        let (sender, request) = (&mut self.sender, request.map(|()| Empty::<Bytes>::new()));
        let exchange = async {
            let mut answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let (status, mut body) = (answer.status().as_u16(), Vec::new());
            // What is not asked for is read all the same where it is little: the connection is good for more then.
            let is_little = answer.size_hint().upper().is_some_and(|most| most <= MOST_BODY as u64);
            while (reads_body || is_little) && body.len() < MOST_BODY {
                let Some(frame) = answer.frame().await else { break };
                match frame {
                    Ok(frame) => body.extend_from_slice(&frame.into_data().unwrap_or_default()),
                    Err(error) if reads_body => return Err(broken(&error)),
                    Err(_) => return Ok((status, body, false)),
                }
            }
            Ok((status, body, answer.is_end_stream()))
        };
        let mut is_over = false;
        let done = driven(&mut self.connection, &mut is_over, exchange).await;
        let (status, body, is_read) = done.unwrap_or_else(|| Err(ended()))?;
        let is_good = is_read
            && !is_over
            && driven(&mut self.connection, &mut is_over, self.sender.ready())
                .await
                .is_some_and(|ready| ready.is_ok());
        Ok((status, body, is_good))
    }
}
