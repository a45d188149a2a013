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
