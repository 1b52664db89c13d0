//! What a retirement bars, and what bars a retirement.

use crate::table::{ServiceName, StickyBy, VersionName};

/// Why a retirement cannot be begun, or what cannot be done during one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    /// Nobody new comes to a version of the service: it is not to get more by a ramp.
    #[error("`{version}` of `{service}` is retiring: nobody new comes to it")]
    Retiring {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
    },
    /// There is nobody to see out.
    #[error("nothing to retire in `{service}`: no version is tried against `{stable}`")]
    Nothing {
        /// The service.
        service: ServiceName,
        /// The version that carries it.
        stable: VersionName,
    },
    /// Who is new on a version and who is not cannot be told.
    #[error(
        "`{version}` of `{service}` cannot be retired: its users stay by {by}, which does not tell who is new from who was there"
    )]
    NobodyIsNew {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
        /// By what they stay.
        by: StickyBy,
        /// The version that carries the service.
        stable: VersionName,
    },
}

impl Barred {
    /// A stable token for machines, as in `type` of the problem details.
    #[must_use]
    pub fn token(&self) -> &'static str {
        match self {
            Self::Retiring { .. } => "retiring",
            Self::Nothing { .. } => "nothing_to_retire",
            Self::NobodyIsNew { .. } => "nobody_is_new",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Retiring { service, .. } => format!(
                "`switchback abort {service}` sends everybody back at once; `switchback weights {service} …` and `flip` end it too"
            ),
            Self::Nothing { service, .. } => format!("`switchback status {service}` shows the weights"),
            Self::NobodyIsNew { service, stable, .. } => format!(
                "`switchback flip {service} --to {stable}` sends everybody back at once, `switchback freeze {service}` leaves a ramp where it is; a cookie that the proxy mints (`mint = true`) tells who is new"
            ),
        }
    }
}
