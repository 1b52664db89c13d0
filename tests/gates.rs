//! What pipelines put beside the proxy (`config/argo-rollouts`, `config/flagger`): their conditions are asked of what the real proxy answers, and
//! their scripts work it, over TCP and with a token.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use lab::{Client, Lab, Origin, Pulse, Users, wait_until};
use serde_json::{Value, json};

const TOKEN: &str = "the-token-of-shops-own-pipeline-1";

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(path)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// True when all of this is here; says what the test lacks when not.
fn is_here(needs: &[(&str, &[&str])]) -> bool {
    needs.iter().all(|(what, command)| {
        let run =
            Command::new(command[0]).args(&command[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let here = run.is_ok_and(|status| status.success());
        if !here {
            eprintln!("skipped: lacks {what}");
        }
        here
    })
}

const YAML: (&str, &[&str]) = ("python3-yaml", &["python3", "-c", "import yaml"]);
const CURL: (&str, &[&str]) = ("curl", &["curl", "--version"]);
const JQ: (&str, &[&str]) = ("jq", &["jq", "--version"]);

/// The documents of a file of YAML.
fn documents(path: &str) -> Vec<Value> {
    let program =
        "import json, sys, yaml; json.dump(list(yaml.safe_load_all(open(sys.argv[1]))), sys.stdout)";
    let output = Command::new("python3").args(["-c", program]).arg(file(path)).output().unwrap();
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The analysis template of that name.
fn template(path: &str, name: &str) -> Value {
    let found = documents(path).into_iter().find(|document| document["metadata"]["name"] == name);
    let template = found.unwrap_or_else(|| panic!("{path} has no {name}"));
    assert_eq!(
        (text(&template["kind"]), text(&template["apiVersion"])),
        ("AnalysisTemplate", "argoproj.io/v1alpha1")
    );
    template
}

/// The metrics of a template, with arguments as Argo Rollouts puts them in: those given, else their defaults. None may be missing.
fn metrics(template: &Value, given: &[(&str, &str)]) -> Vec<Value> {
    let mut metrics = template["spec"]["metrics"].to_string();
    for argument in template["spec"]["args"].as_array().unwrap() {
        let name = text(&argument["name"]);
        let value = given.iter().find(|(given, _)| *given == name).map(|(_, value)| *value);
        let secret = argument.get("valueFrom").map(|_| TOKEN);
        let value =
            value.or(argument["value"].as_str()).or(secret).unwrap_or_else(|| panic!("{name} is not given"));
        let quoted = json!(value).to_string();
        metrics = metrics.replace(&format!("{{{{args.{name}}}}}"), quoted.trim_matches('"'));
    }
    assert!(!metrics.contains("{{"), "{metrics}");
    serde_json::from_str::<Value>(&metrics).unwrap().as_array().unwrap().clone()
}

/// The part of the language of conditions (`expr`) that the templates use: comparisons of `result` and its parts, joined by `&&`.
fn holds(condition: &str, result: &Value) -> bool {
    condition.split("&&").all(|comparison| {
        let words: Vec<_> = comparison.trim().splitn(3, ' ').collect();
        let [left, operator, right] = words[..] else { panic!("`{comparison}` is not understood") };
        let left = match left {
            "result" => result.clone(),
            "result[0]" => result[0].clone(),
            "len(result)" => json!(result.as_array().expect("a list").len()),
            other => panic!("`{other}` is not understood"),
        };
        let right: Value = serde_json::from_str(right).unwrap();
        match operator {
            "==" => left == right,
            "in" => right.as_array().unwrap().contains(&left),
            ">" => left.as_f64() > right.as_f64(),
            "<=" => left.as_f64().is_some_and(|left| left <= right.as_f64().unwrap()),
            other => panic!("`{other}` is not understood"),
        }
    })
}

/// What Argo Rollouts makes of a measurement.
fn measured(metric: &Value, result: &Value) -> &'static str {
    match (holds(text(&metric["failureCondition"]), result), holds(text(&metric["successCondition"]), result))
    {
        (true, _) => "failed",
        (false, true) => "successful",
        (false, false) => "inconclusive",
    }
}

/// `shop` with blue and green, which are as their pulses say, compared as `supervise` says; worked over TCP with the token of its pipeline.
struct World {
    lab: Lab,
    blue: Pulse,
    green: Pulse,
}

impl World {
    fn start(supervise: &str) -> Self {
        let (blue, green) = (Pulse::well(), Pulse::well());
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("token"), TOKEN).unwrap();
        fs::set_permissions(dir.path().join("token"), fs::Permissions::from_mode(0o600)).unwrap();
        let lab = Lab {
            dir,
            origins: vec![Origin::pulsing("blue", &blue), Origin::pulsing("green", &green)],
            proxy: None,
            expected_errors: Vec::new(),
        };
        let mut world = Self { lab, blue, green };
        let [blue, green] = [0, 1].map(|at| world.lab.origins[at].address);
        let config = format!(
            "[admin]\nsocket = \"{0}/admin.sock\"\nlisten = \"127.0.0.1:0\"\n[[admin.tokens]]\nname = \"shop-ci\"\n\
             scopes = [\"operate:shop\"]\nfile = \"token\"\n[state]\ndir = \"{0}/state\"\n[[listeners]]\nlisten = \"127.0.0.1:0\"\n\
             [services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nsupervise = {supervise}\noutliers = false\n\
             versions.blue.endpoints = [\"{blue}\"]\nversions.green.endpoints = [\"{green}\"]\n",
            world.lab.dir.path().display()
        );
        fs::write(world.lab.config(), config).unwrap();
        world.lab.proxy = Some(world.lab.spawn(2));
        world
    }

    /// Where the admin API is served over TCP.
    fn admin(&self) -> SocketAddr {
        let (_, status) = self.lab.call("GET", "/v1/status", &Value::Null);
        text(&status["admin"]["bound"]).parse().unwrap()
    }

    fn users(&self) -> Users {
        Users::of(self.lab.address(), Duration::from_millis(4))
    }

    /// The verdict as a web metric gets it: over TCP, with its headers.
    fn asked(&self, web: &Value) -> Value {
        let url = text(&web["url"]).strip_prefix("http://").unwrap();
        let (host, path) = url.split_once('/').unwrap();
        let headers = web["headers"].as_array().unwrap().iter();
        let headers: String = headers
            .map(|header| format!("{}: {}\r\n", text(&header["key"]), text(&header["value"])))
            .collect();
        let mut client = Client::connect(host.parse().unwrap());
        let answer = client.send(format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n")).answer();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let field =
            text(&web["jsonPath"]).strip_prefix("{$.").and_then(|path| path.strip_suffix('}')).unwrap();
        field.split('.').fold(answer.json(), |value, field| value[field].clone())
    }

    /// What both judges make of how it stands, and what Flagger's gates say: not worse, proven, worse.
    fn judged(&self) -> ([&'static str; 2], [bool; 3]) {
        let admin = format!("http://{}", self.admin());
        let given = [("service", "shop"), ("switchback", admin.as_str())];
        let judges = ["switchback-verdict", "switchback-proven"].map(|name| {
            let metric = metrics(&template("argo-rollouts/verdict.yml", name), &given).remove(0);
            measured(&metric, &self.asked(&metric["provider"]["web"]))
        });
        (
            judges,
            ["not-worse", "proven", "worse"].map(|gate| self.gate(&[gate, "shop", "green"]).status.success()),
        )
    }

    fn gate(&self, arguments: &[&str]) -> Output {
        self.shell(Command::new("bash").arg(file("flagger/gate.sh")).args(arguments))
    }

    fn shell(&self, command: &mut Command) -> Output {
        let output = command
            .env("SWITCHBACK", format!("http://{}", self.admin()))
            .env("GATE_DIR", self.lab.dir.path())
            .output();
        output.unwrap()
    }

    fn wait(&self, state: &str) {
        wait_until(state, || self.verdict()["state"] == state);
    }

    fn verdict(&self) -> Value {
        self.lab.call("GET", "/v1/services/shop/verdict", &Value::Null).1
    }

    fn weight(&self, version: &str) -> u64 {
        self.lab.shop()["weights"][version].as_u64().unwrap_or(0)
    }

    /// The container of a template's only job, ready to be run.
    fn job(&self, template: &Value, given: &[(&str, &str)]) -> Command {
        let admin = format!("http://{}", self.admin());
        let given: Vec<_> = given.iter().copied().chain([("switchback", admin.as_str())]).collect();
        let metric = metrics(template, &given).remove(0);
        let container = &metric["provider"]["job"]["spec"]["template"]["spec"]["containers"][0];
        let words =
            container["command"].as_array().unwrap().iter().chain(container["args"].as_array().unwrap());
        let words: Vec<_> = words.map(text).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for variable in container["env"].as_array().unwrap() {
            match variable["value"].as_str() {
                Some(value) => command.env(text(&variable["name"]), value),
                None if variable["name"] == "TOKEN" => command.env("TOKEN", TOKEN),
                None if variable["name"] == "JOB" => command.env("JOB", "the-job"),
                None => &mut command,
            };
        }
        command
    }
}

fn said(output: &Output) -> String {
    format!("{} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What both judges say of a version of which nothing is known yet, and what the gates do.
const UNKNOWN: ([&str; 2], [bool; 3]) = (["successful", "inconclusive"], [true, false, false]);
/// That of one that is proven worse or was taken back, and has or has no traffic.
const WORSE: ([&str; 2], [bool; 3]) = (["failed", "failed"], [false, false, true]);
const GONE: ([&str; 2], [bool; 3]) = (["failed", "failed"], [false, false, false]);

#[test]
fn the_judges_go_by_what_the_proxy_answers_in_each_state() {
    if !is_here(&[YAML, CURL, JQ]) {
        return;
    }
    let world = World::start("true");
    assert_eq!(world.judged(), GONE, "nobody is compared, and that is no pass: {}", world.verdict());
    world.lab.weights(&json!({ "blue": 5_000, "green": 5_000 }));
    world.wait("collecting");
    assert_eq!(world.judged(), UNKNOWN, "{}", world.verdict());
    let users = world.users();
    world.wait("healthy");
    assert_eq!(world.judged(), (["successful", "successful"], [true, true, false]), "{}", world.verdict());
    world.green.set(500);
    world.wait("none");
    assert_eq!(world.verdict()["ended"]["how"], "reverted");
    assert_eq!(world.judged(), GONE, "it was taken back: {}", world.verdict());
    drop(users);
}

#[test]
fn what_is_suspect_is_not_decided_yet() {
    if !is_here(&[YAML, CURL, JQ]) {
        return;
    }
    let world = World::start("{ mode = \"alert\", suspect_hold = \"10m\" }");
    world.lab.flip("green");
    world.green.set(500);
    let users = world.users();
    // All is green's, and there is no coin to prove anything by.
    world.wait("suspect");
    assert_eq!(
        world.judged(),
        (["inconclusive", "inconclusive"], [true, false, false]),
        "{}",
        world.verdict()
    );
    world.lab.weights(&json!({ "blue": 5_000, "green": 5_000 }));
    world.wait("breached");
    drop(users);
    assert_eq!(world.judged(), WORSE, "supervision only tells: {}", world.verdict());
    assert_eq!(world.blue.status(), 200);
}

/// A tenth for green, as a job is asked for it.
const A_TENTH: [(&str, &str); 6] = [
    ("service", "shop"),
    ("to", "green"),
    ("weight", "1000"),
    ("rest", "blue"),
    ("change", "6f7c9"),
    ("supervise", "false"),
];

#[test]
fn a_job_moves_the_weights_once() {
    if !is_here(&[YAML, CURL]) {
        return;
    }
    let world = World::start("false");
    let template = template("argo-rollouts/weights.yml", "switchback-weights");
    let output = world.job(&template, &A_TENTH).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((world.weight("green"), world.weight("blue"), world.lab.epoch()), (1_000, 9_000, 2));
    let (_, history) = world.lab.call("GET", "/v1/changes?limit=1", &Value::Null);
    assert_eq!(history["changes"][0]["reason"], "argo-rollouts:6f7c9", "{history}");
    // Its pod is started again, when somebody has gone on.
    world.lab.weights(&json!({ "green": 2_000, "blue": 8_000 }));
    let output = world.job(&template, &A_TENTH).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((world.weight("green"), world.lab.epoch()), (2_000, 3), "it was made already");
    // What does not exist is refused, and the job fails with the proxy's words.
    let given = A_TENTH.map(|(name, value)| if name == "to" { (name, "purple") } else { (name, value) });
    let output = world.job(&template, &given).env("JOB", "the-next-job").output().unwrap();
    assert!(!output.status.success() && said(&output).contains("no version `purple`"), "{}", said(&output));
    assert_eq!(world.lab.epoch(), 3);
}

#[test]
fn somebody_elses_change_in_between_is_not_overwritten() {
    if !is_here(&[YAML, CURL, JQ]) {
        return;
    }
    let world = World::start("false");
    // A `curl` before which, when it is to change something, somebody else does.
    let bin = world.lab.dir.path().join("bin");
    let path = std::env::var("PATH").unwrap();
    let script = format!(
        "#!/bin/sh\nPATH='{path}'\ncase \"$*\" in *PUT*) curl -sS --fail --unix-socket {} -X PUT -H 'content-type: application/json' \\\n\
         --data '{{\"green\": 3000, \"blue\": 7000}}' http://x/v1/services/shop/weights >/dev/null ;; esac\nexec curl \"$@\"\n",
        world.lab.socket().display()
    );
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("curl"), script).unwrap();
    fs::set_permissions(bin.join("curl"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{path}", bin.display());
    let template = template("argo-rollouts/weights.yml", "switchback-weights");
    let refused = |output: &Output| {
        assert!(!output.status.success() && said(output).contains("412"), "{}", said(output));
        assert_eq!(world.weight("green"), 3_000);
    };
    refused(&world.job(&template, &A_TENTH).env("PATH", &path).output().unwrap());
    world.lab.weights(&json!({ "blue": 10_000 }));
    let gate = ["weights", "shop", "green", "1000", "blue"];
    refused(&world.shell(Command::new("bash").arg(file("flagger/gate.sh")).args(gate).env("PATH", &path)));
}

/// A ramp of two short steps, as a job.
fn ramp(world: &World, every: &str) -> Command {
    let template = template("argo-rollouts/ramp.yml", "switchback-ramp");
    let steps = ("steps", "[5000, 10000]");
    let given = [
        ("service", "shop"),
        ("to", "green"),
        ("change", "6f7c9"),
        steps,
        ("every", every),
        ("supervise", "1s"),
    ];
    world.job(&template, &given)
}

#[test]
fn a_job_ramps_and_its_end_is_the_verdict() {
    if !is_here(&[YAML, CURL]) {
        return;
    }
    let world = World::start("true");
    let users = world.users();
    let output = ramp(&world, "300ms").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((world.weight("green"), users.failed()), (10_000, 0));
}

#[test]
fn a_job_that_ramps_a_bad_version_fails() {
    if !is_here(&[YAML, CURL]) {
        return;
    }
    let world = World::start("true");
    world.green.set(500);
    let users = world.users();
    let output = ramp(&world, "1m").output().unwrap();
    assert!(!output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("revert"), "{}", said(&output));
    assert_eq!((world.weight("green"), world.weight("blue")), (0, 10_000));
    drop(users);
}

/// Ends a job as Kubernetes does.
fn terminate(job: &Child) {
    let sent = Command::new("kill").args(["-TERM", &job.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn a_ramp_whose_job_is_ended_is_taken_back() {
    if !is_here(&[YAML, CURL]) {
        return;
    }
    let world = World::start("true");
    let mut job = ramp(&world, "10m").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("green has its first step", || world.weight("green") == 5_000);
    terminate(&job);
    wait_until("everybody is back", || (world.weight("green"), world.weight("blue")) == (0, 10_000));
    let mut ended = None;
    wait_until("the job has ended", || {
        ended = job.try_wait().unwrap();
        ended.is_some()
    });
    assert!(!ended.unwrap().success());
}

#[test]
fn the_rollout_names_what_there_is_and_its_judges_are_over_before_the_ramp() {
    if !is_here(&[YAML]) {
        return;
    }
    let minutes = |text: &str| -> f64 {
        let (number, unit) = text.split_at(text.len() - 1);
        number.parse::<f64>().unwrap() * if unit == "m" { 1.0 } else { 1.0 / 60.0 }
    };
    let rollout = documents("argo-rollouts/rollout.yml").remove(0);
    let files =
        ["weights", "ramp", "verdict", "errors"].map(|file| documents(&format!("argo-rollouts/{file}.yml")));
    let templates: Vec<_> = files.into_iter().flatten().collect();
    let mut longest = 0.0_f64;
    for analysis in ["prePromotionAnalysis", "postPromotionAnalysis"] {
        let analysis = &rollout["spec"]["strategy"]["blueGreen"][analysis];
        let given = analysis["args"].as_array().unwrap().iter();
        let given: Vec<_> =
            given.map(|one| (text(&one["name"]), one["value"].as_str().unwrap_or("6f7c9"))).collect();
        for name in analysis["templates"].as_array().unwrap() {
            let found =
                templates.iter().find(|template| template["metadata"]["name"] == name["templateName"]);
            for metric in metrics(found.unwrap(), &given) {
                if let Some(count) = metric["count"].as_f64() {
                    let delay = metric["initialDelay"].as_str().map_or(0.0, minutes);
                    longest = longest.max(delay + count * metric["interval"].as_str().map_or(0.0, minutes));
                }
            }
        }
    }
    let ramp = templates.iter().find(|template| template["metadata"]["name"] == "switchback-ramp").unwrap();
    let default = |name: &str| {
        let arguments = ramp["spec"]["args"].as_array().unwrap();
        text(&arguments.iter().find(|argument| argument["name"] == name).unwrap()["value"]).to_owned()
    };
    let steps: Vec<u64> = serde_json::from_str(&default("steps")).unwrap();
    let lasts = f64::from(u32::try_from(steps.len() - 1).unwrap()) * minutes(&default("every"))
        + minutes(&default("supervise"));
    assert!(longest > 0.0 && longest < lasts, "judges take {longest} minutes, the ramp {lasts}");
}

#[test]
fn templates_can_be_used_together() {
    if !is_here(&[YAML]) {
        return;
    }
    // Argo Rollouts refuses two arguments of one name with different values, and two metrics of one name.
    let (mut arguments, mut names) = (BTreeMap::new(), BTreeSet::new());
    for file in ["weights", "ramp", "verdict", "errors"] {
        for template in documents(&format!("argo-rollouts/{file}.yml")) {
            for argument in template["spec"]["args"].as_array().unwrap() {
                let Some(value) = argument["value"].as_str() else { continue };
                let before =
                    arguments.entry(text(&argument["name"]).to_owned()).or_insert_with(|| value.to_owned());
                assert_eq!(before, value, "{argument}");
            }
            for metric in template["spec"]["metrics"].as_array().unwrap() {
                assert!(names.insert(text(&metric["name"]).to_owned()), "{metric}");
            }
        }
    }
}

#[test]
fn no_requests_are_neither_good_nor_bad_for_the_judge_by_prometheus() {
    if !is_here(&[YAML]) {
        return;
    }
    let given = [("service", "shop"), ("version", "green")];
    for metric in metrics(&template("argo-rollouts/errors.yml", "switchback-errors"), &given) {
        assert_eq!(measured(&metric, &json!([])), "inconclusive");
        assert_eq!(measured(&metric, &json!([0.0])), "successful");
        assert_eq!(measured(&metric, &json!([7.5])), "failed");
    }
}

/// Flagger's hooks of a kind, in the order in which it calls them.
fn hooks(kind: &str) -> Vec<String> {
    let canary = documents("flagger/canary.yml").remove(0);
    let hooks = canary["spec"]["analysis"]["webhooks"].as_array().unwrap().clone();
    let hooks = hooks.iter().filter(|hook| hook["type"] == kind);
    let commands = hooks.map(|hook| {
        assert_eq!(hook["metadata"]["type"], "bash", "it is waited for, and its end is the answer");
        text(&hook["metadata"]["cmd"])
            .replace("/gates/gate.sh", &file("flagger/gate.sh").display().to_string())
    });
    // The versions of the lab have other names.
    commands.map(|command| command.replace("canary", "green").replace("primary", "blue")).collect()
}

#[test]
fn flaggers_hooks_work_the_switch() {
    if !is_here(&[YAML, CURL, JQ]) {
        return;
    }
    let world = World::start("false");
    // As Flagger does: the first that fails ends it.
    let run = |kind: &str| {
        let commands = hooks(kind);
        assert!(!commands.is_empty(), "{kind}");
        commands
            .iter()
            .all(|command| world.shell(Command::new("bash").args(["-c", command])).status.success())
    };
    assert!(!run("rollout"), "nobody is compared yet");
    assert!(run("pre-rollout") && run("pre-rollout"), "it may be called again");
    assert_eq!((world.weight("green"), world.weight("blue"), world.lab.epoch()), (1_000, 9_000, 2));
    world.wait("collecting");
    assert!(run("rollout") && !run("rollback") && !run("confirm-promotion"), "nothing is proven");
    assert_eq!(world.weight("green"), 1_000, "and so it keeps its tenth");
    // Half of it, so that it does not take so long.
    let (status, answer) = world.lab.call(
        "PUT",
        "/v1/services/shop/weights?supervise=1h",
        &json!({ "green": 5_000, "blue": 5_000 }),
    );
    assert_eq!(status, 200, "{answer}");
    let users = world.users();
    world.wait("healthy");
    // Twice, as Flagger does, with all that it asks in between.
    for _ in 0..2 {
        assert!(run("rollout") && !run("rollback") && run("confirm-promotion"));
    }
    drop(users);
    assert_eq!(world.weight("green"), 5_000);
    assert!(run("post-rollout"));
    assert_eq!((world.weight("green"), world.weight("blue")), (0, 10_000));
    let epoch = world.lab.epoch();
    assert!(run("post-rollout"));
    assert_eq!(world.lab.epoch(), epoch, "it was so already");
}

#[test]
fn flaggers_own_posts_are_none_that_the_api_takes() {
    // It shows no token, and its words are no change: this is why its load tester calls for it.
    let world = World::start("true");
    let payload =
        json!({ "name": "shop", "namespace": "shop", "phase": "Progressing", "metadata": {} }).to_string();
    let post = Client::connect(world.admin()).post("/v1/services/shop/verdict", payload.as_bytes());
    assert_eq!(post.status, 401);
    let (status, _) =
        world.lab.call("POST", "/v1/services/shop/verdict", &serde_json::from_str(&payload).unwrap());
    assert_eq!(status, 405);
}

#[test]
fn flaggers_metrics_are_whole() {
    if !is_here(&[YAML]) {
        return;
    }
    let canary = documents("flagger/canary.yml").remove(0);
    let templates = documents("flagger/metrics.yml");
    for metric in canary["spec"]["analysis"]["metrics"].as_array().unwrap() {
        let found =
            templates.iter().find(|template| template["metadata"]["name"] == metric["templateRef"]["name"]);
        let mut query =
            text(&found.unwrap()["spec"]["query"]).replace("{{ interval }}", text(&metric["interval"]));
        for (name, value) in metric["templateVariables"].as_object().unwrap() {
            query = query.replace(&format!("{{{{ variables.{name} }}}}"), text(value));
        }
        assert!(!query.contains("{{"), "{query}");
    }
}
