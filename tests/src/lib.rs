//! What the whole-system tests share. The tests themselves are in `tests/tests`, by what they prove; the comparisons with
//! peers in `tests/bench`.

pub mod codec_session;
pub mod escape;
pub mod media;
pub mod system;

use std::path::PathBuf;

/// The folder cargo built into, such as `target/debug`: the binaries under test lie there.
pub fn target_folder() -> PathBuf {
    let exe = std::env::current_exe().expect("a running test has a file");
    let folder = exe.parent().expect("a file lies in a folder");
    if folder.ends_with("deps") {
        folder.parent().expect("deps lies in the build folder").into()
    } else {
        folder.into()
    }
}

/// The path of one of our programs. `cargo build --workspace --bins` makes them; `make test` does that first.
pub fn program(name: &str) -> PathBuf {
    let path = target_folder().join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}
