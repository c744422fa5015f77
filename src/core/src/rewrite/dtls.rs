//! `DTLS`: roles and lines (RFC 5763, RFC 8842, RFC 8122).
//!
//! In: flags, what was said. Out: our role, and `setup`, `fingerprint`, `tls-id`. Not here: whether there is DTLS (`offer`,
//! `answer`), the handshake (`media::dtls`).

use super::compose::Out;
use super::memory::{SideMemory, Told};
use super::{Kind, Supply};
use crate::media::plan::DtlsRole;
use crate::ng::{DtlsFlag, Flags};
use crate::sdp::Setup;

/// Our role on a leg whose peer says `setup`; a role once taken stays (RFC 8842 §5.3). Toward who offered, the flag
/// chooses, where he leaves the choice to us.
pub(super) fn role(before: Option<DtlsRole>, setup: Option<Setup>, kind: Kind, flag: DtlsFlag) -> DtlsRole {
    match (setup, kind) {
        (Some(Setup::Passive), _) => DtlsRole::Active,
        (Some(Setup::Active), _) => DtlsRole::Passive,
        (Some(Setup::ActPass | Setup::HoldConn) | None, Kind::Offer) => before.unwrap_or(match flag {
            DtlsFlag::Passive | DtlsFlag::Off => DtlsRole::Passive,
            DtlsFlag::Active | DtlsFlag::Default => DtlsRole::Active,
        }),
        // An answer that does not say is taken for `active`, what RFC 5763 §5 recommends.
        (Some(Setup::ActPass | Setup::HoldConn) | None, Kind::Answer) => before.unwrap_or(DtlsRole::Passive),
    }
}

pub(super) const fn setup_of(role: DtlsRole) -> Setup {
    match role {
        DtlsRole::Active => Setup::Active,
        DtlsRole::Passive => Setup::Passive,
    }
}

pub(super) fn write(out: &mut Out, side: &SideMemory, told: &Told, flags: &Flags, supply: &dyn Supply) {
    let Some(setup) = told.security.dtls else { return };
    out.attribute("setup", setup.as_str());
    // The peer's own hash where he offered one that we can show (RFC 8122 §5), SHA-256 otherwise.
    let theirs = || {
        let first = side.said.as_ref()?.fingerprints.first()?;
        supply.fingerprint_by(&first.hash)
    };
    let asked = flags.fingerprint_hash.as_ref().and_then(|hash| supply.fingerprint_by(hash));
    let fingerprint = asked.or_else(theirs).unwrap_or_else(|| supply.fingerprint());
    out.attribute("fingerprint", &fingerprint.to_value());
    // With ICE, new credentials tell of a new association (RFC 8842 §4); browsers send none either.
    if let Some(id) = side.tls_id.as_ref().filter(|_| !told.ice) {
        out.attribute("tls-id", id);
    }
}
