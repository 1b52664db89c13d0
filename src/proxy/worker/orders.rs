//! What a worker is told to do, and what it accepts on.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_local};

use super::Worker;
use crate::proxy::listener::{self, Accepting, ListenAddr};
use crate::proxy::settings::Settings;

/// What a worker is told to do.
#[derive(Debug)]
pub enum Order {
    /// Accept on this socket too.
    Listen {
        /// Which listener.
        address: ListenAddr,
        /// This worker's sockets of it: one, or more when it was given more than there are workers.
        sockets: Vec<Accepting>,
    },
    /// Accept no more on this listener; its connections live on.
    Close(ListenAddr),
    /// New settings.
    Follow(Box<Settings>),
    /// Say that it is alive.
    Echo(oneshot::Sender<()>),
    /// Accept nothing more, finish what is in flight, and end.
    Stop(Farewell),
}

/// How a worker winds down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Farewell {
    /// Over how long connections without a request are closed.
    pub spread: Duration,
    /// Who takes the connections that the kernel has queued.
    pub queue: Queue,
}

/// Who takes the connections that nobody has accepted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// This process: they would be reset when its sockets are closed.
    Ours,
    /// Another process that listens on the same sockets.
    Successors,
}

/// At which part of `spread` the connection with this coin ends: evenly over all of it but the first tenth.
pub(super) fn farewell(spread: Duration, coin: u32) -> Duration {
    spread.mul_f64(0.1 + 0.9 * f64::from(coin) / f64::from(u32::MAX))
}

/// Does what it is told until it is told to stop, or nobody is left to tell it; its listeners are closed then, and what the
/// kernel had queued for them is taken.
pub(super) async fn follow(worker: &Rc<Worker>, inbox: &mut mpsc::Receiver<Order>) -> Farewell {
    let mut open = Doors::default();
    while let Some(order) = inbox.recv().await {
        match order {
            Order::Listen { address, sockets } => open.open(worker, address, sockets),
            Order::Close(address) => open.close(&address, Queue::Ours).await,
            Order::Follow(settings) => worker.follow(*settings),
            Order::Echo(reply) => drop(reply.send(())),
            Order::Stop(farewell) => {
                open.close_all(farewell.queue).await;
                return farewell;
            }
        }
    }
    open.close_all(Queue::Ours).await;
    Farewell { spread: Duration::ZERO, queue: Queue::Ours }
}

/// A worker that winds down does nothing more but say that it is alive.
pub(super) fn answer_late(order: Order) {
    match order {
        // Whoever asked may have gone.
        Order::Echo(reply) => drop(reply.send(())),
        Order::Listen { .. } | Order::Close(_) | Order::Follow(_) | Order::Stop(_) => {}
    }
}

/// What a worker accepts on.
#[derive(Default)]
struct Doors(BTreeMap<ListenAddr, Vec<Door>>);

/// One socket's accept loop.
struct Door {
    close: oneshot::Sender<Queue>,
    task: JoinHandle<()>,
}

impl Doors {
    fn open(&mut self, worker: &Rc<Worker>, address: ListenAddr, sockets: Vec<Accepting>) {
        let doors = self.0.entry(address.clone()).or_default();
        doors.extend(sockets.into_iter().map(|socket| {
            let (close, closed) = oneshot::channel();
            let closed = async move { closed.await.unwrap_or(Queue::Ours) };
            let task = spawn_local(listener::run(Rc::clone(worker), address.clone(), socket, closed));
            Door { close, task }
        }));
    }

    /// Returns when its sockets are closed.
    async fn close(&mut self, address: &ListenAddr, queue: Queue) {
        close(self.0.remove(address).unwrap_or_default(), queue).await;
    }

    async fn close_all(&mut self, queue: Queue) {
        close(std::mem::take(&mut self.0).into_values().flatten(), queue).await;
    }
}

async fn close(doors: impl IntoIterator<Item = Door>, queue: Queue) {
    let tell = |door: Door| {
        // One that could not listen has ended.
        let _ = door.close.send(queue);
        door.task
    };
    join_all(doors.into_iter().map(tell)).await;
}
