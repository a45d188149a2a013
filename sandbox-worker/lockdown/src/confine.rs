//! The supervisor's own Landlock: it may connect to the broker's port (and to storage's, in a presigned pool), start the codec, and
//! read what both need to start.
//!
//! Weaker than the codec's locks by nature (the supervisor has a network), and best effort: a kernel that lacks a right simply
//! does not add that right. What came of it is a value, for the log.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use std::path::Path;

/// What a supervisor needs.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    /// The codec binary; its folder may hold its libraries.
    pub codec: &'a Path,
    /// The folder of unlinked output files.
    pub scratch: &'a Path,
    /// A file that changes while it runs, or the folder of such files: a token that the kubelet renews.
    pub reread: Option<&'a Path>,
    /// The TCP ports that it connects to: the broker's, and in a presigned pool those of storage.
    pub ports: &'a [u16],
}

/// How much of it the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confined {
    /// Files, TCP, signals and abstract sockets.
    Fully,
    /// Some of it: the kernel is older than Linux 6.12.
    Partly,
    /// Nothing: the kernel has no Landlock.
    Not,
}

/// Folders that hold the loader, libraries and what name resolution reads.
const LIBRARIES: [&str; 5] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"];
/// Read by the C library, by the look at a codec process from outside, and by a codec before it locks itself.
const READABLE: [&str; 4] = ["/etc", "/proc", "/sys/devices/system/cpu", "/dev/urandom"];

/// Confines the calling thread and all threads and processes that it starts later. Call it while there is one thread.
///
/// # Errors
/// The kernel has Landlock and refuses.
pub fn confine(needs: Needs<'_>) -> Result<Confined, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let run = read | AccessFs::Execute;
    let files = read | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::Truncate;
    let null: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile;
    let beside_codec = needs.codec.parent().into_iter();
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))?
        .handle_access(AccessNet::from_all(ABI::V6))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rules(path_beneath_rules([needs.codec], run))?
        .add_rules(path_beneath_rules(beside_codec, read))?
        .add_rules(path_beneath_rules(needs.reread, read))?
        .add_rules(path_beneath_rules(LIBRARIES, run))?
        .add_rules(path_beneath_rules(READABLE, read))?
        .add_rules(path_beneath_rules(["/dev/null"], null))?
        .add_rules(path_beneath_rules([needs.scratch], files))?
        .add_rules(
            needs.ports.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp))),
        )?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Confined::Fully,
        RulesetStatus::PartiallyEnforced => Confined::Partly,
        RulesetStatus::NotEnforced => Confined::Not,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;

    // Landlock holds for the thread that asks, so each probe is a thread of its own, and the test process stays free.
    #[test]
    fn a_confined_thread_reaches_its_ports_one_program_and_one_folder() {
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [broker, storage, other] = listeners.each_ref().map(|open| open.local_addr().unwrap());
        let (scratch, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(elsewhere.path().join("secret"), "x").unwrap();
        std::fs::copy("/bin/true", scratch.path().join("true")).unwrap();
        let (codec, tokens) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(tokens.path().join("token"), "x").unwrap();
        let program = codec.path().join("codec");
        std::fs::copy("/bin/true", &program).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (scratch, beside) = (scratch.path(), codec.path());
                let ports = [broker.port(), storage.port()];
                let needs = Needs { codec: &program, scratch, reread: Some(tokens.path()), ports: &ports };
                if confine(needs).unwrap() != Confined::Fully {
                    return;
                }
                assert!(TcpStream::connect(broker).is_ok() && TcpStream::connect(storage).is_ok());
                let refused = TcpListener::bind("127.0.0.1:0").unwrap_err().kind();
                assert_eq!(refused, ErrorKind::PermissionDenied);
                assert_eq!(TcpStream::connect(other).unwrap_err().kind(), ErrorKind::PermissionDenied);
                assert!(Command::new(&program).status().unwrap().success());
                let refused = Command::new(scratch.join("true")).status().unwrap_err().kind();
                assert_eq!(refused, ErrorKind::PermissionDenied);
                let read = std::fs::read(elsewhere.path().join("secret"));
                assert_eq!(read.unwrap_err().kind(), ErrorKind::PermissionDenied);
                assert!(std::fs::read(tokens.path().join("token")).is_ok());
                let written = std::fs::write(tokens.path().join("token"), "y");
                assert_eq!(written.unwrap_err().kind(), ErrorKind::PermissionDenied);
                assert!(std::fs::write(scratch.join("out"), "x").is_ok());
                assert_eq!(
                    std::fs::write(beside.join("codec2"), "x").unwrap_err().kind(),
                    ErrorKind::PermissionDenied
                );
            });
        });
    }
}
