//! Where the proxy is called, and what shows who calls.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use crate::cli::client::{Client, Credentials, Token};

/// Options of every command that calls a running proxy.
#[derive(Debug, Clone, Default, Args)]
pub struct Reach {
    /// The admin socket, or https://HOST:PORT (in clear text on the machine itself: http://127.0.0.1:PORT)
    /// [as root /run/switchback/admin.sock, else $XDG_RUNTIME_DIR/switchback/admin.sock].
    #[arg(long, global = true, env = "SWITCHBACK_SOCKET", value_name = "PATH|URL", hide_env_values = true)]
    pub socket: Option<PathBuf>,
    /// With a URL: the file of the token that says who calls; the token itself only goes into SWITCHBACK_TOKEN.
    #[arg(long, global = true, env = "SWITCHBACK_TOKEN_FILE", value_name = "FILE", hide_env_values = true)]
    pub token_file: Option<PathBuf>,
    /// With https: the authorities that are believed, as PEM [the system's].
    #[arg(long, global = true, env = "SWITCHBACK_CA", value_name = "FILE", hide_env_values = true)]
    pub ca: Option<PathBuf>,
    /// With https: the certificate that says who calls, as PEM.
    #[arg(long, global = true, env = "SWITCHBACK_CERT", value_name = "FILE", hide_env_values = true)]
    pub cert: Option<PathBuf>,
    /// With https: its key, as PEM.
    #[arg(long, global = true, env = "SWITCHBACK_KEY", value_name = "FILE", hide_env_values = true)]
    pub key: Option<PathBuf>,
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
        let token = match (&self.token_file, std::env::var(TOKEN)) {
            (Some(file), _) => {
                let read = std::fs::read_to_string(file).map_err(anyhow::Error::from);
                let read = read.and_then(|text| Token::of(&text));
                Some(read.with_context(|| format!("cannot read a token from {}", file.display()))?)
            }
            (None, Ok(text)) if !text.is_empty() => Some(Token::of(&text).context(TOKEN)?),
            (None, Ok(_) | Err(_)) => None,
        };
        let certificate = match (&self.cert, &self.key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => anyhow::bail!("--cert and --key go together"),
        };
        Client::at(place, &Credentials { token, ca: self.ca.clone(), certificate })
    }
}
