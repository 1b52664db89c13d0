//! What the commands take that replace machines and versions.

use std::time::Duration;

use clap::Args;

use super::words::{PROTOCOLS, Pair, address, duration, pair};

/// `rollout`.
#[derive(Debug, Args)]
pub struct Rollout {
    /// The service.
    pub service: String,
    /// An endpoint that goes and the one that comes; without =NEW it is restarted in its place. May be repeated; without any: each
    /// endpoint of --from with one of --to, in their order.
    #[arg(long, value_name = "OLD[=NEW]", value_parser = pair, num_args = 1.., conflicts_with = "what")]
    pub replace: Vec<Pair>,
    /// The version whose endpoints go: its label or @stable.
    #[arg(long, value_name = "VERSION", default_value = "@stable", conflicts_with = "what")]
    pub from: String,
    /// The version whose endpoints come, with the weight [the same version].
    #[arg(long, value_name = "VERSION", conflicts_with = "what")]
    pub to: Option<String>,
    /// So many at a time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "what")]
    pub batch: u16,
    /// New endpoints come before old ones go.
    #[arg(long, conflicts_with = "what")]
    pub surge: bool,
    /// So many endpoints serve at any time: 8, or 80% [as many as the plan leaves].
    #[arg(long, value_name = "N", conflicts_with = "what")]
    pub min_capacity: Option<String>,
    /// How long an endpoint may take until it is empty [the service's drain.deadline, and 10s].
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "what")]
    pub drain_timeout: Option<Duration>,
    /// How long a new one may take until it serves, and a hook until it is done; 5m by default.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "what")]
    pub ready_timeout: Option<Duration>,
    /// How long a new endpoint has to stay well before the next one goes; 0s by default.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "what")]
    pub settle: Option<Duration>,
    /// Run here, by the shell, for each endpoint that is safe to stop; the rollout goes on when it has succeeded, and ends when it
    /// has failed. It is told what by SWITCHBACK_ENDPOINT, SWITCHBACK_REPLACEMENT and others.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["dry_run", "status", "proceed", "stop", "reverse"])]
    pub hook: Option<String>,
    /// Go on only when somebody says --proceed for each endpoint that is safe to stop.
    #[arg(long, conflicts_with = "what")]
    pub confirm: bool,
    /// What is done when something goes wrong: take back everything, as far as old endpoints still answer, or only what is under way.
    #[arg(long, value_name = "WHAT", default_value = "reverse", value_parser = ["reverse", "stop"], conflicts_with = "what")]
    pub on_failure: String,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", conflicts_with = "what")]
    pub reason: Option<String>,
    /// Only say what would happen.
    #[arg(long, conflicts_with = "what")]
    pub dry_run: bool,
    /// Return as soon as it has begun.
    #[arg(long = "async", conflicts_with_all = ["hook", "what"])]
    pub no_wait: bool,
    /// Tell how the rollout stands, or how the last one ended.
    #[arg(long, group = "what")]
    pub status: bool,
    /// Follow the rollout that is under way to its end; --hook goes with it.
    #[arg(long, group = "what")]
    pub follow: bool,
    /// An endpoint that was safe to stop was dealt with: go on.
    #[arg(long, value_name = "ADDR", group = "what")]
    pub proceed: Option<String>,
    /// End the rollout that is under way: take back what is under way, leave what is done.
    #[arg(long, group = "what")]
    pub stop: bool,
    /// End the rollout that is under way: take back everything, as far as old endpoints still answer.
    #[arg(long, group = "what")]
    pub reverse: bool,
}

/// `deploy`.
#[derive(Debug, Args)]
pub struct Deploy {
    /// The service.
    pub service: String,
    /// The new version's label.
    #[arg(long, value_name = "VERSION")]
    pub version: String,
    /// Its endpoints: `host:port`, `[v6]:port` or `unix:/path`; may be repeated.
    #[arg(long = "endpoint", short, required = true, value_name = "ADDR", num_args = 1.., value_parser = address)]
    pub endpoints: Vec<String>,
    /// What they speak.
    #[arg(long, default_value = "http1", value_parser = PROTOCOLS)]
    pub protocol: String,
    /// Endpoint by endpoint, with the weight, instead of all at once; supervised as the service's `supervise` says, and not otherwise.
    #[arg(long, conflicts_with_all = ["exclusive", "supervise", "no_supervise", "steps", "every"])]
    pub rolling: bool,
    /// With --rolling: so many at a time.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "rolling", value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// Two versions never serve at the same time; =writes: never two that may change something.
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "all",
        value_parser = ["all", "writes"], conflicts_with_all = ["steps", "every"])]
    pub exclusive: Option<String>,
    /// A ramp, step by step, instead of all at once.
    #[command(flatten)]
    pub plan: super::Plan,
    /// Supervision.
    #[command(flatten)]
    pub supervise: super::Supervise,
    /// How long the new version may take until it is ready, and after the switch the old one until it is empty; 5m by default. With
    /// --rolling each old endpoint [the service's drain.deadline, and 10s], and what takes longer is taken back.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Return as soon as no new request goes to the old version, with --rolling as soon as the rollout has begun, with --steps or --every as soon
    /// as the first step is taken.
    #[arg(long = "async")]
    pub no_wait: bool,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}
