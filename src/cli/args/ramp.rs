//! What the verbs take that begin a ramp and steer it.

use std::time::Duration;

use clap::Args;

use super::words::{duration, long_duration, step};
use super::{Change, Supervise, Wait};
use crate::admin::api::Steps;
use crate::table::{BasisPoints, Invalid};

/// How a ramp goes up.
#[derive(Debug, Clone, Default, Args)]
pub struct Plan {
    /// The version's weights in per cent, rising, by default 1,5,25,50,100. Those that are not above what it has are left out.
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', value_parser = percent)]
    pub steps: Vec<BasisPoints>,
    /// How long each step lasts: 30s, 2m [until `switchback promote`].
    #[arg(long, value_name = "TIME", value_parser = step)]
    pub every: Option<Duration>,
}

fn percent(text: &str) -> Result<BasisPoints, String> {
    text.parse::<BasisPoints>().map_err(|why| why.to_string())
}

impl Plan {
    /// Whether these are steps.
    ///
    /// # Errors
    /// They do not rise, or there are too many.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        if self.steps.is_empty() { Ok(()) } else { Steps::new(self.steps.clone()).map(drop) }
    }

    /// True when a ramp is asked for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        !self.steps.is_empty() || self.every.is_some()
    }
}

/// `ramp`.
#[derive(Debug, Args)]
pub struct Ramp {
    /// The service.
    pub service: String,
    /// The version that gets more, step by step: its label, @stable or @candidate.
    #[arg(long, value_name = "VERSION")]
    pub to: String,
    /// The steps.
    #[command(flatten)]
    pub plan: Plan,
    /// The first step also when too few endpoints of the version are healthy.
    #[arg(long)]
    pub force: bool,
    /// Supervision, from the first step on.
    #[command(flatten)]
    pub supervise: Supervise,
    /// Common options.
    #[command(flatten)]
    pub change: Change,
    /// How long to wait for the last step: 30m, 2h [as long as it takes]. The ramp goes on after that.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Return as soon as the first step is taken: the ramp goes on by itself.
    #[arg(long = "async")]
    pub no_wait: bool,
}

/// `promote`.
#[derive(Debug, Args)]
pub struct Promote {
    /// The service.
    pub service: String,
    /// To the last step.
    #[arg(long)]
    pub full: bool,
    /// Also when too few endpoints of the version are healthy.
    #[arg(long)]
    pub force: bool,
    /// Common options.
    #[command(flatten)]
    pub change: Change,
    /// Waiting.
    #[command(flatten)]
    pub wait: Wait,
}

/// `freeze` and `resume`.
#[derive(Debug, Args)]
pub struct Steer {
    /// The service.
    pub service: String,
    /// Common options.
    #[command(flatten)]
    pub change: Change,
}

/// `retire`.
#[derive(Debug, Args)]
pub struct Retire {
    /// The service.
    pub service: String,
    /// It is over when nobody has come to the version for this long: 30m, 2h [30m, or as it is].
    #[arg(long, value_name = "TIME", value_parser = long_duration)]
    pub quiet: Option<Duration>,
    /// It is over after this long in any case, from now on: 1h, 48h [24h, or as it is].
    #[arg(long = "for", value_name = "TIME", value_parser = long_duration)]
    pub lasts: Option<Duration>,
    /// Also when too few endpoints of the others are healthy; where users stay its end waits for them.
    #[arg(long)]
    pub force: bool,
    /// Common options.
    #[command(flatten)]
    pub change: Change,
    /// How long to wait until it is over and the version is empty: 30m, 2h [as long as it takes]. It goes on after that.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Return at once: it goes on by itself.
    #[arg(long = "async")]
    pub no_wait: bool,
}
