//! A resource as the operator reads it, in parts where the whole cannot be read.
//!
//! The API server may hold what these types cannot read: its definitions are of another version, or somebody edited them. Such an
//! object must hold up nobody else's, since a list is read as one; it has to be told what is wrong with it; and what protects the
//! pods that it has is still to be kept in place, as far as it can be read.

use kube::Resource;
use kube::core::ObjectMeta;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::ops::Deref;

/// Longest sentence about one field.
const MAX_WHY: usize = 256;
/// Most fields that are named.
const MAX_NAMED: usize = 3;

/// A kind of which parts can be read.
pub trait Readable: Resource<DynamicType = ()> + DeserializeOwned {
    /// The least spec that can be read.
    fn least() -> Map<String, Value>;
}

/// An object, with the fields of its spec that could be read. In place of the others stands what there is where they are left out.
#[derive(Debug, Clone)]
pub struct Read<K> {
    object: K,
    unread: Vec<Unread>,
}

/// A field that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Its path, such as `spec.resources.memory`.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl<K> Read<K> {
    /// What is wrong, where something is: a sentence that names the fields.
    pub fn unread(&self) -> Option<String> {
        let (first, rest) = self.unread.split_first()?;
        let named = std::iter::once(first).chain(rest.iter().take(MAX_NAMED.saturating_sub(1)));
        let named: Vec<String> = named.map(|unread| format!("{}: {}", unread.field, unread.why)).collect();
        let more = match self.unread.len().saturating_sub(named.len()) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Some(format!(
            "this operator cannot read {}{more}. Write what its definition takes, or install the operator that the definition belongs to",
            named.join("; ")
        ))
    }
}

impl<K> Deref for Read<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.object
    }
}

impl<K> From<K> for Read<K> {
    fn from(object: K) -> Self {
        Self { object, unread: Vec::new() }
    }
}

impl<'de, K: Readable> Deserialize<'de> for Read<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Value::deserialize(deserializer)?;
        match K::deserialize(&raw) {
            Ok(object) => Ok(object.into()),
            Err(_) => in_parts(raw).map_err(D::Error::custom),
        }
    }
}

/// Reads the spec field by field. What else an object has is Kubernetes' own, but for its status, which is written anew.
fn in_parts<K: Readable>(mut raw: Value) -> Result<Read<K>, serde_json::Error> {
    let whole = serde_path_to_error::deserialize::<_, K>(&raw).err();
    let written = match raw.get_mut("spec").map(Value::take) {
        Some(Value::Object(written)) => written,
        _ => Map::new(),
    };
    let mut spec = K::least();
    put(&mut raw, &spec);
    if K::deserialize(&raw).is_err()
        && let Some(object) = raw.as_object_mut()
    {
        object.remove("status");
    }
    let mut read = Read { object: K::deserialize(&raw)?, unread: Vec::new() };
    for (field, value) in written {
        let before = spec.insert(field.clone(), value);
        put(&mut raw, &spec);
        match serde_path_to_error::deserialize::<_, K>(&raw) {
            Ok(object) => read.object = object,
            Err(error) => {
                read.unread.push(unread(&error));
                match before {
                    Some(before) => drop(spec.insert(field, before)),
                    None => drop(spec.remove(&field)),
                }
            }
        }
    }
    // Fields that are well by themselves, and a required one that is not there.
    if read.unread.is_empty()
        && let Some(error) = whole
        && !error.path().to_string().starts_with("status")
    {
        read.unread.push(unread(&error));
    }
    Ok(read)
}

fn put(raw: &mut Value, spec: &Map<String, Value>) {
    if let Some(object) = raw.as_object_mut() {
        object.insert("spec".into(), Value::Object(spec.clone()));
    }
}

fn unread(error: &serde_path_to_error::Error<serde_json::Error>) -> Unread {
    let why = error.inner().to_string();
    Unread { field: error.path().to_string(), why: why.chars().take(MAX_WHY).collect() }
}

impl<K: Resource<DynamicType = ()>> Resource for Read<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.object.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.object.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::super::{Class, Tenant, WorkerPool};
    use super::*;
    use serde_json::json;

    fn pool() -> Value {
        json!({
            "apiVersion": "mpegflow.io/v1alpha1", "kind": "WorkerPool",
            "metadata": { "name": "a", "namespace": "media", "uid": "u", "generation": 3 },
            "spec": {
                "class": "cpu", "image": "i", "resources": { "cpu": 2, "memory": "3Gi" }, "tenant": "acme",
                "storage": { "access": "Presigned", "endpoints": ["192.0.2.1:443"] },
            },
            "status": { "replicas": 2 },
        })
    }

    #[test]
    fn amounts_are_read_in_every_form_that_the_api_server_takes() {
        for (written, told) in [
            (json!(4_294_967_296_i64), "4294967296"),
            (json!(-1), "-1"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!(2.0), "2.0"),
            (json!("4Gi"), "4Gi"),
        ] {
            let mut raw = pool();
            raw["spec"]["resources"]["memory"] = written;
            let read: Read<WorkerPool> = serde_json::from_value(raw).unwrap();
            assert_eq!((read.unread(), read.spec.resources.memory.to_string()), (None, told.to_owned()));
        }
    }

    #[test]
    fn a_list_is_read_whatever_one_of_it_says_and_that_one_in_parts() {
        let mut bad = pool();
        bad["spec"]["class"] = json!("tpu");
        bad["spec"]["resources"]["scratch"] = json!(null);
        let list = json!([pool(), bad, pool()]);
        let read: Vec<Read<WorkerPool>> = serde_json::from_value(list).unwrap();
        assert_eq!(read.iter().map(|read| read.unread.len()).collect::<Vec<_>>(), [0, 2, 0]);
        let bad = &read[1];
        let says = bad.unread().unwrap();
        assert!(says.contains("spec.class: unknown variant `tpu`"), "{says}");
        assert!(says.contains("spec.resources.scratch: "), "{says}");
        // Who it is, and all else of it.
        assert_eq!((bad.meta().uid.as_deref(), bad.spec.tenant.as_deref()), (Some("u"), Some("acme")));
        assert_eq!(bad.spec.storage.endpoints, ["192.0.2.1:443"]);
        assert_eq!((bad.spec.class, bad.status.clone().unwrap().replicas), (Class::Cpu, 2));
    }

    #[test]
    fn a_spec_without_what_it_needs_and_a_status_of_another_are_read_too() {
        let mut raw = pool();
        raw["spec"].as_object_mut().unwrap().remove("class");
        raw["status"] = json!({ "replicas": "many" });
        let read: Read<WorkerPool> = serde_json::from_value(raw).unwrap();
        assert!(read.unread().unwrap().contains("missing field `class`"), "{:?}", read.unread());
        assert!(read.status.is_none());
        let mut raw = pool();
        raw["status"] = json!({ "replicas": "many" });
        let read: Read<WorkerPool> = serde_json::from_value(raw).unwrap();
        assert_eq!(read.unread(), None, "nobody has to mend a status");
        let tenant = json!({
            "apiVersion": "mpegflow.io/v1alpha1", "kind": "Tenant", "metadata": { "name": "acme" },
            "spec": { "id": 7, "allowedPools": ["media/a"] },
        });
        let read: Read<Tenant> = serde_json::from_value(tenant).unwrap();
        assert!(read.unread().unwrap().contains("spec.id: "), "{:?}", read.unread());
        assert!(read.spec.allows("media", "a") && read.spec.id.is_empty());
    }
}
