//! What a codec may do: it has to work under the locks, and it has to end as it would without them.

use crate::Given;
use crate::raw::call;
use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What a probe does before the locks go on.
pub(crate) fn before(probe: &str) -> Result<(), String> {
    if probe == "second_thread" {
        thread::Builder::new().spawn(|| thread::sleep(Duration::from_secs(60))).map_err(|e| e.to_string())?;
    }
    Ok(())
}

pub(crate) fn run(probe: &str, given: &Given) -> Option<i64> {
    Some(match probe {
        "nothing" | "second_thread" => 0,
        "threads_and_memory" => threads_and_memory(),
        "sort" => sort(),
        // Until the test closes its end.
        "read_until_closed" => {
            let byte = [0_u8];
            loop {
                let read = call(libc::SYS_read, &[3, byte.as_ptr() as u64, 1]);
                if read <= 0 {
                    break read;
                }
            }
        }
        "abort" => std::process::abort(),
        "abort_in_a_thread" => thread::spawn(|| std::process::abort()).join().map_or(0, |()| 0),
        "panic" => panic!("as asked"),
        "panic_in_a_thread" => match thread::spawn(|| panic!("as asked")).join() {
            Err(_) => 0,
            Ok(()) => -1,
        },
        "panic_in_a_callback" => callback(),
        "null_pointer" => null_pointer(),
        "stack_overflow" => i64::try_from(overflow(1)).unwrap(),
        "too_much_memory" => {
            let mut blocks: Vec<Vec<u8>> = Vec::new();
            loop {
                let mut block = Vec::new();
                if block.try_reserve_exact(256 << 20).is_err() {
                    break i64::try_from(blocks.len()).unwrap();
                }
                blocks.push(block);
            }
        }
        "endless_loop" | "run_out_of_time" => loop {
            std::hint::spin_loop();
        },
        "write_beyond_file_size" => {
            let block = [0_u8; 8192];
            let first = call(libc::SYS_write, &[4, block.as_ptr() as u64, 8192]);
            let second = call(libc::SYS_write, &[4, block.as_ptr() as u64, 8192]);
            if second < 0 { second } else { first + second }
        }
        "close_every_other_descriptor" => {
            i64::try_from((5..4096).filter(|fd| call(libc::SYS_close, &[*fd]) == 0).count()).unwrap()
        }
        "find_secret" => find(given.text(0)),
        "list_descriptors" => {
            let mut open: Vec<i32> = fs::read_dir("/proc/self/fd")
                .unwrap()
                .filter_map(|e| e.unwrap().file_name().to_str().unwrap().parse().ok())
                .collect();
            // The listing's own, closed by now.
            open.retain(|fd| call(libc::SYS_fcntl, &[fd.unsigned_abs().into(), 1]) >= 0);
            open.sort_unstable();
            open.iter().fold(0, |number, fd| number * 100 + i64::from(*fd))
        }
        _ => return None,
    })
}

fn threads_and_memory() -> i64 {
    const THREADS: usize = 12;
    let start = Instant::now();
    let gate = Arc::new((Mutex::new(0_usize), Condvar::new()));
    let workers: Vec<_> = (0..THREADS)
        .map(|n| {
            let gate = Arc::clone(&gate);
            let name = format!("worker-{n}");
            let work = move || {
                let (count, all_here) = &*gate;
                let mut here = count.lock().unwrap();
                *here += 1;
                all_here.notify_all();
                while *here < THREADS {
                    (here, _) = all_here.wait_timeout(here, Duration::from_secs(20)).unwrap();
                }
                drop(here);
                let mut seen: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
                for round in 0..40 {
                    let mut block = vec![u8::try_from(n).unwrap(); 1 << (round % 22)];
                    block.resize(block.len() * 2, 1);
                    seen.insert(round % 7, block);
                }
                seen.values().map(|b| usize::from(b[0])).sum::<usize>()
            };
            thread::Builder::new().name(name).spawn(work).unwrap()
        })
        .collect();
    let sum: usize = workers.into_iter().map(|w| w.join().unwrap()).sum();
    let processors = thread::available_parallelism().unwrap().get();
    if sum == (0..THREADS).sum::<usize>() * 7 && processors > 0 && start.elapsed() > Duration::ZERO {
        0
    } else {
        -1
    }
}

/// The C library's sort of a large array asks how much memory the machine has.
fn sort() -> i64 {
    extern "C" fn compare(a: *const libc::c_void, b: *const libc::c_void) -> libc::c_int {
        // SAFETY: qsort passes addresses of two elements.
        let (a, b) = unsafe { (*a.cast::<u64>(), *b.cast::<u64>()) };
        a.cmp(&b) as libc::c_int
    }
    let mut numbers: Vec<u64> = (0..100_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    // SAFETY: the array, its length, the size of an element.
    unsafe { libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), 8, Some(compare)) };
    if numbers.is_sorted() { 0 } else { -1 }
}

/// A panic that would cross into C ends the process.
fn callback() -> i64 {
    extern "C" fn called() {
        panic!("as asked");
    }
    called();
    0
}

fn null_pointer() -> i64 {
    // SAFETY: it is not; that is the probe.
    unsafe { std::ptr::null::<i64>().read_volatile() }
}

#[expect(unconditional_recursion, reason = "that is the probe")]
fn overflow(depth: usize) -> usize {
    let room = std::hint::black_box([depth; 64]);
    overflow(depth + 1) + room[depth % 64]
}

/// Places in which the secret, given backwards so that this process does not hold it itself, is found.
fn find(backwards: &str) -> i64 {
    let hidden: Vec<u8> = backwards.bytes().rev().collect();
    let in_list = std::env::vars_os().count();
    let in_kernel = fs::read("/proc/self/environ").unwrap().len();
    let on_stack = fs::read_to_string("/proc/self/maps").unwrap().lines().find_map(|l| {
        let range = l.strip_suffix("[stack]")?.split(' ').next()?;
        let (from, to) = range.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut bytes = vec![0; usize::try_from(to - from).ok()?];
        let memory = fs::File::open("/proc/self/mem").ok()?;
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, from).ok()?;
        Some(bytes.windows(hidden.len()).filter(|w| *w == hidden).count())
    });
    i64::try_from(in_list + in_kernel + on_stack.unwrap()).unwrap()
}
