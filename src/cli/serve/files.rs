//! The configuration's files: found, watched, read.

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use crate::config::{self, Config};
use crate::control::reload::{self, Watch, Watched};

/// Where the configuration is looked for when nobody says.
const PLACES: [&str; 2] = ["./switchback.toml", "/etc/switchback/switchback.toml"];

/// The file that was named, or the first that is there.
///
/// # Errors
/// When there is none.
pub(in crate::cli) fn configuration(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(file) = named {
        return Ok(file);
    }
    let found = PLACES.iter().map(PathBuf::from).find(|place| place.exists());
    found.ok_or_else(|| {
        anyhow!("no configuration: neither {} is there; name one: `switchback run --config FILE`, `switchback check FILE`", PLACES.join(" nor "))
    })
}

/// What changes in a file that is read is noticed, wherever that is.
const _: () = assert!(config::MAX_FILE <= reload::MOST);

/// Reads the file, after what it names has come under watch.
pub(super) fn load(file: &Path, watching: Option<&Watch>) -> Result<Config, config::Errors> {
    if let Some(watching) = watching {
        watching.follow(config::named_files(file));
    }
    Config::load(file)
}

/// As [`load`], while everything goes on: nothing is waited for.
pub(super) fn load_again(file: &Path, watching: Option<&Watch>) -> Result<Config, config::Errors> {
    if let Some(watching) = watching {
        watching.follow(config::named_files(file));
    }
    Config::load_again(file)
}

/// What is watched from the first moment on.
pub(super) fn watched(file: &Path) -> Watched {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Watched { files: vec![file.to_owned()], dirs: vec![folder.join("conf.d")], named: Vec::new() }
}
