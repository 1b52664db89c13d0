//! A request over HTTP/2.

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, Request};

use super::{MOST_BODY, Unwell, broken, driven, ended};
use crate::proxy::upstream::{Allowance, Dialed};

/// The longest head, and the longest trailers, of an answer.
const MOST_HEADERS: u32 = 16 * 1024;

/// A connection that can be asked.
pub(super) struct Connection {
    client: SendRequest<Bytes>,
    connection: h2::client::Connection<Dialed, Bytes>,
    allowance: Allowance,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Empty when the body was not read to its end.
    pub(super) trailers: HeaderMap,
}

impl Connection {
    pub(super) async fn open(stream: Dialed) -> Result<Self, Unwell> {
        let allowance = stream.allowance();
        let opened = Builder::new().max_header_list_size(MOST_HEADERS).handshake(stream).await;
        let (client, connection) = opened.map_err(|error| broken(&error))?;
        Ok(Self { client, connection, allowance })
    }

    /// Sends a request, and `sent` as its body; reads the beginning of the answer's, and its trailers, if somebody
    /// `reads_body`. It can be asked again afterwards.
    pub(super) async fn ask(
        &mut self,
        request: Request<()>,
        sent: Option<Bytes>,
        reads_body: bool,
    ) -> Result<Answer, Unwell> {
        self.allowance.renew();
        let client = self.client.clone();
        let exchange = async {
            let mut client = client.ready().await?;
            let (answer, mut body) = client.send_request(request, sent.is_none())?;
            if let Some(sent) = sent {
                body.send_data(sent, true)?;
            }
            let (head, mut receive) = answer.await?.into_parts();
            let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
            if reads_body {
                while body.len() < MOST_BODY {
                    let Some(data) = receive.data().await else { break };
                    let data = data?;
                    body.extend_from_slice(&data);
                    receive.flow_control().release_capacity(data.len())?;
                }
                if body.len() < MOST_BODY {
                    trailers = receive.trailers().await?.unwrap_or_default();
                }
            }
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, trailers })
        };
        let done: Option<Result<_, h2::Error>> = driven(&mut self.connection, &mut false, exchange).await;
        done.ok_or_else(ended)?.map_err(|error| broken(&error))
    }
}
