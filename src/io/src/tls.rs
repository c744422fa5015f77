//! Certificates and TLS configuration of both sides: `--tls-cert`, `--tls-key`, `--tls-self-signed`, `--tls-min`, `--tls-ca`,
//! `--tls-verify`, `--tls-insecure`.
//!
//! rustls with ring. Several pairs are told apart by the name that the client asks for (SNI); the first one serves
//! whoever asks for none, and is what we show to a server that asks. The outbound side verifies by the system's
//! certificates and those of `--tls-ca` (RFC 5922 §7: the name is the SIP domain that was to be reached). Read again on
//! SIGHUP; connections that are there keep what they have. Not here: the handshake (`driver`), what to do about one that
//! failed ([`mend`] says it).

use crate::start::{Kind, StartError, state_directory};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where Debian and others keep the certificates that the system trusts; `$SSL_CERT_FILE` names another.
const SYSTEM_CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// `--tls-verify`: what clients have to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// They are not asked.
    #[default]
    None,
    /// Who shows a certificate has it verified.
    Optional,
    Required,
}

/// Where certificates come from, and what is asked of peers.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// PEM files: chain, and its private key.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// No TLS 1.2.
    pub only_13: bool,
    /// `--tls-ca`: whose certificates are believed, of clients, and of servers beside the system's.
    pub ca: Option<PathBuf>,
    pub verify: Verify,
    /// `--tls-insecure`: servers are not verified.
    pub insecure: bool,
}

/// What both sides of a server's TLS are made of.
#[derive(Clone, Debug)]
pub struct Configured {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

/// Reads the files and makes both configurations of them.
pub fn configure(settings: &Settings) -> Result<Configured, StartError> {
    let provider = Arc::new(ring::default_provider());
    let mut keys = Vec::new();
    for (cert, key) in &settings.pairs {
        keys.push(Arc::new(load(cert, key, &provider)?));
    }
    let ours = settings.ca.as_deref().map(authorities).transpose()?;
    let server = server(settings, keys.clone(), ours.as_deref(), &provider)?;
    Ok(Configured { server, client: client(settings, keys.first(), ours, &provider)? })
}

fn fault(error: &Error) -> StartError {
    StartError::new(Kind::Config, format!("TLS: {error}"))
}

fn versions(settings: &Settings) -> &'static [&'static SupportedProtocolVersion] {
    static ONLY_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
    if settings.only_13 { ONLY_13 } else { rustls::DEFAULT_VERSIONS }
}

fn server(
    settings: &Settings,
    keys: Vec<Arc<CertifiedKey>>,
    authorities: Option<&[CertificateDer<'static>]>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, StartError> {
    if keys.is_empty() {
        return Err(StartError::new(
            Kind::Usage,
            "--tls-cert: a tls: or wss: listener needs one; give --tls-cert and --tls-key, or --tls-self-signed",
        ));
    }
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(settings))
        .map_err(|error| fault(&error))?;
    let builder = match (settings.verify, authorities) {
        (Verify::None, _) => builder.with_no_client_auth(),
        (Verify::Optional | Verify::Required, None) => {
            return Err(StartError::new(
                Kind::Usage,
                "--tls-verify: whose certificates clients may have is missing; give --tls-ca",
            ));
        }
        (verify, Some(authorities)) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(authorities.iter().cloned());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
            let verifier =
                if verify == Verify::Optional { verifier.allow_unauthenticated() } else { verifier };
            let verifier = verifier
                .build()
                .map_err(|error| StartError::new(Kind::Config, format!("--tls-ca: {error}")))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    Ok(Arc::new(builder.with_cert_resolver(Arc::new(ByName(keys)))))
}

fn client(
    settings: &Settings,
    own: Option<&Arc<CertifiedKey>>,
    authorities: Option<Vec<CertificateDer<'static>>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, StartError> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(settings))
        .map_err(|error| fault(&error))?;
    let builder = if settings.insecure {
        tracing::warn!(
            mend = "take --tls-insecure away, and name the servers' authority with --tls-ca",
            "tls-insecure: whom we connect to is not verified, and whoever is on the way can read and change everything"
        );
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider.clone())))
    } else {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.into_iter().flatten());
        roots.add_parsable_certificates(of_the_system());
        if roots.is_empty() {
            tracing::warn!(
                mend = "install ca-certificates, or name an authority with --tls-ca",
                "no-authorities: no server that we connect to by TLS can be verified"
            );
        }
        builder.with_root_certificates(roots)
    };
    // A server that wants to know who we are is shown what our clients see.
    Ok(Arc::new(match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(Own(own.clone()))),
        None => builder.with_no_client_auth(),
    }))
}

/// The certificates of `--tls-ca`.
pub(crate) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let bytes = std::fs::read(path).map_err(|error| StartError::file("--tls-ca", path, &error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(StartError::new(
            Kind::Data,
            format!("--tls-ca {}: no certificate in it; give a PEM file", path.display()),
        )),
        Err(error) => {
            Err(StartError::new(Kind::Data, format!("--tls-ca {}: {error}; give a PEM file", path.display())))
        }
    }
}

/// Those that the system trusts; none where it has no such file.
pub(crate) fn of_the_system() -> Vec<CertificateDer<'static>> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bytes = match named {
        Some(path) => std::fs::read(path).ok(),
        None => SYSTEM_CERTIFICATES.iter().find_map(|path| std::fs::read(path).ok()),
    };
    CertificateDer::pem_slice_iter(&bytes.unwrap_or_default()).flatten().collect()
}

/// What a failed handshake was about, and what to do: the event's name, and its mend. `outbound`: we connected.
pub fn mend(error: &std::io::Error, outbound: bool) -> (&'static str, &'static str) {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(_)) if outbound => (
            "tls-not-verified",
            "if that server is the right one: name its authority with --tls-ca, or have it show a certificate for this name; \
             --tls-insecure asks no server who it is",
        ),
        Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => (
            "tls-not-verified",
            "if that client is to be served: name its authority with --tls-ca; --tls-verify none asks no client who it is",
        ),
        Some(Error::AlertReceived(
            AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate,
        )) => (
            "tls-not-verified",
            "the peer does not believe our certificate: give one of an authority that it knows, for the name that it asks \
             for, with its whole chain (--tls-cert), or have it trust ours",
        ),
        Some(Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            ("tls-not-verified", "the peer wants a certificate of ours: give --tls-cert and --tls-key")
        }
        Some(Error::PeerIncompatible(_) | Error::AlertReceived(AlertDescription::ProtocolVersion)) => {
            ("tls-failed", "the peer and we have no version or cipher in common; see --tls-min")
        }
        Some(Error::InvalidMessage(_)) => {
            ("tls-failed", "the peer speaks no TLS on this port; see its transport, or --listen")
        }
        _ => ("tls-failed", "see whether the peer is up, and what its own log says"),
    }
}

/// The name to verify a server by: the host that was asked for, else the address.
pub fn server_name(name: Option<&str>, address: std::net::IpAddr) -> ServerName<'static> {
    name.and_then(|name| ServerName::try_from(name.to_owned()).ok())
        .unwrap_or_else(|| ServerName::IpAddress(address.into()))
}

/// Whether a peer's verified certificate is good for this name too.
pub fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}

/// `--tls-insecure`: whoever has the key of the certificate that he shows.
#[derive(Debug)]
pub(crate) struct Anybody(pub Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What we show to a server that asks who we are.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
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
