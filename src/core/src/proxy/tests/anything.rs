//! Whatever comes: a whole play of calls with spoilt messages, and the torture tests.

use super::*;
use proptest::prelude::*;

/// A phone's call over the relay, told as the packets that came, with the answers of all who were asked.
fn play(mut spoil: impl FnMut(usize, String) -> Vec<u8>) {
    let mut net = Net::new(Config { relay_policy: RelayPolicy::Always, ..with_relay() });
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let mut step = 0;
    let mut receive = |net: &mut Net, source: &str, text: String| {
        let data = Bytes::from(spoil(step, text));
        step += 1;
        net.proxy.handle_input(net.now, Input::Packet { flow: udp(source), data });
        while let Some(output) = net.proxy.poll_output() {
            match output {
                Output::Ask { ticket, question: Question::Store(query) } => {
                    let reply = Reply::Store(Ok(net.store.ask(query)));
                    net.proxy.handle_input(net.now, Input::Answer { ticket, reply });
                }
                Output::Ask { ticket, question: Question::Relay { .. } } => {
                    let dict = ng::Dict::new().with("result", "ok").with("sdp", PHONE_SDP);
                    let reply = Reply::Relay(Some(dict.encode_bencode().into()));
                    net.proxy.handle_input(net.now, Input::Answer { ticket, reply });
                }
                Output::Transmit { target, data } => {
                    net.sent.push((target, String::from_utf8_lossy(&data).into_owned()));
                }
                Output::Ask { .. } | Output::Event(_) | Output::Close { .. } => {}
            }
        }
    };
    let mut invite = Call::new("INVITE", "sip:bob@example.com");
    invite.body = PHONE_SDP;
    receive(&mut net, ALICE, invite.text());
    // What does not get there any more is told as it would have been.
    let at_bob = net.to(BOB).first().map_or_else(
        || invite.text().replacen("Via:", "Via: SIP/2.0/UDP 192.0.2.50:5060;branch=z9hG4bK00x\r\nVia:", 1),
        |text| text.to_string(),
    );
    let contact = format!("sip:bob@{BOB}");
    if Message::parse(at_bob.as_bytes()).is_ok_and(|message| message.is_request()) {
        for (status, body) in [(183, PHONE_SDP), (200, PHONE_SDP), (486, "")] {
            receive(&mut net, BOB, respond(&at_bob, status, "tb", &contact, body));
        }
    }
    let route = header(&at_bob, "Record-Route").unwrap_or("<sip:192.0.2.50;lr>").to_owned();
    for method in ["ACK", "UPDATE", "BYE", "CANCEL", "REGISTER", "SUBSCRIBE"] {
        receive(&mut net, ALICE, in_dialog(method, &route).text());
    }
    net.wait(Duration::from_secs(400));
    assert!(net.proxy.is_idle());
    assert!(net.proxy.contexts.is_empty() && net.proxy.by_client.is_empty(), "something is left");
    assert_eq!(net.proxy.poll_timeout(), None);
}

#[test]
fn the_play_itself_goes_well() {
    play(|_, text| text.into_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_spoilt_packet_is_survived_and_nothing_is_left(
        at in 0usize..10,
        place in any::<proptest::sample::Index>(),
        with in proptest::collection::vec(any::<u8>(), 0..6),
        cut in 0usize..40,
    ) {
        play(|step, text| {
            let mut bytes = text.into_bytes();
            if step == at {
                let from = place.index(bytes.len());
                let to = (from + cut).min(bytes.len());
                bytes.splice(from..to, with.iter().copied());
            }
            bytes
        });
    }
}

/// RFC 4475 and RFC 5118, where they are at hand.
#[test]
fn torture_messages_are_survived() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/sip-torture");
    let mut files = Vec::new();
    let mut folders = vec![folder.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    if files.is_empty() {
        eprintln!("SKIPPED: {} is not here", folder.display());
        return;
    }
    let mut net = Net::new(with_relay());
    for file in &files {
        let data = Bytes::from(std::fs::read(file).expect("a file of the folder"));
        net.proxy.handle_input(net.now, Input::Packet { flow: udp(ALICE), data });
        while net.proxy.poll_output().is_some() {}
    }
    net.wait(Duration::from_secs(400));
    assert!(net.proxy.is_idle() && net.proxy.contexts.is_empty());
}
