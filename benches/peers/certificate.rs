//! The one certificate that every peer shows: ECDSA P-256, made for this run.

use std::{fs, io, path::Path, sync::OnceLock};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

/// Certificate and key, as PEM.
struct Pair {
    cert: String,
    key: String,
}

/// The name that it is for.
pub(crate) const NAME: &str = "shop.example.com";

/// Writes `shop.pem`, `shop.key`, and `shop.both` with one after the other.
pub(crate) fn write(dir: &Path) -> io::Result<()> {
    static PAIR: OnceLock<Result<Pair, rcgen::Error>> = OnceLock::new();
    let Pair { cert, key } = PAIR.get_or_init(make).as_ref().map_err(io::Error::other)?;
    fs::write(dir.join("shop.pem"), cert)?;
    fs::write(dir.join("shop.key"), key)?;
    fs::write(dir.join("shop.both"), format!("{cert}{key}"))
}

fn make() -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let cert = CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?;
    Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
}
