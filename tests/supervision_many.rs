//! Supervision of many services: who scrapes does not wait until all of them have been worked out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::fmt::Write as _;

use lab::{Client, Lab, Origin, admin, wait_until};

/// Services, each with a canary that is compared.
const TRIALS: usize = 200;

/// How many trials a scrape shows with an interval.
fn differences(lab: &Lab) -> usize {
    let metrics = admin::call(&lab.socket(), "GET", "/metrics", &[], "").unwrap().text();
    metrics.lines().filter(|line| line.starts_with("switchback_supervision_excess_ratio{")).count() / 3
}

/// Nobody who scrapes waits for all intervals: the first ones are there at once, the others by and by.
#[test]
fn many_trials_are_all_shown_and_nobody_waits_for_it() {
    let origins = vec![Origin::start("blue"), Origin::start("green")];
    let [blue, green] = [&origins[0], &origins[1]].map(|origin| origin.address);
    let mut services = String::new();
    for number in 0..TRIALS {
        write!(
            services,
            "[services.s{number}]\nroutes = [{{ path = \"/{number}\" }}]\nsupervise = true\n\
             weights = {{ blue = 50, green = 50 }}\n\
             [services.s{number}.versions.blue]\nendpoints = [\"{blue}\"]\n\
             [services.s{number}.versions.green]\nendpoints = [\"{green}\"]\n"
        )
        .unwrap();
    }
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &services);
    let mut client = Client::connect(lab.address());
    for number in (0..TRIALS).cycle().take(20 * TRIALS) {
        assert_eq!(client.get(&format!("/{number}")).status, 200);
    }
    let shown = differences(&lab);
    assert!((1..TRIALS / 2).contains(&shown), "{shown} at once");
    wait_until("all are shown", || differences(&lab) >= TRIALS * 9 / 10);
}
