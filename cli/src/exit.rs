//! How a command ends: exit codes, and an error that names the thing, the place and the way out.

use crate::client::ClientError;
use mpegflow_protocol::failure::{Failure, FailureClass};
use mpegflow_protocol::text::clean;
use std::fmt;
use std::path::Path;

/// The table behind `mpegflow help exit-codes`.
pub(crate) const TABLE: &str = "Exit codes:
    0  done
    1  the job failed or was canceled, or something this program needed failed
    2  wrong usage
    3  bad input: the file cannot be transcoded, or the request was refused as wrong
    4  the broker cannot be reached, or does not accept the API key
  130  interrupted; nothing half-made is left behind

Of `mpegflow transcode` with several files, or a watched folder:
    0  each file is done, now or by an earlier run
    3  some are not, and each of those by its own fault
    1  some are not for another reason
    2  nothing was begun: two files would go to one folder, or one holds something else
  130  interrupted; the same command goes on where it stopped

Of `mpegflow audit`:
    0  proved; or violated, with every error accepted by the baseline and nothing unknown beside
    1  violated
    2  unknown: neither proved nor violated
    3  bad input or wrong usage";

/// A failure's message or remedy, which is written for the API, in terms of this program's options.
pub(crate) fn in_options(text: &str) -> String {
    const FIELD: &str = "\"decoders\": \"legacy\"";
    text.replace(&format!("`{FIELD}`"), FIELD).replace(FIELD, "--legacy-decoders")
}

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The job failed, or something needed did.
    Failed = 1,
    /// Wrong usage that clap could not see.
    Usage = 2,
    /// The input or the request is at fault.
    BadInput = 3,
    /// No broker, or none that accepts us.
    Unreachable = 4,
    /// Ctrl-C, SIGTERM or SIGHUP.
    Interrupted = 130,
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The exit code.
    pub(crate) exit: Exit,
    /// A stable word for programs, such as `input_truncated`.
    pub(crate) code: String,
    /// What failed, with its subject.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) help: Option<String>,
}

impl Failed {
    /// A failure without a remedy yet. Whatever text went into it is made fit for a terminal.
    pub(crate) fn new(exit: Exit, code: &str, what: impl AsRef<str>) -> Self {
        Self { exit, code: code.into(), what: clean(what.as_ref(), 2_000), help: None }
    }

    /// With what to do about it.
    #[must_use]
    pub(crate) fn help(mut self, help: impl AsRef<str>) -> Self {
        self.help = Some(clean(help.as_ref(), 2_000));
        self
    }

    /// A file or folder could not be used.
    pub(crate) fn file(verb: &str, path: &Path, error: &dyn fmt::Display) -> Self {
        Self::new(Exit::Failed, "file_error", format!("cannot {verb} {}: {error}", path.display()))
    }

    /// The file that was to be transcoded, or another that was given, could not be read.
    pub(crate) fn input(path: &Path, error: &dyn fmt::Display) -> Self {
        Self::new(Exit::BadInput, "input_unreadable", format!("cannot read {}: {error}", path.display()))
    }

    /// The job did not succeed.
    pub(crate) fn job(failure: &Failure) -> Self {
        let exit = if failure.class() == FailureClass::Media { Exit::BadInput } else { Exit::Failed };
        Self::new(exit, failure.code.as_str(), format!("{}: {}", failure.code, in_options(&failure.message)))
            .help(in_options(failure.code.help()))
    }

    /// Ctrl-C.
    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted", "interrupted")
    }

    /// As a line of JSON, for `--output json`.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "error": { "code": self.code, "message": self.what, "help": self.help } })
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match error {
            ClientError::Unreachable { .. } => Self::new(Exit::Unreachable, "unreachable", text)
                .help("Check --url or MPEGFLOW_URL. To run a broker on this machine: `mpegflow serve`."),
            ClientError::Tls { .. } => Self::new(Exit::Unreachable, "unreachable", text)
                .help("Give the broker's CA by --ca, or have the system trust it."),
            ClientError::Problem { status, problem } => {
                let code = problem.kind.rsplit('/').next().unwrap_or("problem").to_owned();
                match status {
                    401 | 403 => Self::new(Exit::Unreachable, &code, text)
                        .help("Check the API key: MPEGFLOW_API_KEY or --api-key-file. `mpegflow serve` prints the key and the file it is in."),
                    404 => Self::new(Exit::BadInput, &code, text)
                        .help("Check the id and the broker (--url or MPEGFLOW_URL). What belongs to another API key looks the same as what is not there."),
                    507 => Self::new(Exit::Failed, &code, text).help("Free space where the broker keeps its data."),
                    429 | 500.. => Self::new(Exit::Failed, &code, text).help("Try again in a while."),
                    _ => Self::new(Exit::BadInput, &code, text),
                }
            }
            ClientError::Usage(_) => Self::new(Exit::Usage, "usage", text),
            ClientError::Input { .. } => Self::new(Exit::BadInput, "input_unreadable", text),
            ClientError::Corrupt { .. } => Self::new(Exit::Failed, "corrupt_download", text)
                .help("The bytes are not those the broker committed. Try again; should it happen again, tell its operator."),
            ClientError::File { .. } => Self::new(Exit::Failed, "file_error", text),
            ClientError::Answer { .. } => Self::new(Exit::Failed, "bad_answer", text)
                .help("Is this address an mpegflow broker of the same version?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_protocol::failure::FailureCode;

    #[test]
    fn a_bad_input_and_a_broken_worker_end_with_different_codes() {
        let bad = Failed::job(&Failure::new(FailureCode::InputTruncated, "no moov"));
        assert_eq!((bad.exit, bad.code.as_str()), (Exit::BadInput, "input_truncated"));
        assert_eq!(bad.help.as_deref(), Some(FailureCode::InputTruncated.help()));
        let lost = Failed::job(&Failure::new(FailureCode::WorkerLost, "gone"));
        assert_eq!(lost.exit, Exit::Failed);
    }

    #[test]
    fn old_formats_are_asked_for_by_this_programs_option() {
        let failure =
            Failure::new(FailureCode::DecoderNotAllowed, "it is WMV; ask for \"decoders\": \"legacy\"");
        let failed = Failed::job(&failure);
        let help = failed.help.unwrap_or_default();
        for text in [&failed.what, &help] {
            assert!(text.contains("--legacy-decoders") && !text.contains("\"decoders\""), "{text}");
        }
    }

    #[test]
    fn hostile_text_cannot_reach_the_terminal_as_an_escape() {
        let failed = Failed::new(Exit::Failed, "x", "a\u{1b}[2Jb").help("c\u{202e}d");
        assert_eq!((failed.what.as_str(), failed.help.as_deref()), ("a [2Jb", Some("c d")));
    }
}
