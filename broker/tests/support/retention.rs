//! Data that goes: by its tenant's hand, by age, with its tenant; also when the broker dies in the middle. Over whichever store the
//! file that takes this in makes its worlds with.

use super::common::*;
use super::world;
use mpegflow_broker::model::TenantLimits;
use mpegflow_protocol::api::{Job, JobPage, JobState};
use std::time::Duration;

async fn done(tenant: &Client, worker: &Worker) -> Job {
    let job = submit(tenant, b"the media").await;
    assert_eq!(worker.run().await, 4);
    let job = show(tenant, &job).await;
    assert_eq!(job.state, JobState::Succeeded);
    job
}

fn folder(world: &World) -> std::path::PathBuf {
    world.dir.path().join("data/objects")
}

/// Every file with a job's or an upload's id in its path.
fn files_of(world: &World, id: impl ToString) -> usize {
    let id = id.to_string();
    files(&folder(world)).iter().filter(|path| path.contains(&id)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_job_is_gone_at_once_and_its_bytes_and_rows_with_the_next_sweep() {
    let world = world().await;
    let (tenant, other, worker) = (world.tenant("a").await, world.tenant("b").await, world.worker().await);
    let job = done(&tenant, &worker).await;
    let stays = done(&tenant, &worker).await;
    let path = format!("/v1/jobs/{}", job.id);
    assert_eq!(other.call("DELETE", &path, "").await.status, 404, "another tenant's");
    assert!(files_of(&world, job.id) >= 15);
    assert_eq!(tenant.call("DELETE", &path, "").await.status, 204);
    // Nothing of it can be seen any more.
    for path in [path.clone(), format!("{path}/logs"), format!("{path}/events"), job.outputs[0].url.clone()] {
        assert_eq!(tenant.get(&path).await.status, 404, "{path}");
    }
    assert_eq!(tenant.call("DELETE", &path, "").await.status, 404);
    assert_eq!(tenant.call("POST", &format!("{path}/cancel"), "").await.status, 404);
    let jobs = tenant.get("/v1/jobs").await.json::<JobPage>().jobs;
    assert_eq!(jobs.iter().map(|j| j.id).collect::<Vec<_>>(), [stays.id]);
    assert_eq!(tenant.get("/v1/jobs?state=succeeded").await.json::<JobPage>().jobs.len(), 1);
    let engine = world.broker().engine();
    engine.sweep().await.unwrap();
    assert!(engine.store().purgeable_jobs(9).await.unwrap().is_empty());
    assert_eq!(files_of(&world, job.id), 0);
    let id = world.broker().ensure_tenant("a").await.unwrap();
    let events = world.broker().engine().events(id, None, 0).await.unwrap();
    assert!(events.iter().all(|e| e.job == stays.id) && events.len() == 10, "{events:?}");
    // The other one is whole, and so is the upload of the first.
    assert_eq!(tenant.get(&stays.outputs[0].url).await.status, 200);
    assert_eq!(files(&folder(&world)).iter().filter(|p| p.contains("/uploads/")).count(), 2);
    let again = done(&tenant, &worker).await;
    assert_eq!(again.outputs.len(), 15, "and work goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_has_not_ended_is_not_deleted() {
    let world = world().await;
    let (tenant, worker) = (world.tenant("a").await, world.worker().await);
    let job = submit(&tenant, b"x").await;
    let path = format!("/v1/jobs/{}", job.id);
    let refused = tenant.call("DELETE", &path, "").await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (409, "job_active"));
    let lease = worker.lease().await;
    assert_eq!(tenant.call("DELETE", &path, "").await.problem(), "job_active");
    assert_eq!(tenant.call("POST", &format!("{path}/cancel"), "").await.status, 200);
    assert_eq!(tenant.call("DELETE", &path, "").await.problem(), "job_active", "a worker still has it");
    worker.end(&lease, "release", b"{}".to_vec()).await;
    assert_eq!(tenant.call("DELETE", &path, "").await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_that_died_had_deleted_is_removed_by_the_next_one() {
    let mut world = world().await;
    let (tenant, worker) = (world.tenant("a").await, world.worker().await);
    let job = done(&tenant, &worker).await;
    assert_eq!(tenant.call("DELETE", &format!("/v1/jobs/{}", job.id), "").await.status, 204);
    assert!(files_of(&world, job.id) > 0);
    world.crash_and_restart().await;
    // Its own sweep, with nobody's help.
    eventually("the files go", async || files_of(&world, job.id) == 0).await;
    let engine = world.broker().engine();
    eventually("the rows go", async || engine.store().purgeable_jobs(9).await.unwrap().is_empty()).await;
    let id = world.broker().ensure_tenant("a").await.unwrap();
    eventually("the events go", async || engine.events(id, None, 0).await.unwrap().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_a_tenant_keeps_goes_and_what_others_keep_stays() {
    let world = world().await;
    let (tenant, other, worker) = (world.tenant("a").await, world.tenant("b").await, world.worker().await);
    let (job, running) = (done(&tenant, &worker).await, submit(&tenant, b"still needed").await);
    let theirs = {
        let worker = world.worker().await;
        done(&other, &worker).await
    };
    let engine = world.broker().engine();
    let none = engine.retain(None).await.unwrap();
    assert_eq!((none.jobs, none.uploads), (0, 0), "kept for ever unless something else is said");
    let long = engine.retain(Some(Duration::from_secs(3_600))).await.unwrap();
    assert_eq!((long.jobs, long.uploads), (0, 0), "not old enough");
    let id = world.broker().ensure_tenant("a").await.unwrap();
    let limits = TenantLimits { retention_days: Some(0), ..TenantLimits::default() };
    assert!(engine.store().set_tenant_limits(id, &limits).await.unwrap());
    tokio::time::sleep(Duration::from_millis(20)).await;
    engine.retain(Some(Duration::from_secs(3_600))).await.unwrap();
    engine.sweep().await.unwrap();
    assert_eq!(files_of(&world, job.id), 0);
    assert_eq!(tenant.get(&format!("/v1/jobs/{}", job.id)).await.status, 404);
    assert_eq!(
        tenant.get(&format!("/v1/uploads/{}", upload_of(&job))).await.status,
        404,
        "no other needs it"
    );
    assert_eq!(show(&tenant, &running).await.state, JobState::Queued);
    assert_eq!(tenant.get(&format!("/v1/uploads/{}", upload_of(&running))).await.status, 200);
    assert_eq!(other.get(&theirs.outputs[0].url).await.status, 200);
    let worker = world.worker().await;
    assert_eq!(worker.run().await, 4, "the one that waited is not touched");
}

fn upload_of(job: &Job) -> String {
    let spec = serde_json::to_value(&job.spec).unwrap();
    spec["input"]["upload"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tenant_leaves_nothing_but_its_id_and_its_name_is_free() {
    let mut world = world().await;
    let (tenant, other, worker) = (world.tenant("a").await, world.tenant("b").await, world.worker().await);
    let id = world.broker().ensure_tenant("a").await.unwrap();
    let (job, waiting) = (done(&tenant, &worker).await, submit(&tenant, b"waits").await);
    let leased = submit(&tenant, b"is worked at").await;
    let lease = worker.lease().await;
    upload(&tenant, b"of no job").await;
    let unfinished = tenant.call("POST", "/v1/uploads", r#"{"size":3}"#).await;
    assert_eq!(unfinished.status, 201);
    let theirs = upload(&other, b"another's").await;
    let engine = world.broker().engine();
    assert_eq!(engine.delete_tenant("nobody").await.unwrap(), None);
    assert_eq!(engine.delete_tenant("a").await.unwrap(), Some(id));
    assert_eq!(tenant.get("/v1/jobs").await.status, 401, "at once");
    assert_eq!(engine.delete_tenant("a").await.unwrap(), None, "there is none any more");
    let fresh = world.tenant("a").await;
    assert_eq!(
        fresh.get(&format!("/v1/jobs/{}", job.id)).await.status,
        404,
        "another tenant of the same name"
    );
    assert_ne!(world.broker().ensure_tenant("a").await.unwrap(), id);
    // Half of it is done when the broker dies; a worker still holds a lease.
    world.broker().engine().retain(None).await.unwrap();
    world.crash_and_restart().await;
    let engine = world.broker().engine();
    let join = world.join_file().await;
    let worker = Worker {
        client: Client::new(
            format!("https://{}", world.broker().worker_addr()),
            Some(&join.ca),
            Some((&worker.certificate, &worker.key)),
        ),
        ..worker
    };
    let beat = worker.beat(&lease, Default::default()).await;
    assert!(beat.text().contains("cancel"), "{}", beat.text());
    worker.end(&lease, "release", b"{}".to_vec()).await;
    eventually("all of it is gone", async || {
        engine.retain(None).await.unwrap();
        engine.sweep().await.unwrap();
        !engine.store().tenants().await.unwrap().iter().any(|t| t.id == id)
    })
    .await;
    assert!(
        files(&folder(&world)).iter().all(|path| !path.contains(&id.to_string())),
        "{:?}",
        files(&folder(&world))
    );
    assert!(engine.store().jobs(id, None, None, 10).await.unwrap().is_empty());
    assert!(engine.events(id, None, 0).await.unwrap().is_empty());
    assert_eq!(files_of(&world, theirs.id), 1);
    assert_ne!(waiting.id, leased.id);
}
