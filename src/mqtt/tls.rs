//! Certificates for `mqtts://`: the system's roots or a given CA, and a client certificate where the broker wants one.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tracing::warn;

use super::settings::Settings;

/// What is wrong with a file of certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read, or holds no such thing.
    #[error("{key}: {path}: {problem}")]
    File {
        /// The configuration key that names it.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The system has no certificate store; common in minimal containers.
    #[error("no certificate authorities found on this system; set mqtt.ca_file")]
    NoRoots,
    /// The pieces do not fit together.
    #[error(transparent)]
    Rustls(#[from] tokio_rustls::rustls::Error),
}

/// Builds what rustls needs. Files are read at each connection, so that renewed ones are used without a restart.
pub fn client_config(settings: &Settings) -> Result<Arc<ClientConfig>, Error> {
    let roots = match &settings.ca_file {
        Some(path) => from_file(path)?,
        None => from_system()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match (&settings.client_cert, &settings.client_key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("mqtt.client_cert", certificate)?;
            let key =
                PrivateKeyDer::from_pem_file(key).map_err(|error| bad("mqtt.client_key", key, &error))?;
            builder.with_client_auth_cert(chain, key)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn from_file(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("mqtt.ca_file", path)? {
        roots.add(certificate).map_err(|error| bad("mqtt.ca_file", path, &error))?;
    }
    Ok(roots)
}

fn from_system() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        warn!(%error, "some of the system's certificates cannot be read");
    }
    // One broken certificate among a hundred must not keep us from the broker.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() { Err(Error::NoRoots) } else { Ok(roots) }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => Err(bad(key, path, &"no certificate in this file")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(bad(key, path, &error)),
    }
}

fn bad(key: &'static str, path: &Path, problem: &dyn std::fmt::Display) -> Error {
    Error::File { key, path: path.display().to_string(), problem: problem.to_string() }
}
