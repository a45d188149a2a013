//! What every store promises to the intake: one job for each object as it is, whoever asks and how often.

use super::store::{make, new_job};
use crate::model::{TenantLimits, Time};
use crate::secret::fresh_id;
use crate::store::identity::{Pushed, PushedTenant};
use crate::store::intake::{Arrival, Looked, ManagedRule, RuleRecord, Trouble};
use crate::store::{Idempotency, NewJob, Once, Store, Submitted};
use mpegflow_protocol::ids::TenantId;
use std::sync::Arc;

const T0: Time = Time(1_700_000_000_000);

/// Every promise, on a store that the suite of stores has used.
pub async fn all(store: Arc<dyn Store>) {
    rules(&*store).await;
    arrivals(&store).await;
    looks(&*store).await;
    managed(&*store).await;
}

fn rule(tenant: TenantId) -> RuleRecord {
    RuleRecord {
        id: fresh_id(),
        tenant,
        prefix: "in/".into(),
        suffix: ".mov".into(),
        job: serde_json::from_str(r#"{"version":1,"preset":"web"}"#).unwrap(),
        poll_seconds: Some(60),
        existing: true,
        managed: None,
        created_at: T0,
        cursor: String::new(),
        next_look_at: Some(T0),
        looked_at: None,
        problem: None,
    }
}

async fn rules(store: &dyn Store) {
    let (made, other) = (make(store, "rules").await, make(store, "no rules").await);
    let (first, second) = (rule(made.tenant), RuleRecord { poll_seconds: None, ..rule(made.tenant) });
    let once = Idempotency { key: "rule".into(), request: [1; 32] };
    let add = async |new: &RuleRecord, once: Option<&Idempotency>| {
        store.add_rule(new, 2, once, b"the rule").await.unwrap()
    };
    assert_eq!(add(&first, Some(&once)).await, Once::Done(true));
    assert_eq!(add(&second, Some(&once)).await, Once::Replay(b"the rule".to_vec()));
    let reused = Idempotency { request: [2; 32], ..once };
    assert_eq!(add(&second, Some(&reused)).await, Once::Mismatch);
    assert_eq!(add(&second, None).await, Once::Done(true));
    assert_eq!(add(&rule(made.tenant), None).await, Once::Done(false), "no more than allowed");
    assert_eq!(store.rules(made.tenant).await.unwrap(), [first.clone(), second.clone()]);
    assert_eq!(store.rules(other.tenant).await.unwrap(), []);
    let trouble = Trouble { at: T0, key: Some("in/a.mov".into()), reason: "why".into() };
    store.note(first.id, &trouble).await.unwrap();
    assert_eq!(store.rules(made.tenant).await.unwrap()[0].problem, Some(trouble));
    assert!(!store.look_again(other.tenant, first.id, T0).await.unwrap());
    assert!(!store.delete_rule(other.tenant, first.id).await.unwrap());
    assert!(store.delete_rule(made.tenant, first.id).await.unwrap());
    assert!(!store.delete_rule(made.tenant, first.id).await.unwrap());
    // What a tenant has goes with it.
    assert_eq!(store.delete_tenant("rules", T0).await.unwrap(), Some(made.tenant));
    assert_eq!(store.rules(made.tenant).await.unwrap(), []);
    assert!(store.rules_to_look(T0.plus_ms(1), 9).await.unwrap().iter().all(|r| r.tenant != made.tenant));
}

/// A rule as a resource names it; its id is another one each time.
fn wanted(name: &str) -> ManagedRule {
    ManagedRule {
        name: name.into(),
        id: fresh_id(),
        prefix: "in/".into(),
        suffix: ".mov".into(),
        job: r#"{"preset":"web","version":1}"#.into(),
        poll_seconds: Some(60),
        existing: false,
    }
}

async fn managed(store: &dyn Store) {
    let (made, other) = (make(store, "managed rules").await, make(store, "other managed rules").await);
    let push = async |generation: u64, rules: &[ManagedRule], now: Time| {
        let tenant = PushedTenant {
            id: made.tenant,
            name: "managed rules".into(),
            uid: "t4".into(),
            generation,
            weight: 100,
            limits: TenantLimits::default(),
            storage: None,
            webhooks: Vec::new(),
            rules: rules.iter().map(|rule| ManagedRule { id: fresh_id(), ..rule.clone() }).collect(),
        };
        store.put_tenant(&tenant, now).await.unwrap()
    };
    let (mine, theirs) = (rule(made.tenant), rule(other.tenant));
    for rule in [&mine, &theirs] {
        assert_eq!(store.add_rule(rule, 1, None, b"").await.unwrap(), Once::Done(true));
    }
    let here = async || -> Vec<RuleRecord> {
        let mut all = store.rules(made.tenant).await.unwrap();
        assert_eq!(store.rules(other.tenant).await.unwrap(), std::slice::from_ref(&theirs));
        assert!(all.contains(&mine), "the tenant's own is as it was: {all:?}");
        all.retain(|rule| rule.id != mine.id);
        all.sort_by(|a, b| a.managed.cmp(&b.managed));
        all
    };
    let (a, b) = (wanted("a"), ManagedRule { poll_seconds: None, ..wanted("b") });
    assert_eq!(push(2, &[b.clone(), a.clone()], T0).await, Pushed::Done);
    let first = here().await;
    let base = RuleRecord { existing: false, managed: Some("a".into()), id: first[0].id, ..mine.clone() };
    let silent = RuleRecord {
        managed: Some("b".into()),
        id: first[1].id,
        poll_seconds: None,
        next_look_at: None,
        ..base.clone()
    };
    assert_eq!(first, [base.clone(), silent]);

    // A rule that has come somewhere, and knows one object of which there is a job and one of which there can be none.
    let trouble = Trouble { at: T0, key: Some("in/bad.mov".into()), reason: "why".into() };
    let arrival = |object: &str| Arrival {
        rule: base.id,
        bucket: "films".into(),
        object: object.into(),
        version: "v".into(),
        modified: 100,
        sequencer: None,
    };
    let job = NewJob { arrival: Some(arrival("in/good.mov")), ..new_job(&made) };
    assert_eq!(store.submit(&job, None, T0).await.unwrap(), Once::Done(Submitted::Created));
    assert!(store.refuse(&arrival("in/bad.mov"), &trouble).await.unwrap());
    let looked = Looked { rule: base.id, from: "", to: "in/c", next_at: Some(T0.plus_ms(9)), problem: None };
    assert!(store.looked(&looked, T0).await.unwrap());
    let known = async || {
        let names = ["in/good.mov".to_owned(), "in/bad.mov".to_owned()];
        let mut known = store.known(base.id, "films", &names).await.unwrap();
        known.sort();
        known.into_iter().map(|(object, _)| object).collect::<Vec<_>>()
    };
    let busy = here().await;
    assert_eq!((busy[0].cursor.as_str(), &busy[0].problem), ("in/c", &Some(trouble)));
    let later = T0.plus_ms(1_000);
    assert_eq!(push(2, &[a.clone(), b.clone()], later).await, Pushed::Done);
    assert_eq!(push(1, &[], later).await, Pushed::Stale(2));
    assert_eq!(here().await, busy, "what is as the resource says is left as it is");
    assert_eq!(known().await, ["in/bad.mov", "in/good.mov"]);
    // They take none of what the tenant may make itself.
    assert_eq!(store.add_rule(&rule(made.tenant), 1, None, b"").await.unwrap(), Once::Done(false));

    // Another job for the same objects: what was refused is tried again, and nothing twice.
    let better = ManagedRule { job: r#"{"preset":"mp4","version":1}"#.into(), ..a.clone() };
    assert_eq!(push(3, &[better.clone(), b.clone()], later).await, Pushed::Done);
    let again = RuleRecord {
        job: serde_json::from_str(&better.job).unwrap(),
        next_look_at: Some(later),
        ..base.clone()
    };
    assert_eq!(here().await[0], again);
    assert_eq!(known().await, ["in/good.mov"]);
    // Other objects: those that were written before it are as they are to a new rule.
    let moved = ManagedRule { prefix: "new/".into(), ..better };
    assert_eq!(push(4, std::slice::from_ref(&moved), later).await, Pushed::Done);
    let elsewhere = RuleRecord { prefix: "new/".into(), created_at: later, ..again };
    assert_eq!(here().await, [elsewhere]);
    assert_eq!(known().await, ["in/good.mov"]);

    assert!(store.delete_rule(made.tenant, base.id).await.unwrap());
    assert_eq!(push(4, &[moved], later).await, Pushed::Done);
    let back = here().await;
    assert!(back.len() == 1 && back[0].id != base.id, "what somebody took away is there again: {back:?}");
    assert_eq!(push(5, &[], later).await, Pushed::Done);
    assert_eq!(here().await, []);
}

async fn arrivals(store: &Arc<dyn Store>) {
    let (made, other) = (make(&**store, "arrivals").await, make(&**store, "no arrivals").await);
    let (rule, beside) = (rule(made.tenant), rule(made.tenant));
    for rule in [&rule, &beside] {
        assert_eq!(store.add_rule(rule, 9, None, b"").await.unwrap(), Once::Done(true));
    }
    let arrival = |version: &str, modified: i64| Arrival {
        rule: rule.id,
        bucket: "films".into(),
        object: "p/in/a.mov".into(),
        version: version.into(),
        modified,
        sequencer: Some(format!("{modified:064}")),
    };
    let job = |arrival: &Arrival| NewJob { arrival: Some(arrival.clone()), ..new_job(&made) };
    let submit = async |arrival: &Arrival| store.submit(&job(arrival), None, T0).await.unwrap();
    // Of many at once, one makes the job.
    let first = arrival("v1", 100);
    let all = (0..32).map(|_| {
        let (store, new) = (Arc::clone(store), job(&first));
        tokio::spawn(async move { store.submit(&new, None, T0).await.unwrap() })
    });
    let ends = futures_util::future::join_all(all).await;
    let count =
        |wanted: Submitted| ends.iter().filter(|end| *end.as_ref().unwrap() == Once::Done(wanted)).count();
    assert_eq!((count(Submitted::Created), count(Submitted::Known)), (1, 31));
    assert_eq!(store.jobs(made.tenant, None, None, 100).await.unwrap().len(), 1);
    let heard = async |sequencer: &str| store.heard(rule.id, "films", "p/in/a.mov", sequencer).await.unwrap();
    assert!(heard(&format!("{:064}", 100)).await && !heard("0").await);
    // Newer bytes are another job, older ones are none, nor are those of the same second that came before.
    assert_eq!(submit(&arrival("v3", 300)).await, Once::Done(Submitted::Created));
    assert_eq!(submit(&arrival("v2", 200)).await, Once::Done(Submitted::Known));
    let same_second =
        |sequencer: Option<&str>| Arrival { sequencer: sequencer.map(str::to_owned), ..arrival("v3b", 300) };
    assert_eq!(submit(&same_second(Some("0"))).await, Once::Done(Submitted::Known));
    assert_eq!(submit(&same_second(None)).await, Once::Done(Submitted::Created));
    // Each rule, bucket and object stands for itself.
    for new in [
        Arrival { rule: beside.id, ..first.clone() },
        Arrival { bucket: "other".into(), ..first.clone() },
        Arrival { object: "p/in/b.mov".into(), ..first.clone() },
    ] {
        assert_eq!(submit(&new).await, Once::Done(Submitted::Created), "{new:?}");
        assert_eq!(submit(&new).await, Once::Done(Submitted::Known), "{new:?}");
    }
    let objects = ["p/in/a.mov".to_owned(), "p/in/c.mov".to_owned()];
    let mut known = store.known(rule.id, "films", &objects).await.unwrap();
    known.sort();
    let versions: Vec<&str> = known.iter().map(|(_, version)| version.as_str()).collect();
    assert_eq!(versions, ["v1", "v3", "v3b"]);
    // A rule makes no job of another tenant, nor after its end.
    let stolen = NewJob { arrival: Some(arrival("v4", 400)), ..new_job(&other) };
    assert_eq!(store.submit(&stolen, None, T0).await.unwrap(), Once::Done(Submitted::NoRule));
    // What a job was not made of is not noted.
    let full = NewJob { max_unfinished: 1, ..job(&arrival("v5", 500)) };
    assert_eq!(store.submit(&full, None, T0).await.unwrap(), Once::Done(Submitted::TooMany));
    assert_eq!(submit(&arrival("v5", 500)).await, Once::Done(Submitted::Created));
    // What is refused is known until the rule looks again.
    let bad = Arrival { object: "p/in/bad.mov".into(), ..first.clone() };
    let trouble = Trouble { at: T0, key: Some("in/bad.mov".into()), reason: "why".into() };
    assert!(store.refuse(&bad, &trouble).await.unwrap());
    assert!(!store.refuse(&bad, &trouble).await.unwrap());
    assert_eq!(submit(&bad).await, Once::Done(Submitted::Known));
    assert!(store.look_again(made.tenant, rule.id, T0).await.unwrap());
    assert_eq!(store.rules(made.tenant).await.unwrap()[0].problem, None);
    assert_eq!(submit(&bad).await, Once::Done(Submitted::Created));
    assert_eq!(submit(&arrival("v5", 500)).await, Once::Done(Submitted::Known), "a job is not made again");
    // Old ones are forgotten, by both clocks.
    let later = T0.plus_ms(1);
    assert_eq!(store.forget_arrivals(100, later).await.unwrap(), 0);
    assert_eq!(store.forget_arrivals(1_000, T0).await.unwrap(), 0);
    assert!(store.forget_arrivals(101, later).await.unwrap() >= 4);
    assert!(!store.known(rule.id, "films", &objects).await.unwrap().is_empty());
    assert!(store.delete_rule(made.tenant, rule.id).await.unwrap());
    assert_eq!(submit(&arrival("v6", 600)).await, Once::Done(Submitted::NoRule));
    assert!(store.known(rule.id, "films", &objects).await.unwrap().is_empty());
}

async fn looks(store: &dyn Store) {
    let made = make(store, "looks").await;
    let rule = rule(made.tenant);
    assert_eq!(store.add_rule(&rule, 9, None, b"").await.unwrap(), Once::Done(true));
    let due = async |now: Time| store.rules_to_look(now, 100).await.unwrap().iter().any(|r| r.id == rule.id);
    assert!(due(T0).await && !due(Time(T0.0 - 1)).await);
    let shown = async || store.rules(made.tenant).await.unwrap().remove(0);
    let page = |from: &'static str, to: &'static str, next: u64, problem: Option<&'static str>| Looked {
        rule: rule.id,
        from,
        to,
        next_at: Some(T0.plus_ms(next)),
        problem,
    };
    assert!(store.looked(&page("", "in/m.mov", 0, None), T0).await.unwrap());
    assert_eq!((shown().await.cursor.as_str(), shown().await.looked_at), ("in/m.mov", None));
    // Who was paused in between moves nothing.
    assert!(!store.looked(&page("", "in/x.mov", 0, None), T0).await.unwrap());
    assert!(store.looked(&page("in/m.mov", "in/m.mov", 5, Some("why")), T0).await.unwrap());
    let trouble = Trouble { at: T0, key: None, reason: "why".into() };
    assert_eq!((shown().await.problem, shown().await.cursor.as_str()), (Some(trouble), "in/m.mov"));
    assert!(!due(T0).await && due(T0.plus_ms(5)).await);
    let end = Looked { next_at: None, ..page("in/m.mov", "", 0, None) };
    assert!(store.looked(&end, T0.plus_ms(7)).await.unwrap());
    assert_eq!((shown().await.cursor.as_str(), shown().await.looked_at), ("", Some(T0.plus_ms(7))));
    assert!(!due(T0.plus_ms(1_000_000)).await);
    assert!(store.look_again(made.tenant, rule.id, T0.plus_ms(9)).await.unwrap());
    assert!(due(T0.plus_ms(9)).await);
    assert!(store.delete_rule(made.tenant, rule.id).await.unwrap());
}
