//! The folder that a result goes to. It appears whole or not at all.
//!
//! Everything is made in a scratch folder beside it, on the same file system, and moved in by one rename. A scratch folder
//! holds a lock for as long as its process lives; the next run removes those that a killed process left.

use crate::exit::{Exit, Failed};
use mpegflow_protocol::api::Job;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What was made, and under which locks. Also how a later `--force` knows the folder for one of ours.
pub(crate) const REPORT: &str = "mpegflow.json";
/// The page that plays it.
pub(crate) const PAGE: &str = "index.html";
/// What the page needs.
pub(crate) const PLAYER: &str = "player";

const LOCK: &str = "lock";
/// Bytes of a report that are read.
const MAX_REPORT: u64 = 16 << 20;
/// A scratch folder younger than this may not have its lock yet.
const SETTLED: Duration = Duration::from_secs(10);

/// Content of [`REPORT`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Version of the program that wrote it.
    pub(crate) mpegflow: String,
    /// Name of the source, where it is known.
    pub(crate) source: Option<String>,
    /// Which state of the source, where it is known: what a batch tells by that it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source_mark: Option<String>,
    /// The job: what it was made from, its output with digests, and the evidence of each task.
    pub(crate) job: Job,
}

/// Where a result will be, once it is whole.
#[derive(Debug)]
pub(crate) struct Target {
    out: PathBuf,
    force: bool,
}

impl Target {
    /// Looks whether a result could go to `out`, and refuses early: before an hour of work rather than after it.
    pub(crate) fn new(out: &Path, force: bool, input: Option<&Path>) -> Result<Self, Failed> {
        let out = resolve(out)?;
        let refuse = |why: &str| {
            Failed::new(
                Exit::Usage,
                "bad_output_folder",
                format!("{} cannot be the output folder: {why}", out.display()),
            )
        };
        let (Some(parent), Some(_)) = (out.parent(), out.file_name()) else {
            return Err(refuse("it is the root of the file system").help("Name a folder for --out."));
        };
        let within = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&out));
        if std::env::current_dir().is_ok_and(|dir| within(&dir)) {
            return Err(refuse("it is the current folder or one above it")
                .help("Name a folder inside it, such as --out dist."));
        }
        if input.is_some_and(within) {
            return Err(refuse("the input lies in it").help("Name another folder for --out."));
        }
        let anchor = anchor(parent);
        if !anchor.is_dir() {
            return Err(refuse(&format!("{} is not a folder", anchor.display())));
        }
        let target = Self { out, force };
        target.is_free()?;
        Ok(target)
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.out
    }

    fn is_free(&self) -> Result<Free, Failed> {
        let failed = |e: io::Error| Failed::file("use", &self.out, &e);
        match fs::symlink_metadata(&self.out) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Free::Absent),
            Err(e) => return Err(failed(e)),
            Ok(metadata) if !metadata.is_dir() => {
                let what = format!("{} is a file, not a folder", self.out.display());
                return Err(Failed::new(Exit::Usage, "bad_output_folder", what)
                    .help("Name another folder for --out."));
            }
            Ok(_) => {}
        }
        let names = fs::read_dir(&self.out)
            .and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect::<Result<Vec<_>, _>>())
            .map_err(failed)?;
        if names.is_empty() {
            return Ok(Free::Empty);
        }
        let ours = ours(&self.out);
        let stranger =
            names.iter().find(|name| !name.to_str().is_some_and(|name| ours.iter().any(|o| o == name)));
        let what = format!("{} already holds something", self.out.display());
        let full = Failed::new(Exit::Usage, "output_not_empty", what);
        match stranger {
            Some(name) => Err(full.help(format!(
                "It holds {:?}, which mpegflow did not make and will not delete. Name another folder for --out.",
                name.to_string_lossy()
            ))),
            None if self.force => Ok(Free::Ours),
            None => Err(full.help("It holds an earlier result: replace it with --force, or name another folder for --out.")),
        }
    }
}

enum Free {
    Absent,
    Empty,
    /// An earlier result and nothing else, which may be replaced.
    Ours,
}

/// The nearest folder at or above a path that exists.
fn anchor(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// The report in a folder, where there is one. A folder with one is whole: it came there by one rename.
pub(crate) fn report_in(dir: &Path) -> Option<Report> {
    use std::io::Read as _;
    let mut text = Vec::new();
    File::open(dir.join(REPORT)).ok()?.take(MAX_REPORT).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Names in a folder that its report says we made; none where there is no report.
fn ours(dir: &Path) -> Vec<String> {
    let Some(report) = report_in(dir) else { return Vec::new() };
    let mut names: Vec<String> = report.job.outputs.into_iter().map(|output| output.name).collect();
    names.extend([REPORT, PAGE, PLAYER].map(String::from));
    names
}

/// The absolute path with every link of the part that exists resolved, so that a rename goes where it seems to.
fn resolve(out: &Path) -> Result<PathBuf, Failed> {
    let failed = |e: io::Error| Failed::file("use", out, &e);
    let out = std::path::absolute(out).map_err(failed)?;
    let mut rest = Vec::new();
    for ancestor in out.ancestors() {
        match ancestor.canonicalize() {
            Ok(real) => return Ok(rest.iter().rev().fold(real, |path, name| path.join(name))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => match ancestor.file_name() {
                Some(name) => rest.push(name),
                // `missing/..`: where that would lead is not known.
                None => return Err(failed(e)),
            },
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(out)
}

/// A folder for everything that is not finished. Removed, with all in it, when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    root: PathBuf,
    // Held for its lock.
    _lock: File,
}

impl Scratch {
    /// Makes one beside `target`, after removing those of killed runs.
    pub(crate) fn beside(target: &Target) -> Result<Self, Failed> {
        let name = target.out.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!("{name}.partial-");
        let anchor = anchor(target.out.parent().unwrap_or(Path::new("/")));
        remove_abandoned(anchor, &prefix);
        Self::make(anchor, &prefix)
    }

    /// Makes one in the system's folder for such things, for commands without an output folder.
    pub(crate) fn temporary() -> Result<Self, Failed> {
        let prefix = "mpegflow.partial-";
        let parent = std::env::temp_dir();
        remove_abandoned(&parent, prefix);
        Self::make(&parent, prefix)
    }

    fn make(parent: &Path, prefix: &str) -> Result<Self, Failed> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let root = parent.join(format!("{prefix}{}", id.get(..12).unwrap_or(&id)));
        let failed = |e: io::Error| {
            Failed::file("create", &root, &e).help("Choose an output folder where you may write.")
        };
        // State holds keys and the tenant's media: nobody else's business.
        fs::DirBuilder::new().mode(0o700).create(&root).map_err(failed)?;
        let made = (|| {
            let lock = File::create(root.join(LOCK))?;
            lock.try_lock().map_err(io::Error::from)?;
            fs::create_dir(root.join("files"))?;
            Ok(lock)
        })();
        match made {
            Ok(lock) => Ok(Self { root, _lock: lock }),
            Err(e) => {
                let _ = fs::remove_dir_all(&root);
                Err(failed(e))
            }
        }
    }

    /// For the embedded broker and the workers.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// For the result.
    pub(crate) fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Moves the result to its target in one step.
    pub(crate) fn commit(self, target: &Target) -> Result<(), Failed> {
        let failed = |e: io::Error| Failed::file("make", &target.out, &e);
        let files = self.files();
        let parent = target.out.parent().unwrap_or(Path::new("/"));
        sync_dir(&files).map_err(failed)?;
        fs::create_dir_all(parent).map_err(failed)?;
        match target.is_free()? {
            Free::Absent => rename(&files, &target.out, RenameFlags::NOREPLACE).map_err(failed)?,
            // rename(2) replaces an empty folder, and refuses should it have been filled meanwhile.
            Free::Empty => fs::rename(&files, &target.out).map_err(failed)?,
            // The old result ends up in the scratch folder and goes with it.
            Free::Ours => rename(&files, &target.out, RenameFlags::EXCHANGE).map_err(failed)?,
        }
        sync_dir(parent).map_err(failed)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.root);
    }
}

/// Removes a scratch folder even while something still writes into it.
pub(crate) fn remove(root: &Path) {
    for _ in 0..20 {
        match fs::remove_dir_all(root) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => std::thread::sleep(Duration::from_millis(25)),
            _ => return,
        }
    }
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, flags) {
        // A file system that does not know the flags (NFS, some FUSE): nothing there can be exchanged, and what is absent
        // was absent a moment ago.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if flags == RenameFlags::EXCHANGE {
                let old = from.with_file_name("old");
                fs::rename(to, &old)?;
            }
            fs::rename(from, to)
        }
        other => Ok(other?),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn remove_abandoned(parent: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let ours = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(prefix))
            .is_some_and(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        let settled = entry
            .metadata()
            .and_then(|m| m.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > SETTLED));
        if !ours || !settled {
            continue;
        }
        match File::open(entry.path().join(LOCK)) {
            Ok(lock) if lock.try_lock().is_ok() => remove(&entry.path()),
            // Killed before it had its lock: then it is empty. Should it not be, it is not ours.
            Err(e) if e.kind() == io::ErrorKind::NotFound => drop(fs::remove_dir(entry.path())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names(dir: &Path) -> BTreeSet<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn result(target: &Target, outputs: &[&str]) -> Scratch {
        let scratch = Scratch::beside(target).unwrap();
        let report = serde_json::json!({
            "mpegflow": "0", "source": null,
            "job": {
                "id": "job_00000000000000000000000000000abc", "state": "succeeded", "tasks": [], "created_at": "",
                "spec": { "version": 1, "input": { "upload": "upl_00000000000000000000000000000abc" }, "preset": "web" },
                "progress": { "percent": 100.0, "frames": 1 },
                "outputs": outputs.iter().map(|name| serde_json::json!({
                    "name": name, "url": "", "size": 0, "content_type": "", "digest": "",
                })).collect::<Vec<_>>(),
            },
        });
        fs::write(scratch.files().join(REPORT), report.to_string()).unwrap();
        for name in outputs {
            fs::write(scratch.files().join(name), "new").unwrap();
        }
        scratch
    }

    #[test]
    fn nothing_is_seen_before_the_commit_and_everything_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/b");
        let target = Target::new(&out, false, None).unwrap();
        let scratch = result(&target, &["master.m3u8"]);
        assert!(!dir.path().join("a").exists());
        scratch.commit(&target).unwrap();
        assert_eq!(names(&out), BTreeSet::from(["master.m3u8".into(), REPORT.into()]));
        assert_eq!(names(dir.path()), BTreeSet::from(["a".into()]), "the scratch folder is gone");
    }

    #[test]
    fn a_run_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::new(&dir.path().join("out"), false, None).unwrap();
        drop(result(&target, &["master.m3u8"]));
        assert_eq!(names(dir.path()), BTreeSet::new());
    }

    #[test]
    fn what_a_killed_run_left_is_removed_by_the_next_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::new(&dir.path().join("out"), false, None).unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(60);
        let age = |path: &Path| File::open(path).unwrap().set_modified(old).unwrap();
        // What kill -9 leaves: files, and a lock that the kernel has released.
        let killed = dir.path().join("out.partial-0123456789ab");
        fs::create_dir_all(killed.join("files")).unwrap();
        fs::write(killed.join(LOCK), "").unwrap();
        fs::write(killed.join("files/video.mp4"), "half").unwrap();
        age(&killed);
        let strange = dir.path().join("out.partial-notes");
        fs::create_dir(&strange).unwrap();
        age(&strange);
        let living = Scratch::beside(&target).unwrap();
        age(living.root());
        let next = Scratch::beside(&target).unwrap();
        assert!(!killed.exists() && strange.exists() && living.root().exists() && next.root().exists());
        assert!(!dir.path().join("out").exists());
    }

    #[test]
    fn a_folder_that_holds_something_is_refused_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("thesis.txt"), "mine").unwrap();
        for force in [false, true] {
            let refused = Target::new(&out, force, None).unwrap_err();
            assert_eq!((refused.exit, refused.code.as_str()), (Exit::Usage, "output_not_empty"));
            assert!(refused.help.unwrap().contains("thesis.txt"));
        }
        assert_eq!(names(&out), BTreeSet::from(["thesis.txt".into()]));
    }

    #[test]
    fn force_replaces_an_earlier_result_as_a_whole_and_only_that() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let target = Target::new(&out, false, None).unwrap();
        result(&target, &["master.m3u8", "video-1080p.mp4"]).commit(&target).unwrap();
        assert!(Target::new(&out, false, None).unwrap_err().help.unwrap().contains("--force"));
        let again = Target::new(&out, true, None).unwrap();
        result(&again, &["master.m3u8"]).commit(&again).unwrap();
        assert_eq!(names(&out), BTreeSet::from(["master.m3u8".into(), REPORT.into()]));
        fs::write(out.join("notes.txt"), "mine").unwrap();
        assert!(Target::new(&out, true, None).is_err(), "a stranger's file came into it");
        assert_eq!(names(dir.path()), BTreeSet::from(["out".into()]));
    }

    #[test]
    fn a_folder_filled_while_the_job_ran_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let target = Target::new(&out, false, None).unwrap();
        let scratch = result(&target, &["master.m3u8"]);
        fs::create_dir(&out).unwrap();
        fs::write(out.join("other.txt"), "mine").unwrap();
        assert!(scratch.commit(&target).is_err());
        assert_eq!(names(&out), BTreeSet::from(["other.txt".into()]));
    }

    #[test]
    fn folders_whose_replacement_would_hurt_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in.mp4");
        fs::write(&input, "x").unwrap();
        for (out, why) in [(Path::new("/"), "root"), (Path::new("."), "current"), (dir.path(), "input")] {
            let refused = Target::new(out, true, Some(&input)).unwrap_err();
            assert!(refused.what.contains(why), "{}: {}", out.display(), refused.what);
        }
        assert!(Target::new(&input, true, None).unwrap_err().what.contains("is a file"));
        assert!(Target::new(&input.join("x"), true, None).is_err());
    }
}
