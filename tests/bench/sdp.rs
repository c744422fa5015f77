//! `sdp-rewrite` on JSON lines, against sdp-transform under Node reading and writing the same SDPs (`sdp.mjs`).
//!
//! In: the binary (`SIPBOX`), and fixtures of our own. Out: JSON lines: SDPs a second of CPU, in turns on one core; the peak
//! of memory at 10,000 and at 1,000,000 SDPs (`--lines N`: another number); how long it takes to start. Exit code 1 where a
//! bound of the design is passed: 20 times sdp-transform, memory that does not grow, 5 ms to start.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FIXTURES: [&str; 4] = [
    include_str!("../data/seed/1-sip-to-webrtc-offer.in.sdp"),
    include_str!("../data/seed/3-webrtc-to-sip-offer.in.sdp"),
    include_str!("../data/fuzz/sdp/browser"),
    include_str!("../data/fuzz/sdp/phone"),
];
/// SDPs of one turn, so many that Node's start and warming up are a small part.
const TURN: usize = 100_000;
const TURNS: usize = 3;
const RATIO: f64 = 20.0;
const START: Duration = Duration::from_millis(5);
/// What a thousand times as many SDPs may take more: the allocator's own rounding.
const GROWTH_KB: u64 = 4_096;

struct Cost {
    cpu: f64,
    wall: Duration,
    peak_kb: u64,
}

fn lines(path: &Path, count: usize) -> std::io::Result<()> {
    let escaped: Vec<String> = FIXTURES
        .iter()
        .map(|sdp| sdp.replace('\\', "\\\\").replace('\r', "\\r").replace('\n', "\\n"))
        .collect();
    assert!(FIXTURES.iter().all(|sdp| !sdp.contains(['"', '\t'])), "a fixture with more to escape");
    let mut out = BufWriter::new(File::create(path)?);
    for (id, sdp) in escaped.iter().cycle().take(count).enumerate() {
        writeln!(out, "{{\"id\":{id},\"sdp\":\"{sdp}\"}}")?;
    }
    out.flush()
}

/// Runs it to its end on core 0. Peak and CPU time come from /proc, the latter of the process that has ended.
fn run(program: &[&str], input: &Path, output: &Path) -> std::io::Result<Cost> {
    let begin = Instant::now();
    let mut child = Command::new("taskset")
        .args(["-c", "0"])
        .args(program)
        .stdin(File::open(input)?)
        .stdout(File::create(output)?)
        .spawn()?;
    let (proc, mut peak_kb) = (format!("/proc/{}", child.id()), 0);
    let ticks = loop {
        let status = std::fs::read_to_string(format!("{proc}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kb = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok());
        peak_kb = kb.unwrap_or(peak_kb).max(peak_kb);
        let stat = std::fs::read_to_string(format!("{proc}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        if fields[0] == "Z" {
            let number = |at: usize| fields[at].parse::<u64>().unwrap_or_default();
            break number(11) + number(12);
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let wall = begin.elapsed();
    assert!(child.wait()?.success(), "{program:?} failed");
    Ok(Cost { cpu: ticks as f64 / 100.0, wall, peak_kb })
}

fn count(path: &Path) -> std::io::Result<usize> {
    Ok(std::fs::read(path)?.iter().filter(|&&byte| byte == b'\n').count())
}

fn main() -> std::io::Result<()> {
    let sipbox = std::env::var("SIPBOX").expect("SIPBOX: the binary");
    let mut arguments = std::env::args().skip(1);
    let many = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => 1_000_000,
        (Some("--lines"), Some(number)) => number.parse().expect("--lines NUMBER"),
        (Some(other), _) => panic!("{other}: only --lines NUMBER is known"),
    };
    let dir = std::env::temp_dir().join(format!("sipbox-bench-sdp-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let (input, output) = (dir.join("in.jsonl"), dir.join("out.jsonl"));
    let ours = [&*sipbox, "sdp-rewrite", "--to", "sip", "--media-address", "198.51.100.1", "--seed", "1"];
    let theirs = ["node", concat!(env!("CARGO_MANIFEST_DIR"), "/sdp.mjs")];
    let mut over = Vec::new();

    lines(&input, TURN)?;
    let mut best = [f64::INFINITY; 2];
    for _ in 0..TURNS {
        for (best, (name, program)) in
            best.iter_mut().zip([("sipbox", &ours[..]), ("sdp-transform", &theirs)])
        {
            let cost = run(program, &input, &output)?;
            assert_eq!(count(&output)?, TURN, "{name} lost some");
            *best = best.min(cost.cpu);
            println!(
                "{{\"bench\":\"sdp\",\"what\":\"{name}\",\"sdps\":{TURN},\"cpu_s\":{:.2},\"wall_s\":{:.2},\"peak_kb\":{}}}",
                cost.cpu,
                cost.wall.as_secs_f64(),
                cost.peak_kb
            );
        }
    }
    let ratio = best[1] / best[0];
    println!(
        "{{\"bench\":\"sdp\",\"what\":\"ratio\",\"ratio\":{ratio:.1},\"sipbox_per_s\":{:.0},\"sdp_transform_per_s\":{:.0}}}",
        TURN as f64 / best[0],
        TURN as f64 / best[1]
    );
    if ratio < RATIO {
        over.push(format!("{ratio:.1} times sdp-transform, wanted {RATIO}"));
    }

    let mut peaks = [0; 2];
    for (peak, number) in peaks.iter_mut().zip([10_000, many]) {
        lines(&input, number)?;
        let cost = run(&ours, &input, &output)?;
        assert_eq!(count(&output)?, number);
        *peak = cost.peak_kb;
        println!("{{\"bench\":\"sdp\",\"what\":\"memory\",\"sdps\":{number},\"peak_kb\":{peak}}}");
    }
    if peaks[1] > peaks[0] + GROWTH_KB {
        over.push(format!("{} kB at {many} SDPs, {} kB at 10,000", peaks[1], peaks[0]));
    }

    std::fs::write(&input, FIXTURES[0])?;
    let mut best = Duration::MAX;
    for _ in 0..50 {
        let begin = Instant::now();
        let status = Command::new(&sipbox)
            .args(&ours[1..])
            .stdin(File::open(&input)?)
            .stdout(Stdio::null())
            .status()?;
        best = best.min(begin.elapsed());
        assert!(status.success());
    }
    println!("{{\"bench\":\"sdp\",\"what\":\"start\",\"ms\":{:.2}}}", best.as_secs_f64() * 1000.0);
    if best > START {
        over.push(format!("{best:?} to start and rewrite one, wanted {START:?}"));
    }
    std::fs::remove_dir_all(&dir)?;
    for line in &over {
        eprintln!("sdp: {line}");
    }
    std::process::exit(i32::from(!over.is_empty()));
}
