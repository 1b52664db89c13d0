//! What stable answers in the place of other versions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::control::Handle;
use crate::table;

/// What stable answers for the other versions of a service when they fail: requests that may run twice, or of which nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shield {
    /// Answers of theirs that are failures too: a status, or the first and the last of a range.
    #[schema(example = json!(["500-599"]))]
    pub statuses: Vec<String>,
    /// How much of a request's body is kept so that it can be sent once more, in bytes.
    pub body: u64,
    /// How many requests of theirs it may get, of so many of its own, in basis points.
    #[schema(maximum = 10_000)]
    pub budget: u16,
    /// How many it may get in any case, a second.
    pub min_per_second: u32,
    /// How many it has answered since the process began, or its version has come.
    pub answered: u64,
}

impl Shield {
    /// That of a service, if it has one.
    #[must_use]
    pub fn of(service: &table::Service, control: &Handle) -> Option<Self> {
        let rules = service.shield.as_ref()?;
        let status = |(first, last): &(u16, u16)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        let tenures = control.tenures();
        let versions =
            service.versions.iter().flat_map(|version| tenures.of_version(&service.name, &version.name));
        let answered = versions.map(|tenure| tenure.cells().map(|cells| cells.shielded()).sum::<u64>()).sum();
        Some(Self {
            statuses: rules.statuses.iter().map(status).collect(),
            body: rules.body,
            budget: rules.budget.points(),
            min_per_second: rules.min_per_second,
            answered,
        })
    }
}
