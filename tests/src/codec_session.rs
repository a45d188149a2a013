//! Plays the supervisor to a real codec process, without a broker: for tests that look at the process itself, and for
//! measuring how long one takes to start.

use mpegflow_lockdown::launch::Launch;
use mpegflow_protocol::codec::{
    CONTROL_FD, FIRST_OUTPUT_FD, FromCodec, HEADER_LEN, INPUT_FD, OutputKind, Prepare, ProcessLimits,
    ReadReply, ReadRequest, Start, ToCodec, decode_header,
};
use mpegflow_protocol::task::TaskSpec;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Limits that are generous for test clips.
pub const LIMITS: ProcessLimits =
    ProcessLimits { address_space: 4 << 30, cpu_seconds: 120, file_size: 0, single_allocation: 512 << 20 };

/// A codec process that has been told nothing yet.
pub struct Session {
    /// The process.
    pub child: Child,
    control: UnixStream,
    input: UnixStream,
    outputs: Vec<JoinHandle<Vec<u8>>>,
    log: JoinHandle<Vec<u8>>,
}

/// How a session ended.
pub struct Ended {
    /// Exit status of the process.
    pub status: ExitStatus,
    /// The frames that came after [`FromCodec::Locked`].
    pub frames: Vec<FromCodec>,
    /// The outputs.
    pub outputs: Vec<Vec<u8>>,
    /// What was logged.
    pub log: String,
    /// Input bytes that were asked for and sent.
    pub bytes_fed: u64,
}

impl Session {
    /// Starts `program`, the codec or something that becomes it, with `outputs` pipes.
    pub fn start(program: &Path, arguments: &[&str], outputs: u32) -> Self {
        let (control, theirs) = UnixStream::pair().unwrap();
        let (input, their_input) = UnixStream::pair().unwrap();
        let (log, their_log) = std::io::pipe().unwrap();
        let mut launch =
            Launch::new(program).fd(their_log, 2).fd(theirs, CONTROL_FD).fd(their_input, INPUT_FD);
        for argument in arguments {
            launch = launch.arg(*argument);
        }
        let mut readers = Vec::new();
        for output in 0..outputs {
            let (reader, writer) = std::io::pipe().unwrap();
            launch = launch.fd(writer, FIRST_OUTPUT_FD + i32::try_from(output).unwrap());
            readers.push(drain(reader));
        }
        // A stuck codec fails the test instead of hanging it.
        control.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let child = launch.spawn().expect("the codec starts");
        Self { child, control, input, outputs: readers, log: drain(log) }
    }

    /// Sends `Prepare` and returns the first frame, if one comes.
    pub fn prepare(&mut self, threads: u32) -> Option<FromCodec> {
        self.prepare_with(threads, LIMITS)
    }

    /// The same with limits of the caller's.
    pub fn prepare_with(&mut self, threads: u32, limits: ProcessLimits) -> Option<FromCodec> {
        let prepare = ToCodec::Prepare(Prepare {
            parent: std::process::id(),
            outputs: u32::try_from(self.outputs.len()).unwrap(),
            limits,
            threads,
        });
        // A process that fails early may be gone already.
        let _ = self.control.write_all(&prepare.encode());
        read_frame(&mut self.control)
    }

    /// Sends the task, serves reads, and waits for the end.
    pub fn work(mut self, task: TaskSpec, inputs: Vec<Vec<u8>>) -> Ended {
        let start = ToCodec::Start(Box::new(Start {
            task,
            inputs: inputs.iter().map(|i| i.len() as u64).collect(),
            outputs: vec![OutputKind::Stream; self.outputs.len()],
            banned: Vec::new(),
        }));
        let _ = self.control.write_all(&start.encode());
        let fed = Arc::new(AtomicU64::new(0));
        let server = serve(self.input.try_clone().unwrap(), inputs, Arc::clone(&fed));
        let mut frames = Vec::new();
        while let Some(frame) = read_frame(&mut self.control) {
            let last = matches!(frame, FromCodec::Done(_) | FromCodec::Failed(_));
            frames.push(frame);
            if last {
                break;
            }
        }
        let ended = self.wait(frames, &fed);
        server.join().unwrap();
        ended
    }

    /// Sends nothing more and waits for the end.
    pub fn abandon(self) -> Ended {
        self.wait(Vec::new(), &AtomicU64::new(0))
    }

    /// Kills the process.
    pub fn abandon_killed(mut self) -> Ended {
        self.child.kill().unwrap();
        self.abandon()
    }

    /// Serves reads although no task was given, until the process ends: how many bytes did it get to see?
    pub fn tempt(self, inputs: Vec<Vec<u8>>) -> Ended {
        let fed = Arc::new(AtomicU64::new(0));
        let server = serve(self.input.try_clone().unwrap(), inputs, Arc::clone(&fed));
        let ended = self.wait(Vec::new(), &fed);
        server.join().unwrap();
        ended
    }

    fn wait(mut self, frames: Vec<FromCodec>, fed: &AtomicU64) -> Ended {
        // A codec that still waits for a task ends when nobody is there to give it one.
        drop(self.control);
        let status = self.child.wait().unwrap();
        self.input.shutdown(std::net::Shutdown::Both).ok();
        Ended {
            status,
            frames,
            outputs: self.outputs.into_iter().map(|o| o.join().unwrap()).collect(),
            log: String::from_utf8_lossy(&self.log.join().unwrap()).into_owned(),
            bytes_fed: fed.load(Ordering::SeqCst),
        }
    }
}

fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

fn read_frame(control: &mut UnixStream) -> Option<FromCodec> {
    let mut header = [0; HEADER_LEN];
    control.read_exact(&mut header).ok()?;
    let (kind, len) = decode_header(header).unwrap();
    let mut payload = vec![0; len];
    control.read_exact(&mut payload).ok()?;
    Some(FromCodec::decode(kind, &payload).unwrap())
}

fn serve(mut socket: UnixStream, inputs: Vec<Vec<u8>>, fed: Arc<AtomicU64>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut request = [0; ReadRequest::LEN];
        while socket.read_exact(&mut request).is_ok() {
            let Ok(read) = ReadRequest::decode(request) else { return };
            let Some(input) = inputs.get(usize::from(read.input)) else { return };
            let from = input.len().min(usize::try_from(read.offset).unwrap_or(usize::MAX));
            let to = input.len().min(from + read.len as usize);
            fed.fetch_add((to - from) as u64, Ordering::SeqCst);
            let reply = ReadReply::Bytes(u32::try_from(to - from).unwrap());
            if socket.write_all(&reply.encode()).and_then(|()| socket.write_all(&input[from..to])).is_err() {
                return;
            }
        }
    })
}
