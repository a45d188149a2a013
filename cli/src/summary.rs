//! What is said of a finished job: what came out, and how it was isolated.

use crate::client::stem;
use crate::ui::{bytes, duration};
use mpegflow_protocol::api::{Estimate, Job, Task};
use mpegflow_protocol::evidence::Evidence;
use mpegflow_protocol::text::clean;
use std::time::Duration;

/// Renditions, duration, size, and how fast it went where the wall time is known.
pub(crate) fn made(job: &Job, wall: Option<Duration>) -> String {
    if job.spec.dry_run {
        return match &job.estimate {
            Some(estimate) => format!("would cost about {}", cost(estimate)),
            None => "nobody can say what it would cost: the input does not say how long it is".into(),
        };
    }
    let early = job.early.is_some();
    let media = |prefix: &'static str| {
        job.outputs
            .iter()
            .filter(move |o| o.content_type.starts_with(prefix) && !(early && is_chunk(stem(&o.name))))
    };
    let name = |output: &mpegflow_protocol::api::Output| {
        format!("{} {}", clean(stem(&output.name), 40), bytes(output.size))
    };
    let renditions: Vec<String> =
        media("video/").chain(media("audio/")).chain(media("image/")).map(name).collect();
    let has = |end: &str| job.outputs.iter().any(|output| output.name.ends_with(end));
    let kind = if has(".m3u8") {
        "HLS and DASH"
    } else if has(".mp4") {
        "MP4"
    } else if has(".m4a") {
        "sound"
    } else {
        "pictures"
    };
    let total = job.outputs.iter().fold(0_u64, |sum, output| sum.saturating_add(output.size));
    let length = job.media.as_ref().and_then(|m| m.duration_ms).map(Duration::from_millis);
    let mut text = match length {
        Some(length) => format!("{} of {kind}, {}", duration(length), bytes(total)),
        None => format!("{kind}, {}", bytes(total)),
    };
    if !renditions.is_empty() {
        text = format!("{text} ({})", renditions.join(", "));
    }
    if let Some(wall) = wall {
        text = format!("{text}, in {}", duration(wall));
        if let Some(length) = length
            && wall > Duration::ZERO
        {
            text = format!("{text} = {:.1}× real time", length.as_secs_f64() / wall.as_secs_f64());
        }
    }
    text
}

/// Whether a file is a chunk of a rung, such as `240p-03`.
fn is_chunk(stem: &str) -> bool {
    stem.rsplit_once('-').is_some_and(|(rung, number)| {
        rung.ends_with('p') && number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit())
    })
}

/// What a job costs.
pub(crate) fn cost(estimate: &Estimate) -> String {
    let Estimate { input_minutes, output_minutes, core_seconds } = estimate;
    format!(
        "{output_minutes:.1} minutes of output (from {input_minutes:.1} of input) and {core_seconds:.0} core-seconds"
    )
}

/// What of the input was lost, where anything was.
pub(crate) fn lost(job: &Job) -> Option<String> {
    let damage = job.damage?;
    let errors = match damage.decode_errors {
        0 => String::new(),
        1 => ", and one packet or frame was damaged".into(),
        n => format!(", and {n} packets or frames were damaged"),
    };
    let good = duration(Duration::from_millis(damage.good_ms));
    Some(match (damage.partial, damage.said_ms.map(Duration::from_millis)) {
        (true, Some(said)) => {
            format!("the input is cut off: {good} of the {} it says were good{errors}", duration(said))
        }
        (true, None) => format!("the input is cut off: {good} were good{errors}"),
        (false, _) if damage.decode_errors == 1 => "one packet or frame of the input was damaged".into(),
        (false, _) => format!("{} packets or frames of the input were damaged", damage.decode_errors),
    })
}

/// The locks that held for every process of the job, from its evidence; the weakest value where they differ.
pub(crate) fn isolation(job: &Job) -> String {
    let evidence: Vec<&Evidence> = job.tasks.iter().filter_map(|task| task.evidence.as_ref()).collect();
    let Some(first) = evidence.first() else {
        return "no evidence of any lock came with this job".into();
    };
    let least = |value: fn(&Evidence) -> u32| evidence.iter().map(|e| value(e)).min().unwrap_or(0);
    let all = |holds: fn(&Evidence) -> bool| evidence.iter().all(|e| holds(e));
    let mut uids: Vec<u32> = evidence.iter().map(|e| e.observed.uid).collect();
    uids.sort_unstable();
    uids.dedup();
    let uids: Vec<String> = uids.iter().map(ToString::to_string).collect();
    let one_profile =
        evidence.iter().all(|e| e.profile == first.profile && e.policy_digest == first.policy_digest);
    let yes_no = |yes: bool, what: &str| if yes { what.to_owned() } else { format!("NOT {what}") };
    let mut facts = vec![
        format!("{} fresh processes", evidence.len()),
        if one_profile {
            format!("profile {}", clean(&first.profile, 40))
        } else {
            "DIFFERENT profiles".into()
        },
        format!("{} seccomp filters", least(|e| e.observed.seccomp_filters)),
        yes_no(all(|e| e.observed.no_new_privs), "no-new-privs"),
        yes_no(all(|e| e.observed.capabilities == 0), "without capabilities"),
        format!("uid {}", uids.join(", ")),
    ];
    let observed = facts.join(", ");
    facts.clear();
    let landlock = least(|e| e.self_reported.landlock_abi);
    facts.push(if landlock == 0 { "NO Landlock".into() } else { format!("Landlock ABI {landlock}") });
    facts.push(yes_no(all(|e| e.self_reported.landlock_refused_open), "refused to open a file"));
    format!("{observed} (seen from outside); {} (self-reported)", facts.join(", "))
}

/// One line for one task.
pub(crate) fn task(task: &Task) -> String {
    let mut text = format!("{:<8} {:<9}", clean(&task.kind, 16), task.state.as_str());
    if task.attempts > 1 {
        text = format!("{text}  {} attempts", task.attempts);
    }
    if let Some(evidence) = &task.evidence {
        let (seen, said) = (&evidence.observed, &evidence.self_reported);
        text = format!(
            "{text}  {} · {} seccomp filters · Landlock ABI {} · uid {} · caps {:#x}",
            clean(&evidence.profile, 40),
            seen.seccomp_filters,
            said.landlock_abi,
            seen.uid,
            seen.capabilities
        );
        if let Some(usage) = &evidence.usage {
            let cpu = duration(Duration::from_millis(usage.cpu_ms));
            text = format!("{text} · {cpu} CPU · {} memory", bytes(usage.peak_memory));
        }
    }
    if let Some(failure) = &task.last_failure {
        text = format!("{text}  last failure {}: {}", failure.code, clean(&failure.message, 200));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(filters: [u32; 2]) -> Job {
        let task = |filters: u32| {
            serde_json::json!({ "kind": "probe", "state": "succeeded", "attempts": 1, "evidence": {
                "profile": "strict", "policy_digest": "ab",
                "observed": { "seccomp_mode": 2, "seccomp_filters": filters, "no_new_privs": true, "uid": 65534,
                    "gid": 65534, "capabilities": 0, "threads": 1 },
                "self_reported": { "landlock_abi": 4, "landlock_refused_open": true, "open_fds": 5,
                    "not_dumpable": true, "environment_empty": true },
            }})
        };
        serde_json::from_value(serde_json::json!({
            "id": "job_00000000000000000000000000000abc", "state": "succeeded", "created_at": "",
            "spec": { "version": 1, "input": { "upload": "upl_00000000000000000000000000000abc" }, "preset": "web" },
            "progress": { "percent": 100.0, "frames": 1 },
            "tasks": [task(filters[0]), task(filters[1])],
            "outputs": [
                { "name": "master.m3u8", "url": "", "size": 24, "content_type": "application/vnd.apple.mpegurl", "digest": "" },
                { "name": "video-720p.mp4", "url": "", "size": 1000, "content_type": "video/mp4", "digest": "" },
            ],
            "media": { "format": "mov", "size": 1, "duration_ms": 60000, "start_us": 0, "bit_rate": null, "streams": [], "tags": {} },
        }))
        .unwrap()
    }

    #[test]
    fn the_summary_says_what_came_out_and_how_fast() {
        assert_eq!(
            made(&job([2, 2]), Some(Duration::from_secs(30))),
            "1:00 min of HLS and DASH, 1.00 KiB (720p 1000 B), in 30.0 s = 2.0× real time"
        );
    }

    #[test]
    fn the_weakest_process_is_the_one_that_is_reported() {
        let text = isolation(&job([2, 1]));
        assert!(
            text.starts_with("2 fresh processes, profile strict, 1 seccomp filters, no-new-privs"),
            "{text}"
        );
        assert!(text.contains("Landlock ABI 4, refused to open a file (self-reported)"), "{text}");
    }

    #[test]
    fn a_job_without_evidence_claims_nothing() {
        let mut job = job([2, 2]);
        job.tasks.clear();
        assert_eq!(isolation(&job), "no evidence of any lock came with this job");
    }
}
