//! Who leads.

use crate::support::turn;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use mpegflow_operator::lease::{Candidate, Lost, Timing};
use mpegflow_test_cluster::{Process, until};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const TIMING: Timing = Timing {
    duration: Duration::from_secs(3),
    renew_deadline: Duration::from_secs(2),
    retry: Duration::from_millis(400),
};

async fn holder(leases: &Api<Lease>, name: &str) -> Option<String> {
    leases.get_opt(name).await.ok()??.spec?.holder_identity
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_until_it_stops_and_the_next_follows_at_once() {
    let turn = turn().await;
    let client = turn.shared.cluster.client();
    let leases: Api<Lease> = Api::namespaced(client.clone(), "mpegflow");
    let [stop_a, stop_b] = [CancellationToken::new(), CancellationToken::new()];
    let candidate = |who: &str| Candidate::new(client.clone(), "mpegflow", "handed-over", who, TIMING);
    let (mut a, mut b) = (candidate("a"), candidate("b"));
    assert!(a.acquire(&stop_a).await);
    let a = tokio::spawn({
        let stop = stop_a.clone();
        async move { a.keep(&stop).await }
    });
    let b = tokio::spawn({
        let stop = stop_b.clone();
        async move {
            assert!(b.acquire(&stop).await);
            let since = Instant::now();
            (b.keep(&stop).await, since)
        }
    });
    // Longer than a lease lasts: it is renewed, or b would have it.
    tokio::time::sleep(TIMING.duration * 2).await;
    assert_eq!(holder(&leases, "handed-over").await.as_deref(), Some("a"));
    let stopped = Instant::now();
    stop_a.cancel();
    assert_eq!(a.await.unwrap(), Ok(()));
    until("b leads", || async {
        (holder(&leases, "handed-over").await.as_deref() == Some("b")).then_some(())
    })
    .await;
    let spec = leases.get("handed-over").await.unwrap().spec.unwrap();
    assert_eq!(spec.lease_transitions, Some(1));
    stop_b.cancel();
    let (kept, since) = b.await.unwrap();
    assert_eq!(kept, Ok(()));
    assert!(since >= stopped, "never two at once");
    assert_eq!(holder(&leases, "handed-over").await.as_deref(), Some(""), "given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_lease_and_one_that_cannot_be_renewed_are_lost_before_another_may_lead() {
    let turn = turn().await;
    let shared = turn.shared;
    let client = shared.cluster.client();
    let leases: Api<Lease> = Api::namespaced(client.clone(), "mpegflow");
    let stop = CancellationToken::new();

    let mut robbed = Candidate::new(client.clone(), "mpegflow", "stolen", "a", TIMING);
    assert!(robbed.acquire(&stop).await);
    let thief = json!({ "spec": { "holderIdentity": "thief", "renewTime": "2026-01-01T00:00:00.000000Z" } });
    leases.patch("stolen", &PatchParams::default(), &Patch::Merge(thief)).await.unwrap();
    assert_eq!(robbed.keep(&stop).await, Err(Lost::Taken));

    // The thief's clock is months behind. It is our own clock that counts from when we saw the record, so that a candidate
    // waits a whole lease before it takes it.
    let mut next = Candidate::new(client.clone(), "mpegflow", "stolen", "b", TIMING);
    let begun = Instant::now();
    assert!(next.acquire(&stop).await);
    assert!(begun.elapsed() >= TIMING.duration, "{:?}", begun.elapsed());

    // The API server goes away.
    let mut cut_off = Candidate::new(client, "mpegflow", "cut-off", "a", TIMING);
    assert!(cut_off.acquire(&stop).await);
    shared.cluster.stop_api_server();
    let begun = Instant::now();
    let lost = cut_off.keep(&stop).await;
    let after = begun.elapsed();
    shared.cluster.start_api_server();
    assert_eq!(lost, Err(Lost::NotRenewed));
    assert!(after < TIMING.duration, "{after:?}: another may lead by then");
    let pools = shared.pools("media");
    until("the API server is back", || async { pools.list(&Default::default()).await.ok() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_operator_waits_and_the_process_that_loses_the_lease_exits() {
    let turn = turn().await;
    let shared = turn.shared;
    let leases: Api<Lease> = Api::namespaced(shared.cluster.client(), "mpegflow");
    let leader = until("somebody leads", || async {
        holder(&leases, "mpegflow-operator").await.filter(|who| !who.is_empty())
    })
    .await;

    let mut second = shared.operator("mpegflow-operator").await;
    second.args(["--identity", "second"]);
    let second = Process::start("second-operator", shared.cluster.dir(), &second);
    until("it waits", || async { second.log().contains("waiting for the lease").then_some(()) }).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(!second.log().contains("leading"), "{}", second.log());
    assert_eq!(holder(&leases, "mpegflow-operator").await, Some(leader));

    // Somebody writes over the leader's lease: its process ends, and the second leads once the thief's lease has run out.
    let thief = json!({ "spec": { "holderIdentity": "thief", "leaseDurationSeconds": 2 } });
    leases.patch("mpegflow-operator", &PatchParams::default(), &Patch::Merge(thief)).await.unwrap();
    until("the second leads", || async {
        (holder(&leases, "mpegflow-operator").await.as_deref() == Some("second")).then_some(())
    })
    .await;
    assert!(shared.operator_log().contains("somebody else holds the lease"), "{}", shared.operator_log());
    until("the first has ended", || async { shared.operator_has_ended().then_some(()) }).await;

    // The second does the work.
    shared.pool("handed", json!({})).await;
    shared.until_reason("handed", "ScaledToZero").await;
    shared.delete_pool("handed").await;
    drop(second);
    shared.stop_operator();
    shared.start_operator().await;
    shared.pool("handed-back", json!({})).await;
    shared.until_reason("handed-back", "ScaledToZero").await;
    shared.delete_pool("handed-back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_whose_clocks_are_hours_apart_lead_one_after_the_other() {
    const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    assert!(std::path::Path::new(FAKETIME).exists(), "no {FAKETIME}: 'tools/setup test' installs it");
    const LEASE: u64 = 6;
    let turn = turn().await;
    let shared = turn.shared;
    let leases: Api<Lease> = Api::namespaced(shared.cluster.client(), "mpegflow");
    let record = async || leases.get("mpegflow-operator").await.unwrap().spec.unwrap();
    let start = async |name: &'static str, clock: &str| {
        let mut command = shared.operator_with_lease_of("mpegflow-operator", LEASE).await;
        command.args(["--identity", name]).env("LD_PRELOAD", FAKETIME).env("FAKETIME", clock);
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Process::start(name, shared.cluster.dir(), &command)
    };
    let until_leads = async |name: &str| {
        until(&format!("{name} leads"), || async {
            (holder(&leases, "mpegflow-operator").await.as_deref() == Some(name)).then_some(())
        })
        .await;
    };
    shared.stop_operator();
    for (first, second) in [("ahead", "late"), ("behind", "early")] {
        let (clock, other) = if first == "ahead" { ("+3h", "-3h") } else { ("-3h", "+3h") };
        let leader = start(first, clock).await;
        until_leads(first).await;
        let led = record().await;
        // The clock is what it was made to be, or this proves nothing.
        let ahead = led.renew_time.unwrap().0.duration_since(jiff::Timestamp::now()).as_secs();
        assert_eq!(ahead > 3600, first == "ahead", "{ahead} s");
        assert_eq!(ahead < -3600, first == "behind", "{ahead} s");
        let waits = start(second, other).await;
        until("it waits", || async { waits.log().contains("waiting for the lease").then_some(()) }).await;
        // For three times as long as a lease lasts that nobody renews.
        tokio::time::sleep(Duration::from_secs(3 * LEASE)).await;
        let now = record().await;
        assert_eq!(now.holder_identity.as_deref(), Some(first));
        assert_eq!(now.lease_transitions, led.lease_transitions, "it was never another's");
        assert!(!waits.log().contains("leading") && !leader.has_ended(), "{}", waits.log());
        drop(leader);
        until_leads(second).await;
        shared.pool("skewed", json!({})).await;
        shared.until_reason("skewed", "ScaledToZero").await;
        shared.delete_pool("skewed").await;
    }
    shared.start_operator().await;
}
