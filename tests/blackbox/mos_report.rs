//! mos-report from the outside: the seed's reply to the digit, its log lines, and RTP made here.

#[path = "../harness/mod.rs"]
mod harness;

use harness::{Finished, run};
use serde_json::{Value, json};

const REPLY: &str = include_str!("../data/seed/delete-reply.json");

fn report(args: &[&str], input: &[u8]) -> Finished {
    run(&[&["mos-report"], args].concat(), input)
}

fn records(finished: &Finished) -> Vec<Value> {
    finished.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// `MOS` of 40, 43, 42 and 41 in the reply, each figured out anew from loss, jitter and round trip.
fn is_the_seed_s(row: &Value) {
    let figures = ["model", "mos", "lowest", "highest", "samples", "packets"].map(|key| row[key].clone());
    assert_eq!(json!(figures), json!(["legacy-2019", 4.1, 4.0, 4.3, 3, 1090]));
    let progression: Vec<_> =
        row["progression"].as_array().unwrap().iter().map(|p| p["mos"].clone()).collect();
    assert_eq!(json!(progression), json!([4.0, 4.3, 4.2]));
    assert_eq!(row["lowest_at"], "2019-08-12T06:41:15.000000Z");
    assert_eq!(row["peer"], "f706186c");
}

#[test]
fn the_seed_s_reply_to_the_digit() {
    let finished = report(&["--model", "legacy-2019", "-o", "json"], REPLY.as_bytes());
    let rows = records(&finished);
    let row = rows.iter().find(|row| row["ssrc"] == 201_209_520).expect("the source with samples");
    is_the_seed_s(row);
    assert_eq!(rows.iter().find(|row| row["ssrc"] == 2_071_600_809u32).unwrap()["model"], "none");
    // The printed scores have no part in it.
    let spoilt = REPLY.replace("\"MOS\": 4", "\"MOS\": 1");
    is_the_seed_s(&records(&report(&["--model", "legacy"], spoilt.as_bytes()))[1]);
}

#[test]
fn an_event_says_the_same_and_models_stand_side_by_side() {
    let stats: Value = serde_json::from_str(REPLY).unwrap();
    let events = format!(
        "{}\n{}\n",
        json!({ "event": "ready", "command": "relay", "listen": [] }),
        json!({ "event": "call-end", "call_id": "a@192.0.2.1", "stats": stats })
    );
    let rows = records(&report(&["--model", "legacy-2019", "--model", "g107"], events.as_bytes()));
    assert!(rows.iter().all(|row| row["call_id"] == "a@192.0.2.1"));
    let models: Vec<_> = rows.iter().filter(|row| row["ssrc"] == 201_209_520).collect();
    is_the_seed_s(models[0]);
    assert_eq!(models[1]["model"], "g107");
    // By G.107 4 % loss costs 95*4/(4+25.1) = 13.1 of R, and a round trip of 250 ms some more.
    let figures = ["mos", "lowest", "highest"].map(|key| models[1][key].as_f64().unwrap());
    assert!((4.1..4.2).contains(&figures[0]) && (3.8..4.0).contains(&figures[1]), "{figures:?}");
    let csv = report(&["-o", "csv", "--model", "legacy"], events.as_bytes());
    assert!(
        csv.stdout.contains("a@192.0.2.1,201209520,f706186c,call-end,,1090,,legacy-2019,3,4.1,4.0,"),
        "{}",
        csv.stdout
    );
    assert!(report(&["-o", "table"], events.as_bytes()).stdout.contains("0bfe36b0\tf706186c\ta@192.0.2.1"));
}

#[test]
fn a_threshold_is_an_exit_status() {
    let code = |least| report(&["--model", "legacy", "--min-mos", least], REPLY.as_bytes()).code;
    assert_eq!((code("4.1"), code("4.2")), (0, 1));
    assert_eq!(report(&[], b"nothing of this kind\n").code, 65);
    assert_eq!(report(&[], b"{\"SSRC\": ").code, 65);
}

#[test]
fn log_lines_of_2019() {
    let log = "\
[ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: Final packet stats:
[ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: --- Tag 'f706186c', created 0:37 ago for branch '', in dialogue with '8fevqpird6'
[ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: ------ Media #1 (audio over RTP/AVP) using PCMA/8000
[ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: --------- Port   192.0.2.1:10220 <>   192.0.2.9:45310, SSRC bfe36b0, 1090 p, 187321 b, 1 e, 11 ts
[ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: --------- Port   192.0.2.1:10221 <>   192.0.2.9:28064 (RTCP), SSRC bfe36b0, 6 p, 368 b, 0 e, 11 ts
INFO: [ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: --- SSRC bfe36b0
INFO: [ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: ------ Average MOS 4.1, lowest MOS 4.0 (at 0:15), highest MOS 4.3 (at 0:19)
ci=5ojn2BUAQNNqxgBRSq4DLg.., created_from=192.0.2.9:58280, ml0_local_tag=f706186c, ml0_midx1_rtp_relayed_packets=1090, \
ml1_local_tag=8fevqpird6, ml1_midx1_rtp_relayed_packets=1575, ";
    let rows = records(&report(&[], log.as_bytes()));
    assert_eq!(rows.len(), 3, "{rows:?}");
    let figures = ["call_id", "ssrc", "peer", "codec", "packets", "model", "mos", "lowest", "highest"];
    assert_eq!(
        json!(figures.map(|key| rows[0][key].clone())),
        json!([
            "5ojn2BUAQNNqxgBRSq4DLg..",
            201_209_520,
            "f706186c",
            "PCMA",
            1090,
            "as-printed",
            4.1,
            4.0,
            4.3
        ])
    );
    assert_eq!((&rows[2]["peer"], &rows[2]["packets"]), (&json!("8fevqpird6"), &json!(1575)));
}

/// Ten seconds of G.711, of which every tenth packet is lost.
#[test]
fn rtp_in_a_capture() {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    for number in (0..500u32).filter(|number| number % 10 != 5) {
        let mut rtp = vec![0x80, 8];
        rtp.extend((number as u16).to_be_bytes());
        rtp.extend((number * 160).to_be_bytes());
        rtp.extend(7u32.to_be_bytes());
        rtp.extend([0xd5; 160]);
        let mut packet = vec![0x45, 0];
        packet.extend((rtp.len() as u16 + 28).to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0x0f, 0xa0, 0x13, 0x88]);
        packet.extend((rtp.len() as u16 + 8).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(rtp);
        let micros = number * 20_000;
        for word in [micros / 1_000_000, micros % 1_000_000, packet.len() as u32, packet.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    let rows = records(&report(&[], &file));
    assert_eq!(rows.len(), 1, "{rows:?}");
    let figures = ["ssrc", "codec", "packets", "lost", "model"].map(|key| rows[0][key].clone());
    assert_eq!(json!(figures), json!([7, "PCMA", 450, 50, "g107-lq"]));
    // G.107 with 10 % random loss: Ie,eff = 95*10/(10+25.1) = 27.1, R = 66, MOS 3.4.
    let mos = rows[0]["mos"].as_f64().unwrap();
    assert!((3.3..3.6).contains(&mos), "{mos}");
    let cut = report(&[], &file[..file.len() - 5]);
    assert_eq!((cut.code, records(&cut).len()), (65, 1));
}
