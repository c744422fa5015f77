//! Credentials and challenges, as they come in a header.
//!
//! Laws: no credentials that we did not ask for are taken; what a client of ours answers to a challenge, a server of ours
//! reads, and takes when the challenge was its own.

use sipbox_core::auth::digest::{Challenge, ha1};
use sipbox_core::auth::{Checker, Credentials, Keys, NonceState};
use sipbox_core::time::Instant;
use std::time::Duration;

const KEY: &str = "a key for fuzzing, long enough";

pub fn run(data: &[u8]) {
    let Some(keys) = Keys::new(&[KEY]) else { return };
    let now = Instant::from_secs(1000);
    let checker = Checker::new(keys, 0, 1, Duration::from_secs(300));
    if let Some(credentials) = Credentials::parse(data) {
        let _ = (credentials.user(), credentials.belong_to("alice", "example.com"));
        assert_ne!(checker.nonce_state(now, &credentials), NonceState::Fresh, "a nonce that nobody minted");
    }
    // One without a realm or a nonce is no server's of ours, whose credentials have both.
    let challenge = Challenge::parse(data).filter(|found| !found.realm.is_empty() && !found.nonce.is_empty());
    if let Some(challenge) = challenge {
        let answer = challenge.answer("alice", "secret", "INVITE", "sip:bob@example.com", 1, "cnonce");
        let Some(read) = Credentials::parse(answer.as_bytes()) else {
            panic!("our own answer cannot be read: {answer}")
        };
        assert_eq!((read.username.as_str(), read.realm.as_str()), ("alice", challenge.realm.as_str()));
        assert_eq!(read.nonce, challenge.nonce);
        assert_eq!(ha1(&read.username, &read.realm, "secret").len(), 32);
    }
}
