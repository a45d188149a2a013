//! Which file goes where, and whether it has been there.

use crate::client::UploadSource;
use crate::commands::transcode::How;
use crate::exit::{Exit, Failed};
use crate::output::{self, Target};
use mpegflow_protocol::ids::UploadId;
use mpegflow_protocol::job::{InputRef, JobSpec};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// One file of a batch.
#[derive(Debug)]
pub(super) struct Planned {
    /// The file.
    pub(super) source: UploadSource,
    /// The folder of its result.
    pub(super) out: PathBuf,
    /// What is to be done.
    pub(super) standing: Standing,
}

/// What is to be done about a file.
#[derive(Debug)]
pub(super) enum Standing {
    /// Transcode it.
    Wanted(Target),
    /// Nothing: its result is there.
    Made,
}

/// Plans all files, or refuses all: nothing is begun where two would go to one folder, or where something else is.
pub(super) fn plan(inputs: &[PathBuf], out: &Path, force: bool, how: &How) -> Result<Vec<Planned>, Failed> {
    let mut taken: HashMap<OsString, &Path> = HashMap::new();
    for input in inputs {
        let name = folder_name(input)?;
        if let Some(other) = taken.insert(name.clone(), input) {
            let folder = out.join(&name);
            let what =
                format!("{} and {} would both go to {}", other.display(), input.display(), folder.display());
            return Err(Failed::new(Exit::Usage, "name_collision", what)
                .help("Transcode them by two commands with different --out."));
        }
    }
    inputs.iter().map(|input| one(input, out, force, how)).collect()
}

/// Plans one file.
pub(super) fn one(input: &Path, out: &Path, force: bool, how: &How) -> Result<Planned, Failed> {
    let out = out.join(folder_name(input)?);
    let source = UploadSource::open(input)?;
    if let Some(report) = output::report_in(&out) {
        let name = input.file_name().map(|name| name.to_string_lossy());
        if report.source.as_deref() != name.as_deref() {
            // By --force, two files would replace each other's result for ever.
            let of = report.source.unwrap_or_else(|| "another file".into());
            let what = format!("{} holds the result of {of}, not of {}", out.display(), input.display());
            return Err(
                Failed::new(Exit::Usage, "name_collision", what).help("Name another folder for --out.")
            );
        }
        let same = report.source_mark.as_ref() == Some(&source.mark)
            && without_input(report.job.spec) == how.spec(input)?;
        if same && !force {
            return Ok(Planned { source, out, standing: Standing::Made });
        }
        if !force {
            let what = format!(
                "{} holds the result of another state of {}, or by other options",
                out.display(),
                input.display()
            );
            return Err(Failed::new(Exit::Usage, "output_not_empty", what)
                .help("Replace it with --force, or name another folder for --out."));
        }
    }
    let target = Target::new(&out, force, Some(input))?;
    Ok(Planned { source, out, standing: Standing::Wanted(target) })
}

fn without_input(mut spec: JobSpec) -> JobSpec {
    spec.input = InputRef::Upload(UploadId::from_u128(0));
    spec
}

/// The folder of a file's result: its name without the extension, where that is a name.
pub(super) fn folder_name(input: &Path) -> Result<OsString, Failed> {
    let name = input.file_name().ok_or_else(|| {
        Failed::new(Exit::Usage, "no_name", format!("{} does not name a file", input.display()))
    })?;
    // Of `...mov` what is left is `..`, which leads elsewhere.
    let leads_elsewhere = |name: &OsStr| name == "." || name == ".." || name.is_empty();
    let stem = input.file_stem().filter(|stem| !leads_elsewhere(stem)).unwrap_or(name);
    Ok(stem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_called_after_its_file_and_never_leads_elsewhere() {
        for (file, folder) in [
            ("a/holiday.mov", "holiday"),
            ("a/b.tar.mov", "b.tar"),
            ("noextension", "noextension"),
            (".mov", ".mov"),
            ("...mov", "...mov"),
            ("..mov", "..mov"),
        ] {
            assert_eq!(folder_name(Path::new(file)).unwrap(), OsStr::new(folder), "{file}");
        }
        assert!(folder_name(Path::new("..")).is_err() && folder_name(Path::new("/")).is_err());
    }
}
