//! Where endpoints come from, as something that is waited for: each time it gives what is listed now.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::list;
use crate::control::reload::{Trigger, Watch, Watched, watch};
use crate::proxy::upstream::names::{Heard, Name, Place};
use crate::table::{EndpointAddr, Source};

/// The largest list that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What endpoints come out of.
pub(super) enum Spring {
    Dns { name: Arc<Name>, port: u16, heard: Heard<IpAddr> },
    Srv { name: Arc<Name>, heard: Heard<Place> },
    File { path: Arc<Path>, changes: Option<(Watch, mpsc::Receiver<()>)>, is_read: bool },
}

impl Spring {
    pub(super) fn of(source: &Source) -> Self {
        match source {
            Source::Dns { host, port } => {
                let name = Name::shared(host);
                Self::Dns { heard: name.listener(), name, port: *port }
            }
            Source::Srv { name } => {
                let name = Name::of_service(name);
                Self::Srv { heard: name.listener(), name }
            }
            Source::File(path) => {
                let (trigger, reloads) = Trigger::new();
                // Before it is read for the first time, so that no change falls in between.
                let watched = Watched { files: vec![path.to_path_buf()], ..Watched::default() };
                let watching = watch(watched, trigger);
                let watching = watching
                    .inspect_err(|error| tracing::error!(%error, "a list of endpoints is not watched"));
                Self::File {
                    path: Arc::clone(path),
                    changes: watching.ok().map(|watch| (watch, reloads)),
                    is_read: false,
                }
            }
        }
    }

    /// What is listed, as soon as that is something else than before, or can be read again. Cancel-safe.
    ///
    /// # Errors
    /// Why it cannot be read, or looked up: once for each lookup that failed.
    pub(super) async fn next(&mut self) -> Result<Vec<EndpointAddr>, String> {
        match self {
            Self::Dns { name, port, heard } => {
                let found = name.next_addresses(heard).await.map_err(|why| why.to_string())?;
                Ok(found.iter().map(|ip| EndpointAddr::Tcp(SocketAddr::new(*ip, *port))).collect())
            }
            Self::Srv { name, heard } => {
                let found = name.next_places(heard).await.map_err(|why| why.to_string())?;
                best(&found)
            }
            Self::File { path, changes, is_read } => {
                if std::mem::replace(is_read, true) {
                    let told = match changes {
                        Some((_, changes)) => changes.recv().await,
                        None => None,
                    };
                    if told.is_none() {
                        // Nobody watches it any more.
                        std::future::pending::<()>().await;
                    }
                }
                let text = read(path).map_err(|why| why.to_string())?;
                list::read(path, &text)
            }
        }
    }
}

/// Those with the best priority, which is the lowest number.
fn best(places: &[Place]) -> Result<Vec<EndpointAddr>, String> {
    let best = places.iter().map(|place| place.priority).min();
    let places = places.iter().filter(|place| Some(place.priority) == best);
    let endpoint = |place: &Place| {
        let text = format!("{}:{}", place.host, place.port);
        text.parse::<EndpointAddr>().map_err(|why| why.to_string())
    };
    let mut endpoints: Vec<_> = places.map(endpoint).collect::<Result<_, _>>()?;
    endpoints.sort_unstable();
    endpoints.dedup();
    Ok(endpoints)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(priority: u16, host: &str) -> Place {
        Place { priority, host: host.into(), port: 80 }
    }

    #[test]
    fn only_the_places_of_the_best_priority_count() {
        let found = best(&[place(20, "c"), place(10, "b"), place(10, "a"), place(10, "a")]).unwrap();
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:80", "b:80"]);
        assert_eq!(best(&[]), Ok(Vec::new()));
    }
}
