//! What was changed, as the store remembers it.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::handle::Request;
use super::{Failed, Handle};
use crate::release::Change;
use crate::store::{HistoryQuery, StoreError};

/// How long the store may take to tell; one that hangs may never.
const PATIENCE: Duration = Duration::from_secs(2);

impl Handle {
    /// The newest changes first; within two seconds, also when the store hangs. Cancel-safe.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read, or not in time.
    pub async fn history(&self, query: HistoryQuery) -> Result<Vec<Change>, StoreError> {
        let closed = || StoreError::Io(Failed::Closed.to_string());
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.requests.send(Request::History(query, reply)).await.map_err(|_| closed())?;
            answer.await.map_err(|_| closed())?
        };
        let late = |_| StoreError::Io("it does not answer".to_owned());
        timeout(PATIENCE, asked).await.map_err(late)?
    }
}
