//! `mpegflow-broker audit …`: the key, checkpoints, the months that go, and the verifier.

use anyhow::Context as _;
use clap::Subcommand;
use mpegflow_broker::audit::checkpoint::{Checkpoint, Signer};
use mpegflow_broker::audit::keep::{self, Keeper};
use mpegflow_broker::config::Resolved;
use mpegflow_broker::secret;
use mpegflow_broker::store::postgres::{DatabaseConfig, PostgresStore};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The exit code where the log is not what was signed.
const TAMPERED: u8 = 1;
/// The exit code where nobody can say.
const UNKNOWN: u8 = 3;

/// See `mpegflow-broker audit --help`.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Make the key that checkpoints are signed with, and print its public half, which verifiers need.
    #[command(after_help = "Examples:
  mpegflow-broker audit key --out audit.key > audit.pub

Keep the public half where whoever can write to the database or to the broker's files cannot.")]
    Key {
        /// File to write the key to, mode 0600.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Sign the heads of all chains now, beside what a running broker signs.
    #[command(after_help = "Examples:
  mpegflow-broker audit checkpoint --config broker.toml")]
    Checkpoint,
    /// Verify every tenant's chain in the database against the signed checkpoints, and name the first entry that is wrong.
    #[command(after_help = "Examples:
  mpegflow-broker audit verify --public-key audit.pub --checkpoints checkpoints/ --database-url postgres://auditor@db/mpegflow

It finds entries that were removed, edited, moved or erased without a record, a tail that was cut off, and a log that was chained
anew. It only reads: an account that may SELECT is enough.
Exit codes: 0 the log is what was signed, 1 it is not, 2 wrong usage, 3 nobody can say.")]
    Verify {
        /// File with the public half of the key.
        #[arg(long, value_name = "FILE")]
        public_key: PathBuf,
        /// Folder with the checkpoints [default: audit.checkpoints of the configuration]
        #[arg(long, value_name = "DIR")]
        checkpoints: Option<PathBuf>,
    },
    /// Drop the oldest month of events, after where the chains go on was signed and written beside the checkpoints.
    #[command(after_help = "Examples:
  mpegflow-broker audit drop --month 2026-01 --config broker.toml")]
    Drop {
        /// The month, such as 2026-01.
        #[arg(long, value_name = "YEAR-MONTH", value_parser = month)]
        month: String,
    },
}

/// The partition of a month.
fn month(text: &str) -> Result<String, String> {
    let wrong = || "a month is a year, a dash and two digits, such as 2026-01".to_owned();
    let (year, month) = text.split_once('-').ok_or_else(wrong)?;
    let digits = |text: &str, n| text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    if digits(year, 4) && digits(month, 2) { Ok(format!("events_{year}_{month}")) } else { Err(wrong()) }
}

/// Runs the command.
pub(crate) async fn run(command: Audit, resolved: &Resolved) -> anyhow::Result<ExitCode> {
    match command {
        Audit::Key { out } => {
            anyhow::ensure!(!out.exists(), "{} is there already", out.display());
            let signer = Signer::generate()?;
            mpegflow_broker::ca::write_private(&out, &signer.to_pkcs8()?)
                .with_context(|| format!("cannot write {}", out.display()))?;
            writeln!(std::io::stdout(), "{}", secret::hex(&signer.public_key()))?;
            Ok(ExitCode::SUCCESS)
        }
        Audit::Checkpoint => {
            let (store, mut keeper) = open(resolved).await?;
            let signed = keeper.keep(store.checkpoint().await?)?;
            store_closed(store).await;
            let text = if signed.is_some() { "signed" } else { "there is no event yet" };
            writeln!(std::io::stdout(), "{text}")?;
            Ok(ExitCode::SUCCESS)
        }
        Audit::Drop { month } => {
            let (store, mut keeper) = open(resolved).await?;
            // An anchor on disk stands for what is gone: none is signed for a month that stays.
            store.may_drop_events(&month).await?;
            let anchor = store.anchor_of(&month).await?;
            // On disk before anything goes: without it, the chains would seem cut.
            let signed = keeper.keep(anchor)?.context("the anchor was not written")?;
            store.drop_events(&month, &signed, &keeper.public_key()).await?;
            store_closed(store).await;
            writeln!(std::io::stdout(), "dropped {month}")?;
            Ok(ExitCode::SUCCESS)
        }
        Audit::Verify { public_key, checkpoints } => {
            let dir = checkpoints
                .or_else(|| resolved.audit.as_ref().map(|audit| audit.checkpoints.clone()))
                .context("say where the checkpoints are: --checkpoints or audit.checkpoints")?;
            let code = match verify(&public_key, &dir, resolved).await {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::from(TAMPERED),
                Err(e) => {
                    writeln!(std::io::stderr(), "Nobody can say whether the log is whole: {e:#}")?;
                    ExitCode::from(UNKNOWN)
                }
            };
            Ok(code)
        }
    }
}

fn database(resolved: &Resolved) -> anyhow::Result<DatabaseConfig> {
    resolved.database.clone().context(
        "only events in PostgreSQL are chained: it needs --database-url, --database-url-file or --config",
    )
}

async fn open(resolved: &Resolved) -> anyhow::Result<(PostgresStore, Keeper)> {
    let audit = resolved.audit.as_ref().context("it needs audit.checkpoints and audit.key")?;
    let keeper = Keeper::open(&audit.checkpoints, &audit.key)?;
    let store = PostgresStore::open(database(resolved)?).await.context("cannot use the database")?;
    Ok((store, keeper))
}

async fn store_closed(store: PostgresStore) {
    mpegflow_broker::store::Store::close(&store).await;
}

/// Whether all chains are what was signed; what is wrong goes to standard output.
async fn verify(public_key: &Path, dir: &Path, resolved: &Resolved) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(public_key)
        .with_context(|| format!("cannot read {}", public_key.display()))?;
    let key = secret::from_hex(text.trim())
        .with_context(|| format!("{} does not hold 64 hexadecimal digits", public_key.display()))?;
    let mut out = std::io::stdout();
    let mut whole = true;
    // Before the database: what is signed meanwhile is for the next time.
    let mut checkpoints: Vec<Checkpoint> = Vec::new();
    for (path, signed) in keep::read(dir)? {
        match signed.open(&key) {
            Ok(checkpoint) => checkpoints.push(checkpoint),
            Err(e) => {
                whole = false;
                writeln!(out, "WRONG  {}: {e}", path.display())?;
            }
        }
    }
    anyhow::ensure!(
        !checkpoints.is_empty() || !whole,
        "there is no checkpoint in {}, and without one a log that was cut off or chained anew looks whole",
        dir.display()
    );
    let store = PostgresStore::open_as_it_is(database(resolved)?).await.context("cannot use the database")?;
    let answers = store.audit(&checkpoints).await?;
    store_closed(store).await;
    for (tenant, answer) in &answers {
        match answer {
            Ok(verified) => writeln!(
                out,
                "ok     {tenant}: {} entries, {} of them erased, {} signed places",
                verified.head.seq.saturating_sub(verified.from.seq),
                verified.erased,
                verified.checkpoints
            )?,
            Err(finding) => {
                whole = false;
                writeln!(out, "WRONG  {tenant}: {finding}")?;
            }
        }
    }
    writeln!(
        out,
        "{}: {} tenants against {} checkpoints",
        if whole { "The log is what was signed" } else { "The log is NOT what was signed" },
        answers.len(),
        checkpoints.len()
    )?;
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_becomes_its_partition_and_nothing_else_does() {
        assert_eq!(month("2026-01").as_deref(), Ok("events_2026_01"));
        for wrong in
            ["", "2026", "2026-1", "26-01", "2026-01; DROP TABLE tenants", "tenants", "2026_01", "-026-01"]
        {
            assert!(month(wrong).is_err(), "{wrong}");
        }
    }
}
