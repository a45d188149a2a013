//! Bytes through the broker against bytes through nginx: the same S3 server behind both, TLS on both sides of both, the same client
//! in front, reading and writing, one stream and many.
//!
//! The client is curl. It reads a worker's input from `mpegflow-broker` and the same object from nginx, and writes parts of 8 MiB to
//! both; nginx has no idea of S3, so its client brings URLs that are signed. Both ask for the client's certificate. The broker has
//! PostgreSQL's place taken by its own file, since no move of a job is measured here. Parts go with their SHA-256 by both ways, and the
//! S3 server compares it; where a server does not, the broker does, which takes it a fifth more.
//!
//! CPU is user and system time of the proxy alone, all of its processes. On a small machine the client and the S3 server are what the
//! time of the wall goes to, so the CPU is what tells proxies apart. `PARTS=get,put,memory` for some of it.

#[path = "../../broker/tests/common/mod.rs"]
mod common;
#[path = "../../broker/tests/support/s3.rs"]
mod s3;

mod broker;
mod curl;
mod nginx;
mod proxy;

use super::measure::median;
use broker::Broker;
use curl::Transfer;
use mpegflow_protocol::limits::PART_SIZE;
use nginx::Nginx;
use proxy::{Direct, Proxy};
use s3::{Kind, Server};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Streams at a time where there are many.
const MANY: usize = 64;
/// What each of these reads.
const EACH: u64 = 64 * MIB;
/// Parts that each of them writes, of an output of its own.
const PARTS_EACH: usize = 4;
/// Reads of which the first byte is waited for, and the streams beside them, of so many bytes a second each.
const READS: usize = 500;
const LOAD: usize = 8;
const LOAD_EACH: u64 = 12 * MIB;
/// Streams at a time where it is asked what a stream takes of memory.
const CROWD: usize = 1_000;
/// Bytes a second that each of these takes, and for how long.
const SLOWLY: u64 = 128 << 10;
const CROWD_LASTS: Duration = Duration::from_secs(20);

pub(super) fn run(runs: usize) -> Value {
    let parts = std::env::var("PARTS").unwrap_or_else(|_| "get,put,first,memory".into());
    let wanted = |part: &str| parts.split(',').any(|p| p == part);
    let site = Site::start();
    let mut metrics = Vec::new();
    if wanted("get") {
        metrics.extend(site.compare("GET, 1 stream of 1 GiB", runs, 1, GIB, |site| site.reads(1, GIB)));
        let title = format!("GET, {MANY} streams of {} MiB", EACH / MIB);
        let bytes = EACH * MANY as u64;
        metrics.extend(site.compare(&title, runs, MANY, bytes, |site| site.reads(MANY, EACH)));
    }
    if wanted("put") {
        for (title, parts, at_once) in [
            ("PUT, 1 stream, 128 parts of 8 MiB".to_owned(), 128, 1),
            (format!("PUT, {MANY} streams, {PARTS_EACH} parts of 8 MiB each"), PARTS_EACH * MANY, MANY),
        ] {
            let bytes = parts as u64 * PART_SIZE;
            metrics.extend(site.compare(&title, runs, at_once, bytes, |site| site.writes(parts, at_once)));
        }
    }
    if wanted("first") {
        metrics.push(site.first_byte(runs));
    }
    if wanted("memory") {
        metrics.push(site.crowd());
    }
    json!({ "name": "stream", "runs": runs, "peer": nginx::version(), "metrics": metrics })
}

/// What one way costs.
struct Cost {
    wall: f64,
    cpu: f64,
}

/// The same transfers by each way.
struct Ways {
    ours: Vec<Transfer>,
    nginx: Vec<Transfer>,
}

struct Site {
    runtime: tokio::runtime::Runtime,
    server: Server,
    broker: Broker,
    nginx: Nginx,
    part: PathBuf,
    digest: [u8; 32],
    _dir: tempfile::TempDir,
}

impl Site {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start_tls(Kind::Versitygw);
        // Not zeros: nothing on the way may find them easy.
        let (input, part) = (dir.path().join("input"), dir.path().join("part"));
        random(&input, GIB);
        random(&part, PART_SIZE);
        let digest = mpegflow_broker::secret::sha256(&std::fs::read(&part).unwrap());
        let broker = runtime.block_on(Broker::start(dir.path(), &server, &input));
        let nginx = Nginx::start(dir.path(), &server, broker.authority());
        broker.trust(nginx.certificate());
        broker.trust(server.ca.as_ref().unwrap());
        Self { runtime, server, broker, nginx, part, digest, _dir: dir }
    }

    /// So many read the object from its beginning.
    fn reads(&self, streams: usize, bytes: u64) -> Ways {
        let range = format!("Range: bytes=0-{}", bytes - 1);
        let ours = self.broker.input().header(&range);
        let path = self.runtime.block_on(nginx::signed_get(&self.server, &self.broker.object(&self.server)));
        let nginx = Transfer::get(&path).header(&range);
        Ways { ours: vec![ours; streams], nginx: vec![nginx; streams] }
    }

    /// Parts that nobody has written yet.
    fn writes(&self, parts: usize, at_once: usize) -> Ways {
        // Each stream is an output of its own, for the first part of which the broker begins a multipart upload as well.
        let of_each = if at_once > 1 { PARTS_EACH as u64 } else { u64::MAX };
        let ours = self.runtime.block_on(self.broker.parts(parts, of_each, &self.part, &self.digest));
        let paths = self.runtime.block_on(nginx::signed_parts(&self.server, parts, &self.digest));
        let checksum = nginx::checksum_header(&self.digest);
        let put = |path: String| Transfer::put(&path, &self.part).header(&checksum);
        Ways { ours, nginx: paths.into_iter().map(put).collect() }
    }

    fn run(&self, proxy: &dyn Proxy, transfers: &[Transfer], at_once: usize) -> Cost {
        let (cpu, began) = (proxy.cpu(), Instant::now());
        curl::run(proxy, transfers, self.broker.client(), at_once);
        let wall = began.elapsed().as_secs_f64();
        Cost { wall, cpu: (proxy.cpu() - cpu).as_secs_f64() }
    }

    /// Alternating runs by each way: throughput, and CPU for each GiB.
    fn compare(
        &self,
        title: &str,
        runs: usize,
        at_once: usize,
        bytes: u64,
        ways: impl Fn(&Self) -> Ways,
    ) -> Vec<Value> {
        let [unbuffered, buffered] = self.nginx.fronts();
        let mut costs: [Vec<Cost>; 3] = Default::default();
        for _ in 0..runs {
            let Ways { ours, nginx } = ways(self);
            let sides: [(&str, &dyn Proxy, &[Transfer]); 3] = [
                ("ours", &self.broker, &ours),
                ("nginx", &unbuffered, &nginx),
                ("nginx, buffering", &buffered, &nginx),
            ];
            for ((name, proxy, transfers), costs) in sides.into_iter().zip(&mut costs) {
                let cost = self.run(proxy, transfers, at_once);
                println!("{title}: {name}: {:.2} s, {:.2} s of CPU", cost.wall, cost.cpu);
                costs.push(cost);
            }
        }
        let gib = bytes as f64 / GIB as f64;
        let each = |of: &dyn Fn(&Cost) -> f64| {
            costs.each_ref().map(|costs| median(costs.iter().map(of).collect::<Vec<f64>>()))
        };
        let [speed, cpu] = [each(&|c| gib * 1024.0 / c.wall), each(&|c| c.cpu / gib)];
        // nginx as it does best: by whichever way of its buffers is better.
        vec![
            row(&format!("MiB/s, {title}"), ">= 1.0x", "mebibytes a second", speed, f64::max),
            row(&format!("CPU s for a GiB, {title}"), "<= 1.0x", "seconds", cpu, f64::min),
        ]
    }

    /// What a proxy adds to the longest wait but one in a hundred for the first byte, while others read at half of what they could.
    fn first_byte(&self, runs: usize) -> Value {
        let range = "Range: bytes=0-65535";
        let ours = vec![self.broker.input().header(range); READS];
        let path = self.runtime.block_on(nginx::signed_get(&self.server, &self.broker.object(&self.server)));
        let signed = vec![Transfer::get(&path).header(range); READS];
        let direct = Direct(self.server.address.port());
        let [unbuffered, buffered] = self.nginx.fronts();
        let sides: [(&dyn Proxy, &[Transfer]); 4] =
            [(&direct, &signed), (&self.broker, &ours), (&unbuffered, &signed), (&buffered, &signed)];
        let mut waits: [Vec<f64>; 4] = Default::default();
        for _ in 0..runs {
            for ((proxy, transfers), waits) in sides.iter().zip(&mut waits) {
                // The load goes the same way, the direct one's too.
                let others = self.reads(LOAD, GIB);
                let others = if proxy.port() == self.broker.port() { others.ours } else { others.nginx };
                let _load = curl::Crowd::start(*proxy, &others, self.broker.client(), LOAD_EACH);
                std::thread::sleep(Duration::from_secs(1));
                let sorted = curl::first_bytes(*proxy, transfers, self.broker.client());
                waits.push(sorted[sorted.len() * 99 / 100] * 1e3);
            }
        }
        let [direct, through @ ..] = waits.map(median);
        println!("first byte, p99: {direct:.2} ms without a proxy, through each {through:?}");
        row(
            "ms added to p99 of the first byte",
            "<= 2",
            "milliseconds",
            through.map(|ms| ms - direct),
            f64::min,
        )
    }

    /// Resident memory for each of many streams that are read slowly.
    fn crowd(&self) -> Value {
        let Ways { ours, nginx } = self.reads(CROWD, GIB);
        let [unbuffered, buffered] = self.nginx.fronts();
        let sides: [(&dyn Proxy, &[Transfer]); 3] =
            [(&self.broker, &ours), (&unbuffered, &nginx), (&buffered, &nginx)];
        let kib = sides.map(|(proxy, transfers)| {
            let before = proxy.resident();
            let (mut most, mut open) = (before, 0);
            let _crowd = curl::Crowd::start(proxy, transfers, self.broker.client(), SLOWLY);
            let began = Instant::now();
            while began.elapsed() < CROWD_LASTS {
                std::thread::sleep(Duration::from_millis(100));
                most = most.max(proxy.resident());
                open = open.max(proxy.clients());
            }
            assert!(open >= CROWD, "only {open} streams were there at once");
            (most - before) as f64 / 1024.0 / CROWD as f64
        });
        row(&format!("KiB resident for each of {CROWD} streams"), "<= 256", "kibibytes", kib, f64::min)
    }
}

/// Ours beside nginx's two ways, and the better of them.
fn row(
    what: &str,
    goal: &str,
    unit: &str,
    [ours, unbuffered, buffered]: [f64; 3],
    better: fn(f64, f64) -> f64,
) -> Value {
    let peer = better(unbuffered, buffered);
    json!({ "what": what, "goal": goal, "unit": unit, "ours": ours, "peer": peer, "ratio": ours / peer,
            "nginx_unbuffered": unbuffered, "nginx_buffered": buffered })
}

/// A file of so many bytes that nobody can guess.
fn random(path: &Path, bytes: u64) {
    let mut from = std::io::Read::take(std::fs::File::open("/dev/urandom").unwrap(), bytes);
    let mut to = std::fs::File::create(path).unwrap();
    assert_eq!(std::io::copy(&mut from, &mut to).unwrap(), bytes);
}
