//! `mpegflow audit`: prove what pods can reach. The proof is made by `mpegflow-policies`; here is what it needs of the world:
//! files, a cluster, the day.

mod cluster;
mod explain;
mod input;
mod pairs;

use crate::args::{AnswerFormat, Audit, AuditCommand, AuditFormat, AuditSource, AuditWorld};
use crate::exit::{Exit, Failed};
use crate::ui::Ui;
use mpegflow_policies::audit::baseline::Baseline;
use mpegflow_policies::audit::intent::{self, Intent};
use mpegflow_policies::audit::{self, Request, flows};
use mpegflow_policies::cluster::Cluster;
use mpegflow_policies::profile::{Cni, Profile, detect};
use mpegflow_policies::read::{self, Input, Limits, ReadOptions, Unread};
use mpegflow_policies::report;
use mpegflow_policies::sets::AddressSet;
use mpegflow_policies::truth::Truth;
use std::path::{Path, PathBuf};

/// Bytes of a file of observed flows.
const MOST_FLOW_BYTES: u64 = 2 << 30;

/// Runs the command; the number is the exit code of a verdict.
pub(crate) async fn run(args: Audit, ui: Ui) -> Result<u8, Failed> {
    match args.command {
        None => audit(args, ui).await,
        Some(AuditCommand::Diff { old, new, world, format }) => diff(&old, &new, &world, format, ui),
        Some(AuditCommand::Pairs { input, world, format }) => {
            let read = gather(&input, &world, ui).await?;
            pairs::run(&read, &world, is_json(format, ui), ui)
        }
        Some(AuditCommand::Explain { source, destination, port, input, world, format }) => {
            let read = gather(&input, &world, ui).await?;
            explain::run(&read, &world, [&source, &destination, &port], is_json(format, ui), ui)
        }
    }
}

/// A cluster as it was read, and what is known about it.
struct Read {
    cluster: Cluster,
    profile: Profile,
    complete: bool,
}

async fn gather(source: &AuditSource, world: &AuditWorld, ui: Ui) -> Result<Read, Failed> {
    let max = world.max_file.saturating_mul(1 << 20);
    let (input, unread) = if source.cluster {
        ui.note("reading the cluster…");
        let kubeconfig = &source.kubeconfig;
        cluster::gather(kubeconfig.context.as_deref(), kubeconfig.kubeconfig.as_deref(), ui).await?
    } else if source.paths.is_empty() {
        return Err(Failed::new(Exit::BadInput, "no_input", "nothing to audit")
            .help("name files or folders of manifests, `-` for standard input, or --cluster"));
    } else {
        (input::gather(&source.paths, max)?, Vec::new())
    };
    for missing in &unread {
        ui.note(format!("note: {} may not be read; what depends on it is unknown", missing.resource));
    }
    read(&input, unread, world, source.cluster, ui)
}

fn read(
    input: &Input,
    unread: Vec<Unread>,
    world: &AuditWorld,
    is_cluster: bool,
    ui: Ui,
) -> Result<Read, Failed> {
    let ignored_kinds = world.ignore_kind.iter().map(|kind| kind.as_str().into()).collect();
    let options = ReadOptions { ignored_kinds, unread };
    let reading = read::cluster(input, &options).map_err(|errors| input::refused(&errors))?;
    for note in &reading.notes {
        ui.note(format!("note: {}", report::clean(&format!("{}: {}", note.at, note.message))));
    }
    let found = if is_cluster { detect(&reading.cluster) } else { None };
    if let (Some(found), None) = (found, world.cni) {
        ui.note(format!("the cluster runs {found}; another profile can be chosen with --cni"));
    }
    Ok(Read {
        cluster: reading.cluster,
        profile: world.cni.or(found).unwrap_or_else(|| Profile::newest(Cni::Generic)),
        complete: is_cluster || world.assume_complete,
    })
}

fn pod_cidrs(world: &AuditWorld) -> Option<AddressSet> {
    (!world.pod_cidr.is_empty()).then(|| AddressSet::blocks(world.pod_cidr.iter().copied()))
}

async fn audit(args: Audit, ui: Ui) -> Result<u8, Failed> {
    // What is small and may be wrong comes first: a cluster takes a while to read.
    let intents = args.intents.as_deref().map(read_intents).transpose()?;
    let baseline = args.baseline.as_deref().map(read_baseline).transpose()?;
    let mut seen = Vec::new();
    for path in &args.flows {
        seen.push(read_flows(path)?);
    }
    let read = gather(&args.source, &args.world, ui).await?;
    let outcome = audit::run(&Request {
        cluster: &read.cluster,
        profile: read.profile,
        complete: read.complete,
        intents: intents.unwrap_or_else(|| intent::worker_pools(&read.cluster)),
        pod_cidrs: pod_cidrs(&args.world),
        baseline: baseline.as_ref(),
        today: jiff::Zoned::now().date(),
        flows: &seen,
    })
    .map_err(|e| Failed::new(Exit::BadInput, "cannot_evaluate", e.to_string()))?;
    let format = args.format.unwrap_or(if ui.json { AuditFormat::Json } else { AuditFormat::Table });
    match format {
        AuditFormat::Table => ui.line(report::table(&outcome, ui.color_out).trim_end()),
        AuditFormat::Json => ui.line(report::headed(&report::json(&outcome), "sentence")),
        AuditFormat::Sarif => ui.line(report::headed(&report::sarif(&outcome), "properties")),
        AuditFormat::Html => ui.line(report::html(&outcome).trim_end()),
        AuditFormat::Dot => ui.line(report::dot(&outcome).trim_end()),
    }
    Ok(outcome.exit_code())
}

fn diff(
    old: &Path,
    new: &Path,
    world: &AuditWorld,
    format: Option<AnswerFormat>,
    ui: Ui,
) -> Result<u8, Failed> {
    let max = world.max_file.saturating_mul(1 << 20);
    let side = |path: &Path| -> Result<Read, Failed> {
        read(&input::gather(&[path.to_owned()], max)?, Vec::new(), world, false, ui)
    };
    let (before, after) = (side(old)?, side(new)?);
    let changes = audit::diff::run(&before.cluster, &after.cluster, after.profile, pod_cidrs(world))
        .map_err(|e| Failed::new(Exit::BadInput, "cannot_evaluate", e.to_string()))?;
    if is_json(format, ui) {
        ui.line(report::headed(&changes.json(), "sentence"));
    } else {
        ui.line(changes.table(ui.color_out).trim_end());
    }
    Ok(match changes.opened() {
        Truth::No => 0,
        Truth::Yes => 1,
        Truth::Unknown => 2,
    })
}

fn is_json(format: Option<AnswerFormat>, ui: Ui) -> bool {
    format.map_or(ui.json, |format| format == AnswerFormat::Json)
}

/// A file of our own kinds.
fn own_file(path: &Path) -> Result<Input, Failed> {
    input::gather(&[PathBuf::from(path)], Limits::default().bytes_per_source)
}

fn read_intents(path: &Path) -> Result<Vec<Intent>, Failed> {
    intent::read(&own_file(path)?).map_err(|errors| input::refused(&errors))
}

fn read_baseline(path: &Path) -> Result<Baseline, Failed> {
    Baseline::read(&own_file(path)?).map_err(|errors| input::refused(&errors))
}

fn read_flows(path: &Path) -> Result<flows::Flows, Failed> {
    let name = path.to_string_lossy();
    let bytes = input::bytes(path, MOST_FLOW_BYTES)?;
    flows::read(&name, &bytes).map_err(|e| Failed::new(Exit::BadInput, "bad_flows", e.to_string()))
}
