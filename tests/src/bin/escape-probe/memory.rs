//! Probes that ask for executable, shared or foreign memory.

use crate::Given;
use crate::raw::call;

const R: u64 = libc::PROT_READ as u64;
const W: u64 = libc::PROT_WRITE as u64;
const X: u64 = libc::PROT_EXEC as u64;
const PRIVATE: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const SHARED: u64 = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64;
const NO_FILE: u64 = u64::MAX;

/// A fresh page to read and write.
pub(crate) fn page() -> u64 {
    call(libc::SYS_mmap, &[0, 4096, R | W, PRIVATE, NO_FILE, 0]).cast_unsigned()
}

pub(crate) fn run(probe: &str, _: &Given) -> Option<i64> {
    Some(match probe {
        "map_writable_and_executable" => call(libc::SYS_mmap, &[0, 4096, R | W | X, PRIVATE, NO_FILE, 0]),
        "map_executable" => call(libc::SYS_mmap, &[0, 4096, R | X, PRIVATE, NO_FILE, 0]),
        "map_shared" => call(libc::SYS_mmap, &[0, 4096, R | W, SHARED, NO_FILE, 0]),
        "map_a_descriptor" => call(libc::SYS_mmap, &[0, 4096, R, libc::MAP_PRIVATE as u64, 4, 0]),
        "map_at_a_fixed_place" => {
            call(libc::SYS_mmap, &[page(), 4096, R | W, PRIVATE | libc::MAP_FIXED as u64, NO_FILE, 0])
        }
        "make_executable" => call(libc::SYS_mprotect, &[page(), 4096, R | X]),
        "make_writable_and_executable" => call(libc::SYS_mprotect, &[page(), 4096, R | W | X]),
        "make_executable_with_key" => call(libc::SYS_pkey_mprotect, &[page(), 4096, R | X, u64::MAX]),
        "move_to_a_fixed_place" => {
            let (from, to) = (page(), page());
            call(
                libc::SYS_mremap,
                &[from, 4096, 4096, (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64, to],
            )
        }
        "pin_memory" => call(libc::SYS_mlock, &[page(), 4096]),
        "pin_all_memory" => call(libc::SYS_mlockall, &[1]),
        "share_with_children_only_by_advice" => {
            call(libc::SYS_madvise, &[page(), 4096, libc::MADV_DONTFORK as u64])
        }
        "poison_advice" => call(libc::SYS_madvise, &[page(), 4096, libc::MADV_SOFT_OFFLINE as u64]),
        "resident_pages" => {
            let mut map = [0_u8; 8];
            call(libc::SYS_mincore, &[page(), 4096, map.as_mut_ptr() as u64])
        }
        "secret_memory" => call(libc::SYS_memfd_secret, &[0]),
        _ => return None,
    })
}
