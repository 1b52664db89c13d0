//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand, builder::PossibleValuesParser};

use crate::{
    origin::Delayed,
    peer::{self, Peer},
    scale::Scale,
    scenario::{self, Scenario},
};

/// Measures switchback beside other proxies: CPU per request, throughput, latency, memory.
#[derive(Parser)]
#[command(name = "peers", bin_name = "cargo bench --bench peers --", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) part: Option<Part>,
    /// Rounds that each peer gets in each scenario.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: u16,
    /// Length of one round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) seconds: u16,
    /// Scenario to run; may be repeated [default: h1-1k, h1-64k, h2c, new-connection, tls-h1, tls-handshake].
    #[arg(long = "scenario", value_parser = PossibleValuesParser::new(scenario::ALL.map(|scenario| scenario.name)))]
    scenarios: Vec<String>,
    /// Peer to run; may be repeated [default: all].
    #[arg(long = "peer", value_parser = PossibleValuesParser::new(peer::NAMES))]
    peers: Vec<String>,
    /// Also writes every round to this file.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Counts user-space instructions per request with callgrind, in place of the scenarios.
    #[arg(long)]
    pub(crate) instructions: bool,
    /// How switchback's cost grows with this, in place of the scenarios; may be repeated.
    #[arg(long, value_enum)]
    pub(crate) scale: Vec<Scale>,
    /// Draws the curves of `--scale` into this file (SVG).
    #[arg(long, requires = "scale")]
    pub(crate) picture: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cpus: Cpus,
    /// Fails when switchback executes more instructions than this for a request, or cannot be counted.
    #[arg(long, requires = "instructions")]
    pub(crate) most: Option<u32>,
    /// Installs what is missing of the peers and the loads, and measures nothing.
    #[arg(long)]
    pub(crate) install: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

/// Which CPU runs what.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Cpus {
    /// CPU of the proxy under test; nothing else should run on it.
    #[arg(long = "proxy-cpu", default_value_t = 0)]
    pub(crate) proxy: usize,
    /// CPU of the load generator.
    #[arg(long = "load-cpu", default_value_t = 1)]
    pub(crate) load: usize,
    /// CPU of the origin.
    #[arg(long = "origin-cpu", default_value_t = 1)]
    pub(crate) origin: usize,
}

/// The parts of the test bed that this same program plays when it starts itself.
#[derive(Subcommand)]
pub(crate) enum Part {
    /// The server behind every proxy.
    #[command(hide = true)]
    Origin {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        grpc: SocketAddr,
        #[arg(long)]
        delayed: Vec<Delayed>,
    },
    /// The load of full TLS handshakes.
    #[command(hide = true)]
    Handshakes {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        path: String,
        #[arg(long)]
        connections: u16,
        #[arg(long)]
        seconds: u16,
    },
    /// The load of WebSockets.
    #[command(hide = true)]
    Echo {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        bytes: usize,
        #[arg(long)]
        connections: u16,
        #[arg(long)]
        seconds: u16,
    },
    /// The blind byte relay.
    #[command(hide = true)]
    Relay {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        to: SocketAddr,
    },
}

impl Args {
    /// The scenarios asked for, in the order of [`scenario::ALL`].
    pub(crate) fn scenarios(&self) -> impl Iterator<Item = &'static Scenario> {
        scenario::ALL.iter().filter(|scenario| {
            if self.scenarios.is_empty() {
                scenario.by_default
            } else {
                self.scenarios.iter().any(|name| name == scenario.name)
            }
        })
    }

    /// The peers asked for.
    pub(crate) fn peers(&self) -> Vec<Box<dyn Peer>> {
        let asked =
            |peer: &dyn Peer| self.peers.is_empty() || self.peers.iter().any(|name| *name == peer.name());
        peer::all().into_iter().filter(|peer| asked(peer.as_ref())).collect()
    }

    /// Those that were named and have to be installed.
    pub(crate) fn to_install(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().map(String::as_str).filter(|name| !peer::OURS.contains(name))
    }
}
