//! What the answers look like to people: pure functions from wire types to text, without a newline at the end.

mod change;
mod drain;
mod health;
mod history;
mod ramp;
mod retire;
mod rollout;
mod status;
#[cfg(test)]
mod tests;
mod top;
mod verdict;

pub(super) use change::{carriers, change, held, quiet_change, rules, way_back, way_back_from_undo};
pub(super) use drain::{
    all_left, endpoint_left, endpoint_safety, safety, waiting, waiting_for_all, waiting_for_endpoint,
};
pub(super) use history::{explained, history};
pub(super) use ramp::{
    begun as ramp_begun, ended as ramp_ended, gone as ramp_gone, news as ramp_news, plan as ramp_plan,
    stands as ramp_stands,
};
pub(super) use retire::{retired, retirement};
pub(super) use rollout::{is_safe, news, outcome, rollout};
pub(super) use status::{status, versions};
pub(super) use top::top;
