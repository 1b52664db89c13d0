//! What the verbs take that move traffic.

use std::time::Duration;

use clap::Args;

use super::words::{duration, rule, supervision, weight};
use super::{Change, Wait};
use crate::admin::api::Rule;
use crate::table::BasisPoints;

/// Whether what is moved is supervised.
#[derive(Debug, Clone, Default, Args)]
pub struct Supervise {
    /// Compare the version with the one before, let it go back by itself when it is worse, and wait until that is over: for this
    /// long [as the service's `supervise` says, else 10m].
    #[arg(long, value_name = "TIME", value_parser = supervision, conflicts_with = "no_supervise")]
    pub supervise: Option<Option<Duration>>,
    /// Do not supervise it, whatever the service's `supervise` says.
    #[arg(long)]
    pub no_supervise: bool,
}

impl Supervise {
    /// As the API reads it.
    #[must_use]
    pub fn asked(&self) -> Option<String> {
        match self.supervise {
            _ if self.no_supervise => Some("false".to_owned()),
            None => None,
            Some(None) => Some("true".to_owned()),
            Some(Some(period)) => Some(format!("{}ms", period.as_millis())),
        }
    }
}

/// `flip`.
#[derive(Debug, Args)]
pub struct Flip {
    /// The service.
    pub service: String,
    /// The version that gets everything: its label, @stable or @candidate.
    #[arg(long, value_name = "VERSION")]
    pub to: String,
    /// Two versions never serve at the same time; =writes: never two that may change something.
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "all",
        value_parser = ["all", "writes"])]
    pub exclusive: Option<String>,
    /// With --exclusive: event streams, WebSockets and the like of the old version are a reason to refuse, or are told to
    /// go and cut 5 s later, or are not waited for.
    #[arg(long, value_name = "WHAT", requires = "exclusive", value_parser = ["refuse", "close", "ignore"])]
    pub streams: Option<String>,
    /// Also when too few endpoints of the version are healthy.
    #[arg(long)]
    pub force: bool,
    /// With --exclusive: how long requests may wait [as the service's `hold` says].
    #[arg(long, value_name = "TIME", requires = "exclusive", value_parser = duration)]
    pub hold_timeout: Option<Duration>,
    /// Supervision.
    #[command(flatten)]
    pub supervise: Supervise,
    /// Common options.
    #[command(flatten)]
    pub change: Change,
    /// Waiting.
    #[command(flatten)]
    pub wait: Wait,
}

/// `revert` and `abort`.
#[derive(Debug, Args)]
pub struct Revert {
    /// The service.
    pub service: String,
    /// Common options.
    #[command(flatten)]
    pub change: Change,
    /// Waiting.
    #[command(flatten)]
    pub wait: Wait,
}

/// `rules`.
#[derive(Debug, Args)]
pub struct Rules {
    /// The service.
    pub service: String,
    /// All of its rules, in order; without any, and without --set and --clear: show them.
    #[arg(value_name = "RULE", value_parser = rule)]
    pub rules: Vec<Rule>,
    /// Take them from a file: JSON as --json shows it, or one a line, at least one; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rules", "clear"])]
    pub set: Option<String>,
    /// Take them all away.
    #[arg(long, conflicts_with = "rules")]
    pub clear: bool,
    /// Also when too few endpoints of a version that a new rule leads to are healthy.
    #[arg(long)]
    pub force: bool,
    /// Common options.
    #[command(flatten)]
    pub change: Change,
    /// Waiting.
    #[command(flatten)]
    pub wait: Wait,
}

/// `weights`.
#[derive(Debug, Args)]
pub struct Weights {
    /// The service.
    pub service: String,
    /// Per cent by version: green=5, green=0.25%; at most two decimals.
    #[arg(required = true, value_name = "VERSION=PERCENT", value_parser = weight)]
    pub weights: Vec<(String, BasisPoints)>,
    /// Who gets what they leave over to 100 %.
    #[arg(long, value_name = "VERSION", default_value = "@stable")]
    pub rest: String,
    /// Also when too few endpoints of a version that gets more are healthy.
    #[arg(long)]
    pub force: bool,
    /// Supervision.
    #[command(flatten)]
    pub supervise: Supervise,
    /// Common options.
    #[command(flatten)]
    pub change: Change,
    /// Waiting.
    #[command(flatten)]
    pub wait: Wait,
}
