//! `make bench`: side by side with the peers, in one run on one machine, as a table and as JSON.
//!
//! | subject | ours | peer |
//! |---|---|---|
//! | `encode` | `mpegflow transcode`: broker, supervisor, four locked processes, checked HLS | `ffmpeg` making the same renditions as HLS |
//! | `presets` | each preset of `mpegflow transcode` on a short clip: time, and bytes at equal SSIM | `ffmpeg` by hand with the same settings |
//! | `start` | exec, locks, one frame decoded and encoded | `bwrap --unshare-all` around `ffmpeg` doing the same |
//! | `audit` | `mpegflow audit pairs`: manifests on disk to what passes between all pairs of pods | cyclonus and netpol-analyzer on the same files |
//! | `stream` | `mpegflow-broker`: bytes between a worker and an S3 server, TLS on both sides | nginx in front of the same server |
//!
//! `bench NAME…` runs some of them, `RUNS=5` each more often. Machines are shared and noisy: runs alternate, and what counts is
//! the ratio of the medians. CPU is user and system time of the command and every process it started.
//!
//! A subject is a file here with `run(runs) -> Value`: its name, and metrics that each have what was measured, a goal, a unit,
//! `ours`, and where there is a peer `peer` and `ratio` (ours by the peer's). It is entered in [`SUBJECTS`] and nowhere else.

mod audit;
mod encode;
mod measure;
mod presets;
mod start;
mod stream;

use serde_json::Value;

/// A subject's name, and what measures it so many times.
type Subject = (&'static str, fn(usize) -> Value);

/// What can be measured.
const SUBJECTS: [Subject; 5] = [
    ("encode", encode::run),
    ("presets", presets::run),
    ("start", start::run),
    ("audit", audit::run),
    ("stream", stream::run),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let known: Vec<&str> = SUBJECTS.iter().map(|(name, _)| *name).collect();
    if let Some(name) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        eprintln!("bench: there is no {name:?}; there are {}", known.join(", "));
        std::process::exit(2);
    }
    let runs: usize = std::env::var("RUNS").ok().and_then(|r| r.parse().ok()).unwrap_or(3);
    let chosen = SUBJECTS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name));
    let rows: Vec<Value> = chosen.map(|(_, run)| run(runs.max(1))).collect();
    println!("\n{:<8} {:<58} {:>10} {:>10} {:>8}  goal", "", "", "ours", "peer", "ratio");
    let number = |value: &Value, digits: usize| match value.as_f64() {
        Some(number) => format!("{number:.digits$}"),
        None => "-".into(),
    };
    for row in &rows {
        for metric in row["metrics"].as_array().unwrap() {
            println!(
                "{:<8} {:<58} {:>10} {:>10} {:>8}  {}",
                row["name"].as_str().unwrap(),
                metric["what"].as_str().unwrap(),
                number(&metric["ours"], 3),
                number(&metric["peer"], 3),
                number(&metric["ratio"], 4),
                metric["goal"].as_str().unwrap(),
            );
        }
    }
    let file = mpegflow_tests::target_folder().join("bench.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&rows).unwrap()).unwrap();
    println!("\nas JSON: {}", file.display());
}
