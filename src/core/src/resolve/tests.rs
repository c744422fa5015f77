//! RFC 3263's order with zones of our own, and RFC 2782's chances.

use super::dead::PENALTY;
use super::*;
use crate::limits::DEAD_HOPS;
use crate::rng::Rng;
use crate::time::Instant;
use proptest::prelude::*;
use std::collections::HashMap;

/// What a DNS server has; each question is noted.
#[derive(Default)]
struct Zone {
    records: HashMap<String, Records>,
    asked: Vec<Query>,
}

impl Zone {
    fn naptr(mut self, name: &str, records: &[(u16, u16, &str, &str, &str)]) -> Self {
        let records = records.iter().map(|&(order, preference, flags, services, replacement)| Naptr {
            order,
            preference,
            flags: flags.into(),
            services: services.into(),
            replacement: replacement.into(),
        });
        self.records.insert(format!("NAPTR {name}"), Records::Naptr(records.collect()));
        self
    }

    fn srv(mut self, name: &str, records: &[(u16, u16, u16, &str)]) -> Self {
        let records = records.iter().map(|&(priority, weight, port, target)| Srv {
            priority,
            weight,
            port,
            target: target.into(),
        });
        self.records.insert(format!("SRV {name}"), Records::Srv(records.collect()));
        self
    }

    fn host(mut self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.records.insert(format!("A {name}"), Records::Addresses(addresses));
        self
    }

    fn search(&mut self, uri: &str, can: &[Transport]) -> Vec<String> {
        let wanted = Wanted::of(&Uri::parse(uri.as_bytes()).unwrap()).unwrap();
        let mut search = Search::new(wanted, can);
        let mut rng = Rng::from_seed(1);
        for _ in 0..100 {
            match search.step() {
                Step::Done(hops) => {
                    return hops.iter().map(|hop| format!("{}:{}", hop.transport, hop.remote)).collect();
                }
                Step::Ask(query) => {
                    let (key, none) = match &query {
                        Query::Naptr(name) => (format!("NAPTR {name}"), Records::Naptr(Vec::new())),
                        Query::Srv(name) => (format!("SRV {name}"), Records::Srv(Vec::new())),
                        Query::Addresses(name) => (format!("A {name}"), Records::Addresses(Vec::new())),
                    };
                    self.asked.push(query);
                    search.answer(&mut rng, self.records.get(&key).cloned().unwrap_or(none));
                }
            }
        }
        panic!("no end: {:?}", self.asked);
    }
}

const ALL: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

fn example() -> Zone {
    Zone::default()
        .naptr(
            "example.com",
            &[
                (50, 60, "s", "SIP+D2U", "_sip._udp.example.com"),
                (50, 50, "S", "sips+d2t", "_sips._tcp.example.com"),
                (40, 10, "u", "E2U+sip", ""),
                (60, 10, "s", "SIP+D2T", "_sip._tcp.example.com"),
            ],
        )
        .srv("_sips._tcp.example.com", &[(10, 0, 5061, "a.example.com")])
        .srv("_sip._udp.example.com", &[(20, 0, 5070, "b.example.com"), (10, 0, 5060, "a.example.com")])
        .srv("_sip._tcp.example.com", &[(1, 0, 5060, "b.example.com")])
        .host("a.example.com", &["192.0.2.1", "2001:db8::1"])
        .host("b.example.com", &["192.0.2.2"])
        .host("example.com", &["192.0.2.9"])
}

#[test]
fn naptr_gives_the_order_of_transports() {
    assert_eq!(
        example().search("sip:bob@example.com", &ALL),
        [
            "tls:192.0.2.1:5061",
            "tls:[2001:db8::1]:5061",
            "udp:192.0.2.1:5060",
            "udp:[2001:db8::1]:5060",
            "udp:192.0.2.2:5070",
            "tcp:192.0.2.2:5060"
        ]
    );
    let only_udp = example().search("sip:bob@example.com", &[Transport::Udp]);
    assert_eq!(only_udp, ["udp:192.0.2.1:5060", "udp:[2001:db8::1]:5060", "udp:192.0.2.2:5070"]);
    // `sips:` is TLS or nothing.
    let secure = example().search("sips:bob@example.com", &ALL);
    assert!(secure.iter().all(|hop| hop.starts_with("tls:")) && secure.len() == 2, "{secure:?}");
}

#[test]
fn what_the_uri_says_is_not_asked_for() {
    for (uri, wanted, asked) in [
        ("sip:bob@192.0.2.7", &["udp:192.0.2.7:5060"][..], 0),
        ("sip:bob@[2001:db8::7]:5070;transport=tcp", &["tcp:[2001:db8::7]:5070"], 0),
        ("sips:bob@192.0.2.7", &["tls:192.0.2.7:5061"], 0),
        ("sip:bob@example.com;maddr=192.0.2.8", &["udp:192.0.2.8:5060"], 0),
        // A port: neither NAPTR nor SRV.
        ("sip:bob@example.com:5080", &["udp:192.0.2.9:5080"], 1),
        ("sips:bob@example.com:5080", &["tls:192.0.2.9:5080"], 1),
        // A transport: no NAPTR.
        ("sip:bob@example.com;transport=tcp", &["tcp:192.0.2.2:5060"], 2),
    ] {
        let mut zone = example();
        assert_eq!(zone.search(uri, &ALL), wanted, "{uri}");
        assert_eq!(zone.asked.len(), asked, "{uri}: {:?}", zone.asked);
    }
}

#[test]
fn without_naptr_the_services_are_asked_for_by_name_and_then_the_host() {
    let mut zone = Zone::default()
        .srv("_sip._tcp.example.org", &[(1, 1, 5066, "a.example.org")])
        .srv("_sips._tcp.example.org", &[(1, 1, 5067, "a.example.org")])
        .host("a.example.org", &["192.0.2.3"]);
    assert_eq!(zone.search("sip:bob@example.org", &ALL), ["tcp:192.0.2.3:5066"], "the first that is there");
    let names: Vec<_> = zone.asked.iter().filter(|query| matches!(query, Query::Srv(_))).cloned().collect();
    assert_eq!(names[0], Query::Srv("_sip._udp.example.org".into()));
    let mut zone = Zone::default().host("example.net", &["192.0.2.4"]);
    assert_eq!(zone.search("sip:bob@example.net", &ALL), ["udp:192.0.2.4:5060"]);
    assert_eq!(zone.search("sips:bob@example.net", &ALL), ["tls:192.0.2.4:5061"]);
    assert!(zone.search("sip:bob@nowhere.example.net", &ALL).is_empty());
    // RFC 2782: a dot says that there is none, whatever address the host has.
    let mut zone =
        Zone::default().srv("_sip._udp.example.net", &[(0, 0, 0, ".")]).host("example.net", &["192.0.2.4"]);
    assert!(zone.search("sip:bob@example.net;transport=udp", &ALL).is_empty());
}

#[test]
fn a_hostile_zone_is_cut() {
    let many: Vec<_> = (0..500).map(|n| (n, 0, 5060, "a.example.com")).collect();
    let addresses: Vec<String> = (0..100).map(|n| format!("192.0.2.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut zone = Zone::default().srv("_sip._udp.example.com", &many).host("a.example.com", &addresses);
    assert_eq!(zone.search("sip:example.com;transport=udp", &ALL).len(), RESOLVED_HOPS);
    assert!(zone.asked.len() <= RESOLVED_HOPS + 2);
}

#[test]
fn a_dead_server_is_left_out_until_it_is_time_again() {
    let hop = |n: u8| Hop { transport: Transport::Udp, remote: ([192, 0, 2, n], 5060).into() };
    let (mut dead, now) = (Dead::default(), Instant::from_secs(100));
    dead.mark(now, hop(1));
    assert_eq!(dead.leave_out(now, vec![hop(1), hop(2)]), [hop(2)]);
    assert_eq!(dead.leave_out(now, vec![hop(1)]), [hop(1)], "better than none");
    assert_eq!(dead.leave_out(now + PENALTY, vec![hop(1), hop(2)]), [hop(1), hop(2)]);
    dead.lives(&hop(1));
    assert_eq!(dead.leave_out(now, vec![hop(1), hop(2)]), [hop(1), hop(2)]);
    for n in 0..(DEAD_HOPS as u32 * 2) {
        dead.mark(now, Hop { transport: Transport::Udp, remote: (n.to_be_bytes(), 1).into() });
    }
    assert_eq!(dead.len(), DEAD_HOPS);
}

proptest! {
    #[test]
    fn all_come_once_and_by_priority(
        weights in prop::collection::vec((0u16..4, 0u16..1000), 0..20),
        seed in any::<u64>(),
    ) {
        let records: Vec<Srv> = weights
            .iter()
            .zip(0..)
            .map(|(&(priority, weight), port)| Srv { priority, weight, port, target: "a".into() })
            .collect();
        let ordered = order::by_priority(&mut Rng::from_seed(seed), records.clone());
        prop_assert!(ordered.is_sorted_by_key(|record| record.priority));
        let mut ports: Vec<u16> = ordered.iter().map(|record| record.port).collect();
        ports.sort_unstable();
        prop_assert!(ports.into_iter().eq(0..records.len() as u16));
    }

    /// The first of one priority is drawn in proportion to the weights.
    #[test]
    fn the_first_is_drawn_by_its_weight(weights in prop::collection::vec(1u16..100, 2..6), seed in any::<u64>()) {
        const DRAWS: u32 = 4000;
        let records: Vec<Srv> = weights
            .iter()
            .zip(0..)
            .map(|(&weight, port)| Srv { priority: 1, weight, port, target: "a".into() })
            .collect();
        let mut rng = Rng::from_seed(seed);
        let mut first = vec![0u32; weights.len()];
        for _ in 0..DRAWS {
            first[usize::from(order::by_priority(&mut rng, records.clone())[0].port)] += 1;
        }
        let sum: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
        for (drawn, weight) in first.iter().zip(&weights) {
            let share = f64::from(*weight) / f64::from(sum);
            let expected = share * f64::from(DRAWS);
            // Six standard deviations, and what the draw of 0 gives the first one.
            let room = 6.0 * (f64::from(DRAWS) * share * (1.0 - share)).sqrt() + f64::from(DRAWS) / f64::from(sum) + 1.0;
            prop_assert!((f64::from(*drawn) - expected).abs() < room, "{first:?} for {weights:?}");
        }
    }
}
