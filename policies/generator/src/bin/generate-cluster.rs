//! Writes generated clusters where programs that are not linked against this crate can read them.
//!
//! ```text
//! generate-cluster large --pods 10000 --policies 1000 --seed 1 --out DIR [--all-distinct]
//! generate-cluster cases --dialect kubernetes|calico|both --seed 0 --count 1000 [--queries 200]
//! ```
//!
//! `large` writes YAML files into a new or empty folder. `cases` writes one JSON case a line to standard output, as the
//! programs under `policies/oracles` read them. Exit status: 0 done, 1 cannot write, 2 wrong usage.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use mpegflow_policies_generator::large::{Cluster, Shape};
use mpegflow_policies_generator::small::{Case, Dialect};
use mpegflow_policies_generator::yaml::{Document, stream};
use serde_json::json;

const USAGE: &str =
    "usage: generate-cluster large --pods N --policies N --out DIR [--seed N] [--all-distinct]
       generate-cluster cases --dialect kubernetes|calico|both [--seed N] [--count N] [--queries N]";

/// Pods in one file: a reader that loads file by file stays small.
const PODS_PER_FILE: usize = 1_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(command) = parse(&arguments) else {
        report(USAGE);
        return ExitCode::from(2);
    };
    let done = match &command {
        Command::Large { shape, out } => write_large(*shape, Path::new(out)),
        Command::Cases { dialect, seed, count, queries } => write_cases(*dialect, *seed, *count, *queries),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&format!("generate-cluster: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn report(message: &str) {
    // Nowhere is left to report a broken standard error to.
    let _ = writeln!(io::stderr(), "{message}");
}

enum Command {
    Large { shape: Shape, out: String },
    Cases { dialect: Dialect, seed: u64, count: u64, queries: usize },
}

fn parse(arguments: &[String]) -> Option<Command> {
    let (command, options) = arguments.split_first()?;
    let value = |name: &str| {
        let at = options.iter().position(|o| o == name)?;
        options.get(at.checked_add(1)?)
    };
    let number =
        |name: &str, default: u64| value(name).map_or(Some(default), |text| text.parse::<u64>().ok());
    match command.as_str() {
        "large" => Some(Command::Large {
            shape: Shape {
                pods: value("--pods")?.parse().ok()?,
                policies: value("--policies")?.parse().ok()?,
                seed: number("--seed", 1)?,
                all_distinct: options.iter().any(|o| o == "--all-distinct"),
            },
            out: value("--out")?.clone(),
        }),
        "cases" => Some(Command::Cases {
            dialect: match value("--dialect")?.as_str() {
                "kubernetes" => Dialect::Kubernetes,
                "calico" => Dialect::Calico,
                "both" => Dialect::CalicoAndKubernetes,
                _ => return None,
            },
            seed: number("--seed", 0)?,
            count: number("--count", 1_000)?,
            queries: usize::try_from(number("--queries", 200)?).ok()?,
        }),
        _ => None,
    }
}

fn write_large(shape: Shape, out: &Path) -> io::Result<()> {
    fs::create_dir_all(out)?;
    if fs::read_dir(out)?.next().is_some() {
        return Err(io::Error::other(format!("{} is not empty", out.display())));
    }
    let cluster = Cluster::generate(shape);
    fs::write(out.join("namespaces.yaml"), stream(&cluster.namespaces))?;
    fs::write(out.join("policies.yaml"), stream(&cluster.policies))?;
    for (at, pods) in cluster.pods.chunks(PODS_PER_FILE).enumerate() {
        fs::write(out.join(format!("pods-{at:03}.yaml")), stream(pods.iter().collect::<Vec<&Document>>()))?;
    }
    Ok(())
}

fn write_cases(dialect: Dialect, seed: u64, count: u64, queries: usize) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for seed in seed..seed.saturating_add(count) {
        let case = Case::generate(seed, dialect);
        let line = json!({
            "id": seed.to_string(), "manifests": case.manifests(), "queries": case.queries(queries),
        });
        writeln!(out, "{line}")?;
    }
    out.flush()
}
