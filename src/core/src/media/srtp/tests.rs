//! RFC 3711 appendix B, RFC 7714 §16 and §17, and `rtc-srtp` as an oracle.

use super::cipher::keystream;
use super::*;
use aes::{Aes128, Aes256};
use proptest::prelude::*;
use rtc_srtp::context::Context as Oracle;
use rtc_srtp::protection_profile::ProtectionProfile;

const SUITES: [Suite; 4] =
    [Suite::AesCm128HmacSha1_80, Suite::AesCm128HmacSha1_32, Suite::AeadAes128Gcm, Suite::AeadAes256Gcm];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex"))
        .collect()
}

fn rtp(sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 8];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

fn roomy(packet: &[u8]) -> Vec<u8> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + OVERHEAD, 0xee);
    buffer
}

fn contexts(suite: Suite) -> (Context, Context) {
    let key: Vec<u8> = (0..(suite.key_length() + suite.salt_length()) as u8).collect();
    let make = || Context::from_concatenated(suite, &key).expect("right lengths");
    (make(), make())
}

fn oracle(suite: Suite) -> Oracle {
    let key: Vec<u8> = (0..(suite.key_length() + suite.salt_length()) as u8).collect();
    let profile = match suite {
        Suite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Suite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
        Suite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Suite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        other => panic!("the oracle has no {}", other.name()),
    };
    let (key, salt) = key.split_at(suite.key_length());
    let provider = rtc_srtp::crypto::default_provider().expect("ring is built in");
    Oracle::new(key, salt, profile, None, None, provider.crypto()).expect("right lengths")
}

/// RFC 3711 B.3.
#[test]
fn derives_session_keys() {
    let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
    let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
    let keys = Keys::derive(Suite::AesCm128HmacSha1_80, &key, &salt, 0).expect("right lengths");
    assert_eq!(keys.salt.to_vec(), hex("30CBBC08863D8C85D49DB34A9AE1"));
    let Cipher::Hmac(hmac) = &keys.cipher else { panic!("counter mode") };
    let Body::Cm128(aes) = &hmac.body else { panic!("counter mode") };
    let expected = Aes128::new_from_slice(&hex("C61E7A93744F39EE10734AFE3FF7A087")).expect("16 bytes");
    let (mut one, mut other) = ([0; 48], [0; 48]);
    keystream(aes, &[7; 16], &mut one);
    keystream(&expected, &[7; 16], &mut other);
    assert_eq!(one, other);
}

/// RFC 3711 B.2.
#[test]
fn counter_mode_keystream() {
    let aes = Aes128::new_from_slice(&hex("2B7E151628AED2A6ABF7158809CF4F3C")).expect("16 bytes");
    let iv: [u8; 16] = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000").try_into().expect("16 bytes");
    let mut out = [0; 48];
    keystream(&aes, &iv, &mut out);
    assert_eq!(
        out.to_vec(),
        hex(
            "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0"
        )
    );
}

/// A context of RFC 7714's session keys.
/// RFC 6188 §7.2.
#[test]
fn counter_mode_keystream_of_256_bits() {
    let key = hex("57f82fe3613fd170a85ec93c40b1f0922ec4cb0dc025b58272147cc438944a98");
    let iv: [u8; 16] = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000").try_into().expect("16 bytes");
    let mut out = [0; 48];
    keystream(&Aes256::new_from_slice(&key).expect("32 bytes"), &iv, &mut out);
    let expected =
        "92bdd28a93c3f52511c677d08b5515a49da71b2378a854f67050756ded165bac63c4868b7096d88421b563b8c94c9a31";
    assert_eq!(out.to_vec(), hex(expected));
}

/// Every suite that is offered takes back what it gave, with a key identifier too, and hides the payload but for the null
/// cipher, which says so.
#[test]
fn every_suite_both_ways() {
    for suite in Suite::ALL {
        assert_eq!(Suite::from_sdes(suite.name()), Some(suite));
        for mki in [&[][..], &[0, 0, 1], &[9; MKI_BYTES]] {
            let (mut out, mut into) = contexts(suite);
            out.set_mki(mki).unwrap();
            into.set_mki(mki).unwrap();
            let plain = rtp(7, 3, b"what is said");
            let mut buffer = roomy(&plain);
            let length = out.protect_rtp(&mut buffer, plain.len()).expect("protects");
            assert_eq!(length, plain.len() + suite.rtp_tag() + mki.len());
            let null = matches!(suite, Suite::NullHmacSha1_80 | Suite::NullHmacSha1_32);
            assert_eq!(&buffer[12..plain.len()] == b"what is said", null, "{}", suite.name());
            let mut bad = buffer.clone();
            bad[13] ^= 1;
            assert!(into.unprotect_rtp(&mut bad, length).is_err());
            assert_eq!(into.unprotect_rtp(&mut buffer, length), Ok(plain.len()), "{}", suite.name());
            assert_eq!(buffer[..plain.len()], plain);
            let report = [&[0x81, 201, 0, 7][..], &7u32.to_be_bytes(), &[5; 24]].concat();
            let mut buffer = roomy(&report);
            let length = out.protect_rtcp(&mut buffer, report.len()).expect("protects");
            assert_eq!(into.unprotect_rtcp(&mut buffer, length), Ok(report.len()), "{}", suite.name());
            assert_eq!(buffer[..report.len()], report);
        }
    }
    assert!(contexts(Suite::AeadAes128Gcm).0.set_mki(&[0; MKI_BYTES + 1]).is_err());
}

/// Under its sender's key and index, a report leaves as it came.
#[test]
fn a_report_keeps_its_index_under_its_senders_key() {
    let (mut phone, mut into) = contexts(Suite::AesCm128HmacSha1_80);
    let (mut out, _) = contexts(Suite::AesCm128HmacSha1_80);
    let report = [&[0x81, 201, 0, 7][..], &7u32.to_be_bytes(), &[5; 24]].concat();
    for _ in 0..3 {
        let mut buffer = roomy(&report);
        let length = phone.protect_rtcp(&mut buffer, report.len()).expect("protects");
        let came = buffer.clone();
        let plain = into.unprotect_rtcp(&mut buffer, length).expect("unprotects");
        let left = out.protect_rtcp_as(&mut buffer, plain, into.rtcp_index_seen()).expect("protects");
        assert_eq!(buffer[..left], came[..length]);
    }
}

fn rfc7714(suite: Suite, key: &str) -> Context {
    let mut salt = [0; 14];
    salt[..12].copy_from_slice(&hex("517569642070726f2071756f"));
    let keys = || Keys::from_session(suite, &hex(key), salt, &[0; 20]).expect("right lengths");
    Context {
        suite,
        rtp: keys(),
        rtcp: keys(),
        rtp_sources: Vec::new(),
        rtcp_sources: Vec::new(),
        rtcp_index: 0x05d4,
        rtcp_own: 0,
        rtcp_index_seen: 0,
        mki: Vec::new(),
    }
}

const GALLIA: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 \
                      69736120 696e2070 61727465 73207472 6573";

/// RFC 7714 §16.1.1 and §16.2.1.
#[test]
fn gcm_rtp_vectors() {
    for (suite, key, expected) in [
        (
            Suite::AeadAes128Gcm,
            "000102030405060708090a0b0c0d0e0f",
            "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a \
             51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        ),
        (
            Suite::AeadAes256Gcm,
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 \
             76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        ),
    ] {
        let plain = hex(GALLIA);
        let mut buffer = roomy(&plain);
        let length = rfc7714(suite, key).protect_rtp(&mut buffer, plain.len()).expect("protects");
        assert_eq!(buffer[..length], hex(expected));
        let length = rfc7714(suite, key).unprotect_rtp(&mut buffer, length).expect("unprotects");
        assert_eq!(buffer[..length], plain);
    }
}

/// RFC 7714 §17.1.
#[test]
fn gcm_rtcp_vector() {
    let plain = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef \
                     deadbeef deadbeef deadbeef deadbeef");
    let expected = hex("81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 \
                        730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4");
    let key = "000102030405060708090a0b0c0d0e0f";
    let mut buffer = roomy(&plain);
    let length = rfc7714(Suite::AeadAes128Gcm, key).protect_rtcp(&mut buffer, plain.len()).expect("protects");
    assert_eq!(buffer[..length], expected);
}

#[test]
fn agrees_with_the_oracle() {
    for suite in SUITES {
        let (mut ours_out, mut ours_in) = contexts(suite);
        let (mut theirs_out, mut theirs_in) = (oracle(suite), oracle(suite));
        // Across a roll-over, with two out of order.
        for sequence in [65_533u16, 65_534, 0, 65_535, 1, 2, 30_000] {
            let plain = rtp(sequence, 0xcafe, &[sequence as u8; 160]);
            let mut buffer = roomy(&plain);
            let length = ours_out.protect_rtp(&mut buffer, plain.len()).expect("protects");
            assert_eq!(length, plain.len() + suite.rtp_tag());
            let sealed = theirs_out.encrypt_rtp(&plain).expect("oracle protects");
            assert_eq!(buffer[..length], sealed[..], "{suite:?} {sequence}");
            assert_eq!(&theirs_in.decrypt_rtp(&buffer[..length]).expect("oracle unprotects")[..], &plain[..]);
            let length = ours_in.unprotect_rtp(&mut buffer, length).expect("unprotects");
            assert_eq!(buffer[..length], plain);
        }
        for round in 0..3u32 {
            let plain = crate::media::rtcp::tests::receiver_report(9, crate::media::rtcp::tests::BLOCK);
            let mut buffer = roomy(&plain);
            let length = ours_out.protect_rtcp(&mut buffer, plain.len()).expect("protects");
            assert_eq!(
                &theirs_in.decrypt_rtcp(&buffer[..length]).expect("oracle unprotects")[..],
                &plain[..]
            );
            let sealed = theirs_out.encrypt_rtcp(&plain).expect("oracle protects");
            let mut buffer = sealed.to_vec();
            let length = buffer.len();
            let length = ours_in.unprotect_rtcp(&mut buffer, length).expect("unprotects");
            assert_eq!(buffer[..length], plain, "{suite:?} {round}");
        }
    }
}

#[test]
fn refuses_replay_and_tampering() {
    for suite in SUITES {
        let (mut out, mut into) = contexts(suite);
        let plain = rtp(100, 1, &[1; 40]);
        let mut buffer = roomy(&plain);
        let length = out.protect_rtp(&mut buffer, plain.len()).expect("protects");
        let sealed = buffer[..length].to_vec();
        for at in [1, 5, 20, length - 1] {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            let error = into.unprotect_rtp(&mut bad, length).expect_err("tampered");
            assert_eq!(error, Error::Authentication, "{suite:?} {at}");
        }
        assert!(into.unprotect_rtp(&mut sealed.clone(), length).is_ok());
        assert_eq!(into.unprotect_rtp(&mut sealed.clone(), length), Err(Error::Replay));
        assert_eq!(out.protect_rtp(&mut roomy(&plain), plain.len()), Err(Error::Replay));

        let report = crate::media::rtcp::tests::receiver_report(9, crate::media::rtcp::tests::BLOCK);
        let mut buffer = roomy(&report);
        let length = out.protect_rtcp(&mut buffer, report.len()).expect("protects");
        let sealed = buffer[..length].to_vec();
        let mut bad = sealed.clone();
        bad[12] ^= 1;
        assert_eq!(into.unprotect_rtcp(&mut bad, length), Err(Error::Authentication));
        assert!(into.unprotect_rtcp(&mut sealed.clone(), length).is_ok());
        assert_eq!(into.unprotect_rtcp(&mut sealed.clone(), length), Err(Error::Replay));
    }
}

#[test]
fn window_reaches_back_127() {
    let mut window = Window::new(1000);
    window.mark(1000);
    assert!(!window.is_fresh(1000));
    assert!(window.is_fresh(873));
    assert!(!window.is_fresh(872));
    window.mark(873);
    assert!(!window.is_fresh(873));
    window.mark(2000);
    assert!(!window.is_fresh(1001));
    assert!(window.is_fresh(1999));
}

#[test]
fn sources_are_bounded() {
    let (mut out, _) = contexts(Suite::AeadAes128Gcm);
    for ssrc in 0..SRTP_SOURCES as u32 {
        let plain = rtp(1, ssrc, &[0; 4]);
        out.protect_rtp(&mut roomy(&plain), plain.len()).expect("protects");
    }
    let plain = rtp(1, 99_999, &[0; 4]);
    assert_eq!(out.protect_rtp(&mut roomy(&plain), plain.len()), Err(Error::TooManySources));
    assert_eq!(out.protect_rtp(&mut plain.clone(), plain.len()), Err(Error::NoRoom));
}

proptest! {
    #[test]
    fn survives_anything(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), which in 0usize..4) {
        let (_, mut into) = contexts(SUITES[which]);
        let length = bytes.len();
        if length > 0 { bytes[0] = 0x80 | (bytes[0] & 0x3f); }
        prop_assert!(into.unprotect_rtp(&mut bytes.clone(), length).is_err());
        prop_assert!(into.unprotect_rtcp(&mut bytes.clone(), length).is_err());
        prop_assert!(into.unprotect_rtp(&mut bytes, length + 1).is_err());
    }
}
