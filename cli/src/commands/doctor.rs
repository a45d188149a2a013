//! `mpegflow doctor`: which lock, library or right is missing on this machine.

use crate::args::Doctor;
use crate::exit::{Exit, Failed};
use crate::ui::{Tone, Ui, bytes};
use crate::workers;
use serde::Serialize;
use std::path::Path;

/// Less free space than this is worth a word: an hour of video and its renditions.
const COMFORTABLE: u64 = 5 << 30;
/// Less than this and nothing can be made.
const REQUIRED: u64 = 256 << 20;

#[derive(Debug, Serialize)]
struct Line {
    name: String,
    ok: bool,
    /// Whether nothing works without it.
    required: bool,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Line {
    fn new(name: &str, ok: bool, detail: impl Into<String>, remedy: &str) -> Self {
        let remedy = (!ok).then(|| remedy.to_owned());
        Self { name: name.into(), ok, required: true, detail: detail.into(), remedy }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Doctor, ui: Ui) -> Result<(), Failed> {
    let mut lines = vec![kernel()];
    lines.extend(mpegflow_lockdown::support().into_iter().map(lock_line));
    for name in ["mpegflow-worker", "mpegflow-codec"] {
        lines.push(program(name, args.libexec.libexec.as_deref()));
    }
    lines.push(space(args.data.as_deref().unwrap_or(Path::new("."))));
    lines.push(Line {
        required: false,
        ..Line::new(
            "player",
            !crate::web::HLS_JS.is_empty(),
            if crate::web::HLS_JS.is_empty() { "hls.js is not built in" } else { "hls.js is built in" },
            "Run `npm ci --ignore-scripts` in cli/web and build again; until then pages play only where the browser knows HLS.",
        )
    });
    if ui.json {
        ui.json(&lines, true);
    } else {
        lines.iter().for_each(|line| print(line, ui));
    }
    let missing: Vec<&str> = lines.iter().filter(|l| !l.ok && l.required).map(|l| l.name.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failed::new(Exit::Failed, "not_ready", format!("this machine lacks {}", missing.join(", "))))
}

fn print(line: &Line, ui: Ui) {
    let mark = match (line.ok, line.required) {
        (true, _) => ui.tone(Tone::Good, "ok     "),
        (false, true) => ui.tone(Tone::Bad, "missing"),
        (false, false) => ui.tone(Tone::Warn, "lacking"),
    };
    ui.line(format!("{mark}  {:<18}  {}", line.name, line.detail));
    if let Some(remedy) = &line.remedy {
        ui.line(format!("{:>27}  → {remedy}", ""));
    }
}

fn lock_line(finding: mpegflow_lockdown::Finding) -> Line {
    Line::new(finding.name, finding.ok, finding.detail, &finding.remedy)
}

fn kernel() -> Line {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let detail = format!("{} {} on {}", text(uname.sysname()), text(uname.release()), text(uname.machine()));
    let supported = cfg!(all(target_os = "linux", target_arch = "x86_64"));
    Line::new("kernel", supported, detail, "The lock policy is reviewed for x86_64 Linux only.")
}

fn program(name: &str, libexec: Option<&Path>) -> Line {
    match workers::find(name, libexec) {
        Ok(path) => {
            let executable = rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).is_ok();
            Line::new(name, executable, path.display().to_string(), "Make it executable: chmod 755.")
        }
        Err(failed) => Line::new(name, false, failed.what, failed.help.as_deref().unwrap_or_default()),
    }
}

fn space(dir: &Path) -> Line {
    let name = "free space";
    match rustix::fs::statvfs(dir) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let detail = format!("{} in {}", bytes(free), dir.display());
            let line = Line::new(
                name,
                free >= COMFORTABLE,
                detail,
                "Free space, or choose another disk for --out or --data.",
            );
            Line { required: free < REQUIRED, ..line }
        }
        Err(e) => {
            Line::new(name, false, format!("{}: {e}", dir.display()), "Name a folder that exists by --data.")
        }
    }
}
