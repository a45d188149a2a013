//! Kubernetes clusters made from a seed, as YAML text.
//!
//! - [`small`]: a few pods and policies in which every field combination comes up, to compare engines by;
//! - [`shrink`]: a failing small cluster with everything left out that the failure does not need;
//! - [`large`]: thousands of pods and policies, to time engines on.
//!
//! No clock, no files, no randomness but the seed's: the same seed gives the same text on every machine.
//!
//! ```
//! use mpegflow_policies_generator::small::{Case, Dialect};
//!
//! let case = Case::generate(7, Dialect::Kubernetes);
//! assert_eq!(case, Case::generate(7, Dialect::Kubernetes));
//! assert!(case.manifests().contains("kind: Namespace"));
//! ```

pub mod large;
pub mod rng;
pub mod shrink;
pub mod small;
pub mod yaml;
