//! Certificates and TLS configuration of the server side (`--tls-cert`, `--tls-key`, `--tls-self-signed`).
//!
//! rustls with ring. Several pairs are told apart by the name that the client asks for (SNI); the first one serves
//! whoever asks for none. Read again on SIGHUP. Not here: the handshake (`driver`).

use crate::start::{Kind, StartError, state_directory};
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where certificates come from.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// PEM files: chain, and its private key.
    pub pairs: Vec<(PathBuf, PathBuf)>,
}

/// Reads the files and makes a configuration of them.
pub fn server(settings: &Settings) -> Result<Arc<ServerConfig>, StartError> {
    let provider = Arc::new(ring::default_provider());
    let mut keys = Vec::new();
    for (cert, key) in &settings.pairs {
        keys.push(Arc::new(load(cert, key, &provider)?));
    }
    if keys.is_empty() {
        return Err(StartError::new(
            Kind::Usage,
            "--tls-cert: a tls: or wss: listener needs one; give --tls-cert and --tls-key, or --tls-self-signed",
        ));
    }
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StartError::new(Kind::Config, format!("TLS: {error}")))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName(keys)));
    Ok(Arc::new(config))
}

fn load(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, StartError> {
    let fault = |flag: &str, path: &Path, error: String| {
        StartError::new(Kind::Data, format!("{flag} {}: {error}; give a PEM file", path.display()))
    };
    let bytes = std::fs::read(cert).map_err(|error| StartError::file("--tls-cert", cert, &error))?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| fault("--tls-cert", cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(fault("--tls-cert", cert, "no certificate in it".into()));
    }
    let bytes = std::fs::read(key).map_err(|error| StartError::file("--tls-key", key, &error))?;
    let private =
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| fault("--tls-key", key, error.to_string()))?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| {
        StartError::new(
            Kind::Data,
            format!("--tls-key {}: {error}; give the key of {}", key.display(), cert.display()),
        )
    })
}

#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| ServerName::try_from(name).ok()).and_then(|name| {
            self.0.iter().find(|key| {
                key.cert
                    .first()
                    .and_then(|cert| ParsedCertificate::try_from(cert).ok())
                    .is_some_and(|cert| verify_server_name(&cert, &name).is_ok())
            })
        });
        named.or(self.0.first()).cloned()
    }
}

/// For a first try: a pair in the state directory, made for `names` where it is missing. Returns its files.
pub fn self_signed(names: Vec<String>) -> Result<(PathBuf, PathBuf), StartError> {
    let directory = state_directory()?;
    let (cert, key) = (directory.join("self-signed.crt"), directory.join("self-signed.key"));
    if !(cert.exists() && key.exists()) {
        let pair = rcgen::generate_simple_self_signed(names)
            .map_err(|error| StartError::new(Kind::Config, format!("--tls-self-signed: {error}")))?;
        put(&key, &pair.signing_key.serialize_pem(), 0o600)?;
        put(&cert, &pair.cert.pem(), 0o644)?;
    }
    Ok((cert, key))
}

/// Beside and then renamed: another server that starts at the same time never reads half a file.
fn put(path: &Path, content: &str, mode: u32) -> Result<(), StartError> {
    let fault = |error: std::io::Error| StartError::file("--tls-self-signed", path, &error);
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside).map_err(fault)?;
    file.write_all(content.as_bytes()).map_err(fault)?;
    std::fs::rename(&beside, path).map_err(fault)
}
