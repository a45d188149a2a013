//! Several files by one command: each into a folder of its own, never twice, and never half.

use mpegflow_tests::media;
use mpegflow_tests::system::{Process, descendants, files, last_json, mpegflow, run, text, until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

const LIMIT: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(60);

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// With a folder of copies of a clip of two seconds under these names.
    fn with(names: &[&str]) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(bench.inbox()).unwrap();
        names.iter().for_each(|name| bench.put(name));
        bench
    }

    fn inbox(&self) -> PathBuf {
        self.folder.path().join("in")
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn put(&self, name: &str) {
        let path = self.inbox().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(media::clip(2, 320, 240), path).unwrap();
    }

    fn command(&self, names: &[&str], options: &[&str]) -> Command {
        let mut command = mpegflow();
        command.arg("transcode").args(names.iter().map(|name| self.inbox().join(name)));
        command.arg("--out").arg(self.out()).args(options);
        for (option, value) in [("--preset", "audio"), ("--output", "json")] {
            if !options.contains(&option) {
                command.args([option, value]);
            }
        }
        command
    }

    fn run(&self, names: &[&str], options: &[&str]) -> Output {
        run(&mut self.command(names, options), LIMIT)
    }

    fn made(&self) -> Vec<String> {
        files(&self.out()).into_iter().filter(|f| f.ends_with("mpegflow.json")).collect()
    }

    fn made_at(&self, name: &str) -> SystemTime {
        std::fs::metadata(self.out().join(name).join("mpegflow.json")).unwrap().modified().unwrap()
    }

    /// Nothing half-made: no scratch folder is left, and every result is whole.
    fn is_clean(&self) {
        for file in files(&self.out()) {
            assert!(!file.contains(".partial-"), "{file} is left");
        }
        for made in self.made() {
            let folder = self.out().join(Path::new(&made).parent().unwrap());
            let report: Value =
                serde_json::from_slice(&std::fs::read(folder.join("mpegflow.json")).unwrap()).unwrap();
            for output in report["job"]["outputs"].as_array().unwrap() {
                let size = std::fs::metadata(folder.join(output["name"].as_str().unwrap())).unwrap().len();
                assert_eq!(Some(size), output["size"].as_u64(), "{made}");
            }
        }
    }
}

fn states(said: &Value) -> Vec<&str> {
    said["files"].as_array().unwrap().iter().map(|f| f["state"].as_str().unwrap()).collect()
}

#[test]
fn each_file_gets_a_folder_and_is_not_done_twice_and_a_bad_one_spoils_no_other() {
    let bench = Bench::with(&["a.mov", "b.b.mp4"]);
    std::fs::write(bench.inbox().join("bad.mov"), "this is no video").unwrap();
    let names = ["a.mov", "bad.mov", "b.b.mp4"];
    let output = bench.run(&names, &["--jobs", "2"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let said = last_json(&output);
    assert_eq!(states(&said), ["made", "failed", "made"], "{said}");
    assert_eq!(said["files"][1]["error"]["code"], "input_unrecognised", "{said}");
    assert_eq!((&said["made"], &said["failed"]), (&2.into(), &1.into()));
    assert_eq!(bench.made(), ["a/mpegflow.json", "b.b/mpegflow.json"]);
    bench.is_clean();
    // Again: what is there is not touched.
    let before = bench.made_at("a");
    let said = last_json(&bench.run(&names, &[]));
    assert_eq!(states(&said), ["made_before", "failed", "made_before"], "{said}");
    assert_eq!(bench.made_at("a"), before);
    // Another state of a file, or other options, is another result: not taken for the old one, and not put over it.
    std::fs::File::open(bench.inbox().join("a.mov")).unwrap().set_modified(SystemTime::now()).unwrap();
    let refused = bench.run(&["a.mov", "b.b.mp4"], &[]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("another state of"), "{}", text(&refused));
    let said = last_json(&bench.run(&["a.mov", "b.b.mp4"], &["--force"]));
    assert_eq!(states(&said), ["made", "made"], "{said}");
    bench.is_clean();
}

#[test]
fn two_files_that_would_go_to_one_folder_are_refused_before_anything_is_begun() {
    let bench = Bench::with(&["a.mov", "a.mp4", "x/a.mov", "b.mov"]);
    for names in [&["b.mov", "a.mov", "a.mp4"][..], &["a.mov", "x/a.mov"], &["a.mov", "a.mov"]] {
        let output = bench.run(names, &[]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("name_collision"), "{}", text(&output));
        assert!(!bench.out().exists(), "something was begun: {:?}", files(&bench.out()));
    }
    // What somebody else put there stays.
    std::fs::create_dir_all(bench.out().join("b")).unwrap();
    std::fs::write(bench.out().join("b/mine.txt"), "mine").unwrap();
    let output = bench.run(&["a.mov", "b.mov"], &["--force"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert_eq!(files(&bench.out()), ["b/mine.txt"]);
}

#[test]
fn the_table_says_how_each_file_ended_and_one_file_can_be_a_batch() {
    let bench = Bench::with(&["a.mov"]);
    std::fs::write(bench.inbox().join("bad.mov"), "").unwrap();
    let output = run(bench.command(&["a.mov", "bad.mov"], &["--output", "text"]).env("TERM", "xterm"), LIMIT);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[0].starts_with("file") && lines[1].starts_with("a.mov") && lines[1].contains("made"),
        "{said}"
    );
    assert!(lines[2].starts_with("bad.mov") && lines[2].contains("input_empty"), "{said}");
    assert!(lines[3].starts_with("2 files: 1 made, 1 failed"), "{said}");
    assert!(!said.contains('\u{1b}'), "colour only on a terminal");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("a.mov: encode"), "progress names the file: {errors}");
    let said = last_json(&bench.run(&["a.mov"], &["--batch"]));
    assert_eq!(states(&said), ["made_before"]);
}

/// Runs over three files until the first is made and the second is under way.
fn interrupted(bench: &Bench, signal: &str) -> Option<i32> {
    let log = bench.folder.path().join("log");
    let mut process =
        Process::start(&mut bench.command(&["a.mov", "long.mp4", "z.mov"], &["--preset", "mp4"]), log);
    until("the first file is made", LIMIT, || (bench.made() == ["a/mpegflow.json"]).then_some(()));
    until("the second is encoded", SOON, || {
        let running = descendants(process.pid());
        (running.iter().any(|(_, name)| name == "mpegflow-codec")).then_some(())
    });
    process.signal(signal);
    let status = process.wait(SOON);
    assert_eq!(bench.made(), ["a/mpegflow.json"], "only what was whole is there");
    status.code()
}

fn with_a_long_one() -> Bench {
    let bench = Bench::with(&["a.mov", "z.mov"]);
    std::fs::copy(media::clip(8, 1280, 720), bench.inbox().join("long.mp4")).unwrap();
    bench
}

/// The same command, but for the long file, which served its purpose.
fn goes_on(bench: &Bench) {
    let before = bench.made_at("a");
    std::fs::copy(media::clip(2, 320, 240), bench.inbox().join("long.mp4")).unwrap();
    let output = bench.run(&["a.mov", "long.mp4", "z.mov"], &["--preset", "mp4"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(states(&last_json(&output)), ["made_before", "made", "made"]);
    assert_eq!(bench.made_at("a"), before);
    bench.is_clean();
}

#[test]
fn ctrl_c_leaves_nothing_half_made_and_the_same_command_goes_on() {
    let bench = with_a_long_one();
    assert_eq!(interrupted(&bench, "INT"), Some(130));
    bench.is_clean();
    goes_on(&bench);
}

#[test]
fn kill_9_leaves_nothing_that_looks_finished_and_the_same_command_goes_on() {
    let bench = with_a_long_one();
    assert_eq!(interrupted(&bench, "KILL"), None);
    // The next run takes away what the killed one left, once that is older than a moment.
    std::thread::sleep(Duration::from_secs(11));
    goes_on(&bench);
}

#[test]
fn a_watched_folder_takes_what_comes_waits_for_what_is_written_and_ends_when_idle() {
    use std::io::Write as _;
    let bench = Bench::with(&["a.mov", ".hidden.mov", "c.mov.part"]);
    let log = bench.folder.path().join("log");
    let watched = bench.inbox();
    let options = ["--watch", watched.to_str().unwrap(), "--settle", "2", "--until-idle", "8"];
    let mut process = Process::start(&mut bench.command(&[], &options), log);
    // One that grows for longer than it takes to settle.
    let whole = std::fs::read(media::clip(2, 320, 240)).unwrap();
    let mut slow = std::fs::File::create(bench.inbox().join("slow.mov")).unwrap();
    for piece in whole.chunks(whole.len().div_ceil(8)) {
        slow.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(700));
    }
    drop(slow);
    std::fs::rename(bench.inbox().join("c.mov.part"), bench.inbox().join("c.mov")).unwrap();
    let lines: Vec<Value> = process.lines().map(|line| serde_json::from_str(&line).unwrap()).collect();
    assert_eq!(process.wait(LIMIT).code(), Some(0), "{lines:?}");
    assert_eq!(bench.made(), ["a/mpegflow.json", "c/mpegflow.json", "slow/mpegflow.json"]);
    let slow: Vec<_> =
        lines.iter().filter(|l| l["input"].as_str().is_some_and(|i| i.ends_with("slow.mov"))).collect();
    assert_eq!(slow.len(), 1, "it was not begun before it was whole: {lines:?}");
    assert_eq!(lines.last().unwrap()["made"], 3, "{lines:?}");
    bench.is_clean();
    // Started again, it finds them done.
    let again = bench.run(&[], &["--watch", watched.to_str().unwrap(), "--settle", "1", "--until-idle", "1"]);
    assert!(again.status.success(), "{}", text(&again));
    assert_eq!(last_json(&again)["made_before"], 3, "{}", text(&again));
}

#[test]
fn a_file_that_changes_while_it_is_transcoded_is_not_taken_for_done() {
    let bench = with_a_long_one();
    let log = bench.folder.path().join("log");
    let mut process = Process::start(&mut bench.command(&["long.mp4"], &["--batch", "--preset", "mp4"]), log);
    until("it is encoded", SOON, || {
        descendants(process.pid()).iter().any(|(_, name)| name == "mpegflow-codec").then_some(())
    });
    std::fs::File::open(bench.inbox().join("long.mp4")).unwrap().set_modified(SystemTime::now()).unwrap();
    process.lines().for_each(drop);
    assert_eq!(process.wait(LIMIT).code(), Some(3));
    assert!(bench.made().is_empty());
    bench.is_clean();
}
