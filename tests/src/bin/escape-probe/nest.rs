//! A supervisor in small, to be killed by the test.

use crate::raw;
use mpegflow_lockdown::launch::Launch;
use std::io::Read;
use std::os::unix::net::UnixStream;

pub(crate) fn start_another() -> ! {
    let (mut output, theirs) = UnixStream::pair().unwrap();
    let parent = std::process::id().to_string();
    let mut child = Launch::new(std::env::current_exe().unwrap())
        .fd(theirs, 1)
        .arg("locked")
        .arg(parent)
        .arg("3")
        .arg("endless_loop")
        .spawn()
        .unwrap();
    let mut said = [0; 6];
    output.read_exact(&mut said).unwrap();
    raw::say(&format!("{} {}\n", std::str::from_utf8(&said).unwrap(), child.id()));
    child.wait().unwrap();
    std::process::exit(0)
}
