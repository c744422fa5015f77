//! What a REGISTER does to the bindings, as RFC 3261 §10.3 tells it, on the reference store.

use super::memory::Memory;
use super::*;

const NOW: Instant = Instant::from_secs(1_000_000);

fn alice() -> Aor {
    Aor::parse("alice@example.com").unwrap()
}

fn at(seconds: u64) -> Instant {
    Instant::from_secs(1_000_000 + seconds)
}

fn binding(contact: &str, call_id: &str, cseq: u32, modified: Instant, lives: u64) -> Binding {
    Binding {
        ruid: ruid(&alice(), None, 0, contact),
        contact: contact.to_owned(),
        received: None,
        path: None,
        expires: modified + std::time::Duration::from_secs(lives),
        q: None,
        call_id: call_id.to_owned(),
        cseq,
        modified,
        cflags: 0,
        user_agent: String::new(),
        socket: None,
        methods: None,
        instance: None,
        reg_id: 0,
    }
}

fn save(now: Instant, call_id: &str, cseq: u32, contacts: Contacts) -> Query {
    Query::Save(Box::new(Save {
        aor: alice(),
        now,
        call_id: call_id.to_owned(),
        cseq,
        contacts,
        max_contacts: 3,
    }))
}

fn register(store: &mut Memory, now: Instant, call_id: &str, cseq: u32, contacts: &[(&str, u64)]) -> Reply {
    let each = contacts.iter().map(|(contact, lives)| binding(contact, call_id, cseq, now, *lives)).collect();
    store.ask(save(now, call_id, cseq, Contacts::Each(each)))
}

fn contacts(reply: &Reply) -> Vec<&str> {
    match reply {
        Reply::Saved(saved) => saved.bindings.iter().map(|b| b.contact.as_str()).collect(),
        Reply::Bindings(bindings) => bindings.iter().map(|b| b.contact.as_str()).collect(),
        other => panic!("{other:?}"),
    }
}

fn changes(reply: &Reply) -> Vec<(Change, &str)> {
    match reply {
        Reply::Saved(saved) => saved.changes.iter().map(|(c, b)| (*c, b.contact.as_str())).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn adds_refreshes_and_removes() {
    let mut store = Memory::new();
    let r = register(&mut store, NOW, "c1", 1, &[("sip:a@h1", 60)]);
    assert_eq!(changes(&r), [(Change::Added, "sip:a@h1")]);
    let r = register(&mut store, at(10), "c1", 2, &[("sip:a@h1", 60), ("sip:a@h2", 60)]);
    assert_eq!(changes(&r), [(Change::Refreshed, "sip:a@h1"), (Change::Added, "sip:a@h2")]);
    let r = register(&mut store, at(20), "c1", 3, &[("sip:a@h1", 0)]);
    assert_eq!(changes(&r), [(Change::Removed, "sip:a@h1")]);
    assert_eq!(contacts(&r), ["sip:a@h2"]);
    assert_eq!(contacts(&store.ask(Query::Bindings { aor: alice(), now: at(69) })), ["sip:a@h2"]);
    assert!(contacts(&store.ask(Query::Bindings { aor: alice(), now: at(70) })).is_empty());
}

#[test]
fn a_request_that_was_overtaken_changes_nothing() {
    let mut store = Memory::new();
    register(&mut store, NOW, "c1", 5, &[("sip:a@h1", 60)]);
    for cseq in [4, 5] {
        let r = register(&mut store, at(1), "c1", cseq, &[("sip:a@h2", 60), ("sip:a@h1", 0)]);
        assert_eq!(r, Reply::Refused(Refusal::OutOfOrder));
    }
    assert_eq!(store.ask(save(at(1), "c1", 5, Contacts::RemoveAll)), Reply::Refused(Refusal::OutOfOrder));
    assert_eq!(contacts(&store.ask(Query::Bindings { aor: alice(), now: at(1) })), ["sip:a@h1"]);
    // Another Call-ID is a client that was started again.
    assert_eq!(contacts(&register(&mut store, at(2), "c2", 1, &[("sip:a@h1", 0)])), [""; 0]);
    // What has expired orders nothing.
    register(&mut store, at(3), "c1", 9, &[("sip:a@h1", 60)]);
    assert_eq!(contacts(&register(&mut store, at(100), "c1", 1, &[("sip:a@h1", 60)])), ["sip:a@h1"]);
}

#[test]
fn removes_all() {
    let mut store = Memory::new();
    register(&mut store, NOW, "c1", 1, &[("sip:a@h1", 60), ("sip:a@h2", 60)]);
    let r = store.ask(save(at(1), "c1", 2, Contacts::RemoveAll));
    assert_eq!(changes(&r).len(), 2);
    assert!(contacts(&r).is_empty());
}

#[test]
fn the_oldest_make_room() {
    let mut store = Memory::new();
    for (i, contact) in ["sip:a@h1", "sip:a@h2", "sip:a@h3"].into_iter().enumerate() {
        register(&mut store, at(i as u64), contact, 1, &[(contact, 60)]);
    }
    register(&mut store, at(5), "sip:a@h1", 2, &[("sip:a@h1", 60)]);
    let r = register(&mut store, at(6), "c4", 1, &[("sip:a@h4", 60)]);
    assert_eq!(changes(&r), [(Change::Added, "sip:a@h4"), (Change::Replaced, "sip:a@h2")]);
    assert_eq!(contacts(&r), ["sip:a@h4", "sip:a@h1", "sip:a@h3"]);
    let many: Vec<String> = (0..4).map(|i| format!("sip:b@h{i}")).collect();
    let many: Vec<(&str, u64)> = many.iter().map(|c| (c.as_str(), 60)).collect();
    assert_eq!(register(&mut store, at(7), "c5", 1, &many), Reply::Refused(Refusal::TooManyContacts));
}

#[test]
fn only_the_lost_flow_goes() {
    let mut store = Memory::new();
    let mut one = binding("sip:a@h1", "c1", 1, NOW, 60);
    one.path = Some("<sip:edge.example.com;lr>, <sip:TOKEN1@192.0.2.1;lr;ob>".to_owned());
    let mut two = binding("sip:a@h2", "c1", 1, NOW, 60);
    two.path = Some("<sip:TOKEN2@192.0.2.1;lr;ob>".to_owned());
    store.ask(save(NOW, "c1", 1, Contacts::Each(vec![one, two])));
    let gone = store.ask(Query::RemoveFlow { aor: alice(), token: "TOKEN1".to_owned(), now: at(1) });
    assert!(matches!(&gone, Reply::Removed(rows) if rows.len() == 1 && rows[0].1.contact == "sip:a@h1"));
    assert_eq!(contacts(&store.ask(Query::Bindings { aor: alice(), now: at(1) })), ["sip:a@h2"]);
}

#[test]
fn names_a_binding_by_what_it_is() {
    let aor = alice();
    let by_contact = |contact| ruid(&aor, None, 0, contact);
    assert_eq!(by_contact("sip:a@H1;Transport=TCP;x"), by_contact("sip:%61@h1;x;transport=tcp"));
    assert_ne!(by_contact("sip:a@h1"), by_contact("sip:a@h1:5060"));
    assert_ne!(by_contact("sip:a%00@h1"), by_contact("sip:a@h1"));
    assert_eq!(ruid(&aor, Some("<urn:uuid:1>"), 1, "sip:x"), ruid(&aor, Some("<urn:uuid:1>"), 1, "sip:y"));
    assert_ne!(ruid(&aor, Some("<urn:uuid:1>"), 1, "sip:x"), ruid(&aor, Some("<urn:uuid:1>"), 2, "sip:x"));
    assert_ne!(by_contact("sip:a@h1"), ruid(&Aor::parse("bob@example.com").unwrap(), None, 0, "sip:a@h1"));
}
