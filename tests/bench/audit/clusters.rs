//! Clusters as manifests in a folder, and as they are read.

use mpegflow_policies::cluster::Cluster as World;
use mpegflow_policies::read::{self, Input, Limits, ReadOptions};
use mpegflow_policies_generator::large::{Cluster, Shape};
use mpegflow_policies_generator::yaml::{Document, stream};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) fn shape((pods, policies): (usize, usize), all_distinct: bool) -> Shape {
    Shape { pods, policies, seed: 1, all_distinct }
}

/// A cluster's manifests in a folder.
pub(super) struct Manifests {
    pub(super) folder: PathBuf,
}

impl Manifests {
    /// As `generate-cluster large` writes them.
    pub(super) fn yaml(cluster: &Cluster, folder: &Path) -> Self {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("namespaces.yaml"), stream(&cluster.namespaces)).unwrap();
        std::fs::write(folder.join("policies.yaml"), stream(&cluster.policies)).unwrap();
        for (at, pods) in cluster.pods.chunks(1_000).enumerate() {
            std::fs::write(folder.join(format!("pods-{at:03}.yaml")), stream(pods)).unwrap();
        }
        Self { folder: folder.to_owned() }
    }

    /// As `kubectl get -A -o json` prints them: one list of each kind.
    pub(super) fn json(cluster: &Cluster, folder: &Path) -> Self {
        std::fs::create_dir(folder).unwrap();
        let list = |documents: &[Document]| {
            let items: Vec<&Value> = documents.iter().map(|document| &document.0).collect();
            serde_json::to_vec_pretty(&json!({ "apiVersion": "v1", "kind": "List", "items": items })).unwrap()
        };
        std::fs::write(folder.join("namespaces.json"), list(&cluster.namespaces)).unwrap();
        std::fs::write(folder.join("policies.json"), list(&cluster.policies)).unwrap();
        std::fs::write(folder.join("pods.json"), list(&cluster.pods)).unwrap();
        Self { folder: folder.to_owned() }
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files().iter().map(|file| file.metadata().unwrap().len()).sum()
    }

    /// Files to cluster, and how long that took.
    pub(super) fn read(&self) -> (World, Duration) {
        let started = Instant::now();
        let mut input = Input::new(Limits::default());
        for file in self.files() {
            input.add(&file.to_string_lossy(), std::fs::read(&file).unwrap()).unwrap();
        }
        let cluster = read::cluster(&input, &ReadOptions::default()).unwrap().cluster;
        (cluster, started.elapsed())
    }
}

/// A cluster as it is read, without files.
pub(super) fn in_memory(cluster: &Cluster) -> World {
    let Cluster { namespaces, pods, policies } = cluster;
    let mut input = Input::new(Limits::default());
    input.add("cluster.yaml", stream(namespaces.iter().chain(pods).chain(policies))).unwrap();
    read::cluster(&input, &ReadOptions::default()).unwrap().cluster
}
