//! `mpegflow-broker decoders`: what to do on the day of a vulnerability.

use anyhow::Context as _;
use clap::Subcommand;
use mpegflow_broker::embedded::{Config, Opened};
use mpegflow_protocol::decoders::{DECODERS, DEMUXERS, canonical};
use serde_json::json;
use std::io::Write as _;

#[derive(Debug, Subcommand)]
pub(crate) enum Decoders {
    /// Ban a decoder or demuxer on every worker, within seconds: tasks that use it end, jobs that need it fail with the code
    /// `decoder_banned` and this reason.
    #[command(after_help = "Examples:
  mpegflow-broker decoders ban h264 --reason CVE-2026-12345
  mpegflow-broker decoders ban mkv --reason 'CVE-2026-12345, until FFmpeg 8.1.4 is rolled out'

A ban holds for outputs too, which are checked by decoding them: one of h264, aac, mjpeg or mov stops the presets that make such.")]
    Ban {
        /// Its name, such as h264, libdav1d, mov or webm.
        name: String,
        /// Why, for those whose jobs fail.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Lift a ban.
    #[command(after_help = "Examples:
  mpegflow-broker decoders lift h264")]
    Lift {
        /// Its name.
        name: String,
    },
    /// List the bans, one JSON document a line.
    #[command(after_help = "Examples:
  mpegflow-broker decoders list")]
    List,
    /// List the jobs that have ended and used a decoder or demuxer, one JSON document a line. Those that ended before their input was
    /// known may have used any: they are listed with `\"known\": false`.
    #[command(after_help = "Examples:
  mpegflow-broker decoders jobs-using h264 | jq -r 'select(.known) | .job'")]
    JobsUsing {
        /// Its name.
        name: String,
    },
}

/// Runs the command.
pub(crate) async fn run(command: Decoders, config: &Config) -> anyhow::Result<()> {
    let opened = Opened::open(config).await?;
    let done = on(command, &opened).await;
    opened.close().await;
    done
}

async fn on(command: Decoders, opened: &Opened) -> anyhow::Result<()> {
    let engine = opened.engine();
    let mut out = std::io::stdout();
    match command {
        Decoders::Ban { name, reason } => {
            let name = known(&name)?;
            anyhow::ensure!(
                mpegflow_protocol::text::is_label(&reason, 200),
                "a reason has 1 to 200 printable characters: those whose jobs fail read it"
            );
            engine.ban(name, &reason).await?;
            writeln!(out, "{}", json!({ "banned": name, "reason": reason }))?;
        }
        Decoders::Lift { name } => {
            let name = known(&name)?;
            anyhow::ensure!(engine.store().lift_ban(name).await?, "{name} is not banned");
            writeln!(out, "{}", json!({ "lifted": name }))?;
        }
        Decoders::List => {
            for ban in engine.store().bans().await? {
                writeln!(
                    out,
                    "{}",
                    json!({ "name": ban.name, "reason": ban.reason, "at": ban.at.rfc3339() })
                )?;
            }
        }
        Decoders::JobsUsing { name } => {
            let name = known(&name)?;
            let mut after = None;
            loop {
                let (used, next) = engine.jobs_using(name, after).await?;
                for job in used {
                    let finished = job.finished_at.map(|at| at.rfc3339());
                    writeln!(
                        out,
                        "{}",
                        json!({
                            "job": job.job, "tenant": job.tenant, "state": job.state, "finished_at": finished,
                            "known": job.known,
                        })
                    )?;
                }
                match next {
                    Some(_) => after = next,
                    None => break,
                }
            }
        }
    }
    Ok(())
}

/// The name under which it is banned. One that is not known would ban nothing, and nobody would notice.
fn known(name: &str) -> anyhow::Result<&'static str> {
    canonical(name).with_context(|| {
        let decoders: Vec<&str> = DECODERS.iter().map(|(codec, _)| *codec).collect();
        format!(
            "there is no decoder or demuxer `{name}`; decoders: {}; demuxers: {}",
            decoders.join(", "),
            DEMUXERS.join(", ")
        )
    })
}
