//! The README and the pages behind it do not lie: the tutorial is typed as it stands, and says what the README says that it
//! says; commands are commands, examples are accepted, and every link leads somewhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod lab;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use switchback::cli::args::Cli;
use switchback::metrics::Reason;

use lab::tls::Authority;
use lab::{Client, Origin, Proxy};

const README: &str = include_str!("../README.md");

/// The contents of the fenced blocks of this language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&*fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page that is read by people, by its path.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<_> = ["README.md", "benches/README.md"].iter().map(|page| root().join(page)).collect();
    let mut directories = vec![root().join("docs"), root().join("config")];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// The page without its fenced blocks.
fn prose(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

/// What GitHub calls the headings of a page in a link.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(page).lines().filter(|line| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
        let anchor: String = kept.map(|char| if char == ' ' { '-' } else { char }).collect();
        let again = (1..).map(|count| format!("{anchor}-{count}"));
        let free = std::iter::once(anchor.clone()).chain(again).find(|anchor| !anchors.contains(anchor));
        anchors.insert(free.unwrap());
    }
    anchors
}

/// What was typed in the tutorial, and what came.
struct Typed {
    command: &'static str,
    lines: Vec<&'static str>,
}

fn session() -> Vec<Typed> {
    let mut session: Vec<Typed> = Vec::new();
    for line in blocks(README, "console").into_iter().flat_map(str::lines) {
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
    let toml = blocks(README, "toml").remove(0);
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
fn every_command_is_one() {
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let shell = blocks(&text, "sh").into_iter().flat_map(str::lines);
        let spans = text.split('`').skip(1).step_by(2).filter(|span| !span.contains('\n'));
        for line in shell.chain(spans) {
            let commands = line.split("&&").map(|part| part.split(" 2>").next().unwrap().trim());
            for command in commands.filter(|command| command.starts_with("switchback ")) {
                if ["VERSION", "--help", "…"].iter().any(|part| command.contains(part)) {
                    continue;
                }
                if let Err(error) = Cli::try_parse_from(words(command)) {
                    panic!("{}: `{command}`: {error}", page.display());
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 30, "where are the commands?");
}

#[test]
fn every_reason_is_told_with_its_status() {
    let told: Vec<_> =
        include_str!("../docs/monitoring.md").lines().filter(|line| line.starts_with("| `")).collect();
    for reason in Reason::ALL {
        let row = format!("| `{}` | {} | ", reason.token(), reason.status());
        assert!(told.iter().any(|line| line.starts_with(&row)), "{row}");
    }
}

/// `over` on top of `under`: tables are joined, everything else is replaced.
fn laid_over(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => laid_over(under, over),
            (_, value) => _ = under.insert(key, value),
        }
    }
}

/// A token that nobody else may read.
fn secret(path: &Path) {
    fs::write(path, "0123456789abcdef0123456789abcdef").unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn every_example_is_accepted() {
    let mut checked = 0;
    let admin = Authority::new("ours").issue(&["admin.test"]);
    for page in pages() {
        for example in blocks(&fs::read_to_string(&page).unwrap(), "toml") {
            let mut file: toml::Table = blocks(README, "toml")[0].parse().unwrap();
            let example = example
                .parse::<toml::Table>()
                .unwrap_or_else(|error: toml::de::Error| panic!("{}: {error}\n{example}", page.display()));
            laid_over(&mut file, example);
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("switchback.toml");
            fs::write(&path, file.to_string()).unwrap();
            // What an example may name beside it.
            admin.write(dir.path(), "admin");
            secret(&dir.path().join("argo.token"));
            let report = switchback::config::check(&path);
            assert!(report.ok, "{}: {}\n{file}", page.display(), report.text);
            checked += 1;
        }
    }
    assert!(checked > 5, "where are the examples?");
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let prose = prose(&text);
        let targets = prose.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for target in targets.filter(|target| !target.contains("://")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let leads = file.exists()
                && (anchor.is_empty() || anchors(&fs::read_to_string(&file).unwrap()).contains(anchor));
            if !leads {
                wrong.push(format!("{}: {target}", page.strip_prefix(root()).unwrap().display()));
            }
            checked += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked > 100, "where are the links?");
}

#[test]
fn the_index_leads_to_every_page() {
    let index = include_str!("../docs/README.md");
    for page in fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name()) {
        let page = page.to_str().unwrap().to_owned();
        assert!(page == "README.md" || index.contains(&format!("]({page})")), "{page}");
    }
}
