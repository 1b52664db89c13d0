//! The command line as clap reads it; the help texts are the CLI's reference.

mod endpoint;
mod help;
mod moves;
mod process;
mod ramp;
mod reach;
mod rollout;
mod watch;
mod words;

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

pub use endpoint::EndpointAdded;
use help::{
    COMPLETIONS_HELP, DEPLOY_HELP, DRAIN_HELP, ENDPOINTS_HELP, EXPLAIN_HELP, FLIP_HELP, HOLD_HELP, MAN_HELP,
    RAMP_HELP, RETIRE_HELP, ROLLOUT_HELP, RULES_HELP, TOP_HELP, UPGRADE_HELP, VERSIONS_HELP, WEIGHTS_HELP,
};
pub use moves::{Flip, Revert, Rules, Supervise, Weights};
pub use process::{Completions, Manual, Run, Upgrade};
pub use ramp::{Plan, Promote, Ramp, Retire, Steer};
pub use reach::Reach;
pub use rollout::{Deploy, Rollout};
pub use watch::{Status, Top};
use words::{PROTOCOLS, address, duration, header, version_of};
pub use words::{Pair, VersionOf};

/// A reverse proxy made for the moment when traffic moves from one version of a service to another.
///
/// `switchback run` starts the proxy; the other commands talk to a running one through its admin socket,
/// or from another machine where `[admin] listen` lets them.
/// They wait until what was asked is done, and the last line says what is safe to stop.
///
/// Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 timed out, 4 reverted by supervision.
#[derive(Debug, Parser)]
#[command(name = "switchback", version, max_term_width = 100)]
pub struct Cli {
    /// Where the proxy is called.
    #[command(flatten)]
    pub reach: Reach,
    /// Answer with one JSON document, for machines.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

impl Cli {
    /// The same, if its values go together: what is never done is wrong usage, and not found out half-way.
    ///
    /// # Errors
    /// What is wrong, as clap says it.
    pub fn checked(self) -> Result<Self, clap::Error> {
        let (Verb::Ramp(Ramp { plan, .. }) | Verb::Deploy(Deploy { plan, .. })) = &self.verb else {
            return Ok(self);
        };
        match plan.check() {
            Ok(()) => Ok(self),
            Err(why) => {
                let said = format!("invalid value for '--steps <PERCENT,…>': {why}");
                Err(Self::command().error(ErrorKind::ValueValidation, said))
            }
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start the proxy.
    Run(Run),
    /// Tell whether a configuration file can be used, and everything that is wrong with it.
    Check(Check),
    /// Show where every service stands: weights, requests in flight, the last change, and the way back.
    Status(Status),
    /// Send all new requests of a service to one version, then wait until the version it left is empty.
    #[command(after_help = FLIP_HELP)]
    Flip(Flip),
    /// Put back the split as it was before the last flip, ramp or weight change.
    Revert(Revert),
    /// Let new requests of a service wait, bounded in number and time; none is refused.
    #[command(after_help = HOLD_HELP)]
    Hold(Hold),
    /// Let requests that wait go on; an exclusive flip that is under way is called off.
    Release(Release),
    /// Set the weights of a service's versions, in per cent.
    #[command(after_help = WEIGHTS_HELP)]
    Weights(Weights),
    /// Show or set the targeting rules of a service: who shows this goes to that version, before any weight.
    #[command(after_help = RULES_HELP)]
    Rules(Rules),
    /// Raise a version's weight step by step, each gated; then wait until the last step is reached.
    #[command(after_help = RAMP_HELP)]
    Ramp(Ramp),
    /// Take a ramp's next step now, or with --full its last one; one that is frozen goes on from there.
    Promote(Promote),
    /// Take a ramp back: the split as it was before it, at once; or end a retirement, with everybody sent back.
    Abort(Revert),
    /// Stop a ramp or a canary gently: nobody new comes to the version that is tried, and who is on it stays until they are done.
    #[command(after_help = RETIRE_HELP)]
    Retire(Retire),
    /// Leave a ramp where it is; supervision goes on.
    Freeze(Steer),
    /// Let a ramp that is frozen go on, with what was left of its step.
    Resume(Steer),
    /// List, add or remove the versions of a service.
    #[command(after_help = VERSIONS_HELP)]
    Versions(Versions),
    /// Add endpoints to a version's pool, remove or drain them.
    #[command(after_help = ENDPOINTS_HELP)]
    Endpoints(Endpoints),
    /// Replace endpoints one after the other, each said to be safe before it is stopped.
    #[command(after_help = ROLLOUT_HELP)]
    Rollout(Rollout),
    /// Add a new version, wait until it is ready, give it the traffic, and see the old one out.
    #[command(after_help = DEPLOY_HELP)]
    Deploy(Deploy),
    /// Tell whether a version is empty, or wait until it is; exit status 0 only when it is safe to stop.
    #[command(after_help = DRAIN_HELP)]
    Drain(Drain),
    /// List past changes: what, who, when and why.
    History(History),
    /// Put every service back to where it was at an epoch, in one change.
    Undo(Undo),
    /// Watch what is going on: requests, failures and times of each service and version, the busiest first.
    #[command(after_help = TOP_HELP)]
    Top(Top),
    /// Tell which version would get a request, and why.
    #[command(after_help = EXPLAIN_HELP)]
    Explain(Explain),
    /// Let another program take the place of the running one, without a gap: with its sockets and its state.
    #[command(after_help = UPGRADE_HELP)]
    Upgrade(Upgrade),
    /// Print the completions for a shell.
    #[command(after_help = COMPLETIONS_HELP)]
    Completions(Completions),
    /// Print the manual page, or write one for each command.
    #[command(after_help = MAN_HELP)]
    Man(Manual),
    /// Watch a real switch: two versions, the proxy and traffic, from canary to flip to revert.
    Demo(Demo),
}

/// `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration file [./switchback.toml, then /etc/switchback/switchback.toml].
    pub file: Option<PathBuf>,
}

/// `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Leave the proxy running at the end, to play with.
    #[arg(long)]
    pub keep: bool,
}

/// What every change takes.
#[derive(Debug, Clone, Default, Args)]
pub struct Change {
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Refuse unless the service is still at this epoch.
    #[arg(long, value_name = "N")]
    pub if_epoch: Option<u64>,
    /// Only say what would happen.
    #[arg(long)]
    pub dry_run: bool,
}

/// How long a change waits for versions that it left.
#[derive(Debug, Clone, Args)]
pub struct Wait {
    /// How long to wait until the version that was left is empty: 500ms, 30s, 5m, 1h.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Do not wait for that: return as soon as no new request goes the old way.
    #[arg(long = "async")]
    pub no_wait: bool,
}

/// `hold`.
#[derive(Debug, Args)]
pub struct Hold {
    /// The service.
    pub service: String,
    /// Only requests that may change something: GET, HEAD and OPTIONS go on.
    #[arg(long)]
    pub writes: bool,
    /// How long requests may wait: 500ms, 30s, at most 10m [as the service's `hold` says].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Common options.
    #[command(flatten)]
    pub change: Change,
}

/// `release`.
#[derive(Debug, Args)]
pub struct Release {
    /// The service.
    pub service: String,
    /// Common options.
    #[command(flatten)]
    pub change: Change,
}

/// `versions`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Versions {
    /// List the versions of this service.
    pub service: Option<String>,
    /// Or change them.
    #[command(subcommand)]
    pub edit: Option<VersionEdit>,
}

/// `versions add`, `versions rm`.
#[derive(Debug, Subcommand)]
pub enum VersionEdit {
    /// Add a version, or replace the pool of one; it gets no traffic by that.
    Add {
        /// The service.
        service: String,
        /// The version's label.
        version: String,
        /// `host:port`, `[v6]:port` or `unix:/path`; may be repeated.
        #[arg(long = "endpoint", short, required = true, value_name = "ADDR", num_args = 1.., value_parser = address)]
        endpoints: Vec<String>,
        /// What the endpoints speak.
        #[arg(long, default_value = "http1", value_parser = PROTOCOLS)]
        protocol: String,
        /// Common options.
        #[command(flatten)]
        change: Change,
    },
    /// Remove a version that carries no traffic.
    Rm {
        /// The service.
        service: String,
        /// The version's label.
        version: String,
        /// Common options.
        #[command(flatten)]
        change: Change,
        /// Waiting.
        #[command(flatten)]
        wait: Wait,
    },
}

/// `endpoints`.
#[derive(Debug, Args)]
pub struct Endpoints {
    /// What to do.
    #[command(subcommand)]
    pub edit: EndpointEdit,
}

/// `endpoints add`, `endpoints rm`, `endpoints drain`.
#[derive(Debug, Subcommand)]
pub enum EndpointEdit {
    /// Add an endpoint to a version's pool; one that is drained serves again.
    Add(EndpointAdded),
    /// Remove an endpoint from a version's pool, then wait until it is empty.
    Rm {
        /// Which.
        #[command(flatten)]
        of: EndpointOf,
        /// Waiting.
        #[command(flatten)]
        wait: Wait,
    },
    /// Send an endpoint no new requests; it stays in the pool, and `endpoints add` lets it serve again.
    Drain {
        /// Which.
        #[command(flatten)]
        of: EndpointOf,
        /// Wait until it is empty.
        #[arg(long)]
        wait: bool,
        /// How long to wait: 500ms, 30s, 5m, 1h.
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
        timeout: Duration,
    },
}

/// One endpoint.
#[derive(Debug, Args)]
pub struct EndpointOf {
    /// The version.
    #[arg(value_name = "SERVICE/VERSION", value_parser = version_of)]
    pub version: VersionOf,
    /// `host:port`, `[v6]:port` or `unix:/path`.
    #[arg(value_name = "ADDR", value_parser = address)]
    pub endpoint: String,
    /// Common options.
    #[command(flatten)]
    pub change: Change,
}

/// `drain`.
#[derive(Debug, Args)]
pub struct Drain {
    /// The version.
    #[arg(value_name = "SERVICE/VERSION", value_parser = version_of, required_unless_present = "all")]
    pub version: Option<VersionOf>,
    /// Everything that gets no new requests; of a proxy that winds down, everything.
    #[arg(long, conflicts_with = "version")]
    pub all: bool,
    /// Wait until it is empty.
    #[arg(long)]
    pub wait: bool,
    /// How long to wait: 500ms, 30s, 5m, 1h.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
}

/// `history`.
#[derive(Debug, Args)]
pub struct History {
    /// Only changes of this service.
    pub service: Option<String>,
    /// At most so many.
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// Only changes before this epoch.
    #[arg(long, value_name = "EPOCH")]
    pub before: Option<u64>,
}

/// `undo`.
#[derive(Debug, Args)]
pub struct Undo {
    /// The epoch to go back to; `switchback history` lists them.
    #[arg(long = "to", value_name = "EPOCH")]
    pub to_epoch: u64,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only say what would happen.
    #[arg(long)]
    pub dry_run: bool,
    /// Waiting.
    #[command(flatten)]
    pub wait: Wait,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// http://host/path.
    pub url: String,
    /// A line of the request's headers; may be repeated, also with the same name.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// The request's method.
    #[arg(long, short = 'X', default_value = "GET")]
    pub method: String,
    /// The client's address; what a trusted one's `baggage` pins is followed.
    #[arg(long, value_name = "IP")]
    pub client: Option<String>,
}
