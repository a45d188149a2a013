//! The numbered descriptors that the supervisor handed over.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd};

/// An owned descriptor that uses `read`, `write` and `close` and nothing else. The standard library asks `fcntl` about a
/// descriptor before it closes it (in builds with assertions), which the locks kill.
pub(crate) struct Descriptor(ManuallyDrop<File>);

/// Takes descriptor `fd` over. The supervisor opened it for this process and nothing else here uses the number.
pub(crate) fn take(fd: i32) -> Descriptor {
    // SAFETY: the number is one of the protocol's, taken once; if it is not open, reads and writes fail with EBADF.
    Descriptor(ManuallyDrop::new(unsafe { File::from_raw_fd(fd) }))
}

impl Read for Descriptor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Descriptor {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: owned, and the file inside is never dropped, so this is the one close.
        unsafe { libc::close(self.0.as_raw_fd()) };
    }
}
