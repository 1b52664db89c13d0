//! From paths to a [`Config`], or to everything that is wrong with it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Errors, Severity, lines};
use super::document::{Document, Found, position};
use super::file::{self, Main, read_team};
use super::regular;
use super::service::Services;
use super::{Config, Host};

/// The most that is read of one file: some hundred thousand services.
pub const MAX_FILE: u64 = 64 << 20;

impl Config {
    /// Reads `path` and the `conf.d/*.toml` beside it, in the order of their names. `path` may be a pipe, which can be
    /// read once.
    ///
    /// Blocks on the file system, and until such a pipe has been written.
    ///
    /// # Errors
    /// [`Errors`] with everything that is wrong in any of the files.
    pub fn load(path: &Path) -> Result<Self, Errors> {
        Self::load_on(path, &Host::of_process())
    }

    /// As [`Config::load`], for a process that runs: for a pipe it would wait, and so `path` has to be a file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_again(path: &Path) -> Result<Self, Errors> {
        match regular::open(path) {
            Ok(_) => Self::load(path),
            Err(why) => {
                let found = Found::default();
                note(&found, path, (0, 0), Severity::Error, format!("cannot be read: {why}"));
                Err(Errors(found.into_inner()))
            }
        }
    }

    /// As [`Config::load`], with the defaults of `host`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_on(path: &Path, host: &Host) -> Result<Self, Errors> {
        let (config, mut found) = read(path, host);
        match config {
            Some(config) => Ok(Self { warnings: found, ..config }),
            None => {
                found.retain(|found| found.severity == Severity::Error);
                Err(Errors(found))
            }
        }
    }
}

/// Every file beside the configuration itself that `path` names, certificates and keys, there or not: what has to be
/// watched with it. Of a file that cannot be read, as far as it can.
#[must_use]
pub fn named_files(path: &Path) -> Vec<PathBuf> {
    let found = Found::default();
    let path = absolute(path);
    let base = path.parent().unwrap_or(&path);
    let teams = teams(&path.with_file_name("conf.d"), &found).files;
    let named = |path: &PathBuf| {
        let text = read_text(path, &found).unwrap_or_default();
        Document::walk(path, &text, &found, |root| file::named_files(root, base))
    };
    std::iter::once(&path).chain(&teams).flat_map(named).collect()
}

/// What `switchback check FILE` has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The file can be used.
    pub ok: bool,
    /// Every finding, and one line that sums up; without a newline at the end.
    pub text: String,
}

/// Reads the files as [`Config::load`] does and tells all about them.
#[must_use]
pub fn check(path: &Path) -> Report {
    check_on(path, &Host::of_process())
}

/// As [`check`], with the defaults of `host`.
#[must_use]
pub fn check_on(path: &Path, host: &Host) -> Report {
    let (config, found) = read(path, host);
    let ok = config.is_some();
    let warnings = found.iter().filter(|found| found.severity == Severity::Warning).count();
    let verdict = match &config {
        None => counted(found.len() - warnings, "error"),
        Some(config) if warnings == 0 => format!("{}: ok", inventory(config)),
        Some(config) => format!("{}: ok, {}", inventory(config), counted(warnings, "warning")),
    };
    let summary = format!("{}: {verdict}", path.display());
    let text = if found.is_empty() { summary } else { format!("{}\n{summary}", lines(&found)) };
    Report { ok, text }
}

fn inventory(config: &Config) -> String {
    let versions = config.services.iter().map(|service| service.versions.len()).sum();
    let (services, listeners) = (config.services.len(), config.listeners.len());
    let all = [(services, "service"), (versions, "version"), (listeners, "listener")];
    all.map(|(number, noun)| counted(number, noun)).join(", ")
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// All that was found, and the config, when no error is among it.
fn read(path: &Path, host: &Host) -> (Option<Config>, Vec<Diagnostic>) {
    let found = Found::default();
    let config = read_all(path, host, &found);
    let found = found.into_inner();
    let refused = found.iter().any(|found| found.severity == Severity::Error);
    (config.filter(|_| !refused), found)
}

/// What the files say; to be used only if no error was found.
fn read_all(path: &Path, host: &Host, found: &Found) -> Option<Config> {
    let text = text(path, File::open(path), found)?;
    let file = absolute(path);
    let base = file.parent().unwrap_or(&file);
    let mut services = Services::default();
    let main = Document::walk(path, &text, found, |root| Main::read(root, base, host, &mut services));
    let teams = teams(&path.with_file_name("conf.d"), found);
    for team in &teams.files {
        if let Some(text) = read_text(team, found) {
            services.beside(absolute(team).parent().unwrap_or(base));
            Document::walk(team, &text, found, |root| read_team(&root, path, &mut services));
        }
    }
    if services.are_none() {
        note(
            found,
            path,
            (0, 0),
            Severity::Warning,
            "there are no services: every request is answered 404".into(),
        );
    }
    let (services, discoveries) = services.into_specs();
    let directory = teams.directory.iter().chain(&teams.files).map(|path| absolute(path));
    let files = std::iter::once(file.clone()).chain(directory).collect();
    Some(main?.into_config(services, discoveries, files))
}

/// The files of `conf.d`, one per team.
#[derive(Default)]
struct Teams {
    directory: Option<PathBuf>,
    files: Vec<PathBuf>,
}

fn teams(directory: &Path, found: &Found) -> Teams {
    let entries = match std::fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Teams::default(),
        Err(why) => {
            note(found, directory, (0, 0), Severity::Error, format!("cannot be read: {why}"));
            return Teams::default();
        }
    };
    // Hidden files are editors' and Kubernetes' own.
    let ours = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.extension().is_some_and(|extension| extension == "toml")
    };
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(ours).collect();
    files.sort();
    Teams { directory: Some(directory.to_owned()), files }
}

fn read_text(path: &Path, found: &Found) -> Option<String> {
    text(path, regular::open(path), found)
}

fn text(path: &Path, file: io::Result<File>, found: &Found) -> Option<String> {
    let mut bytes = Vec::new();
    let read = file.and_then(|file| match file.metadata()?.len() {
        // Not a byte of it. A pipe says 0.
        length if length > MAX_FILE => Ok(length),
        _ => file.take(MAX_FILE + 1).read_to_end(&mut bytes).map(|read| read as u64),
    });
    let wrong = match read {
        Err(why) => Some(format!("cannot be read: {why}")),
        Ok(read) if read > MAX_FILE => Some(format!("is larger than {} MiB", MAX_FILE >> 20)),
        Ok(_) => None,
    };
    if let Some(message) = wrong {
        note(found, path, (0, 0), Severity::Error, message);
        return None;
    }
    String::from_utf8(bytes)
        .map_err(|why| {
            let whole =
                String::from_utf8_lossy(&why.as_bytes()[..why.utf8_error().valid_up_to()]).into_owned();
            note(found, path, position(&whole), Severity::Error, "this is not UTF-8 text".into());
        })
        .ok()
}

fn note(found: &Found, path: &Path, at: (usize, usize), severity: Severity, message: String) {
    let (file, (line, column)) = (path.to_owned(), at);
    found.borrow_mut().push(Diagnostic { file, line, column, severity, message, hint: None });
}

/// Paths are kept absolute: they shall not follow a later change of the working directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
