//! The README does not lie: its tutorial is typed as it stands, and says what the README says that it says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod lab;

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::Parser;
use switchback::cli::args::Cli;
use switchback::metrics::Reason;

use lab::{Client, Origin, Proxy};

const README: &str = include_str!("../README.md");

/// The contents of the fenced blocks of this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README.split(&*fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// What was typed in the tutorial, and what came.
struct Typed {
    command: &'static str,
    lines: Vec<&'static str>,
}

fn session() -> Vec<Typed> {
    let mut session: Vec<Typed> = Vec::new();
    for line in blocks("console").into_iter().flat_map(str::lines) {
        match line.strip_prefix("$ ") {
            Some(command) => session.push(Typed { command, lines: Vec::new() }),
            None => session.last_mut().unwrap().lines.push(line),
        }
    }
    session
}

/// As a shell splits it: words, and '…'.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (index, part) in command.split('\'').enumerate() {
        let mut pieces = if index % 2 == 1 { vec![part] } else { part.split(' ').collect() }.into_iter();
        words.last_mut().unwrap().push_str(pieces.next().unwrap());
        words.extend(pieces.map(str::to_owned));
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Without what is another each time: processes, times, ports, widths.
fn masked(line: &str) -> String {
    let mut before = "";
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        let is_time = is_number && ["pid", "up", "configure"].contains(&before);
        let is_port = word.starts_with("127.0.0.1:");
        let is_date = word.starts_with("20") && word.matches('-').count() == 2;
        let is_clock = word.len() == 8 && word.matches(':').count() == 2;
        let is_owner = ["uid=", "gid=", "pid="].iter().any(|name| word.starts_with(name));
        let is_workers = is_number && line.contains("workers ·") && before == "·";
        let is_masked = is_time || is_port || is_date || is_clock || is_owner || is_workers;
        words.push(if is_masked { "…".to_owned() } else { word.replace("workers", "worker") });
        before = word;
    }
    words.join(" ")
}

/// The README's switchback.toml on these origins and a free port.
fn configuration(blue: &Origin, green: &Origin) -> String {
    let toml = blocks("toml").remove(0);
    let replaced = [
        ("127.0.0.1:8080", "127.0.0.1:0".to_owned()),
        ("127.0.0.1:9001", blue.address.to_string()),
        ("127.0.0.1:9101", green.address.to_string()),
    ];
    replaced.iter().fold(toml.to_owned(), |toml, (from, to)| {
        assert!(toml.contains(from), "{from}");
        toml.replace(from, to)
    })
}

fn type_in(dir: &Path, command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_switchback"))
        .args(&words(command)[1..])
        .env("SWITCHBACK_SOCKET", dir.join("admin.sock"))
        .current_dir(dir)
        .output()
        .unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn the_tutorial_says_what_it_says() {
    let [blue, green] = ["blue", "green"].map(|name| {
        Origin::behaving(name, move |_, stream| {
            use std::io::Write;
            let body = format!("hello from {name}\n");
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
            Ok(lab::origin::Then::Keep)
        })
    });
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("switchback.toml"), configuration(&blue, &green)).unwrap();
    let socket = dir.path().join("admin.sock");
    let proxy = Proxy::start(&dir.path().join("switchback.toml"), &socket, 2).unwrap();
    let mut clients = Client::connect(proxy.address);
    let mut typed = 0;
    for Typed { command, lines } in session() {
        let said = match command {
            "curl -s localhost:8080" => clients.get("/").text(),
            "curl -s -H 'x-beta: yes' localhost:8080" => {
                clients.send("GET / HTTP/1.1\r\nhost: localhost:8080\r\nx-beta: yes\r\n\r\n").answer().text()
            }
            verb if verb.starts_with("switchback ") => type_in(dir.path(), verb),
            other if other.starts_with("for i in ") => continue,
            other => panic!("who types `{other}`?"),
        };
        // The file has the path by which it was named; how long a drain takes is another each time.
        let said = said.replace(&format!("{}/", dir.path().display()), "");
        let said = said.lines().filter(|line| !line.starts_with("waiting: ")).map(masked);
        let told = lines.into_iter().map(masked);
        assert_eq!(said.collect::<Vec<_>>(), told.collect::<Vec<_>>(), "$ {command}");
        typed += 1;
    }
    assert!(typed > 10, "where is the tutorial?");
    assert!(proxy.stop().0.success());
}

#[test]
fn every_command_of_the_readme_is_one() {
    let shell = blocks("sh").into_iter().flat_map(str::lines);
    let spans = README.split('`').skip(1).step_by(2).filter(|span| !span.contains('\n'));
    let mut checked = 0;
    for text in shell.chain(spans) {
        let commands = text.split("&&").map(|part| part.split(" 2>").next().unwrap().trim());
        for command in commands.filter(|command| command.starts_with("switchback ")) {
            if command.contains("VERSION") || command.contains("--help") {
                continue;
            }
            if let Err(error) = Cli::try_parse_from(words(command)) {
                panic!("`{command}`: {error}");
            }
            checked += 1;
        }
    }
    assert!(checked >= 2, "where are the commands?");
}

#[test]
fn every_reason_is_told_with_its_status() {
    let told: Vec<_> = README.lines().filter(|line| line.starts_with("| `")).collect();
    for reason in Reason::ALL {
        let row = format!("| `{}` | {} | ", reason.token(), reason.status());
        assert!(told.iter().any(|line| line.starts_with(&row)), "{row}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let targets = README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    let missing: Vec<_> = targets.filter(|target| !root.join(target).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
