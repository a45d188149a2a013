//! `mpegflow`: transcode untrusted video safely, on one machine or through a broker.
//!
//! | module | holds |
//! |---|---|
//! | [`args`], [`exit`], [`ui`] | what may be typed, how it ends, what is seen |
//! | [`client`] | the public API's client: uploads that resume, downloads that are verified, the event stream |
//! | [`local`], [`workers`] | a broker inside this process, workers outside it |
//! | [`output`], [`fetch`], [`digest`] | a result folder that is there whole or not at all |
//! | [`web`], [`files`] | the pages, and the server of a result folder |
//! | [`api_server`] | a cluster's API server: a client, and requests with bounded answers |
//! | [`summary`], [`ffprobe`], [`probe_format`] | a job and a file in words |
//! | [`compat`] | the command lines of ffprobe and ffmpeg |
//! | [`commands`] | the commands, made of these |

mod api_server;
mod args;
mod client;
mod commands;
mod compat;
mod digest;
mod exit;
mod fetch;
mod ffprobe;
mod files;
mod interrupt;
mod local;
mod output;
mod probe_format;
mod summary;
mod ui;
mod web;
mod workers;
mod yaml;

use args::{Cli, Command};
use clap::Parser as _;
use exit::{Exit, Failed};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use ui::Ui;

/// The name under which kubectl calls this program: `kubectl mpegflow-audit`.
const KUBECTL_PLUGIN: &str = "kubectl-mpegflow_audit";

fn main() -> ExitCode {
    let typed = typed();
    if let Some(version) = called(&typed).and_then(|name| compat::version(name, &typed)) {
        let _ = writeln!(std::io::stdout(), "{version}");
        return ExitCode::SUCCESS;
    }
    let typed = match own(typed) {
        Ok(typed) => typed,
        Err(what) => {
            let _ = writeln!(std::io::stderr(), "error: {what}");
            return ExitCode::from(Exit::Usage as u8);
        }
    };
    let cli = match Cli::try_parse_from(typed) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    if let Command::Shim(shim) = &cli.command {
        // Before any thread is started: the process is about to become another.
        return fail(Ui::new(&cli.global), &workers::become_worker(shim));
    }
    let ui = Ui::new(&cli.global);
    init_tracing(cli.global.verbose, ui);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(cli, ui)),
        Err(e) => Err(Failed::new(Exit::Failed, "runtime", format!("cannot start: {e}"))),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failed) => fail(ui, &failed),
    }
}

/// What was typed. Called as `kubectl mpegflow-audit`, this program is `mpegflow audit`, and audits the cluster that kubectl
/// would talk to unless something else is named.
fn typed() -> Vec<OsString> {
    let mut typed: Vec<OsString> = std::env::args_os().collect();
    let name = typed.first().map(Path::new).and_then(Path::file_stem).map(|name| name.to_owned());
    if name.is_some_and(|name| name == KUBECTL_PLUGIN) {
        if typed.len() == 1 {
            typed.push("--cluster".into());
        }
        typed.splice(0..1, ["mpegflow".into(), "audit".into()]);
    }
    typed
}

/// The name that this program was called by.
fn called(typed: &[OsString]) -> Option<&str> {
    Path::new(typed.first()?).file_name()?.to_str()
}

/// What was typed in this program's own words: as `ffprobe` or `ffmpeg`, or with their options, it is `probe` or `thumbnail`.
fn own(typed: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let (called, rest) = match called(&typed) {
        Some("ffprobe") => ("probe", typed.get(1..)),
        Some("ffmpeg") => ("thumbnail", typed.get(1..)),
        _ => match typed.get(1).and_then(|command| command.to_str()) {
            Some(command @ ("probe" | "thumbnail")) => {
                (command, typed.get(2..).filter(|rest| compat::is_foreign(rest)))
            }
            _ => ("", None),
        },
    };
    let Some(rest) = rest else { return Ok(typed) };
    let said = if called == "probe" { compat::ffprobe(rest)? } else { compat::ffmpeg(rest)? };
    Ok([OsString::from("mpegflow"), OsString::from(called)].into_iter().chain(said).collect())
}

/// Says what is wrong with the command line, or helps. Of an audit, 2 is a verdict: wrong usage is bad input there.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let is_audit = typed()
        .iter()
        .skip(1)
        .find(|arg| !arg.to_string_lossy().starts_with('-'))
        .is_some_and(|a| a == "audit");
    let code = match (error.use_stderr(), is_audit) {
        (false, _) => 0,
        (true, true) => Exit::BadInput as u8,
        (true, false) => Exit::Usage as u8,
    };
    ExitCode::from(code)
}

/// Runs a command. The number is the exit code of one that answers a question.
async fn run(cli: Cli, ui: Ui) -> Result<u8, Failed> {
    let verbose = cli.global.verbose > 0;
    match cli.command {
        Command::Audit(args) => return commands::audit::run(*args, ui).await,
        Command::Transcode(args) => return commands::transcode::run(args, ui, verbose).await,
        Command::Play(args) => commands::play::run(args, ui).await,
        Command::Serve(args) => commands::serve::run(args, ui).await,
        Command::Probe(args) => commands::probe::run(args, ui, verbose).await,
        Command::Thumbnail(args) => commands::thumbnail::run(args, ui, verbose).await,
        Command::Upload(args) => commands::upload::run(args, ui).await,
        Command::Download(args) => commands::download::run(args, ui).await,
        Command::Jobs(args) => commands::jobs::run(args, ui).await,
        Command::Webhooks(args) => commands::webhooks::run(args, ui).await,
        Command::Presets(args) => commands::presets::run(args, ui).await,
        Command::Preflight(args) => commands::preflight::run(&args, ui).await,
        Command::FirstStart(args) => commands::first_start::run(&args).await,
        Command::Doctor(args) => commands::doctor::run(&args, ui),
        Command::Completions(args) => {
            clap_complete::generate(args.shell, &mut args::visible(), "mpegflow", &mut std::io::stdout());
            Ok(())
        }
        Command::ExitCodes => {
            ui.line(exit::TABLE);
            Ok(())
        }
        // Handled in `main`.
        Command::Shim(shim) => Err(workers::become_worker(&shim)),
    }?;
    Ok(0)
}

fn fail(ui: Ui, failed: &Failed) -> ExitCode {
    ui.error(failed);
    ExitCode::from(failed.exit as u8)
}

fn init_tracing(verbose: u8, ui: Ui) {
    use tracing_subscriber::EnvFilter;
    let default = match verbose {
        0 => "error",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("MPEGFLOW_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ui.color_err)
        .with_target(false)
        .init();
}

/// Locks a mutex whose data stays valid whatever panicked while it was held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
