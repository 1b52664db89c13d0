//! The disk form of what is said of an endpoint.

use serde::{Deserialize, Serialize};

use crate::table::{EndpointWeight, Invalid, Traits};

/// [`Traits`] as they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TraitsForm {
    weight: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
}

impl From<&Traits> for TraitsForm {
    fn from(traits: &Traits) -> Self {
        Self { weight: traits.weight.number(), zone: traits.zone.as_ref().map(ToString::to_string) }
    }
}

impl TryFrom<TraitsForm> for Traits {
    type Error = Invalid;
    fn try_from(form: TraitsForm) -> Result<Self, Invalid> {
        let zone = form.zone.map(|zone| zone.parse()).transpose()?;
        Ok(Self { weight: EndpointWeight::new(form.weight.into())?, zone })
    }
}
