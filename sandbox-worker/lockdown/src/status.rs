//! `/proc/PID/status`, parsed: any bytes give the facts, or an error that names the line.

use std::str::FromStr;

/// Longest status that is read. The kernel writes about 1.5 KiB.
pub(crate) const MAX: usize = 64 * 1024;

/// A line that is not as the kernel writes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// Not text.
    #[error("the status is not text")]
    NotText,
    /// Longer than any status.
    #[error("the status is longer than {MAX} bytes")]
    TooLong,
    /// Absent.
    #[error("the status has no line `{0}:`")]
    Missing(&'static str),
    /// Present twice.
    #[error("the status has two lines `{0}:`")]
    Twice(&'static str),
    /// Present and unreadable.
    #[error("the line `{0}:` cannot be read")]
    Malformed(&'static str),
}

/// The facts of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) tgid: u32,
    /// Real, effective, saved and file-system id.
    pub(crate) uids: [u32; 4],
    pub(crate) gids: [u32; 4],
    pub(crate) threads: u32,
    pub(crate) no_new_privs: u32,
    pub(crate) seccomp_mode: u32,
    pub(crate) seccomp_filters: u32,
    pub(crate) inheritable: u64,
    pub(crate) permitted: u64,
    pub(crate) effective: u64,
    pub(crate) bounding: u64,
    pub(crate) ambient: u64,
}

impl Status {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, StatusError> {
        if bytes.len() > MAX {
            return Err(StatusError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| StatusError::NotText)?;
        Ok(Self {
            tgid: number(text, "Tgid")?,
            uids: four(text, "Uid")?,
            gids: four(text, "Gid")?,
            threads: number(text, "Threads")?,
            no_new_privs: number(text, "NoNewPrivs")?,
            seccomp_mode: number(text, "Seccomp")?,
            seccomp_filters: number(text, "Seccomp_filters")?,
            inheritable: set(text, "CapInh")?,
            permitted: set(text, "CapPrm")?,
            effective: set(text, "CapEff")?,
            bounding: set(text, "CapBnd")?,
            ambient: set(text, "CapAmb")?,
        })
    }
}

/// The value of the one line with this name.
fn line<'a>(text: &'a str, name: &'static str) -> Result<&'a str, StatusError> {
    let mut found = text.split('\n').filter_map(|l| l.strip_prefix(name)?.strip_prefix(":\t"));
    match (found.next(), found.next()) {
        (None, _) => Err(StatusError::Missing(name)),
        (Some(value), None) => Ok(value),
        (Some(_), Some(_)) => Err(StatusError::Twice(name)),
    }
}

/// Digits only: `from_str` would also take a sign.
fn digits<T: FromStr>(text: &str, name: &'static str) -> Result<T, StatusError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(StatusError::Malformed(name));
    }
    text.parse().map_err(|_| StatusError::Malformed(name))
}

fn number(text: &str, name: &'static str) -> Result<u32, StatusError> {
    digits(line(text, name)?, name)
}

fn four(text: &str, name: &'static str) -> Result<[u32; 4], StatusError> {
    let all = line(text, name)?.split('\t').map(|v| digits(v, name)).collect::<Result<Vec<u32>, _>>()?;
    all.try_into().map_err(|_| StatusError::Malformed(name))
}

fn set(text: &str, name: &'static str) -> Result<u64, StatusError> {
    let value = line(text, name)?;
    if value.len() != 16 || !value.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(StatusError::Malformed(name));
    }
    u64::from_str_radix(value, 16).map_err(|_| StatusError::Malformed(name))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const SAMPLE: &str = "Name:\tmpegflow-codec\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t4711\nNgid:\t0\nPid:\t4711\n\
        Uid:\t65534\t65534\t65534\t65534\nGid:\t65534\t65534\t65534\t65534\nGroups:\t \nThreads:\t1\n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";

    #[test]
    fn a_status_as_the_kernel_writes_it_gives_the_facts() {
        let none = Status {
            tgid: 4711,
            uids: [65_534; 4],
            gids: [65_534; 4],
            threads: 1,
            no_new_privs: 1,
            seccomp_mode: 2,
            seccomp_filters: 3,
            inheritable: 0,
            permitted: 0,
            effective: 0,
            bounding: 0,
            ambient: 0,
        };
        assert_eq!(Status::parse(SAMPLE.as_bytes()), Ok(none));
    }

    #[test]
    fn the_own_status_can_be_read() {
        let own = std::fs::read("/proc/self/status").unwrap();
        assert_eq!(Status::parse(&own).unwrap().tgid, std::process::id());
    }

    #[test]
    fn each_line_has_to_be_there_once_and_well_formed() {
        for name in [
            "Tgid",
            "Uid",
            "Gid",
            "Threads",
            "NoNewPrivs",
            "Seccomp",
            "Seccomp_filters",
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
        ] {
            let line = SAMPLE.lines().find(|l| l.starts_with(&format!("{name}:"))).unwrap();
            let without = SAMPLE.replace(&format!("{line}\n"), "");
            assert_eq!(Status::parse(without.as_bytes()), Err(StatusError::Missing(name)));
            let twice = SAMPLE.to_owned() + line + "\n";
            assert_eq!(Status::parse(twice.as_bytes()), Err(StatusError::Twice(name)));
            for bad in ["", " 1", "+1", "-1", "0x1", "99999999999999999999", "1\t1"] {
                let text = SAMPLE.replace(line, &format!("{name}:\t{bad}"));
                assert_eq!(Status::parse(text.as_bytes()), Err(StatusError::Malformed(name)), "{bad:?}");
            }
        }
        assert_eq!(Status::parse(&[0xff]), Err(StatusError::NotText));
        assert_eq!(Status::parse(&vec![b'\n'; MAX + 1]), Err(StatusError::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_give_facts_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = Status::parse(&bytes);
        }

        #[test]
        fn a_changed_byte_never_panics(at in 0..SAMPLE.len(), to in any::<u8>()) {
            let mut bytes = SAMPLE.as_bytes().to_vec();
            bytes[at] = to;
            let _ = Status::parse(&bytes);
        }
    }
}
