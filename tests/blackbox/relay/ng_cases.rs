//! Cases in ng form, with the answers of a widely used relay, that may lie beside the checkout: our relay is started with that
//! relay's own options in a network of its own, and gives the same lines but for the listed misses.
//!
//! A ratchet: a miss that is not in `tests/data/ng/misses.txt` is red, and so is one that stands there and passes.

use super::harness::{Process, TempDir, sipbox};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/ng-cases");
const MISSES: &str = include_str!("../../data/ng/misses.txt");

/// What a case missed, as the list has it.
fn miss(case: &Value) -> Option<String> {
    let id = case["id"].as_str().expect("an id");
    if case["pass_semantic"] != true {
        Some(format!("{id} sdp"))
    } else if case["media"] == "fail" {
        Some(format!("{id} media"))
    } else {
        None
    }
}

#[test]
fn answers_as_a_widely_used_relay_does() {
    if !Path::new(CASES).is_dir() {
        return eprintln!("SKIPPED: {CASES} is not there");
    }
    let dir = TempDir::new();
    let report = dir.join("report.json");
    let mut command = Command::new("./in-ns");
    command
        .current_dir(CASES)
        .args(["./run", "--media", "--server-cmd", &format!("{} relay {{args}}", sipbox()), "--json"])
        .arg(&report)
        .args(["cases-10.5", "cases-head"]);
    let mut run = Process::start(command);
    // Its exit code only says whether all passed.
    run.exit_code(Duration::from_secs(120));
    let text = std::fs::read(&report).unwrap_or_else(|error| panic!("{error}\n{}", run.log()));
    let cases: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(cases.len(), 190, "{}", run.log());
    // The runner has a codec of SRTP only where Python has one; then it skips what needs it, and never silently passes.
    let missed: BTreeSet<String> = cases.iter().filter_map(miss).collect();
    let listed: BTreeSet<String> = MISSES
        .lines()
        .map(|line| {
            let (miss, reason) = line.split_once(": ").expect("a miss with its reason");
            assert!(reason.len() > 10, "{line}");
            miss.to_owned()
        })
        .collect();
    let new: Vec<&String> = missed.difference(&listed).collect();
    let gone: Vec<&String> = listed.difference(&missed).collect();
    let about = |id: &&String| cases.iter().find(|case| id.starts_with(case["id"].as_str().unwrap_or(" ")));
    let notes: Vec<&Value> = new.iter().filter_map(about).map(|case| &case["notes"]).collect();
    assert!(new.is_empty(), "not listed: {new:?}\n{notes:#?}");
    assert!(gone.is_empty(), "listed, but passing; take them out of the list: {gone:?}");
    // At least 175 of 190 give the same lines.
    assert!(missed.iter().filter(|miss| miss.ends_with(" sdp")).count() <= 15);
}
