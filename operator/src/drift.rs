//! Whether an object of the cluster is still what was applied, and how to mend it.
//!
//! Server-side apply owns fields, not objects: what somebody else adds beside ours (a second container, a rule under another
//! key) it leaves alone. Around a worker nothing may be added, so who owns fields of the payload is looked at as well.

use crate::desired::{Child, Kind};
use crate::settings::MANAGER;
use serde_json::Value;

/// What is to be done about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// Nothing.
    Nothing,
    /// Apply our fields.
    Apply,
    /// Replace the payload: somebody else owns a part of it.
    Replace,
}

/// An object of the same name that is not this pool's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name} is there already and belongs to {owner}: rename the pool, or delete that object")]
pub struct Taken {
    kind: String,
    name: String,
    owner: String,
}

/// Compares an object of the cluster with what a pool needs.
///
/// # Errors
/// It is somebody else's.
pub fn compare(wanted: &Child, live: &Value) -> Result<Mend, Taken> {
    is_ours(wanted, live)?;
    // Service accounts are the exception: some platforms add pull secrets to each, and no token is mounted of any.
    let foreign = wanted.kind != Kind::ServiceAccount && others_own(live, wanted.kind);
    let stale = crate::desired::applied(live) != wanted.digest() || !covers(live, &wanted.object, "");
    Ok(match (foreign, stale) {
        (true, _) => Mend::Replace,
        // What we once replaced we own twice, and an apply would not take such a field away.
        (false, true) if replaced_before(live) => Mend::Replace,
        (false, true) => Mend::Apply,
        (false, false) => Mend::Nothing,
    })
}

/// Whether nobody but us has written the payload of an object: it is what we once wanted. For what nobody can say what it should be.
///
/// # Errors
/// It is somebody else's.
pub fn is_untouched(wanted: &Child, live: &Value) -> Result<bool, Taken> {
    is_ours(wanted, live)?;
    Ok(!others_own(live, wanted.kind))
}

/// Checks that it is this pool's.
fn is_ours(wanted: &Child, live: &Value) -> Result<(), Taken> {
    let ours = wanted.object.pointer("/metadata/ownerReferences/0/uid");
    let owners = live.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let controller = owners
        .and_then(|owners| owners.iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true))));
    if controller.and_then(|owner| owner.get("uid")) != ours {
        let owner = match controller {
            Some(owner) => {
                format!("{} {} ({})", text(owner, "kind"), text(owner, "name"), text(owner, "uid"))
            }
            None => "nobody that the operator knows".into(),
        };
        let kind = text(&wanted.object, "kind").to_owned();
        return Err(Taken { kind, name: wanted.name.clone(), owner });
    }
    Ok(())
}

/// The object that replaces a live one: its metadata with ours on top, our payload, and nothing of others' payload.
pub fn replacement(wanted: &Child, live: &Value) -> Value {
    let mut object = wanted.object.clone();
    let mut metadata = live.get("metadata").cloned().unwrap_or_default();
    if let (Some(metadata), Some(wanted)) = (metadata.as_object_mut(), object.get("metadata")) {
        metadata.remove("managedFields");
        for (key, value) in wanted.as_object().into_iter().flatten() {
            match (metadata.get_mut(key).and_then(Value::as_object_mut), value.as_object()) {
                (Some(into), Some(from)) => into.extend(from.clone()),
                _ => {
                    metadata.insert(key.clone(), value.clone());
                }
            }
        }
    }
    if let Some(object) = object.as_object_mut() {
        object.insert("metadata".into(), metadata);
    }
    object
}

/// Managers of the payload that are not ours. `kubectl scale` and the like come through `/scale`, and count.
fn others_own(live: &Value, kind: Kind) -> bool {
    managers(live).any(|entry| text(entry, "manager") != MANAGER && owns_payload(entry, kind))
}

fn replaced_before(live: &Value) -> bool {
    managers(live).any(|entry| text(entry, "manager") == MANAGER && text(entry, "operation") == "Update")
}

fn managers(live: &Value) -> impl Iterator<Item = &Value> {
    let entries = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries.into_iter().flatten().filter(|entry| text(entry, "subresource") != "status")
}

fn owns_payload(entry: &Value, kind: Kind) -> bool {
    let fields = entry.get("fieldsV1").and_then(Value::as_object);
    fields.into_iter().flatten().any(|(key, value)| match key.as_str() {
        // Who only scales owns nothing that stays: the next apply sets it again.
        "f:spec" if kind == Kind::Deployment => {
            value.as_object().is_none_or(|spec| spec.keys().any(|key| key != "f:replicas"))
        }
        "f:metadata" | "f:status" | "f:apiVersion" | "f:kind" => false,
        _ => true,
    })
}

/// Whether an object has every field that is wanted, with its value. Fields beside them are defaults, or somebody else's.
fn covers(live: &Value, wanted: &Value, path: &str) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, value)| {
            match live.get(key) {
                Some(live) => covers(live, value, key),
                // The API server leaves empty lists and maps out.
                None => is_empty(value),
            }
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len()
                && live.iter().zip(wanted).all(|(live, wanted)| covers(live, wanted, path))
        }
        (Value::String(live), Value::String(wanted)) => {
            live == wanted || is_quantity(path) && amount(live).is_some() && amount(live) == amount(wanted)
        }
        (live, wanted) => live == wanted,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Null => true,
        _ => false,
    }
}

/// The API server writes quantities its own way: `0.5` comes back as `500m`.
fn is_quantity(key: &str) -> bool {
    matches!(key, "cpu" | "memory" | "sizeLimit") || key.contains('/')
}

/// A quantity in thousandths. Only what a pool may write; anything else is unequal to all.
fn amount(text: &str) -> Option<u128> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(split)?;
    let factor: u128 = match suffix {
        "n" | "u" => return None,
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        "Pi" => 1_000 << 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let units = whole.checked_mul(scale)?.checked_add(part)?;
    units.checked_mul(factor)?.checked_div(scale)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_quantity_is_equal_however_it_is_written() {
        for (a, b) in [("0.5", "500m"), ("2", "2000m"), ("1.5Gi", "1536Mi"), ("1", "1.0"), ("1k", "1000")] {
            assert_eq!(amount(a), amount(b), "{a} {b}");
            assert!(amount(a).is_some(), "{a}");
        }
        for (a, b) in [("1Gi", "1G"), ("1", "1m"), ("2", "20")] {
            assert_ne!(amount(a), amount(b), "{a} {b}");
        }
        for bad in ["", "x", "1..2", "1Q", "99999999999999999999999999999999999999999"] {
            assert!(amount(bad).is_none() || bad.is_empty(), "{bad}");
        }
    }

    #[test]
    fn defaults_are_no_drift_and_a_changed_removed_or_added_entry_is() {
        let wanted = json!({ "spec": { "a": 1, "list": [{ "x": "y" }], "none": [] } });
        let live =
            json!({ "spec": { "a": 1, "list": [{ "x": "y", "default": true }], "more": 3 }, "status": {} });
        assert!(covers(&live, &wanted, ""));
        for (pointer, value) in [
            ("/spec/a", json!(2)),
            ("/spec/list", json!([])),
            ("/spec/list", json!([{ "x": "y" }, { "x": "z" }])),
            ("/spec/list/0/x", json!("z")),
        ] {
            let mut changed = live.clone();
            if let Some(at) = changed.pointer_mut(pointer) {
                *at = value;
            }
            assert!(!covers(&changed, &wanted, ""), "{changed}");
        }
    }
}
