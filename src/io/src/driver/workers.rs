//! Several workers of one server: whose message it is, and how it gets there.
//!
//! Each worker is a thread with a machine (or the first one alone has the only one, [`Owners::First`]), sockets (SO_REUSEPORT) and connections of its own. A request's owner follows
//! from its Call-ID, a REGISTER's from its address-of-record, whoever receives it (peers mint branches too: CANCEL, ACK,
//! retransmissions and merged requests go the same way); a response's is written in our branch, a connection's in its
//! number. What landed elsewhere is passed on by channel. No state is shared, so nothing is locked on a message's way.
//! In: messages as they came. Out: the worker's number. Not here: what the owner does (`super`).

use crate::signals::Order;
use bytes::Bytes;
use sipbox_core::flow::{Flow, Target};
use sipbox_core::limits::PASSED_MESSAGES;
use sipbox_core::sip::{Message, Method};
use sipbox_core::transaction::Layer;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Workers that one server may have: a branch and a token have a byte for the number.
pub const MOST: u8 = 64;

/// What one worker hands to another.
pub(super) enum Passed {
    /// It came here, and is yours.
    Packet {
        flow: Flow,
        data: Bytes,
    },
    /// To be sent on your connection.
    Transmit {
        target: Target,
        data: Bytes,
    },
    /// What you wanted to be sent could not be.
    Failed {
        target: Target,
        data: Bytes,
    },
    /// To be closed: a connection of yours.
    Close {
        flow: Flow,
    },
    /// A connection of mine, so that yours know that it is there.
    Opened {
        flow: Flow,
    },
    Closed {
        flow: Flow,
    },
    /// What the process was told.
    Order(Order),
}

impl Passed {
    /// Messages are counted; the rest is bounded by the connections that there may be.
    const fn is_message(&self) -> bool {
        matches!(self, Passed::Packet { .. } | Passed::Transmit { .. })
    }
}

/// Whose a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// Each worker has a machine, for calls and users of its own.
    Each,
    /// The first has the only machine; the others have connections, and what they cost, TLS and WebSocket.
    First,
}

/// The way to one worker.
#[derive(Clone)]
struct Door {
    channel: UnboundedSender<Passed>,
    waiting: Arc<AtomicUsize>,
    /// It has drained, and has nothing under way.
    idle: Arc<AtomicBool>,
    /// No WebSocket of it is open.
    empty: Arc<AtomicBool>,
}

/// One worker's place among all.
pub(super) struct Crew {
    pub number: u8,
    owners: Owners,
    doors: Arc<[Door]>,
    inbox: UnboundedReceiver<Passed>,
    /// The same secret for all: nobody outside can aim at one worker.
    hash: RandomState,
    lost: Arc<AtomicU64>,
    /// A bit for each worker that went round since systemd heard of us.
    alive: Arc<AtomicU64>,
}

/// The places of `count` workers.
pub(super) fn crews(count: u8, owners: Owners) -> Vec<Crew> {
    let (doors, inboxes): (Vec<_>, Vec<_>) = (0..count)
        .map(|_| {
            let (channel, inbox) = unbounded_channel();
            (Door { channel, waiting: Arc::default(), idle: Arc::default(), empty: Arc::default() }, inbox)
        })
        .unzip();
    let doors: Arc<[Door]> = doors.into();
    let (hash, lost, alive) = (RandomState::new(), Arc::default(), Arc::default());
    let place = |(number, inbox): (usize, _)| Crew {
        number: number as u8,
        owners,
        doors: Arc::clone(&doors),
        inbox,
        hash: hash.clone(),
        lost: Arc::clone(&lost),
        alive: Arc::clone(&alive),
    };
    inboxes.into_iter().enumerate().map(place).collect()
}

impl Crew {
    pub fn count(&self) -> usize {
        self.doors.len()
    }

    pub fn is_alone(&self) -> bool {
        self.doors.len() == 1
    }

    /// Who has to work on it. What nobody can read is refused by whoever got it.
    pub fn owner(&self, data: &[u8]) -> u8 {
        if self.is_alone() {
            return self.number;
        }
        if self.owners == Owners::First {
            return 0;
        }
        let Ok(message) = Message::parse(data) else { return self.number };
        if !message.is_request() {
            return self.minted(&message).unwrap_or(self.number);
        }
        let hash = if message.method() == Method::Register
            && let Some(aor) = message.to().ok().and_then(|to| to.uri.aor())
        {
            self.hash.hash_one((aor.user, aor.domain))
        } else {
            self.hash.hash_one(message.call_id().unwrap_or_default())
        };
        (hash % self.doors.len() as u64) as u8
    }

    /// Who sent this request of ours; `None` for a response.
    pub fn sender(&self, data: &[u8]) -> Option<u8> {
        if self.owners == Owners::First {
            return Some(0);
        }
        let message = Message::parse(data).ok().filter(Message::is_request)?;
        self.minted(&message)
    }

    fn minted(&self, message: &Message<'_>) -> Option<u8> {
        let branch = std::str::from_utf8(message.top_via().ok()?.branch()?).ok()?;
        Layer::worker_of(branch).filter(|number| usize::from(*number) < self.doors.len())
    }

    /// Hands it over. What finds no room is lost, and counted.
    pub fn pass(&self, to: u8, passed: Passed) {
        let Some(door) = self.doors.get(usize::from(to)) else { return };
        if passed.is_message() && door.waiting.fetch_add(1, Ordering::Relaxed) >= PASSED_MESSAGES {
            door.waiting.fetch_sub(1, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // One that has ended has closed its connections, and takes nothing more.
        let _ = door.channel.send(passed);
    }

    pub fn pass_to_all(&self, passed: impl Fn() -> Passed) {
        for number in (0..self.doors.len() as u8).filter(|number| *number != self.number) {
            self.pass(number, passed());
        }
    }

    /// Ends all others at once.
    pub fn send_home(&self) {
        // The first word asks to drain, the second not to.
        for _ in 0..2 {
            self.pass_to_all(|| Passed::Order(Order::Stop));
        }
    }

    /// The next thing that was handed over. Cancel safe; never, for one alone.
    pub async fn next(&mut self) -> Passed {
        match self.inbox.recv().await {
            Some(passed) => self.taken(passed),
            None => std::future::pending().await,
        }
    }

    pub fn try_next(&mut self) -> Option<Passed> {
        self.inbox.try_recv().ok().map(|passed| self.taken(passed))
    }

    fn taken(&self, passed: Passed) -> Passed {
        if passed.is_message()
            && let Some(door) = self.doors.get(usize::from(self.number))
        {
            door.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        passed
    }

    /// Says whether this worker has anything under way; whether nobody has. One that ended alone would take its sockets
    /// from under the others' transactions.
    pub fn all_idle(&self, mine: bool) -> bool {
        if let Some(door) = self.doors.get(usize::from(self.number)) {
            door.idle.store(mine, Ordering::Relaxed);
        }
        mine && self.doors.iter().all(|door| door.idle.load(Ordering::Relaxed))
    }

    /// Says whether this worker has no WebSocket open; whether nobody has, and it may end. The only machine is told of each
    /// that closes, and has work by it: whoever has none stays until that one sends it home.
    pub fn all_empty(&self, mine: bool) -> bool {
        if let Some(door) = self.doors.get(usize::from(self.number)) {
            // What was passed before is in the inbox of whoever sees it.
            door.empty.store(mine, Ordering::Release);
        }
        self.doors.iter().all(|door| door.empty.load(Ordering::Acquire))
            && self.inbox.is_empty()
            && (self.owners == Owners::Each || self.number == 0)
    }

    /// The machine has ended: so may those who only had connections for it.
    pub fn ended(&self) {
        if self.owners == Owners::First && self.number == 0 {
            self.send_home();
        }
    }

    /// Says that this worker lives; whether all did since this was last so. Of one that hangs, nobody else makes up for the silence.
    pub fn all_alive(&self) -> bool {
        let mine = 1 << self.number;
        let all = u64::MAX >> (64 - self.doors.len());
        if self.alive.fetch_or(mine, Ordering::Relaxed) | mine != all {
            return false;
        }
        self.alive.store(0, Ordering::Relaxed);
        true
    }

    /// Messages that found no room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sipbox_core::flow::{ListenerId, Transport};

    fn message(method: &str, call_id: &str, to: &str, branch: &str) -> String {
        format!(
            "{method} sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch={branch}\r\nFrom: <sip:alice@example.com>;tag=1\r\n\
             To: <{to}>\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
        )
    }

    #[test]
    fn all_of_a_call_has_one_owner_and_calls_are_spread() {
        let crews = crews(4, Owners::Each);
        let mut seen = [0; 4];
        for n in 0..400 {
            let call = format!("call-{n}");
            let owner =
                crews[0].owner(message("INVITE", &call, "sip:bob@example.com", "z9hG4bKa").as_bytes());
            seen[usize::from(owner)] += 1;
            for (who, method) in [(1, "CANCEL"), (2, "ACK"), (3, "BYE")] {
                let text = message(method, &call, "sip:bob@example.com;tag=2", "z9hG4bKother");
                assert_eq!(crews[who].owner(text.as_bytes()), owner);
            }
            let response =
                message("INVITE", &call, "sip:bob@example.com", &format!("z9hG4bK{:02x}abc", n % 4))
                    .replacen("INVITE sip:example.com SIP/2.0", "SIP/2.0 200 OK", 1);
            assert_eq!(crews[1].owner(response.as_bytes()), (n % 4) as u8);
        }
        assert!(seen.iter().all(|share| (50..150).contains(share)), "{seen:?}");
    }

    #[test]
    fn a_user_s_registrations_have_one_owner_whatever_their_call_ids() {
        let crews = crews(4, Owners::Each);
        for user in 0..50 {
            let owners: Vec<_> = (0..8)
                .map(|n| {
                    let to = format!(
                        "sip:user{user}@{};transport=tcp",
                        if n % 2 == 0 { "example.com" } else { "EXAMPLE.com" }
                    );
                    crews[n % 4]
                        .owner(message("REGISTER", &format!("{user}-{n}"), &to, "z9hG4bKa").as_bytes())
                })
                .collect();
            assert!(owners.iter().all(|owner| *owner == owners[0]), "{user}: {owners:?}");
        }
    }

    #[test]
    fn what_is_no_message_or_of_no_worker_stays() {
        let crews = crews(3, Owners::Each);
        assert_eq!(crews[2].owner(b"nonsense"), 2);
        let foreign = message("INVITE", "a", "sip:b@example.com", "z9hG4bKzz").replacen(
            "INVITE sip:example.com SIP/2.0",
            "SIP/2.0 200 OK",
            1,
        );
        assert_eq!(crews[1].owner(foreign.as_bytes()), 1);
        let beyond = foreign.replace("z9hG4bKzz", "z9hG4bK7f");
        assert_eq!(crews[1].owner(beyond.as_bytes()), 1);
    }

    #[test]
    fn where_there_is_one_machine_all_is_its_own() {
        for crew in crews(3, Owners::First) {
            for n in 0..20 {
                let text = message("OPTIONS", &format!("call-{n}"), "sip:bob@example.com", "z9hG4bK02a");
                assert_eq!(crew.owner(text.as_bytes()), 0);
                assert_eq!(crew.sender(text.as_bytes()), Some(0));
            }
            assert_eq!((crew.owner(b"nonsense"), crew.sender(b"nonsense")), (0, Some(0)));
        }
    }

    #[test]
    fn a_busy_worker_s_queue_has_an_end() {
        let mut crews = crews(2, Owners::Each);
        let flow = Flow {
            transport: Transport::Udp,
            listener: ListenerId(0),
            remote: "192.0.2.1:5060".parse().unwrap(),
            connection: None,
        };
        for _ in 0..PASSED_MESSAGES + 5 {
            crews[0].pass(1, Passed::Packet { flow, data: Bytes::new() });
        }
        assert_eq!(crews[0].lost(), 5);
        // What is no message has its room all the same, and taking makes room.
        crews[0].pass(1, Passed::Opened { flow });
        assert!(crews[1].try_next().is_some());
        crews[0].pass(1, Passed::Packet { flow, data: Bytes::new() });
        assert_eq!(crews[0].lost(), 5);
        assert_eq!(std::iter::from_fn(|| crews[1].try_next()).count(), PASSED_MESSAGES + 1);
        assert!(!crews[0].all_idle(true));
        assert!(crews[1].all_idle(true));
    }

    #[test]
    fn all_live_only_if_each_does() {
        for count in [1, 2, 64] {
            let crews = crews(count, Owners::Each);
            let (last, others) = crews.split_last().unwrap();
            for _ in 0..2 {
                for _ in 0..3 {
                    assert!(others.iter().all(|crew| !crew.all_alive()), "{count}: one is silent");
                }
                assert!(last.all_alive());
            }
        }
    }
}
