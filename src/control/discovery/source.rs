//! Where endpoints come from, as something that is waited for: each time it gives what is listed now.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::list;
use crate::proxy::upstream::names::{Heard, Name, Place};
use crate::table::{EndpointAddr, Source};

/// The largest list that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// How often a file is read when nobody says that it has changed.
const RESCAN: Duration = Duration::from_secs(30);

/// What endpoints come out of.
pub(super) enum Spring {
    Dns { name: Arc<Name>, port: u16, heard: Heard<IpAddr> },
    Srv { name: Arc<Name>, heard: Heard<Place> },
    File { path: Arc<Path>, looks: watch::Receiver<()>, known: Option<Result<Vec<EndpointAddr>, String>> },
}

impl Spring {
    /// A file is read when `looks` says so, and from time to time: there may be nobody to say it.
    pub(super) fn of(source: &Source, looks: watch::Receiver<()>) -> Self {
        match source {
            Source::Dns { host, port } => {
                let name = Name::shared(host);
                Self::Dns { heard: name.listener(), name, port: *port }
            }
            Source::Srv { name } => {
                let name = Name::of_service(name);
                Self::Srv { heard: name.listener(), name }
            }
            Source::File(path) => Self::File { path: Arc::clone(path), looks, known: None },
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
            Self::File { path, looks, known } => loop {
                if known.is_some() {
                    tokio::select! {
                        looked = looks.changed() => if looked.is_err() { sleep(RESCAN).await },
                        () = sleep(RESCAN) => {}
                    }
                }
                let now = read(path).map_err(|why| why.to_string()).and_then(|text| list::read(path, &text));
                if known.as_ref() != Some(&now) {
                    *known = Some(now.clone());
                    return now;
                }
            },
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

/// Regular files only: a pipe would be waited for.
fn read(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
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

    #[test]
    fn a_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoints");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(read(&path).unwrap_err().to_string(), "it is not a file");
    }
}
