//! Manifests from files, folders and standard input, within the reader's limits.

use crate::exit::{Exit, Failed};
use mpegflow_policies::read::{self, Input, Limits, ReadErrors};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Files of one folder; what has more is not a folder of manifests.
const MOST_FILES: usize = 20_000;
/// Folders below each other.
const MOST_DEPTH: usize = 32;

/// Reads what was named on the command line. `max_bytes` bounds each file.
pub(super) fn gather(paths: &[PathBuf], max_bytes: u64) -> Result<Input, Failed> {
    let mut limits = Limits::default();
    limits.bytes_per_source = max_bytes;
    limits.bytes = limits.bytes.max(max_bytes);
    let mut input = Input::new(limits);
    for path in paths {
        if path.as_os_str() == "-" {
            add(&mut input, "-", std::io::stdin().lock(), max_bytes, false)?;
            continue;
        }
        let what = fs::metadata(path).map_err(|e| unreadable(path, &e))?;
        if what.is_dir() {
            let mut files = Vec::new();
            walk(path, 0, &mut files)?;
            if files.is_empty() {
                let message = format!("{} has no .yaml, .yml or .json file", path.display());
                return Err(bad(message).help("name the folder that holds the manifests"));
            }
            for file in files {
                file_into(&mut input, &file, max_bytes, true)?;
            }
        } else {
            file_into(&mut input, path, max_bytes, false)?;
        }
    }
    Ok(input)
}

/// What is wrong with an input, every error with its place.
pub(super) fn refused(errors: &ReadErrors) -> Failed {
    let count = errors.errors().len().saturating_add(errors.more());
    let what = if count == 1 { String::new() } else { format!("{count} errors in the input\n") };
    let mut failed = Failed::new(Exit::BadInput, "bad_manifest", "");
    // One error a line; each line was made from the input and is cleaned on its own.
    let lines: Vec<String> = errors.to_string().lines().map(mpegflow_policies::report::clean).collect();
    failed.what = format!("{what}{}", lines.join("\n"));
    failed
}

/// The bytes of one file, or of standard input for `-`, at most `max`.
pub(super) fn bytes(path: &Path, max: u64) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    let limit = max.saturating_add(1);
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|e| unreadable(path, &e))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
        return Err(
            bad(format!("{} is larger than {max} bytes", path.display())).help("audit a shorter time")
        );
    }
    Ok(bytes)
}

fn file_into(input: &mut Input, path: &Path, max_bytes: u64, in_folder: bool) -> Result<(), Failed> {
    let name = path.to_string_lossy();
    let file = fs::File::open(path).map_err(|e| unreadable(path, &e))?;
    let what = file.metadata().map_err(|e| unreadable(path, &e))?;
    // The size is asked for before a byte is read. A pipe (`<(helm template …)`) has none, and is bounded as it is read.
    if what.is_file() {
        input.admit(&name, what.len()).map_err(|e| too_large(&e))?;
    }
    add(input, &name, file, max_bytes, in_folder)
}

fn add(
    input: &mut Input,
    name: &str,
    from: impl std::io::Read,
    max_bytes: u64,
    in_folder: bool,
) -> Result<(), Failed> {
    let mut bytes = Vec::new();
    from.take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| unreadable(Path::new(name), &e))?;
    let added =
        if in_folder { input.add_skipping_non_kubernetes(name, bytes) } else { input.add(name, bytes) };
    added.map_err(|e| too_large(&e))
}

/// Manifests below a folder, in the order of their names. Links to folders are not followed, so that no loop is.
fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failed> {
    if depth > MOST_DEPTH {
        return Err(bad(format!("{} is more than {MOST_DEPTH} folders deep", folder.display())));
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| unreadable(folder, &e))? {
        entries.push(entry.map_err(|e| unreadable(folder, &e))?);
    }
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(|e| unreadable(&path, &e))?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            walk(&path, depth.saturating_add(1), files)?;
        } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
            || read::KUSTOMIZATIONS.iter().any(|name| entry.file_name() == *name)
        {
            files.push(path);
            if files.len() > MOST_FILES {
                return Err(bad(format!("{} has more than {MOST_FILES} manifests", folder.display())));
            }
        }
    }
    Ok(())
}

fn too_large(error: &read::ReadError) -> Failed {
    bad(error.to_string()).help("--max-file MIB raises the limit for one file")
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failed {
    bad(format!("cannot read {}: {error}", path.display()))
}

fn bad(what: impl AsRef<str>) -> Failed {
    Failed::new(Exit::BadInput, "bad_input", what)
}
