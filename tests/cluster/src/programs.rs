//! Where the servers are: built once for each state of the module files, by the script that CI calls, too.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The path of a program of one of the modules `etcd`, `kubernetes`, `keda` and `kwok`, built now if this machine has not built it
/// yet.
///
/// # Panics
/// It cannot be built; the output says why.
pub fn program(module: &str, name: &str) -> PathBuf {
    directory(module, name)
}

/// The same for a folder of such a module.
pub(crate) fn directory(module: &str, name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/cluster-programs");
    let output = Command::new(&script).arg(module).output();
    let output = output.unwrap_or_else(|e| panic!("{} cannot be run: {e}", script.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let path = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    path.unwrap_or_else(|| panic!("the module {module} has no program {name}: {text}")).into()
}
