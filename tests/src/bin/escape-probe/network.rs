//! Probes that reach for other machines and processes by socket. Argument 0 is a TCP port, argument 1 an abstract socket's name,
//! both of listeners that the test holds. Descriptor 3 is one end of a socket pair.

use crate::Given;
use crate::raw::call;

pub(crate) fn run(probe: &str, given: &Given) -> Option<i64> {
    if let Some(family) = probe.strip_prefix("socket_family_") {
        return Some(call(libc::SYS_socket, &[family.parse().unwrap(), given.number(0), 0]));
    }
    let mut pair = [0_i32; 2];
    let mut byte = [b'x'];
    let vector = [byte.as_mut_ptr() as u64, 1];
    // struct msghdr: name, its length, vectors, their number, control, its length, flags.
    let message = [0_u64, 0, vector.as_ptr() as u64, 1, 0, 0, 0];
    Some(match probe {
        "socketpair" => call(libc::SYS_socketpair, &[1, 1, 0, pair.as_mut_ptr() as u64]),
        "connect_tcp" => and_then(call(libc::SYS_socket, &[2, 1, 0]), |s| {
            let a = inet(given.number(0));
            call(libc::SYS_connect, &[s, a.as_ptr() as u64, 16])
        }),
        "bind_tcp" => and_then(call(libc::SYS_socket, &[2, 1, 0]), |s| {
            let a = inet(0);
            call(libc::SYS_bind, &[s, a.as_ptr() as u64, 16])
        }),
        "send_udp" => and_then(call(libc::SYS_socket, &[2, 2, 0]), |s| {
            let a = inet(given.number(0));
            call(libc::SYS_sendto, &[s, byte.as_ptr() as u64, 1, 0, a.as_ptr() as u64, 16])
        }),
        "connect_abstract" => and_then(call(libc::SYS_socket, &[1, 1, 0]), |s| {
            let mut a = vec![1_u8, 0, 0];
            a.extend(given.text(1).bytes());
            call(libc::SYS_connect, &[s, a.as_ptr() as u64, a.len() as u64])
        }),
        "send_message" => call(libc::SYS_sendmsg, &[3, message.as_ptr() as u64, 0]),
        "send_descriptor" => {
            let rights = [20_u64, 1 | (1 << 32), 0];
            let with = [0, 0, vector.as_ptr() as u64, 1, rights.as_ptr() as u64, 24, 0];
            call(libc::SYS_sendmsg, &[3, with.as_ptr() as u64, 0])
        }
        "receive_message" => {
            let room = [0_u64; 8];
            let with = [0, 0, vector.as_ptr() as u64, 1, room.as_ptr() as u64, 64, 0];
            // The test has put a byte in.
            call(libc::SYS_recvmsg, &[3, with.as_ptr() as u64, libc::MSG_DONTWAIT as u64])
        }
        "send_messages" => call(libc::SYS_sendmmsg, &[3, message.as_ptr() as u64, 0, 0]),
        "send_to" => call(libc::SYS_sendto, &[3, byte.as_ptr() as u64, 1, 0, 0, 0]),
        "receive_from" => {
            call(libc::SYS_recvfrom, &[3, byte.as_mut_ptr() as u64, 1, libc::MSG_DONTWAIT as u64, 0, 0])
        }
        "shutdown" => call(libc::SYS_shutdown, &[3, 1]),
        "peer_name" => {
            let mut length = [16_u64];
            let mut name = [0_u64; 2];
            call(libc::SYS_getpeername, &[3, name.as_mut_ptr() as u64, length.as_mut_ptr() as u64])
        }
        "socket_option" => {
            let one = [1_u32];
            call(libc::SYS_setsockopt, &[3, 1, 2, one.as_ptr() as u64, 4])
        }
        _ => return None,
    })
}

/// 127.0.0.1 and a port, as `struct sockaddr_in`.
fn inet(port: u64) -> [u8; 16] {
    let [.., high, low] = port.to_be_bytes();
    let mut a = [0; 16];
    a[..8].copy_from_slice(&[2, 0, high, low, 127, 0, 0, 1]);
    a
}

fn and_then(result: i64, next: impl FnOnce(u64) -> i64) -> i64 {
    if result < 0 { result } else { next(result.cast_unsigned()) }
}
