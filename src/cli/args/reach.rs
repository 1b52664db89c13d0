//! Where the proxy is called, and what shows who calls.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::cli::client::{Client, Credentials, Token};

/// Options of every command that calls a running proxy.
#[derive(Debug, Clone, Default, Args)]
pub struct Reach {
    /// The admin socket, or https://HOST:PORT (in clear text on the machine itself: http://127.0.0.1:PORT)
    /// [as root /run/switchback/admin.sock, else $XDG_RUNTIME_DIR/switchback/admin.sock].
    #[arg(long, global = true, env = "SWITCHBACK_SOCKET", value_name = "PATH|URL", hide_env_values = true)]
    pub socket: Option<PathBuf>,
    /// With a URL: the file of the token that says who calls; the token itself only goes into SWITCHBACK_TOKEN.
    #[arg(long, global = true, env = "SWITCHBACK_TOKEN_FILE", hide_env_values = true)]
    #[arg(value_name = "FILE", value_parser = file())]
    pub token_file: Option<PathBuf>,
    /// With https: the authorities that are believed, as PEM [the system's].
    #[arg(long, global = true, env = "SWITCHBACK_CA", hide_env_values = true)]
    #[arg(value_name = "FILE", value_parser = file())]
    pub ca: Option<PathBuf>,
    /// With https: the certificate that says who calls, as PEM.
    #[arg(long, global = true, env = "SWITCHBACK_CERT", hide_env_values = true)]
    #[arg(value_name = "FILE", value_parser = file())]
    pub cert: Option<PathBuf>,
    /// With https: its key, as PEM.
    #[arg(long, global = true, env = "SWITCHBACK_KEY", hide_env_values = true)]
    #[arg(value_name = "FILE", value_parser = file())]
    pub key: Option<PathBuf>,
}

/// A path, or none at all where it is empty: a variable of a pipeline may be there without a value.
fn file() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The file that is named.
fn named(file: Option<&PathBuf>) -> Option<&PathBuf> {
    file.filter(|path| !path.as_os_str().is_empty())
}

/// Where the token itself may stand: not on the command line, which everybody on the machine sees.
const TOKEN: &str = "SWITCHBACK_TOKEN";

impl Reach {
    /// A client of the proxy at `--socket`, or at `otherwise`.
    ///
    /// # Errors
    /// What is wrong with the options, or their files.
    pub(in crate::cli) fn client(&self, otherwise: &Path) -> anyhow::Result<Client> {
        let place = self.socket.as_deref().unwrap_or(otherwise);
        if !Client::is_remote(place) {
            // They may be set for all commands by the environment.
            return Ok(Client::new(place));
        }
        let token = match (named(self.token_file.as_ref()), std::env::var(TOKEN)) {
            (Some(file), _) => {
                let read = std::fs::read_to_string(file).map_err(anyhow::Error::from);
                let read = read.and_then(|text| Token::of(&text));
                Some(read.with_context(|| format!("cannot read a token from {}", file.display()))?)
            }
            (None, Ok(text)) if !text.is_empty() => Some(Token::of(&text).context(TOKEN)?),
            (None, Ok(_) | Err(_)) => None,
        };
        let certificate = match (named(self.cert.as_ref()), named(self.key.as_ref())) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => anyhow::bail!("--cert and --key go together"),
        };
        Client::at(place, &Credentials { token, ca: named(self.ca.as_ref()).cloned(), certificate })
    }
}
