//! The look from outside, and the verdict on it.

use crate::enter::Report;
use crate::status::{MAX, Status, StatusError};
use crate::{NOBODY, kernel, policy, rights};
use std::fs::File;
use std::io::{self, Read};

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// 2 is filter mode.
    pub seccomp_mode: u32,
    /// Filters, inherited ones included.
    pub seccomp_filters: u32,
    /// no_new_privs is set.
    pub no_new_privs: bool,
    /// User id: real, effective, saved and file-system alike.
    pub uid: u32,
    /// Group id: real, effective, saved and file-system alike.
    pub gid: u32,
    /// Union of the inheritable, permitted, effective and ambient sets, and of the bounding set where the observer is root.
    pub capabilities: u64,
    /// Threads.
    pub threads: u32,
}

/// Why a process could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// Its status could not be read: it has ended, or /proc hides it.
    #[error("reading the status of process {0}")]
    Read(u32, #[source] io::Error),
    /// Its status is not as the kernel writes it.
    #[error("the status of process {0}")]
    Status(u32, #[source] StatusError),
    /// The status belongs to another process.
    #[error("the status of process {asked} names process {found}")]
    Other {
        /// Asked for.
        asked: u32,
        /// Found.
        found: u32,
    },
    /// Real, effective, saved and file-system ids are not all the same, so a privilege may come back.
    #[error("process {0} has more than one user or group id")]
    MixedIds(u32),
    /// The observer's own ids could not be read.
    #[error("reading the observer's own ids")]
    Own(#[source] io::Error),
}

/// Why a process may not be fed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLocked {
    /// The observer could not tell what it has itself, and so not what the process must have more.
    #[error("what the observer itself runs under cannot be told: {0}")]
    Baseline(String),
    /// seccomp is off.
    #[error("seccomp mode is {0}, not 2")]
    SeccompMode(u32),
    /// Filters are missing.
    #[error("{found} system-call filters, and {needed} are needed")]
    SeccompFilters {
        /// Seen.
        found: u32,
        /// Those of the policy on top of the observer's own.
        needed: u32,
    },
    /// no_new_privs is off.
    #[error("no_new_privs is off")]
    NewPrivs,
    /// Runs as root, or not as the user it ought to.
    #[error("the user id is {found}, not {needed}")]
    User {
        /// Seen.
        found: u32,
        /// Nobody where the observer is root, else the observer's own.
        needed: u32,
    },
    /// Runs in a group it ought not to.
    #[error("the group id is {found}, not {needed}")]
    Group {
        /// Seen.
        found: u32,
        /// Nobody where the observer is root, else the observer's own.
        needed: u32,
    },
    /// The observer is not root and the process is.
    #[error("the process runs as root")]
    Root,
    /// Capabilities are left.
    #[error("capabilities {0:#x} are left")]
    Capabilities(u64),
    /// There were other threads while the locks went on.
    #[error("{0} threads, not 1")]
    Threads(u32),
    /// Landlock is older than the floor, or absent.
    #[error("Landlock ABI {0} is below {floor}", floor = rights::FLOOR)]
    LandlockAbi(u32),
    /// The process did not see Landlock refuse.
    #[error("Landlock was not seen to refuse an open")]
    LandlockOpen,
    /// The process counts no descriptors, and yet reports over one.
    #[error("the process reports {0} open descriptors")]
    Descriptors(u32),
    /// It may be dumped and traced.
    #[error("the process is dumpable")]
    Dumpable,
    /// It has an environment.
    #[error("the process has an environment")]
    Environment,
}

/// Looks at process `pid`.
///
/// # Errors
/// It cannot be looked at, and so cannot be trusted.
pub fn observe(pid: u32) -> Result<Observed, ObserveError> {
    let status = read(&pid.to_string()).map_err(|e| match e {
        ReadError::Io(e) => ObserveError::Read(pid, e),
        ReadError::Status(e) => ObserveError::Status(pid, e),
    })?;
    if status.tgid != pid {
        return Err(ObserveError::Other { asked: pid, found: status.tgid });
    }
    let (users, _) = kernel::ids().map_err(ObserveError::Own)?;
    facts(&status, users.contains(&0)).ok_or(ObserveError::MixedIds(pid))
}

fn facts(s: &Status, observer_is_root: bool) -> Option<Observed> {
    let ([uid, uids @ ..], [gid, gids @ ..]) = (s.uids, s.gids);
    if uids != [uid; 3] || gids != [gid; 3] {
        return None;
    }
    let bounding = if observer_is_root { s.bounding } else { 0 };
    Some(Observed {
        seccomp_mode: s.seccomp_mode,
        seccomp_filters: s.seccomp_filters,
        no_new_privs: s.no_new_privs == 1,
        uid,
        gid,
        capabilities: s.inheritable | s.permitted | s.effective | s.ambient | bounding,
        threads: s.threads,
    })
}

enum ReadError {
    Io(io::Error),
    Status(StatusError),
}

fn read(process: &str) -> Result<Status, ReadError> {
    let mut bytes = Vec::with_capacity(4096);
    let limit = u64::try_from(MAX).unwrap_or(u64::MAX).saturating_add(1);
    File::open(format!("/proc/{process}/status"))
        .and_then(|f| f.take(limit).read_to_end(&mut bytes))
        .map_err(ReadError::Io)?;
    Status::parse(&bytes).map_err(ReadError::Status)
}

/// Judges what was seen of a process and what it says of itself.
///
/// # Errors
/// The first fact that is not as the strict profile demands; the process is not fed.
pub fn verify(observed: &Observed, report: &Report) -> Result<(), NotLocked> {
    let own = match read("thread-self") {
        Ok(own) => own,
        Err(ReadError::Io(e)) => return Err(NotLocked::Baseline(e.to_string())),
        Err(ReadError::Status(e)) => return Err(NotLocked::Baseline(e.to_string())),
    };
    judge(observed, report, &own)
}

fn judge(observed: &Observed, report: &Report, own: &Status) -> Result<(), NotLocked> {
    outside(observed, own)?;
    inside(report)
}

fn outside(o: &Observed, own: &Status) -> Result<(), NotLocked> {
    if o.seccomp_mode != 2 {
        return Err(NotLocked::SeccompMode(o.seccomp_mode));
    }
    // A container's own filter is inherited and counts, so it must not stand in for one of ours.
    let needed = own.seccomp_filters.saturating_add(policy::filters());
    if o.seccomp_filters < needed {
        return Err(NotLocked::SeccompFilters { found: o.seccomp_filters, needed });
    }
    if !o.no_new_privs {
        return Err(NotLocked::NewPrivs);
    }
    let [_, own_user, ..] = own.uids;
    let [_, own_group, ..] = own.gids;
    let (user, group) = if own.uids.contains(&0) { (NOBODY, NOBODY) } else { (own_user, own_group) };
    if o.uid == 0 {
        return Err(NotLocked::Root);
    }
    if o.uid != user {
        return Err(NotLocked::User { found: o.uid, needed: user });
    }
    if o.gid != group {
        return Err(NotLocked::Group { found: o.gid, needed: group });
    }
    if o.capabilities != 0 {
        return Err(NotLocked::Capabilities(o.capabilities));
    }
    if o.threads != 1 {
        return Err(NotLocked::Threads(o.threads));
    }
    Ok(())
}

fn inside(r: &Report) -> Result<(), NotLocked> {
    if r.landlock_abi < rights::FLOOR {
        return Err(NotLocked::LandlockAbi(r.landlock_abi));
    }
    if !r.landlock_refused_open {
        return Err(NotLocked::LandlockOpen);
    }
    if r.open_fds == 0 {
        return Err(NotLocked::Descriptors(r.open_fds));
    }
    if !r.not_dumpable {
        return Err(NotLocked::Dumpable);
    }
    if !r.environment_empty {
        return Err(NotLocked::Environment);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::SAMPLE;

    fn status(changes: &[(&str, &str)]) -> Status {
        let text = changes.iter().fold(SAMPLE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from:?}");
            text.replace(from, to)
        });
        Status::parse(text.as_bytes()).unwrap()
    }

    const ROOT: [(&str, &str); 3] = [
        ("Uid:\t65534\t65534\t65534\t65534", "Uid:\t0\t0\t0\t0"),
        ("Gid:\t65534\t65534\t65534\t65534", "Gid:\t0\t0\t0\t0"),
        ("filters:\t3", "filters:\t0"),
    ];

    const HONEST: Report = Report {
        landlock_abi: 1,
        landlock_refused_open: true,
        open_fds: 6,
        not_dumpable: true,
        environment_empty: true,
    };

    fn verdict(changes: &[(&str, &str)], report: Report, own: &Status) -> Result<(), NotLocked> {
        judge(&facts(&status(changes), own.uids.contains(&0)).unwrap(), &report, own)
    }

    #[test]
    fn only_a_process_with_every_lock_on_is_fed() {
        let root = status(&ROOT);
        assert_eq!(verdict(&[], HONEST, &root), Ok(()));
        for (line, changed, complaint) in [
            ("Seccomp:\t2", "Seccomp:\t0", NotLocked::SeccompMode(0)),
            ("Seccomp:\t2", "Seccomp:\t1", NotLocked::SeccompMode(1)),
            ("Seccomp:\t2", "Seccomp:\t3", NotLocked::SeccompMode(3)),
            ("filters:\t3", "filters:\t2", NotLocked::SeccompFilters { found: 2, needed: 3 }),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", NotLocked::NewPrivs),
            ("Uid:\t65534\t65534\t65534\t65534", "Uid:\t0\t0\t0\t0", NotLocked::Root),
            (
                "Uid:\t65534\t65534\t65534\t65534",
                "Uid:\t7\t7\t7\t7",
                NotLocked::User { found: 7, needed: NOBODY },
            ),
            (
                "Gid:\t65534\t65534\t65534\t65534",
                "Gid:\t0\t0\t0\t0",
                NotLocked::Group { found: 0, needed: NOBODY },
            ),
            ("CapInh:\t0000000000000000", "CapInh:\t0000000000000001", NotLocked::Capabilities(1)),
            ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000000002", NotLocked::Capabilities(2)),
            ("CapEff:\t0000000000000000", "CapEff:\t0000000000000004", NotLocked::Capabilities(4)),
            ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000008", NotLocked::Capabilities(8)),
            ("CapAmb:\t0000000000000000", "CapAmb:\t8000000000000000", NotLocked::Capabilities(1 << 63)),
            ("Threads:\t1", "Threads:\t2", NotLocked::Threads(2)),
        ] {
            assert_eq!(verdict(&[(line, changed)], HONEST, &root), Err(complaint));
        }
    }

    #[test]
    fn only_a_process_that_reports_every_lock_is_fed() {
        let root = status(&ROOT);
        for (report, complaint) in [
            (Report { landlock_abi: 0, ..HONEST }, NotLocked::LandlockAbi(0)),
            (Report { landlock_refused_open: false, ..HONEST }, NotLocked::LandlockOpen),
            (Report { open_fds: 0, ..HONEST }, NotLocked::Descriptors(0)),
            (Report { not_dumpable: false, ..HONEST }, NotLocked::Dumpable),
            (Report { environment_empty: false, ..HONEST }, NotLocked::Environment),
        ] {
            assert_eq!(verdict(&[], report, &root), Err(complaint));
        }
    }

    #[test]
    fn a_filter_that_the_container_brought_does_not_stand_in_for_one_of_ours() {
        let contained = status(&[ROOT[0], ROOT[1], ("filters:\t3", "filters:\t1")]);
        assert_eq!(verdict(&[], HONEST, &contained), Err(NotLocked::SeccompFilters { found: 3, needed: 4 }));
        assert_eq!(verdict(&[("filters:\t3", "filters:\t4")], HONEST, &contained), Ok(()));
    }

    #[test]
    fn without_root_the_process_has_the_supervisors_own_ids_and_the_bounding_set_is_left_out() {
        const USER: (&str, &str) = ("Uid:\t65534\t65534\t65534\t65534", "Uid:\t1000\t1000\t1000\t1000");
        const GROUP: (&str, &str) = ("Gid:\t65534\t65534\t65534\t65534", "Gid:\t0\t0\t0\t0");
        const BOUNDING: (&str, &str) = ("CapBnd:\t0000000000000000", "CapBnd:\t000001ffffffffff");
        let own = status(&[USER, GROUP, ROOT[2]]);
        assert_eq!(verdict(&[USER, GROUP, BOUNDING], HONEST, &own), Ok(()));
        assert_eq!(verdict(&[GROUP], HONEST, &own), Err(NotLocked::User { found: NOBODY, needed: 1000 }));
        assert_eq!(verdict(&[ROOT[0], GROUP], HONEST, &own), Err(NotLocked::Root));
    }

    #[test]
    fn ids_that_differ_among_themselves_are_not_accepted() {
        for (from, to) in [
            ("Uid:\t65534\t65534", "Uid:\t0\t65534"),
            ("Uid:\t65534\t65534\t65534\t65534", "Uid:\t65534\t65534\t0\t65534"),
            ("Gid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t0"),
        ] {
            assert_eq!(facts(&status(&[(from, to)]), true), None);
        }
    }

    #[test]
    fn this_process_can_be_observed_and_is_not_locked() {
        let own = observe(std::process::id()).unwrap();
        assert!(verify(&own, &HONEST).is_err());
    }
}
