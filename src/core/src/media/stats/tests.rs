//! Loss, jitter and round trips on a virtual clock.

use super::*;

fn header(sequence: u16, timestamp: u32) -> Header {
    Header { marker: false, payload_type: 8, sequence, timestamp, ssrc: 5, length: 12 }
}

fn feed(streams: &mut Streams, from: u64, packets: impl IntoIterator<Item = (u64, Header)>) {
    for (ms, header) in packets {
        streams.rtp(Instant((from + ms) * 1000), &header, 172, |_| None);
    }
}

fn steady(count: u16, first: u16) -> impl Iterator<Item = (u64, Header)> {
    (0..count).map(move |n| (u64::from(n) * 20, header(first.wrapping_add(n), u32::from(n) * 160)))
}

fn only(streams: &Streams) -> StreamStats {
    let mut all = streams.snapshot(|_| None);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn nothing_lost_across_a_wrap() {
    let mut streams = Streams::default();
    feed(&mut streams, 1000, steady(500, 65_400));
    let stats = only(&streams);
    assert_eq!((stats.packets, stats.expected, stats.lost, stats.jitter_us), (500, 500, 0, 0));
    assert!(stats.measured.iter().all(|sample| sample.fraction_lost == 0));
    assert!(stats.measured.len() >= 5);
}

#[test]
fn every_twentieth_lost_is_five_percent() {
    let mut streams = Streams::default();
    feed(&mut streams, 1000, steady(1000, 7).filter(|(ms, _)| ms / 20 % 20 != 10));
    let stats = only(&streams);
    assert_eq!((stats.packets, stats.lost), (950, 50));
    let sum: u32 = stats.measured.iter().map(|sample| u32::from(sample.fraction_lost)).sum();
    let percent = f64::from(sum) / stats.measured.len() as f64 / 2.56;
    assert!((4.5..5.5).contains(&percent), "{percent}");
}

#[test]
fn reordered_and_doubled_is_not_lost() {
    let mut streams = Streams::default();
    let mut packets: Vec<_> = steady(300, 0).collect();
    packets.swap(0, 1);
    packets.swap(100, 105);
    let double = packets[200];
    packets.insert(201, double);
    feed(&mut streams, 0, packets);
    let stats = only(&streams);
    assert_eq!((stats.packets, stats.expected, stats.lost), (301, 300, 0));
}

#[test]
fn a_restarted_sequence_is_not_loss() {
    let mut streams = Streams::default();
    feed(&mut streams, 0, steady(200, 1000));
    feed(&mut streams, 4000, steady(200, 40_000));
    feed(&mut streams, 8000, steady(200, 3));
    let stats = only(&streams);
    assert_eq!((stats.packets, stats.expected, stats.lost), (600, 600, 0));
    assert!(stats.measured.iter().all(|sample| sample.fraction_lost == 0));
}

#[test]
fn one_stray_number_changes_nothing() {
    let mut streams = Streams::default();
    feed(&mut streams, 0, steady(100, 1000));
    feed(&mut streams, 2000, [(0, header(50_000, 0))]);
    feed(&mut streams, 2000, steady(100, 1100));
    let stats = only(&streams);
    assert_eq!((stats.expected, stats.lost), (200, 0));
}

#[test]
fn another_source_is_counted_by_itself() {
    let mut streams = Streams::default();
    feed(&mut streams, 0, steady(100, 1000));
    feed(&mut streams, 2000, steady(100, 9).map(|(ms, header)| (ms, Header { ssrc: 6, ..header })));
    let all = streams.snapshot(|_| None);
    assert_eq!(
        all.iter().map(|s| (s.ssrc, s.packets, s.lost)).collect::<Vec<_>>(),
        [(5, 100, 0), (6, 100, 0)]
    );
}

#[test]
fn jitter_converges_on_the_mean_deviation() {
    let mut streams = Streams::default();
    feed(
        &mut streams,
        0,
        steady(500, 0).map(|(ms, header)| (ms + u64::from(header.sequence % 2) * 8, header)),
    );
    let jitter = only(&streams).jitter_us;
    assert!((7_000..=8_100).contains(&jitter), "{jitter}");
}

#[test]
fn events_and_silence_do_not_jitter() {
    let mut streams = Streams::default();
    let format = |payload_type, encoding: &str| PayloadFormat {
        payload_type,
        encoding: encoding.into(),
        clock_rate: 8000,
        channels: 1,
    };
    streams.set_formats(&[format(8, "PCMA"), format(101, "telephone-event")]);
    feed(&mut streams, 0, steady(50, 0));
    // A digit: one timestamp for all of it.
    let digit = |n: u16| Header { payload_type: 101, ..header(50 + n, 50 * 160) };
    feed(&mut streams, 1000, (0..10).map(|n| (u64::from(n) * 20, digit(n))));
    feed(
        &mut streams,
        1200,
        steady(50, 60).map(|(ms, h)| (ms, Header { timestamp: h.timestamp + 60 * 160, ..h })),
    );
    // A pause in which the sender's clock stood still, then a talkspurt.
    let spurt = steady(50, 110)
        .enumerate()
        .map(|(n, (ms, h))| (ms, Header { marker: n == 0, timestamp: h.timestamp + 110 * 160, ..h }));
    feed(&mut streams, 7000, spurt);
    let stats = only(&streams);
    assert_eq!((stats.jitter_us, stats.lost), (0, 0));
    assert_eq!(stats.encoding.as_deref(), Some("PCMA"));
}

#[test]
fn round_trip_from_a_report() {
    let mut streams = Streams::default();
    feed(&mut streams, 0, steady(10, 0));
    let info = rtcp::SenderInfo { ssrc: 5, ntp: 0x1111_2222_3333_4444, rtp: 0, packets: 0, octets: 0 };
    streams.sender_report(Instant::from_secs(10), &info);
    let block = ReportBlock {
        ssrc: 5,
        fraction_lost: 0,
        cumulative_lost: 0,
        highest_sequence: 0,
        jitter: 0,
        last_sr: 0x2222_3333,
        delay_since_last_sr: 65_536,
    };
    let at = Instant::from_secs(11) + Duration::from_millis(60);
    let (clock, round_trip) = streams.reported_on(at, &block).expect("known source");
    assert_eq!((clock, round_trip), (8000, Some(Duration::from_millis(60))));
    assert_eq!(streams.round_trip(5), round_trip);
    // A report on an SR that never passed gives none.
    let (_, round_trip) =
        streams.reported_on(at, &ReportBlock { last_sr: 9, ..block }).expect("known source");
    assert_eq!(round_trip, None);
}

#[test]
fn loss_behind_us_is_what_the_receiver_reports() {
    let mut streams = Streams::default();
    feed(&mut streams, 0, steady(1000, 65_000));
    let block = ReportBlock {
        ssrc: 5,
        fraction_lost: 13,
        cumulative_lost: 50,
        // Of its first 1000: one roll-over.
        highest_sequence: 65_536 + 463,
        jitter: 40,
        last_sr: 0,
        delay_since_last_sr: 0,
    };
    streams.reported_on(Instant::from_secs(21), &block);
    let far = FarEnd { at: Instant::from_secs(21), lost: 50, expected: 1000, jitter_us: 5000 };
    let stats = only(&streams);
    assert_eq!((stats.far_end, stats.lost), (Some(far), 0));
    // A report that says less than nothing is no loss, and one of another time no more than was sent.
    let odd = ReportBlock { cumulative_lost: -7, highest_sequence: u32::MAX, ..block };
    streams.reported_on(Instant::from_secs(22), &odd);
    let far = only(&streams).far_end.expect("reported");
    assert_eq!((far.lost, far.expected), (0, 1000));
}

#[test]
fn series_stays_bounded() {
    let mut series = Series::default();
    for second in 0..5000 {
        let at = Instant::from_secs(second);
        series.push(Sample { at, fraction_lost: 0, jitter_us: 0, round_trip: None });
        series.push(Sample { at, fraction_lost: 0, jitter_us: 0, round_trip: None });
    }
    assert!(series.samples().len() <= MEDIA_SAMPLES);
    assert!(series.samples().len() > MEDIA_SAMPLES / 4);
}

#[test]
fn hostile_numbers_do_not_overflow() {
    let mut streams = Streams::default();
    streams.set_formats(&[PayloadFormat {
        payload_type: 8,
        encoding: "x".into(),
        clock_rate: u32::MAX,
        channels: 1,
    }]);
    let mut sequence = 0u16;
    for n in 0..200_000u32 {
        sequence = sequence.wrapping_add(2999);
        streams.rtp(
            Instant(u64::from(n) * 50_000_000),
            &header(sequence, n.wrapping_mul(0x9e37_79b9)),
            12,
            |_| None,
        );
    }
    assert!(only(&streams).lost > 0);
}
