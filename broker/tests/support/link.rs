//! The way to a server: a proxy on loopback that can be cut, muted and slowed while connections go over it.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test support"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the way is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Connections break, and none is made.
    Cut,
    /// Connections stay, and nothing comes through.
    Mute,
    /// Whatever comes through comes so much later.
    Slow(Duration),
}

/// Proxies to one server, or to whichever of several is there, as a Service is.
#[derive(Debug)]
pub struct Link {
    /// Where it listens: on every address, so that it is reached from another network namespace too.
    pub port: u16,
    /// Of each generation of connections; new ones are the last one's.
    ways: Arc<Mutex<Vec<watch::Sender<Way>>>>,
}

impl Link {
    pub async fn to(targets: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ways = Arc::new(Mutex::new(vec![watch::Sender::new(Way::Open)]));
        let all = Arc::clone(&ways);
        tokio::spawn(async move {
            let mut turn = 0;
            while let Ok((socket, _)) = listener.accept().await {
                let ways = all.lock().unwrap().last().unwrap().subscribe();
                if *ways.borrow() == Way::Cut {
                    continue;
                }
                turn += 1;
                let mut targets = targets.clone();
                let first = turn % targets.len();
                targets.rotate_left(first);
                tokio::spawn(carry(socket, targets, ways));
            }
        });
        Self { port, ways }
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn set(&self, way: Way) {
        self.ways.lock().unwrap().last().unwrap().send_replace(way);
    }

    /// What is connected hears nothing any more, for ever, as if the machine at the other end had lost its power and another had
    /// taken its address; whoever connects from now on reaches that.
    pub fn strand(&self) {
        let mut ways = self.ways.lock().unwrap();
        ways.last().unwrap().send_replace(Way::Mute);
        ways.push(watch::Sender::new(Way::Open));
    }
}

async fn carry(here: TcpStream, targets: Vec<SocketAddr>, ways: watch::Receiver<Way>) {
    for target in targets {
        let connected = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(target)).await;
        let Ok(Ok(there)) = connected else { continue };
        let _ = (here.set_nodelay(true), there.set_nodelay(true));
        let ((from_here, to_here), (from_there, to_there)) = (here.into_split(), there.into_split());
        tokio::join!(pump(from_here, to_there, ways.clone()), pump(from_there, to_here, ways));
        return;
    }
}

/// One direction, until its sender ends it or the way is cut.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut ways: watch::Receiver<Way>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            way = ways.wait_for(|way| *way == Way::Cut) => { drop(way); return }
            read = from.read(&mut buffer) => read,
        };
        let Ok(read @ 1..) = read else {
            let _ = to.shutdown().await;
            return;
        };
        // What was read on a way that is muted waits until it is not.
        let Ok(way) = ways.wait_for(|way| *way != Way::Mute).await.map(|way| *way) else { return };
        match way {
            Way::Cut => return,
            Way::Slow(delay) => tokio::time::sleep(delay).await,
            Way::Open | Way::Mute => {}
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
