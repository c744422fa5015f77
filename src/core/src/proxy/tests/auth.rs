//! Who has to prove himself: RFC 3261 §22.3, and what a silent database does.

use super::*;

fn proof(net: &Net, user: &str, password: &str, call: &Call<'_>) -> String {
    let challenge = net.last(ALICE);
    let value = header(&challenge, "Proxy-Authenticate").expect("a challenge");
    let challenge = Challenge::parse(value.as_bytes()).expect("Digest");
    assert_eq!(challenge.realm, "example.com");
    let answer = challenge.answer(user, password, call.method, call.uri, 1, "cnonce");
    format!("Proxy-Authorization: {answer}\r\n")
}

#[test]
fn who_claims_a_from_of_ours_proves_it() {
    let mut net = Net::new(Config { auth: Auth::Digest, ..config() });
    net.user("alice", "wonder");
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let mut call = Call::new("INVITE", "sip:bob@example.com");
    net.call(&call);
    assert_eq!(net.status(), 407);
    let next = |net: &mut Net, call: &mut Call<'_>, extra: String| {
        call.extra = extra;
        call.cseq += 1;
        call.branch = format!("z9hG4bK{}", call.cseq);
        net.call(call);
        net.status()
    };
    for (user, password, status, event) in [
        ("alice", "wrong", 407, Some("auth-failed")),
        ("nobody", "x", 403, Some("refused")),
        ("alice", "wonder", 100, None),
    ] {
        net.told.clear();
        let fresh = next(&mut net, &mut call, String::new());
        assert_eq!(fresh, 407);
        let proof = proof(&net, user, password, &call);
        assert_eq!(next(&mut net, &mut call, proof), status, "{user} {password}");
        assert_eq!(net.told.iter().any(|told| Some(told.name) == event), event.is_some(), "{:?}", net.told);
    }
    let at_bob = net.last(BOB);
    assert_eq!(header(&at_bob, "Proxy-Authorization"), None, "credentials go no further");

    // A user who is not there is challenged like one who is.
    call.from = "ghost@example.com";
    assert_eq!(next(&mut net, &mut call, String::new()), 407);
    let proof = proof(&net, "ghost", "x", &call);
    assert_eq!(next(&mut net, &mut call, proof), 407);

    // From elsewhere to us, nobody can prove anything; from elsewhere to elsewhere is refused.
    call.from = "carol@example.org";
    assert_eq!(next(&mut net, &mut call, String::new()), 100);
    call.uri = "sip:dave@example.net";
    assert_eq!(next(&mut net, &mut call, String::new()), 403);

    // A trunk needs no password.
    let mut trunk = Call::new("INVITE", "sip:bob@example.com");
    (trunk.source, trunk.call_id) = ("192.0.2.60:5060", "trunk");
    net.call(&trunk);
    assert!(net.last(BOB).starts_with("INVITE"));
}

#[test]
fn a_silent_database_is_503_in_time() {
    let mut net = Net::new(config());
    net.store_answers = false;
    net.call(&Call::new("INVITE", "sip:bob@example.com"));
    assert_eq!(net.status(), 100);
    net.wait(Duration::from_secs(5));
    assert_eq!(net.status(), 503);
    // The answer comes after all.
    let (ticket, _) = net.asked.remove(0);
    let reply = Reply::Store(Ok(store::Reply::Bindings(Vec::new())));
    net.sent.clear();
    net.proxy.handle_input(net.now, Input::Answer { ticket, reply });
    net.drain();
    assert!(net.sent.is_empty());
}
