//! One URI, one address, one Via: whatever stands in a header's value.
//!
//! Laws: the parts are where they are said to be; an address-of-record is its own one form.

use sipbox_core::sip::{Aor, List, NameAddr, Uri, Via};

pub fn run(data: &[u8]) {
    if let Ok(uri) = Uri::parse(data) {
        assert_eq!(uri.as_bytes(), data);
        assert!(!uri.is_sip() || !uri.host.is_empty(), "a SIP URI without a host");
        let _ = (uri.ip(), uri.transport(), uri.is_loose());
        if let Some(aor) = uri.aor() {
            let text = aor.to_string();
            // What is empty before "@" is a domain's own; the rest reads back as it is.
            assert_eq!(Aor::parse(&format!("sip:{text}")), Some(aor), "not its own one form: {text}");
        }
        for param in uri.params.iter() {
            assert!(!param.name.is_empty());
        }
    }
    if let Ok(address) = NameAddr::parse(data) {
        let _ = (address.tag(), address.uri.aor());
        assert!(address.as_bytes().len() <= data.len());
    }
    if let Ok(via) = Via::parse(data) {
        let _ = (via.transport(), via.branch(), via.received(), via.rport());
        assert!(via.sent_by.starts_with(via.host));
    }
    let parts: usize = List::new(data).map(<[u8]>::len).sum();
    assert!(parts <= data.len());
}
