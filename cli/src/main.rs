//! `mpegflow`: transcode untrusted video safely, on one machine or through a broker.
//!
//! | module | holds |
//! |---|---|
//! | [`args`], [`exit`], [`ui`] | what may be typed, how it ends, what is seen |
//! | [`client`] | the public API's client: uploads that resume, downloads that are verified, the event stream |
//! | [`local`], [`workers`] | a broker inside this process, workers outside it |
//! | [`output`], [`fetch`], [`digest`] | a result folder that is there whole or not at all |
//! | [`web`], [`files`] | the pages, and the server of a result folder |
//! | [`summary`], [`ffprobe`] | a job and a file in words |
//! | [`commands`] | the commands, made of these |

mod args;
mod client;
mod commands;
mod digest;
mod exit;
mod fetch;
mod ffprobe;
mod files;
mod interrupt;
mod local;
mod output;
mod summary;
mod ui;
mod web;
mod workers;

use args::{Cli, Command};
use clap::Parser as _;
use exit::{Exit, Failed};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use ui::Ui;

fn main() -> ExitCode {
    let cli = Cli::parse();
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
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => fail(ui, &failed),
    }
}

async fn run(cli: Cli, ui: Ui) -> Result<(), Failed> {
    let verbose = cli.global.verbose > 0;
    match cli.command {
        Command::Transcode(args) => commands::transcode::run(args, ui, verbose).await,
        Command::Play(args) => commands::play::run(args, ui).await,
        Command::Serve(args) => commands::serve::run(args, ui).await,
        Command::Probe(args) => commands::probe::run(args, ui, verbose).await,
        Command::Upload(args) => commands::upload::run(args, ui).await,
        Command::Download(args) => commands::download::run(args, ui).await,
        Command::Jobs(args) => commands::jobs::run(args, ui).await,
        Command::Presets(args) => commands::presets::run(args, ui).await,
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
    }
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
