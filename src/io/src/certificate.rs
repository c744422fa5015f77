//! The certificate that media's DTLS shows: made anew at each start.
//!
//! RFC 5763 §5: it proves nothing by itself, its fingerprint in the SDP does. ECDSA on P-256 (RFC 8827 §6.5).

use sipbox_core::media::dtls::Identity;

/// A new pair.
pub fn self_signed() -> Result<Identity, String> {
    // The serial number comes from the key, so that no two certificates share one: Firefox minds that.
    let made =
        rcgen::generate_simple_self_signed(vec!["sipbox".to_owned()]).map_err(|error| error.to_string())?;
    Identity::new(made.cert.der().to_vec(), made.signing_key.serialize_der())
}
