//! Manifests in, a [`crate::cluster::Cluster`] out.
