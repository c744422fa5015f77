//! A session description: reading and writing it.
//!
//! Laws: what was read is written byte for byte; a limit is never passed; sections are all the lines, once.

use sipbox_core::limits;
use sipbox_core::sdp::Sdp;

pub fn run(data: &[u8]) {
    let Ok(sdp) = Sdp::parse(data) else { return };
    let mut out = Vec::new();
    sdp.write(&mut out);
    assert_eq!(out, data, "what was read is written");
    assert!(sdp.lines().len() <= limits::SDP_LINES && sdp.media_count() <= limits::SDP_MEDIA);
    let lines: usize = sdp.medias().map(|section| section.lines().len()).sum();
    assert_eq!(lines + sdp.session().lines().len(), sdp.lines().len());
    for section in sdp.medias().chain([sdp.session()]) {
        let _ = (section.rtcp(), section.direction(), section.setup(), section.ptime());
        let _ = section.media().map(|media| (media.profile(), media.payload_types().count()));
        let _ = section.connection().and_then(|connection| connection.ip());
        let _ = (section.rtpmaps().count(), section.fmtps().count(), section.candidates().count());
        let _ = (section.cryptos().count(), section.groups().count(), section.fingerprints().count());
        let _ = section.origin();
    }
}
