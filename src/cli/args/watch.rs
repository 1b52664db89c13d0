//! What `status` and `top` take.

use std::time::Duration;

use clap::Args;

use super::words::refresh;

/// `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Only this service.
    pub service: Option<String>,
    /// Show it again every second, until ctrl-c.
    #[arg(long, short)]
    pub watch: bool,
}

/// `top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Only this service.
    pub service: Option<String>,
    /// How long each picture looks: 500ms, 5s, 1m; at least 100ms.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = refresh)]
    pub every: Duration,
    /// End after so many pictures [at ctrl-c].
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
}
