//! SIGTERM, as clients see it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

const BROKER: &str = env!("CARGO_BIN_EXE_mpegflow-broker");

/// One answer's status, and whether the connection is kept.
fn answer(reader: &mut BufReader<TcpStream>) -> std::io::Result<(u16, bool)> {
    let (mut status, mut length, mut kept) = (0, 0, true);
    for n in 0.. {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if n == 0 {
            status = line.split(' ').nth(1).unwrap().parse().unwrap();
        } else if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        } else if line == "connection: close" {
            kept = false;
        } else if line.is_empty() {
            break;
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    Ok((status, kept))
}

#[test]
fn on_sigterm_those_in_front_are_told_and_no_request_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (public, data) = (mpegflow_test_ports::address(), dir.path().join("data").display().to_string());
    let key =
        Command::new(BROKER).args(["--data", &data, "api-key", "create", "--tenant", "a"]).output().unwrap();
    let key = String::from_utf8(key.stdout).unwrap().trim().to_owned();
    let mut broker = Command::new(BROKER)
        .args([
            "--data",
            &data,
            "--grace",
            "3",
            "--rate-burst",
            "1000000",
            "serve",
            "--listen",
            &public.to_string(),
        ])
        .args(["--worker-listen", &mpegflow_test_ports::address().to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..1200 {
        if TcpStream::connect(public).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let (told, answered, unready) = (AtomicBool::new(false), Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (key, answered, told, unready) = (&key, Arc::clone(&answered), &told, &unready);
            scope.spawn(move || loop {
                // Client 0 is the load balancer: once it has heard that the broker is not ready, nobody is sent there any more.
                if unready.load(Ordering::SeqCst) > 0 {
                    break;
                }
                let socket = TcpStream::connect(public).unwrap_or_else(|e| panic!("refused: {e}: client {n}"));
                socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let mut writer = socket.try_clone().unwrap();
                let mut reader = BufReader::new(socket);
                for _ in 0..50 {
                    let request = match n {
                        0 => "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
                        1 | 2 => format!("POST /v1/uploads HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 10\r\n\r\n{{\"size\":0}}"),
                        _ => format!("GET /v1/presets HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"),
                    };
                    writer.write_all(request.as_bytes()).unwrap_or_else(|e| panic!("{e}: client {n}"));
                    let (status, kept) = answer(&mut reader).unwrap_or_else(|e| panic!("no answer: {e}: client {n}"));
                    match (n, status) {
                        (0, 503) => {
                            assert!(told.load(Ordering::SeqCst), "not ready before it was told to end");
                            unready.fetch_add(1, Ordering::SeqCst);
                        }
                        (0 | 3.., 200) | (1 | 2, 201) => {}
                        other => panic!("{other:?}"),
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                    if !kept {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
        // Well under way.
        while answered.load(Ordering::SeqCst) < 200 {
            std::thread::sleep(Duration::from_millis(10));
        }
        told.store(true, Ordering::SeqCst);
        let pid = broker.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    });
    assert!(broker.wait().unwrap().success(), "it ends well");
    assert!(unready.load(Ordering::SeqCst) > 0, "those in front were told");
}
