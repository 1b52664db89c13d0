//! The blind relay: the floor, no proxy.

use std::{env, io, path::PathBuf};

use super::{Argv, Peer, Place};

pub(super) const NAME: &str = "relay";

pub(super) struct Relay;

impl Peer for Relay {
    fn name(&self) -> &str {
        NAME
    }

    fn program(&self) -> Option<PathBuf> {
        env::current_exe().ok()
    }

    fn install_hint(&self) -> &'static str {
        "part of this benchmark"
    }

    fn version_arguments(&self) -> &'static [&'static str] {
        &["--version"]
    }

    fn configure(&self, _: &Place) -> io::Result<()> {
        Ok(())
    }

    fn arguments(&self, place: &Place) -> Argv {
        let Place { listen, origin, .. } = place;
        vec![
            "relay".into(),
            "--listen".into(),
            listen.to_string().into(),
            "--to".into(),
            origin.to_string().into(),
        ]
    }
}
