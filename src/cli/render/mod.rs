//! What the answers look like to people: pure functions from wire types to text, without a newline at the end.

mod change;
mod history;
mod status;
#[cfg(test)]
mod tests;

pub(super) use change::{carriers, change, safety, waiting, way_back};
pub(super) use history::{explained, history};
pub(super) use status::{status, versions};
