//! Running the real programs, and looking at what they leave behind.

use crate::program;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `mpegflow` with nothing of this process's environment that it could mistake for configuration.
pub fn mpegflow() -> Command {
    let mut command = Command::new(program("mpegflow"));
    for name in
        ["MPEGFLOW_URL", "MPEGFLOW_API_KEY", "MPEGFLOW_API_KEY_FILE", "MPEGFLOW_CA", "MPEGFLOW_LIBEXEC"]
    {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end, and fails the test when that takes longer than `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let out = drain(child.stdout.take().unwrap());
    let err = drain(child.stderr.take().unwrap());
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!(
                "{command:?} did not end within {limit:?}\n{}",
                String::from_utf8_lossy(&err.join().unwrap())
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// Both streams of an output, for a failed assertion.
pub fn text(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A process that is killed when the test is done with it.
pub struct Process {
    child: Child,
    /// What it wrote to standard error so far goes to this file.
    pub log: PathBuf,
}

impl Process {
    /// Starts `command` with its standard error in `log`.
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .expect("the program starts");
        Self { child, log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lines it prints.
    pub fn lines(&mut self) -> impl Iterator<Item = String> {
        BufReader::new(self.child.stdout.take().expect("lines are read once")).lines().map_while(Result::ok)
    }

    /// SIGKILL, and wait.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        signal_pid(self.pid(), signal);
    }

    /// Waits for the end.
    pub fn wait(&mut self, limit: Duration) -> std::process::ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                started.elapsed() < limit,
                "process {} did not end; see {}",
                self.pid(),
                self.log.display()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal (`TERM`, `KILL`…) to one process.
pub fn signal_pid(pid: u32, signal: &str) {
    let _ =
        Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).stderr(Stdio::null()).status();
}

/// Every descendant of `root`: process id and the name of its program.
pub fn descendants(root: u32) -> Vec<(u32, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // `pid (name) state ppid …`; the name may hold anything, so the last parenthesis ends it.
        let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else { continue };
        let mut rest = stat[close + 2..].split(' ');
        let zombie = rest.next() == Some("Z");
        let parent: u32 = rest.next().and_then(|p| p.parse().ok()).unwrap_or(0);
        if !zombie {
            all.push((pid, parent, stat[open + 1..close].to_owned()));
        }
    }
    let mut found: Vec<(u32, String)> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (pid, _, name) in all.iter().filter(|(_, p, _)| *p == parent) {
            parents.push(*pid);
            found.push((*pid, name.clone()));
        }
    }
    found
}

/// Waits until `what` holds, looking every 5 ms.
pub fn until<T>(what: &str, limit: Duration, mut test: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = test() {
            return value;
        }
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A broker or `serve` as a client reaches it.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address, such as `http://127.0.0.1:8080`.
    pub url: String,
    /// An API key.
    pub key: String,
}

impl Client {
    /// `mpegflow` set up to talk to it.
    pub fn command(&self) -> Command {
        let mut command = mpegflow();
        command.env("MPEGFLOW_URL", &self.url).env("MPEGFLOW_API_KEY", &self.key);
        command
    }

    /// Runs `mpegflow ARGS --output json`, which must succeed, and gives its last line of output.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = run(self.command().args(args).args(["--output", "json"]), Duration::from_secs(120));
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        last_json(&output)
    }

    /// Submits a file and gives the job's id.
    pub fn submit(&self, file: &Path, options: &[&str]) -> String {
        let mut args = vec!["jobs", "submit", file.to_str().unwrap()];
        args.extend(options);
        self.json(&args)["id"].as_str().expect("a job has an id").to_owned()
    }

    /// The job.
    pub fn job(&self, id: &str) -> Value {
        self.json(&["jobs", "show", id])
    }

    /// The job once it has ended.
    pub fn ended(&self, id: &str, limit: Duration) -> Value {
        let started = Instant::now();
        loop {
            let output =
                run(self.command().args(["jobs", "show", id, "--output", "json"]), Duration::from_secs(60));
            // While a test restarts the broker there is none to answer.
            if output.status.success() {
                let job = last_json(&output);
                if ["succeeded", "failed", "canceled"].contains(&job["state"].as_str().unwrap_or_default()) {
                    return job;
                }
                assert!(started.elapsed() < limit, "job {id} has not ended after {limit:?}: {job}");
            }
            assert!(started.elapsed() < limit, "job {id}: no answer: {}", text(&output));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The last JSON document a command printed: the whole output, or its last line.
pub fn last_json(output: &Output) -> Value {
    let all = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&all)
        .or_else(|_| serde_json::from_str(all.lines().last().unwrap_or_default()))
        .unwrap_or_else(|e| panic!("not JSON ({e}): {}", text(output)))
}

/// Every file below `folder`, relative to it, sorted.
pub fn files(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, base: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                walk(&entry.path(), base, found);
            } else {
                found.push(entry.path().strip_prefix(base).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}

/// `mpegflow serve` on a data folder that outlives it.
pub struct Serve {
    /// The process: broker, and parent of its workers.
    pub process: Process,
    /// How to reach it.
    pub client: Client,
}

impl Serve {
    /// Starts it at `port` (0: any) and waits until it answers.
    pub fn start(data: &Path, port: u16, options: &[&str]) -> Self {
        let mut command = mpegflow();
        command.args(["serve", "--output", "json", "--data", data.to_str().unwrap()]);
        command.args(["--listen", &format!("127.0.0.1:{port}")]).args(options);
        let log = data.with_extension("log");
        let mut process = Process::start(&mut command, log);
        let first = process.lines().next();
        let line = first.unwrap_or_else(|| {
            panic!("serve said nothing: {}", std::fs::read_to_string(&process.log).unwrap())
        });
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let field =
            |name: &str| said[name].as_str().unwrap_or_else(|| panic!("no {name} in {line}")).to_owned();
        Self { client: Client { url: field("url"), key: field("api_key") }, process }
    }

    /// Process ids of its descendants that run `program`. The kernel cuts names at 15 characters.
    pub fn running(&self, program: &str) -> Vec<u32> {
        let name = &program[..program.len().min(15)];
        descendants(self.process.pid()).into_iter().filter(|(_, n)| n == name).map(|(pid, _)| pid).collect()
    }
}

/// Whether a process is there (a zombie is not).
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}
