//! The endpoints of a pool, each with what is said of it.

use super::walk::Node;
use crate::table::{EndpointAddr, EndpointWeight, PoolTraits, Traits, ZoneName};

/// The endpoints that can be read, each once.
pub(super) fn pool(list: Vec<Node<'_>>) -> (Vec<EndpointAddr>, PoolTraits) {
    let mut pool = Vec::with_capacity(list.len());
    let mut said = Vec::new();
    for node in list {
        match endpoint(node) {
            Some((endpoint, _)) if pool.contains(&endpoint) => {
                node.at.error(format_args!("endpoint {endpoint} is listed twice"));
            }
            Some((endpoint, traits)) => {
                pool.push(endpoint.clone());
                said.push((endpoint, traits));
            }
            None => {}
        }
    }
    (pool, said.into_iter().collect())
}

/// `"127.0.0.1:9001"` or `{ address = "127.0.0.1:9002", weight = 2, zone = "a" }`.
fn endpoint(node: Node<'_>) -> Option<(EndpointAddr, Traits)> {
    const EXPECTED: &str = "an endpoint such as \"127.0.0.1:9001\"";
    if !node.is_table() {
        return node.parse(EXPECTED).map(|address| (address, Traits::default()));
    }
    let mut section = node.section("an endpoint")?;
    let address = section.required("address", "address = \"127.0.0.1:9001\"");
    let address = address.and_then(|node| node.parse(EXPECTED));
    let weight = section.or("weight", EndpointWeight::default(), weight);
    let zone = section.or("zone", None, |node| zone(node).map(Some));
    section.finish();
    Some((address?, Traits { weight: weight?, zone: zone? }))
}

fn weight(node: Node<'_>) -> Option<EndpointWeight> {
    let weight = node.count(&(0..=usize::MAX))?;
    EndpointWeight::new(weight as u64).map_err(|why| node.at.error(why)).ok()
}

/// The name of a zone.
pub(super) fn zone(node: Node<'_>) -> Option<ZoneName> {
    node.parse("the name of a zone such as \"eu-west-1a\"")
}
