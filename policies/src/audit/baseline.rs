//! A baseline: findings that somebody answers for, until a day.
//!
//! ```yaml
//! apiVersion: mpegflow.io/v1alpha1
//! kind: AuditBaseline
//! accepted:
//! - fingerprint: "MF102|Deployment media/worker|169.254.169.254"   # as the JSON report gives it
//!   owner: team-media
//!   reason: the node's role has no rights; ticket SEC-12
//!   expires: 2027-01-31
//! ```

use super::{Accepted, Finding, catalog};
use crate::read::object::{self, Object};
use crate::read::{Document, Input, ReadError, ReadErrors, documents};
use crate::source::{At, ObjectRef};
use jiff::civil::Date;

/// Accepted findings.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    at: At,
    fingerprint: String,
    owner: String,
    reason: String,
    expires: Date,
}

impl Baseline {
    /// Reads a file of accepted findings.
    ///
    /// # Errors
    /// Everything that is wrong with it. An entry without owner, reason or day accepts nothing.
    pub fn read(input: &Input) -> Result<Self, ReadErrors> {
        let mut errors = ReadErrors::none();
        let mut baseline = Self::default();
        for document in &documents(input)?.documents {
            match file(document) {
                Ok(entries) => baseline.entries.extend(entries),
                Err(error) => errors.push(error),
            }
        }
        for (i, entry) in baseline.entries.iter().enumerate() {
            let twin = baseline.entries.iter().take(i).find(|other| other.fingerprint == entry.fingerprint);
            if let Some(twin) = twin {
                let message =
                    format!("the fingerprint {:?} is accepted at {} already", entry.fingerprint, twin.at);
                errors.push(ReadError::new(entry.at.clone(), message).hint("remove one of the two"));
            }
        }
        errors.or(baseline)
    }

    /// Splits findings into those that stay and those that are accepted on that day. Entries that accept nothing, and those
    /// that have expired, become findings of their own.
    pub fn apply(&self, findings: Vec<Finding>, today: Date) -> (Vec<Finding>, Vec<Accepted>) {
        let (mut left, mut accepted) = (Vec::new(), Vec::new());
        let mut used = vec![false; self.entries.len()];
        for finding in findings {
            let fingerprint = finding.fingerprint();
            let place = self.entries.iter().position(|entry| entry.fingerprint == fingerprint);
            if let Some(used) = place.and_then(|i| used.get_mut(i)) {
                *used = true;
            }
            match place.and_then(|i| self.entries.get(i)).filter(|entry| entry.expires >= today) {
                Some(entry) => accepted.push(Accepted {
                    finding,
                    owner: entry.owner.clone(),
                    reason: entry.reason.clone(),
                    expires: entry.expires.to_string(),
                }),
                None => left.push(finding),
            }
        }
        for (entry, used) in self.entries.iter().zip(used) {
            let (kind, reason) = if !used {
                let start = entry.fingerprint.rsplit_once('|').map(|(start, _)| format!("{start}|"));
                let changed = start.filter(|start| {
                    left.iter().any(|finding| finding.fingerprint().starts_with(start.as_str()))
                });
                let why = match changed {
                    Some(_) => format!(
                        "what {:?} accepts is there with other ends or other traffic than was accepted",
                        entry.fingerprint
                    ),
                    None => format!("nothing has the fingerprint {:?} any more", entry.fingerprint),
                };
                (&catalog::STALE_BASELINE, why)
            } else if entry.expires < today {
                let why = format!(
                    "{:?} was accepted by {} until {}",
                    entry.fingerprint, entry.owner, entry.expires
                );
                (&catalog::EXPIRED_BASELINE, why)
            } else {
                continue;
            };
            let object = ObjectRef {
                group: "mpegflow.io".into(),
                kind: "AuditBaseline".into(),
                namespace: None,
                name: entry.owner.as_str().into(),
            };
            left.push(Finding::certain(kind, object, Some(entry.at.clone()), reason));
        }
        (left, accepted)
    }
}

fn file(document: &Document) -> Result<Vec<Entry>, ReadError> {
    if (&*document.api_version, &*document.kind) != ("mpegflow.io/v1alpha1", "AuditBaseline") {
        let message = format!("{} of {} is not a baseline", document.kind, document.api_version);
        return Err(ReadError::new(document.at.clone(), message)
            .hint("its header is `apiVersion: mpegflow.io/v1alpha1` and `kind: AuditBaseline`"));
    }
    let (entries, unknown) = object::read(document, |root| {
        root.required("accepted")?
            .list()?
            .iter()
            .map(|field| entry(&field.object()?))
            .collect::<Result<Vec<_>, ReadError>>()
    })?;
    match unknown.first() {
        None => Ok(entries),
        Some(field) => {
            Err(ReadError::new(field.at.clone(), format!("the field `{}` is not known", field.path))
                .hint("an entry has fingerprint, owner, reason and expires"))
        }
    }
}

fn entry(object: &Object<'_>) -> Result<Entry, ReadError> {
    let text = |key| -> Result<String, ReadError> {
        let field = object.required(key)?;
        Ok(field.parsed("a text that says something", |text| {
            (!text.trim().is_empty()).then(|| text.to_owned())
        })?)
    };
    let expires = object.required("expires")?;
    Ok(Entry {
        at: object.at(),
        fingerprint: text("fingerprint")?,
        owner: text("owner")?,
        reason: text("reason")?,
        expires: expires.parsed("a day such as 2027-01-31", |text| text.parse().ok())?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::read::Limits;

    fn baseline(entries: &str) -> Result<Baseline, String> {
        let text = format!("apiVersion: mpegflow.io/v1alpha1\nkind: AuditBaseline\naccepted:\n{entries}");
        let mut input = Input::new(Limits::default());
        input.add("base.yaml", text).unwrap();
        Baseline::read(&input).map_err(|errors| errors.to_string())
    }

    fn finding(name: &str) -> Finding {
        let object = ObjectRef {
            group: "".into(),
            kind: "Pod".into(),
            namespace: Some("a".into()),
            name: name.into(),
        };
        Finding::certain(&catalog::TOKEN_MOUNTED, object, None, "so".into())
    }

    fn accept(name: &str, expires: &str) -> String {
        let fingerprint = finding(name).fingerprint();
        format!("- {{fingerprint: '{fingerprint}', owner: ann, reason: known, expires: {expires}}}\n")
    }

    fn apply(entries: &str, names: &[&str]) -> (Vec<&'static str>, usize) {
        let findings = names.iter().map(|name| finding(name)).collect();
        let (left, accepted) = baseline(entries).unwrap().apply(findings, "2026-06-01".parse().unwrap());
        (left.iter().map(|finding| finding.id).collect(), accepted.len())
    }

    #[test]
    fn a_finding_is_accepted_until_its_day_and_that_day_still() {
        assert_eq!(apply(&accept("p", "2026-06-01"), &["p"]), (vec![], 1));
        assert_eq!(apply(&accept("p", "2026-05-31"), &["p"]), (vec!["MF401", "MF503"], 0));
    }

    #[test]
    fn another_finding_is_not_accepted_and_an_idle_entry_is_stale() {
        assert_eq!(apply(&accept("p", "2027-01-01"), &["q"]), (vec!["MF401", "MF502"], 0));
    }

    #[test]
    fn an_entry_that_nobody_answers_for_is_refused() {
        let cases = [
            ("- {fingerprint: x, reason: r, expires: 2027-01-01}\n", "accepted[0].owner is missing"),
            (
                "- {fingerprint: x, owner: '', reason: r, expires: 2027-01-01}\n",
                "must be a text that says something",
            ),
            ("- {fingerprint: x, owner: o, reason: r, expires: never}\n", "must be a day such as 2027-01-31"),
            (
                "- {fingerprint: x, owner: o, reason: r, expires: 2027-02-30}\n",
                "must be a day such as 2027-01-31",
            ),
            ("- {fingerprint: x, owner: o, reason: r, until: 2027-01-01}\n", "expires is missing"),
        ];
        for (entry, expected) in cases {
            let error = baseline(entry).unwrap_err();
            assert!(error.contains(expected), "{entry}: {error}");
        }
        let twice = format!("{}{}", accept("p", "2027-01-01"), accept("p", "2028-01-01"));
        assert!(baseline(&twice).unwrap_err().contains("already"));
    }
}
