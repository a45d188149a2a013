//! The other side: this same binary, started as a codec under a name that says what it does wrong.
#![allow(unsafe_code, reason = "takes its numbered descriptors, forks and crashes, as a codec might")]

use mpegflow_lockdown::{Limits, Plan, enter};
use mpegflow_protocol::codec::{
    CONTROL_FD, FIRST_OUTPUT_FD, FromCodec, HEADER_LEN, INPUT_FD, Prepare, Progress, ReadReply, ReadRequest,
    Start, ToCodec, decode_header,
};
use mpegflow_protocol::evidence::SelfReport;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{CheckResult, EncodeResult, EncodedTrack, TaskResult};
use mpegflow_protocol::telemetry::{Phase, PhaseTime};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::time::Duration;

/// One codec process.
struct Codec {
    control: File,
    input: File,
    outputs: Vec<File>,
}

fn fd(number: i32) -> File {
    // SAFETY: the supervisor hands these numbers over, and each is taken once.
    unsafe { File::from_raw_fd(number) }
}

/// Waits on a futex: the policy has no call that sleeps.
fn sleep(duration: Duration) {
    std::thread::park_timeout(duration);
}

fn forever() -> ! {
    loop {
        sleep(Duration::from_secs(3600));
    }
}

/// Plays a part and never returns.
pub(crate) fn act(part: &str) -> ! {
    let mut codec = Codec { control: fd(CONTROL_FD), input: fd(INPUT_FD), outputs: vec![] };
    if part == "dies-at-once" {
        std::process::exit(3);
    }
    let ToCodec::Prepare(prepare) = codec.receive() else { panic!("no prepare") };
    codec.outputs = (FIRST_OUTPUT_FD..).take(usize::try_from(prepare.outputs).unwrap()).map(fd).collect();
    codec.unlocked(part, &prepare);
    // With the report in one write: whatever comes later may come after the start.
    codec.lock(&prepare, (part == "talks-before-start").then(|| FromCodec::Progress(Progress::default())));
    let ToCodec::Start(start) = codec.receive() else { panic!("no start") };
    codec.locked(part, &start);
    codec.work(&start);
    std::process::exit(0)
}

impl Codec {
    fn receive(&mut self) -> ToCodec {
        let mut header = [0; HEADER_LEN];
        if self.control.read_exact(&mut header).is_err() {
            std::process::exit(9);
        }
        let (kind, len) = decode_header(header).unwrap();
        let mut payload = vec![0; len];
        self.control.read_exact(&mut payload).unwrap();
        ToCodec::decode(kind, &payload).unwrap()
    }

    fn say(&mut self, frame: &FromCodec) {
        let _ = self.control.write_all(&frame.encode());
    }

    fn unlocked(&mut self, part: &str, prepare: &Prepare) {
        let lie = SelfReport {
            landlock_abi: 7,
            landlock_refused_open: true,
            open_fds: prepare.outputs + 5,
            not_dumpable: true,
            environment_empty: true,
        };
        match part {
            "never-locks" => forever(),
            "garbage-unlocked" => {
                let _ = self.control.write_all(&[0xa5; 4096]);
                forever()
            }
            "claims-locked" => {
                self.say(&FromCodec::Locked(lie));
                self.read(0, 0, 1024);
                forever()
            }
            "fails-to-lock" => {
                self.say(&FromCodec::Failed(Failure::new(FailureCode::LockFailed, "no Landlock here")));
                std::process::exit(1)
            }
            "forks-unlocked" => {
                // SAFETY: single-threaded; the child only sleeps.
                if unsafe { libc::fork() } == 0 {
                    forever();
                }
                self.say(&FromCodec::Locked(lie));
                forever()
            }
            _ => {}
        }
    }

    fn lock(&mut self, prepare: &Prepare, and_says: Option<FromCodec>) {
        let plan = Plan {
            parent: prepare.parent,
            first_free_fd: FIRST_OUTPUT_FD + i32::try_from(prepare.outputs).unwrap(),
            limits: Limits {
                address_space: prepare.limits.address_space,
                cpu_seconds: prepare.limits.cpu_seconds,
                file_size: prepare.limits.file_size,
            },
        };
        let report = match enter(&plan) {
            Ok(report) => report,
            Err(error) => {
                eprintln!("{error}");
                std::process::exit(8);
            }
        };
        let report = FromCodec::Locked(SelfReport {
            landlock_abi: report.landlock_abi,
            landlock_refused_open: report.landlock_refused_open,
            open_fds: report.open_fds,
            not_dumpable: report.not_dumpable,
            environment_empty: report.environment_empty,
        });
        let mut frames = report.encode();
        frames.extend(and_says.iter().flat_map(FromCodec::encode));
        let _ = self.control.write_all(&frames);
    }

    fn locked(&mut self, part: &str, start: &Start) {
        match part {
            "garbage" => {
                let _ = self.control.write_all(b"\x04\0\0\0\x42{}}}");
                forever()
            }
            "unknown-kind" => {
                let _ = self.control.write_all(b"\x02\0\0\0\xff{}");
                forever()
            }
            "huge-header" => {
                let _ = self.control.write_all(&[0xff, 0xff, 0xff, 0xff, 66]);
                forever()
            }
            "locked-twice" => {
                self.say(&FromCodec::Locked(SelfReport::default()));
                forever()
            }
            "wrong-result" => {
                self.say(&FromCodec::Done(Box::new(TaskResult::Check(CheckResult {
                    problems: vec![],
                    tracks: vec![],
                }))));
                std::process::exit(0)
            }
            "lies-about-bytes" => {
                self.done(&[12_345]);
                std::process::exit(0)
            }
            "reads-missing-input" => {
                let _ = self.input.write_all(&ReadRequest { input: 7, len: 1, offset: 0 }.encode());
                forever()
            }
            "reads-nonsense" => {
                let _ = self.input.write_all(&[0xee; 16]);
                forever()
            }
            "reads-beyond" => {
                assert!(self.read(0, start.inputs[0], 10).is_empty());
                assert!(self.read(0, u64::MAX, 1 << 20).is_empty());
                assert_eq!(self.read(0, start.inputs[0] - 3, 10).len(), 3);
            }
            "writes-too-much" => loop {
                let _ = self.outputs[0].write_all(&[7; 1 << 16]);
            },
            "floods-log" => {
                for n in 0..5_000 {
                    eprintln!("\u{1b}[31mline {n} {}", "x".repeat(100));
                }
            }
            "floods-progress" => {
                for frames in 0..500 {
                    self.say(&FromCodec::Progress(Progress { frames, time_ms: 0 }));
                }
            }
            "waits" => sleep(Duration::from_millis(1_500)),
            "lies-about-time" => {
                for phase in [Phase::Open, Phase::Decode, Phase::Encode] {
                    self.say(&FromCodec::Phase(PhaseTime {
                        phase,
                        start_us: u64::MAX,
                        duration_us: u64::MAX,
                    }));
                }
            }
            "tells-a-phase-twice" => {
                for _ in 0..2 {
                    let phase = Phase::Open;
                    self.say(&FromCodec::Phase(PhaseTime { phase, start_us: 0, duration_us: 0 }));
                }
                forever()
            }
            "invents-a-phase" => {
                let payload = br#"{"phase":"evil","start_us":0,"duration_us":0}"#;
                let _ = self.control.write_all(&[u8::try_from(payload.len()).unwrap(), 0, 0, 0, 69]);
                let _ = self.control.write_all(payload);
                forever()
            }
            "exits-silently" => std::process::exit(0),
            "exits-with-5" => {
                eprintln!("cannot go on");
                std::process::exit(5)
            }
            "done-hangs" => {
                self.done(&[0]);
                forever()
            }
            "done-talks" => {
                self.done(&[0]);
                self.say(&FromCodec::Progress(Progress::default()));
                forever()
            }
            "done-crashes" => {
                self.done(&[0]);
                std::process::abort()
            }
            "closes-everything" => {
                // SAFETY: nothing uses them again.
                unsafe {
                    libc::close(CONTROL_FD);
                    libc::close(INPUT_FD);
                    libc::close(FIRST_OUTPUT_FD);
                }
                forever()
            }
            // SAFETY: it is not; that is the part.
            "segv" => unsafe { std::ptr::write_volatile(std::ptr::without_provenance_mut(8), 1u8) },
            "aborts" => std::process::abort(),
            // SAFETY: refused by the locks.
            "forks" => unsafe {
                libc::fork();
                forever()
            },
            // SAFETY: refused by the locks.
            "connects" => unsafe {
                libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
                forever()
            },
            "no-frames" => {
                self.say(&FromCodec::Failed(Failure::new(FailureCode::NoFrames, "not\none\u{202e} frame")));
                forever()
            }
            "claims-policy" => {
                self.say(&FromCodec::Failed(Failure::new(FailureCode::OutputRejected, "quarantine this")));
                forever()
            }
            "eats-memory" => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(vec![1u8; 64 << 20]);
                }
            }
            "burns-cpu" => loop {
                std::hint::spin_loop();
            },
            "sleeps" => forever(),
            "repeats-itself" => loop {
                self.say(&FromCodec::Progress(Progress { frames: 1, time_ms: 1 }));
                sleep(Duration::from_millis(20));
            },
            _ => {}
        }
    }

    /// What an honest codec does, as far as the supervisor can tell: copies input 0 to every output.
    fn work(&mut self, start: &Start) {
        let mut at = 0;
        let mut sizes = vec![0; self.outputs.len()];
        while at < start.inputs[0] {
            let bytes = self.read(0, at, 100_000);
            at += u64::try_from(bytes.len()).unwrap();
            for (output, size) in self.outputs.iter_mut().zip(&mut sizes) {
                output.write_all(&bytes).unwrap();
                *size += u64::try_from(bytes.len()).unwrap();
            }
            self.say(&FromCodec::Progress(Progress { frames: at / 1000, time_ms: at / 1000 }));
        }
        self.done(&sizes);
    }

    fn done(&mut self, sizes: &[u64]) {
        let tracks = (0..).zip(sizes).map(|(output, bytes)| EncodedTrack {
            output,
            units: 1,
            duration_ms: 1,
            bytes: *bytes,
            copied: false,
        });
        self.say(&FromCodec::Done(Box::new(TaskResult::Encode(EncodeResult {
            tracks: tracks.collect(),
            frames_decoded: 1,
            frames_dropped: 0,
            decode_errors: 0,
            ..EncodeResult::default()
        }))));
    }

    fn read(&mut self, input: u8, offset: u64, len: u32) -> Vec<u8> {
        self.input.write_all(&ReadRequest { input, len, offset }.encode()).unwrap();
        let mut head = [0; ReadReply::LEN];
        if self.input.read_exact(&mut head).is_err() {
            std::process::exit(7);
        }
        match ReadReply::decode(head).unwrap() {
            ReadReply::Bytes(len) => {
                let mut bytes = vec![0; usize::try_from(len).unwrap()];
                self.input.read_exact(&mut bytes).unwrap();
                bytes
            }
            ReadReply::Gone => std::process::exit(6),
        }
    }
}
