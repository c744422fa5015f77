//! Whole calls through the real proxy machine, on a virtual clock and a network that loses, doubles and reorders.
//!
//! RFC 3261 §13 to §17 with RFC 6026, seen from both ends: a caller and up to three phones of one user, with transaction
//! handling of their own ([`ua`]), so that a fault of ours has no twin there. Everything comes from a seed, which a failure
//! prints: `SIPBOX_SIM_SEED=N` plays that one alone with its ladder, `SIPBOX_SIM_SEEDS=N` plays so many (1000). After each
//! run: the proxy holds nothing by its own count, both ends agree that no call stands and no phone rings, and no request
//! was answered twice differently. Not here: sockets (tests/blackbox), any bytes at all (tests/fuzz).

mod ua;
mod world;

use std::time::Duration;
use world::{Tally, World};

/// No call takes so long, with ring time-out, timer C and all that lingers.
const LONGEST: Duration = Duration::from_secs(900);

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Plays one seed; what is wrong then.
fn play(seed: u64, ladder: bool, tally: &mut Tally) -> Result<(), String> {
    let mut world = World::new(seed, ladder);
    world.run(LONGEST);
    world.judge(tally)
}

fn play_all(seeds: std::ops::Range<u64>) -> (Tally, Vec<String>) {
    let mut tally = Tally::default();
    let mut faults = Vec::new();
    for seed in seeds {
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(seed, false, &mut tally)));
        match played {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => faults.push(format!("seed {seed}: {fault}")),
            Err(_) => faults.push(format!("seed {seed}: a panic, told above")),
        }
    }
    (tally, faults)
}

#[test]
fn calls_over_a_bad_network_end_well_at_both_ends() {
    if let Some(seed) = number("SIPBOX_SIM_SEED") {
        let played = play(seed, true, &mut Tally::default());
        assert_eq!(played, Ok(()), "seed {seed}");
        return;
    }
    let seeds = number("SIPBOX_SIM_SEEDS").unwrap_or(1000);
    // As many threads as the machine has; each seed is a world of its own.
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(8);
    let share = seeds.div_ceil(threads);
    let (mut tally, mut faults) = (Tally::default(), Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|n| scope.spawn(move || play_all(n * share..((n + 1) * share).min(seeds))))
            .collect();
        for worker in workers {
            let (part, wrong) = worker.join().expect("panics are caught, and told");
            tally.add(&part);
            faults.extend(wrong);
        }
    });
    let shown = faults.iter().take(10).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(faults.is_empty(), "{} of {seeds} (SIPBOX_SIM_SEED=N shows one):\n{shown}", faults.len());
    println!("{seeds} seeds: {tally:?}");
    // That the worlds are what they claim to be: each kind of trouble was met, and calls went through all the same.
    let floor = seeds / 100;
    for (what, count) in tally.parts() {
        assert!(
            count >= floor,
            "{what}: {count} in {seeds} seeds is too little to prove anything: {tally:?}"
        );
    }
}
