//! Network policies of Kubernetes, Cilium and Calico: a model, an exact evaluator, emitters and an audit. Pure: no cluster,
//! no file system, no clock.
//!
//! | module | holds |
//! |---|---|
//! | [`read`] | manifests → [`cluster::Cluster`]: YAML as the API server reads it, one parser for each dialect |
//! | [`cluster`], [`policy`], [`matching`] | the model; every dialect becomes these |
//! | [`sets`], [`truth`] | exact sets of addresses, ports and traffic; three-valued logic |
//! | [`places`] | addresses that every audit asks about |
//! | [`profile`] | what each CNI does where the specifications leave it open |
//! | [`evaluate`] | which traffic passes between two endpoints, and why |
//! | [`emit`] | policies from an intent, in each dialect |
//! | [`audit`] | intents, findings, baselines, observed flows, differences |
//! | [`report`] | table, JSON, SARIF, HTML, DOT |
//!
//! # Manifests to a verdict
//!
//! ```
//! use mpegflow_policies::audit::{Request, intent, run};
//! use mpegflow_policies::evaluate::{Evaluation, Options};
//! use mpegflow_policies::read::{self, Input, Limits, ReadOptions};
//! use mpegflow_policies::sets::Protocol;
//! use mpegflow_policies::truth::Truth;
//!
//! let mut manifests = Input::new(Limits::default());
//! manifests.add("shop.yaml", "
//! apiVersion: v1
//! kind: Pod
//! metadata: {name: web, namespace: shop, labels: {app: web}}
//! spec: {containers: [{name: c, image: i}]}
//! status: {podIP: 10.0.0.1}
//! ---
//! apiVersion: v1
//! kind: Pod
//! metadata: {name: db, namespace: shop, labels: {app: db}}
//! spec: {containers: [{name: c, image: i}]}
//! status: {podIP: 10.0.0.2}
//! ---
//! apiVersion: networking.k8s.io/v1
//! kind: NetworkPolicy
//! metadata: {name: web, namespace: shop}
//! spec:
//!   podSelector: {matchLabels: {app: web}}
//!   policyTypes: [Egress]
//!   egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}]}]
//! ")?;
//! let cluster = read::cluster(&manifests, &ReadOptions::default())?.cluster;
//!
//! // One pair, all packets at once.
//! let evaluation = Evaluation::new(&cluster, "calico@3.30".parse()?, Options::default())?;
//! let pod = |index| evaluation.pod(index).ok_or("finished");
//! let verdict = evaluation.verdict(pod(0)?, pod(1)?);
//! assert!(verdict.allowed.contains(Protocol::Tcp, 5432));
//! assert!(verdict.denied.contains(Protocol::Tcp, 22));
//!
//! // What is meant, against everybody.
//! let mut intents = Input::new(Limits::default());
//! intents.add("intents.yaml", "
//! apiVersion: mpegflow.io/v1alpha1
//! kind: NetworkIntents
//! intents:
//! - name: the shop reaches its database and nothing else
//!   from: {namespace: shop, pods: {app: web}}
//!   may: [{namespace: shop, pods: {app: db}, ports: [5432]}]
//! ")?;
//! let outcome = run(&Request {
//!     cluster: &cluster,
//!     profile: "calico@3.30".parse()?,
//!     complete: true,
//!     intents: intent::read(&intents)?,
//!     pod_cidrs: None,
//!     baseline: None,
//!     today: "2026-01-01".parse()?,
//!     flows: &[],
//! })?;
//! println!("{}", outcome.sentence);
//! assert_eq!(outcome.proved, Truth::Yes);
//! assert_eq!(outcome.sentence, "Proved for 1 pod: the shop reaches its database and nothing else.");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod audit;
pub mod cluster;
pub mod emit;
pub mod evaluate;
pub mod hardening;
pub mod matching;
pub mod places;
pub mod policy;
pub mod profile;
pub mod rbac;
pub mod read;
pub mod report;
pub mod sets;
pub mod source;
pub mod truth;
