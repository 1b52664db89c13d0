//! Every figure of the reference implementation, to 1e-9.

use serde_json::Value;

use super::super::*;

fn vectors() -> Value {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/supervision.json"));
    let vectors: Value = serde_json::from_str(text).unwrap();
    assert_eq!(vectors["schema"], "switchback-supervision-vectors/1");
    assert_eq!(vectors["horizon_s"], estats::HORIZON);
    let masses = [MASS_START, estats::MASS_RATE, MASS_SUSPECT];
    assert_eq!(
        vectors["mass"],
        serde_json::json!({"start": masses[0], "rate": masses[1], "suspect": masses[2]})
    );
    vectors
}

fn list<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    let list = value[name].as_array().unwrap_or_else(|| panic!("no {name} in {value}"));
    assert!(!list.is_empty(), "{name} says nothing");
    list
}

/// A number; `null` is minus infinity.
fn number(value: &Value) -> f64 {
    if value.is_null() { f64::NEG_INFINITY } else { value.as_f64().unwrap() }
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn index(value: &Value) -> usize {
    usize::try_from(count(value)).unwrap()
}

/// A list of counts; absent: all 0.
fn counts<const N: usize>(value: &Value) -> [u64; N] {
    std::array::from_fn(|index| value.get(index).map_or(0, count))
}

#[track_caller]
fn assert_close(got: f64, expected: &Value, what: &str) {
    let expected = number(expected);
    let is_close = got == expected || (got - expected).abs() <= 1e-9 * expected.abs().max(1.0);
    assert!(is_close, "{what}: {got}, not {expected}");
}

fn tolerance(case: &Value) -> Tolerance {
    Tolerance { rho: number(&case["rho"]), delta: number(&case["delta"]) }
}

fn decided(step: &Value) -> Counts {
    Counts { decided: count(&step["n"]), bad: [count(&step["a"]), count(&step["b"])] }
}

/// Each step of each case, with its name and what is expected after it.
fn each_step(cases: &[Value], mut check: impl FnMut(usize, &Value, &Value, &str)) {
    for (case_index, case) in cases.iter().enumerate() {
        let (steps, expected) = (list(case, "steps"), list(case, "expect_log_e"));
        assert_eq!(steps.len(), expected.len());
        assert_eq!(case.get("horizon_s").map_or(estats::HORIZON, number), estats::HORIZON);
        for (index, (step, expected)) in steps.iter().zip(expected).enumerate() {
            check(case_index, step, expected, &format!("{}, step {index}", case["name"]));
        }
    }
}

#[test]
fn the_pair_detector_is_the_reference() {
    let vectors = vectors();
    let cases = list(&vectors, "pair");
    let mut pairs: Vec<_> = cases.iter().map(|case| PairDetector::new(tolerance(case))).collect();
    each_step(cases, |case, step, expected, what| {
        let pair = &mut pairs[case];
        let got = if let Some(mass) = step.get("inject") {
            pair.inject(number(mass));
            pair.log_e()
        } else if let Some(eval) = step.get("eval") {
            pair.log_e_with(number(&eval["w"]), [count(&eval["a"]), count(&eval["b"])])
        } else {
            pair.update(number(&step["dt"]), number(&step["w"]), decided(step))
        };
        assert_close(got, expected, what);
    });
    for (case, pair) in cases.iter().zip(&pairs) {
        for (got, expected) in pair.capitals().iter().zip(list(case, "expect_L")) {
            assert_close(*got, expected, "a capital");
        }
    }
}

#[test]
fn the_guard_is_the_reference() {
    let vectors = vectors();
    let cases = list(&vectors, "guard");
    let mut guards: Vec<_> = cases.iter().map(|case| GuardDetector::new(number(&case["p0"]))).collect();
    each_step(cases, |case, step, expected, what| {
        let guard = &mut guards[case];
        if let Some(mass) = step.get("inject") {
            guard.inject(number(mass));
        } else {
            guard.update(number(&step["dt"]), count(&step["n"]), count(&step["bad"]));
        }
        assert_close(guard.log_e(), expected, what);
    });
}

#[test]
fn the_clean_test_is_the_reference() {
    let vectors = vectors();
    let cases = list(&vectors, "clean");
    let mut tests: Vec<_> = cases.iter().map(|case| CleanTest::new(tolerance(case))).collect();
    each_step(cases, |case, step, expected, what| {
        assert_close(tests[case].update(number(&step["w"]), decided(step)), expected, what);
    });
}

#[test]
fn bounds_and_fuses_are_the_reference() {
    let vectors = vectors();
    let errors = Settings::default().errors;
    for case in list(&vectors, "guard_rate") {
        assert_close(guard_rate(count(&case["n"]), count(&case["k"]), errors), &case["expect"], "guard_rate");
    }
    for case in list(&vectors, "fuse_len") {
        assert_eq!(u64::from(fuse_len(number(&case["p0"]))), count(&case["expect"]), "{case}");
    }
    for (bound, expected) in GUARD_LATENCY_BOUNDS.into_iter().zip(list(&vectors, "guard_lat_p0")) {
        assert_close(bound, expected, "guard_lat_p0");
    }
    for case in list(&vectors, "combine") {
        let parts = list(case, "parts");
        // Lists of five and of three; a part without weight says nothing.
        let part = |index: usize, at: usize, or: f64| parts.get(index).map_or(or, |part| number(&part[at]));
        let weights: [f64; 5] = std::array::from_fn(|index| part(index, 0, 0.0));
        let log_es = std::array::from_fn(|index| part(index, 1, 0.0));
        let (total, leading) = combine(&weights, &log_es);
        assert_close(total, &case["expect"], "combine");
        assert_eq!(leading, index(&case["leading"]), "{case}");
    }
}

/// From pairs of bucket and count.
fn histogram(sparse: &Value) -> LatencyHist {
    let mut histogram = LatencyHist::default();
    for pair in sparse.as_array().unwrap() {
        histogram.0[index(&pair[0])] = count(&pair[1]);
    }
    histogram
}

#[test]
fn latencies_are_the_reference() {
    let vectors = vectors();
    assert_eq!(BUCKETS, index(&vectors["buckets"]["count"]));
    for case in list(&vectors["buckets"], "cases") {
        let bucket = bucket_index(count(&case["us"]));
        assert_eq!((bucket, bucket_low(bucket)), (index(&case["index"]), count(&case["low"])), "{case}");
    }
    for case in list(&vectors, "latency_thresholds") {
        assert_eq!(count(&case["min_n"]), latency::LEAST_SAMPLES);
        assert_eq!(case["qs"], serde_json::json!(QUANTILES));
        let tolerance = LatencyTolerance { share: number(&case["tol"]), least: count(&case["slack_us"]) };
        let got = latency_thresholds(&histogram(&case["hist"]), tolerance);
        let pair = |pair: &Value| LatencyThreshold { baseline: index(&pair[0]), candidate: index(&pair[1]) };
        let expected = case["expect"].as_array().map(|all| all.iter().map(pair).collect::<Vec<_>>());
        assert_eq!(got.map(Vec::from), expected);
    }
    for case in list(&vectors, "missing_answers") {
        let cohort = |epoch: &Value| {
            let [started, finished, age] = counts(epoch);
            Cohort { started, finished, age }
        };
        let cohorts: Vec<_> = list(case, "epochs").iter().map(cohort).collect();
        let got = missing_answers(&histogram(&case["hist"]), &cohorts);
        assert_eq!(got, count(&case["expect"]), "{cohorts:?}");
    }
}

#[test]
fn endpoints_and_intervals_are_the_reference() {
    let vectors = vectors();
    for case in list(&vectors, "endpoint_fault") {
        let pairs = list(case, "bad").iter().zip(list(case, "tot"));
        let endpoints: Vec<_> =
            pairs.map(|(bad, total)| EndpointCounts { bad: count(bad), decided: count(total) }).collect();
        let expected = (!case["expect"].is_null()).then(|| index(&case["expect"]));
        assert_eq!(endpoint_fault(&endpoints), expected, "{case}");
    }
    for case in list(&vectors, "excess_interval") {
        let segment = |segment: &Value| {
            let [_, n, a, b] = std::array::from_fn(|at| if at == 0 { 0 } else { count(&segment[at]) });
            // How the decided ones are shared is of no matter.
            Segment { w: number(&segment[0]), decided: [n - b, b], bad: [a, b] }
        };
        let segments: Vec<_> = list(case, "segments").iter().map(segment).collect();
        let Interval { low, high } = excess_interval(&segments, number(&case["conf"]));
        let tolerance = number(&case["tolerance"]);
        assert!((low - number(&case["low"])).abs() <= tolerance, "{case}: {low}");
        assert!((high - number(&case["high"])).abs() <= tolerance, "{case}: {high}");
    }
}

fn settings(case: &Value) -> Settings {
    let mut settings = Settings::default();
    for (name, value) in case.get("config").and_then(Value::as_object).into_iter().flatten() {
        match &**name {
            "suspect_hold_s" => settings.suspect_hold = number(value),
            "suspect_hold_factor" => settings.suspect_hold_factor = number(value),
            "suspect_min_b" => settings.suspect_min_b = count(value),
            "max_suspects" => settings.max_suspects = u32::try_from(count(value)).unwrap(),
            _ => panic!("{name}?"),
        }
    }
    settings
}

fn group(step: &Value) -> Group {
    let of = |a: &str, b: &str| [a, b].map(|name| step.get(name).map_or(0, count));
    let bad = of("bad_a", "bad_b");
    Group {
        w: number(&step["w"]),
        decided: of("n_a", "n_b"),
        bad,
        guard_bad: step.get("guard_b").map_or(bad[1], count),
        guard_decided: count(&step["n_b"]),
        measured: of("n_a", "n_b"),
        client_errors: of("c4_a", "c4_b"),
        slow: [counts(&step["slow_a"]), counts(&step["slow_b"])],
        ..Group::default()
    }
}

fn stalled(step: &Value) -> Option<Stalled> {
    let stalled = step.get("stalled").filter(|stalled| !stalled.is_null())?;
    let slow = [counts(&stalled["slow_a"]), counts(&stalled["slow_b"])];
    let (w, missing) = (number(&stalled["w"]), count(&stalled["err_a"]));
    Some(Stalled { w, missing, slow, suspicious: slow[1].map(|slow| slow as f64), ..Stalled::default() })
}

#[test]
fn whole_stages_are_the_reference() {
    for case in list(&vectors(), "supervisor") {
        let mut stage = Supervisor::new(number(&case["weight"]), number(&case["p0"]), settings(case));
        let mut in_a_row = 0;
        let (steps, expected) = (list(case, "steps"), list(case, "expect"));
        assert_eq!(steps.len(), expected.len());
        for (index, (step, expected)) in steps.iter().zip(expected).enumerate() {
            if let Some(outcomes) = step.get("fuse") {
                for bad in outcomes.as_array().unwrap() {
                    in_a_row = if count(bad) == 1 { in_a_row + 1 } else { 0 };
                    if in_a_row >= stage.fuse_len() {
                        stage.fuse_blown();
                    }
                }
            } else {
                let groups: Vec<_> = step["groups"].as_array().unwrap().iter().map(group).collect();
                let live_ok = step.get("live_ok").map_or(0, count);
                stage.tick(number(&step["dt"]), &groups, stalled(step).as_ref(), live_ok);
            }
            let what = format!("{}, step {index}", case["name"]);
            assert_eq!(stage.standing().name(), expected["state"], "{what}");
            assert_eq!(stage.why().map(Why::name), expected["reason"].as_str(), "{what}");
            assert_eq!(u64::from(stage.suspects()), count(&expected["suspects"]), "{what}");
            assert_close(stage.weight(), &expected["weight"], &what);
            assert_close(stage.log_e(), &expected["log_total"], &what);
        }
    }
}
