//! Which locks this machine can put on, for `mpegflow doctor`.

use crate::{kernel, rights};
use std::fs;

/// One lock or right on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked for.
    pub name: &'static str,
    /// It is there.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do where it is missing; empty where it is there.
    pub remedy: String,
}

impl Finding {
    fn there(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, ok: true, detail: detail.into(), remedy: String::new() }
    }

    fn missing(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, ok: false, detail: detail.into(), remedy: remedy.into() }
    }
}

/// Looks at each lock. Changes nothing.
pub fn support() -> Vec<Finding> {
    vec![landlock(), seccomp(), close_range(), proc(), identity()]
}

fn landlock() -> Finding {
    match rights::abi() {
        Ok(abi) => {
            let later = rights::RIGHTS.iter().filter(|r| r.abi > abi).count();
            let detail = match later {
                0 => format!("ABI {abi}"),
                n => format!("ABI {abi}; {n} later rights are held by seccomp alone"),
            };
            Finding::there("landlock", detail)
        }
        Err(e) => Finding::missing(
            "landlock",
            e.to_string(),
            "use Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK, and `landlock` in the kernel's lsm= list",
        ),
    }
}

fn seccomp() -> Finding {
    for (action, name) in [(libc::SECCOMP_RET_KILL_PROCESS, "kill"), (libc::SECCOMP_RET_ERRNO, "errno")] {
        if let Err(e) = kernel::seccomp_knows(action) {
            let remedy =
                "use a kernel with CONFIG_SECCOMP_FILTER, and a container profile that allows seccomp(2)";
            return Finding::missing("seccomp", format!("the {name} action: {e}"), remedy);
        }
    }
    Finding::there("seccomp", "filters that fail and filters that kill")
}

fn close_range() -> Finding {
    // An empty range at the very end: closes nothing.
    match kernel::close_from(i32::MAX) {
        Ok(()) => Finding::there("close_range", "descriptors can be closed in one step"),
        Err(e) => Finding::missing("close_range", e.to_string(), "use Linux 5.11 or later"),
    }
}

fn proc() -> Finding {
    match crate::observe(std::process::id()) {
        Ok(_) => Finding::there("proc", "the status of a process can be read"),
        Err(e) => Finding::missing("proc", e.to_string(), "mount /proc without hidepid"),
    }
}

/// Capabilities by number: CAP_SETGID, CAP_SETUID, CAP_SETPCAP.
const NEEDED_BY_ROOT: [(u32, &str); 3] = [(6, "CAP_SETGID"), (7, "CAP_SETUID"), (8, "CAP_SETPCAP")];

fn identity() -> Finding {
    const NAME: &str = "identity";
    let remedy = "run as a user other than root, or give root CAP_SETUID, CAP_SETGID and CAP_SETPCAP";
    let root = match kernel::ids() {
        Ok((users, _)) => users.contains(&0),
        Err(e) => return Finding::missing(NAME, e.to_string(), remedy),
    };
    if !root {
        return Finding::there(NAME, "not root; the codec runs as the same user, without capabilities");
    }
    let effective = match kernel::capabilities() {
        Ok([low, _]) => low.effective,
        Err(e) => return Finding::missing(NAME, e.to_string(), remedy),
    };
    let lacking: Vec<&str> =
        NEEDED_BY_ROOT.iter().filter(|(n, _)| effective & (1_u32 << n) == 0).map(|(_, name)| *name).collect();
    if !lacking.is_empty() {
        return Finding::missing(NAME, format!("root without {}", lacking.join(", ")), remedy);
    }
    match fs::read_to_string("/proc/self/uid_map") {
        Ok(map) if maps(&map, crate::NOBODY) => Finding::there(NAME, "root; the codec becomes nobody"),
        Ok(_) => Finding::missing(
            NAME,
            "user 65534 does not exist in this user namespace",
            "map 65536 ids into the namespace",
        ),
        Err(e) => Finding::missing(NAME, format!("/proc/self/uid_map: {e}"), "mount /proc"),
    }
}

fn maps(uid_map: &str, id: u32) -> bool {
    uid_map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        match (fields.next(), fields.next(), fields.next()) {
            (Some(Ok(first)), Some(Ok(_)), Some(Ok(length))) => {
                u64::from(id).checked_sub(first).is_some_and(|offset| offset < length)
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_says_what_was_found_and_a_missing_one_what_to_do() {
        let findings = support();
        assert_eq!(
            findings.iter().map(|f| f.name).collect::<Vec<_>>(),
            ["landlock", "seccomp", "close_range", "proc", "identity"]
        );
        for f in findings {
            assert!(!f.detail.is_empty() && f.ok == f.remedy.is_empty(), "{f:?}");
        }
    }

    #[test]
    fn a_user_namespace_maps_what_its_table_says() {
        assert!(maps("         0          0 4294967295\n", 65_534));
        assert!(maps("0 100000 1\n65534 165534 1\n", 65_534));
        for map in ["", "0 0 65534\n", "65535 0 10\n", "x y z\n"] {
            assert!(!maps(map, 65_534), "{map:?}");
        }
    }
}
