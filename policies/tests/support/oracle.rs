//! Talks to a foreign engine of `policies/oracles`: one case a line in, one answer a line out, one process for all cases.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// The longest answer that is read, in bytes. Two hundred verdicts are some twenty thousand.
const MOST_ANSWER: u64 = 16 << 20;

/// How long an engine may think about one small cluster. Milliseconds are usual; the rest is for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running engine. It ends with this value.
#[derive(Debug)]
pub struct Oracle {
    name: &'static str,
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<Result<String, String>>,
}

/// What an engine says about one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Whether the packet passes; each direction too, for engines that tell them apart.
    Judged { ingress: Option<bool>, egress: Option<bool>, allowed: bool },
    /// The engine cannot judge this packet, and why: `policies/oracles/README.md` lists the reasons.
    Refused(String),
}

impl Oracle {
    /// Starts `cyclonus`, `netpol-analyzer` or `nca`, and builds it first where that has not happened on this machine.
    ///
    /// # Errors
    ///
    /// What `policies/oracles/build` said, or that the program does not start.
    pub fn start(name: &'static str) -> Result<Self, String> {
        let command = build(name)?;
        let (program, arguments) = command.split_first().ok_or_else(|| format!("{name}: no program"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name}: {program} does not start: {error}"))?;
        let stdin = child.stdin.take().ok_or("a piped standard input is there")?;
        let stdout = child.stdout.take().ok_or("a piped standard output is there")?;
        let (sender, answers) = sync_channel(1);
        // A thread of its own, so that waiting can end. It ends with the process or with the receiver.
        thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            while let Some(answer) = read_line(&mut reader) {
                if sender.send(answer).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name, child, stdin, answers })
    }

    /// The verdicts on `packets`, in their order, or the engine's reason to refuse the whole cluster.
    ///
    /// # Panics
    ///
    /// When the engine breaks the protocol, dies or thinks for more than a minute: no verdict can be had from it any more.
    pub fn ask(&mut self, id: &str, manifests: &str, packets: &[Value]) -> Result<Vec<Verdict>, String> {
        let mut line = json!({"id": id, "manifests": manifests, "queries": packets}).to_string();
        line.push('\n');
        let name = self.name;
        if let Err(error) = self.stdin.write_all(line.as_bytes()).and_then(|()| self.stdin.flush()) {
            panic!("{name} takes no more cases: {error}");
        }
        let answer = match self.answers.recv_timeout(PATIENCE) {
            Ok(Ok(answer)) => answer,
            Ok(Err(reason)) => panic!("{name}, case {id}: {reason}"),
            Err(RecvTimeoutError::Timeout) => panic!("{name}, case {id}: no answer within {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("{name}, case {id}: the program has ended"),
        };
        let answer: Value = serde_json::from_str(&answer).unwrap_or(Value::Null);
        assert_eq!(answer.get("id"), Some(&json!(id)), "{name} answers out of turn: {answer}");
        if let Some(reason) = answer.get("error").and_then(Value::as_str) {
            return Err(reason.to_owned());
        }
        let verdicts: Vec<Verdict> =
            answer.get("verdicts").and_then(Value::as_array).into_iter().flatten().map(verdict).collect();
        assert_eq!(verdicts.len(), packets.len(), "{name}, case {id}: a verdict is missing");
        Ok(verdicts)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn verdict(value: &Value) -> Verdict {
    let truth = |key: &str| value.get(key).and_then(Value::as_bool);
    match (truth("allowed"), value.get("error").and_then(Value::as_str)) {
        (Some(allowed), None) => {
            Verdict::Judged { ingress: truth("ingress"), egress: truth("egress"), allowed }
        }
        (_, Some(reason)) => Verdict::Refused(reason.to_owned()),
        (None, None) => panic!("neither a verdict nor a reason: {value}"),
    }
}

/// The next line, without more of it in memory than the limit; `None` at the end.
fn read_line(reader: &mut impl BufRead) -> Option<Result<String, String>> {
    let mut line = Vec::new();
    match reader.by_ref().take(MOST_ANSWER).read_until(b'\n', &mut line) {
        Err(error) => Some(Err(format!("unreadable answer: {error}"))),
        Ok(0) => None,
        Ok(_) if line.last() != Some(&b'\n') => Some(Err("an answer is cut off or too long".to_owned())),
        Ok(_) => Some(String::from_utf8(line).map_err(|error| format!("an answer is no text: {error}"))),
    }
}

/// Runs `policies/oracles/build NAME` and returns the command it prints.
fn build(name: &str) -> Result<Vec<String>, String> {
    let script = oracles_folder().join("build");
    let output = Command::new(&script)
        .arg(name)
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| format!("{} does not start: {error}", script.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    let command = line.ok_or_else(|| format!("{} does not say where {name} is: {text}", script.display()))?;
    Ok(command.split('\t').map(str::to_owned).collect())
}

/// `policies/oracles`, from any crate of the workspace.
fn oracles_folder() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .flat_map(|folder| [folder.join("oracles"), folder.join("policies/oracles")])
        .find(|folder| folder.join("build").is_file())
        .unwrap_or_else(|| here.join("oracles"))
}
