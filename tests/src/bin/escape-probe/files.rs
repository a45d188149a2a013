//! Probes that reach for files and descriptors. Argument 0 is a folder that the test made, holding `file`, `empty/` and `link`.

use crate::Given;
use crate::raw::call;
use std::ffi::CString;

const HERE: u64 = libc::AT_FDCWD as u64;

pub(crate) fn run(probe: &str, given: &Given) -> Option<i64> {
    let under = |name: &str| CString::new(format!("{}/{name}", given.text(0))).unwrap();
    let (file, empty, link, fresh) = (under("file"), under("empty"), under("link"), under("fresh"));
    let at = |c: &CString| c.as_ptr() as u64;
    let mut buffer = [0_u64; 512];
    let out = buffer.as_mut_ptr() as u64;
    let read = libc::O_RDONLY as u64;
    let how = [0_u64; 3];
    Some(match probe {
        "open" => call(libc::SYS_open, &[at(&file), read]),
        "open_directory" => call(libc::SYS_open, &[at(&empty), (libc::O_RDONLY | libc::O_DIRECTORY) as u64]),
        "open_to_write" => call(libc::SYS_open, &[at(&file), libc::O_WRONLY as u64]),
        "open_to_create" => {
            call(libc::SYS_open, &[at(&fresh), (libc::O_WRONLY | libc::O_CREAT) as u64, 0o600])
        }
        "open_path_only" => call(libc::SYS_open, &[at(&file), libc::O_PATH as u64]),
        "open_temporary" => {
            call(libc::SYS_open, &[at(&empty), (libc::O_RDWR | libc::O_TMPFILE) as u64, 0o600])
        }
        "openat" => call(libc::SYS_openat, &[HERE, at(&file), read]),
        "openat2" => call(libc::SYS_openat2, &[HERE, at(&file), how.as_ptr() as u64, 24]),
        "creat" => call(libc::SYS_creat, &[at(&fresh), 0o600]),
        "own_memory_file" => call(libc::SYS_open, &[c"/proc/self/mem".as_ptr() as u64, libc::O_RDWR as u64]),
        "parents_environment" => {
            let path = CString::new(format!("/proc/{}/environ", given.parent)).unwrap();
            call(libc::SYS_open, &[at(&path), read])
        }
        "stat" => call(libc::SYS_stat, &[at(&file), out]),
        "lstat" => call(libc::SYS_lstat, &[at(&link), out]),
        "fstat" => call(libc::SYS_fstat, &[0, out]),
        "newfstatat" => call(libc::SYS_newfstatat, &[HERE, at(&file), out, 0]),
        "statx" => call(libc::SYS_statx, &[HERE, at(&file), 0, 0xfff, out]),
        "statfs" => call(libc::SYS_statfs, &[at(&file), out]),
        "access" => call(libc::SYS_access, &[at(&file), 0]),
        "faccessat2" => call(libc::SYS_faccessat2, &[HERE, at(&file), 0, 0]),
        "readlink" => call(libc::SYS_readlink, &[at(&link), out, 4096]),
        "readlinkat" => call(libc::SYS_readlinkat, &[HERE, at(&link), out, 4096]),
        "getcwd" => call(libc::SYS_getcwd, &[out, 4096]),
        "chdir" => call(libc::SYS_chdir, &[at(&empty)]),
        "chroot" => call(libc::SYS_chroot, &[at(&empty)]),
        "mkdir" => call(libc::SYS_mkdir, &[at(&fresh), 0o700]),
        "rmdir" => call(libc::SYS_rmdir, &[at(&empty)]),
        "unlink" => call(libc::SYS_unlink, &[at(&file)]),
        "rename" => call(libc::SYS_rename, &[at(&file), at(&fresh)]),
        "hard_link" => call(libc::SYS_link, &[at(&file), at(&fresh)]),
        "symlink" => call(libc::SYS_symlink, &[at(&file), at(&fresh)]),
        "fifo" => call(libc::SYS_mknod, &[at(&fresh), u64::from(libc::S_IFIFO | 0o600), 0]),
        "truncate" => call(libc::SYS_truncate, &[at(&file), 0]),
        "chmod" => call(libc::SYS_chmod, &[at(&file), 0o777]),
        "setxattr" => {
            call(libc::SYS_setxattr, &[at(&file), c"user.x".as_ptr() as u64, c"x".as_ptr() as u64, 1, 0])
        }
        "inotify" => call(libc::SYS_inotify_init1, &[0]),
        "fanotify" => call(libc::SYS_fanotify_init, &[0, 0]),
        "memfd" => call(libc::SYS_memfd_create, &[c"x".as_ptr() as u64, 0]),
        "pipe" => call(libc::SYS_pipe2, &[out, 0]),
        "dup" => call(libc::SYS_dup, &[0]),
        "dup2" => call(libc::SYS_dup2, &[0, 40]),
        "duplicate_by_fcntl" => call(libc::SYS_fcntl, &[0, libc::F_DUPFD as u64, 0]),
        "async_signals_by_fcntl" => call(libc::SYS_fcntl, &[3, libc::F_SETOWN as u64, given.parent]),
        "eventfd" => call(libc::SYS_eventfd2, &[0, 0]),
        "epoll" => call(libc::SYS_epoll_create1, &[0]),
        "timerfd" => call(libc::SYS_timerfd_create, &[0, 0]),
        "signalfd" => call(libc::SYS_signalfd4, &[u64::MAX, out, 8, 0]),
        "terminal_input" => call(libc::SYS_ioctl, &[given.number(1), libc::TIOCSTI, c"x".as_ptr() as u64]),
        "bytes_waiting" => call(libc::SYS_ioctl, &[3, libc::FIONREAD, out]),
        "splice" => {
            // From /dev/null: nothing moves, but the call is made.
            call(libc::SYS_splice, &[0, 0, 1, 0, 1, 0])
        }
        "pread" => call(libc::SYS_pread64, &[0, out, 1, 0]),
        "readv" => call(libc::SYS_readv, &[0, out, 0]),
        "poll" => call(libc::SYS_poll, &[0, 0, 0]),
        "ftruncate" => call(libc::SYS_ftruncate, &[4, 0]),
        "name_to_handle" => {
            let mut handle = [0_u64; 32];
            handle[0] = 128;
            call(libc::SYS_name_to_handle_at, &[HERE, at(&file), handle.as_mut_ptr() as u64, out, 0])
        }
        _ => return None,
    })
}
