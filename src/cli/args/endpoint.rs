//! What `endpoints add` takes.

use clap::Args;

use super::EndpointOf;

/// An endpoint with what is said of it.
#[derive(Debug, Args)]
pub struct EndpointAdded {
    /// Which.
    #[command(flatten)]
    pub of: EndpointOf,
    /// How much it takes in relation to the others, 1 to 1000 [as it is; of a new one 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub weight: Option<u64>,
    /// The zone it stands in, "" for none [as it is; of a new one none].
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,
}
