//! A server that ends with the test process, however that ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `sh` with this starts the program, waits until its own standard input ends, and ends the program. That input is a pipe
/// whose other end the test process holds, so that even a killed test leaves nothing behind. A program that ends first
/// leaves its exit code in a file.
const GUARD: &str = r#"
code=$1; shift
"$@" </dev/null & pid=$!
( wait_for=$pid; while kill -0 $wait_for 2>/dev/null; do sleep 0.2; done; : >"$code" ) & watch=$!
cat >/dev/null
kill $watch 2>/dev/null
kill $pid 2>/dev/null
for _ in $(seq 100); do kill -0 $pid 2>/dev/null || break; sleep 0.05; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
"#;

/// A running server. Dropping it ends the server and waits for that.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    guard: Child,
    log: PathBuf,
    ended: PathBuf,
}

impl Process {
    /// Starts a command; what it writes goes to `NAME.log` in the folder.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(name: &'static str, dir: &Path, command: &Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        let ended = dir.join(format!("{name}.ended"));
        let _ = fs::remove_file(&ended);
        let out = File::options().create(true).append(true).open(&log).expect("a log file");
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]).arg(&ended).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guard.env(key, value),
                None => guard.env_remove(key),
            };
        }
        let guard = guard
            .stdin(Stdio::piped())
            .stdout(out.try_clone().expect("a second handle"))
            .stderr(out)
            .spawn()
            .unwrap_or_else(|e| panic!("{name} cannot be started: {e}"));
        Self { name, guard, log, ended }
    }

    /// Whether the program has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.ended.exists()
    }

    /// The program's process id, as long as it runs.
    pub fn pid(&self) -> Option<u32> {
        let guard = self.guard.id();
        // The guard starts the program first.
        let children = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// All it has written.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Ends it by SIGTERM, and by SIGKILL after five seconds.
    pub fn stop(&mut self) {
        drop(self.guard.stdin.take());
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if matches!(self.guard.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} does not end", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}
