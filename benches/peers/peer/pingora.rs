//! The smallest proxy that can be made of Pingora: `benches/peers/pingora`.

use std::{io, path::PathBuf};

use super::{Argv, Load, Peer, Place, Targets, Upstream, find_program};

pub(super) const NAME: &str = "pingora";

pub(super) struct Pingora;

impl Peer for Pingora {
    fn name(&self) -> &str {
        NAME
    }

    fn lacks(&self, load: &Load) -> Option<&'static str> {
        // The library brings round robin, random and hashing.
        (load.targets == Targets::Balancers).then_some("choice by what is in flight")
    }

    fn program(&self) -> Option<PathBuf> {
        find_program("pingora-peer")
    }

    fn install_hint(&self) -> &'static str {
        "benches/install pingora"
    }

    fn version_arguments(&self) -> &'static [&'static str] {
        &["--version"]
    }

    fn configure(&self, _: &Place) -> io::Result<()> {
        Ok(())
    }

    fn arguments(&self, place: &Place) -> Argv {
        let Place { dir, listen, h2c, tls, origin, speaks, .. } = place;
        let mut argv = vec!["--dir".into(), dir.into()];
        for (option, at) in [("--listen", listen), ("--h2c", h2c), ("--tls", tls), ("--origin", origin)] {
            argv.extend([option.into(), at.to_string().into()]);
        }
        if *speaks == Upstream::Grpc {
            argv.push("--origin-h2c".into());
        }
        argv
    }
}
