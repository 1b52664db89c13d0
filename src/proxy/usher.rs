//! What a worker does for whoever watches the versions that leave.

use std::rc::Rc;

use tokio::sync::mpsc;

use super::worker::Worker;
use crate::proxy::upstream::roll::Inquiry;

/// Answers what is left on versions, for as long as the worker runs.
pub(super) async fn answer(worker: Rc<Worker>, mut inquiries: mpsc::Receiver<Inquiry>) {
    while let Some(inquiry) = inquiries.recv().await {
        inquiry.answer(|upstream| worker.remaining(upstream));
    }
}
