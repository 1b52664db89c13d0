//! What supervision of many services costs: control has time for changes, and who scrapes gets an answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test, and it measures"
)]

mod lab;

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use lab::{Client, Lab, Origin, admin, wait_until};

/// Services, each with a canary that is compared. With 1,000 it is the full run, of a release build.
const TRIALS: usize = 200;

/// What the process has used so far, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // The kernel counts in hundredths.
    [11, 12].map(|field: usize| fields[field].parse::<f64>().unwrap() / 100.0).iter().sum()
}

fn scrape(lab: &Lab) -> (String, Duration) {
    let since = Instant::now();
    let text = admin::call(&lab.socket(), "GET", "/metrics", &[], "").unwrap().text();
    (text, since.elapsed())
}

fn differences(metrics: &str) -> usize {
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
    let (metrics, first) = scrape(&lab);
    let shown = differences(&metrics);
    assert!((1..TRIALS / 2).contains(&shown), "{shown} at once");
    wait_until("all are shown", || differences(&scrape(&lab).0) >= TRIALS * 9 / 10);
    let (_, later) = scrape(&lab);
    let pid = lab.proxy().pid();
    let (since, before) = (Instant::now(), cpu_seconds(pid));
    thread::sleep(Duration::from_secs(2));
    let still = (cpu_seconds(pid) - before) / since.elapsed().as_secs_f64() * 100.0;
    println!("{TRIALS} trials: a scrape {first:?}, then {later:?}; at rest {still:.0} % of a core");
}
