//! The intake of the public API: rules by which objects that arrive in a tenant's own storage become jobs, and what became of events.

use crate::ids::{JobId, RuleId};
use crate::job::JobSpec;
use crate::parse::{ParseError, to_json};
use crate::path::{BadKey, StoredKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Bytes of a body of events: what Amazon S3 sends at most.
pub const MAX_EVENTS: usize = 64 << 10;
/// Records in a body of events.
pub const MAX_RECORDS: usize = 100;
/// Seconds between two looks at a tenant's storage, at least and at most.
pub const POLL_SECONDS: std::ops::RangeInclusive<u32> = 10..=86_400;
/// Characters of a rule's suffix.
const MAX_SUFFIX: usize = 64;

/// A job spec without its input, which comes with each object. In `external_id`, `{key}` stands for the object's key and `{stem}` for its
/// last name without what follows the last dot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobTemplate(Map<String, Value>);

impl From<Map<String, Value>> for JobTemplate {
    fn from(spec: Map<String, Value>) -> Self {
        Self(spec)
    }
}

impl JobTemplate {
    /// The spec of the job for one object.
    ///
    /// # Errors
    /// It has an input of its own, or comes to no job spec.
    pub fn spec(&self, key: &StoredKey) -> Result<JobSpec, ParseError> {
        if self.0.contains_key("input") {
            let reason = "the input is the object that arrives: leave it out".into();
            return Err(ParseError::Field { what: "job spec", field: "input".into(), reason });
        }
        let mut spec = self.0.clone();
        if let Some(Value::String(id)) = spec.get_mut("external_id") {
            let name = key.as_str().rsplit_once('/').map_or(key.as_str(), |(_, name)| name);
            let stem = name.rsplit_once('.').map(|(stem, _)| stem).filter(|stem| !stem.is_empty());
            // Keys have no braces.
            *id = id.replace("{key}", key.as_str()).replace("{stem}", stem.unwrap_or(name));
        }
        spec.insert("input".into(), serde_json::json!({ "storage": key.as_str() }));
        JobSpec::parse(&to_json(&spec))
    }
}

/// Asks for jobs to be made of objects that arrive in the tenant's own storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRule {
    /// What keys begin with, from the tenant's prefix on, such as `incoming/`; any where it is left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 690)]
    pub prefix: String,
    /// What keys end with, such as `.mov`; any where it is left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 64)]
    pub suffix: String,
    /// The job of each object: a job spec without `input`. In `external_id`, `{key}` stands for the object's key and `{stem}` for its last
    /// name without what follows the last dot.
    #[schema(value_type = Object)]
    pub job: JobTemplate,
    /// Seconds between two looks at the storage, 10 to 86,400. Where it is left out the broker looks at nothing by itself, and waits for
    /// events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 10, maximum = 86_400)]
    pub poll_seconds: Option<u32>,
    /// Whether a look takes what was written up to 30 days before the rule was made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub existing: bool,
}

impl CreateRule {
    /// Checks what can be said without knowing presets or tenants; the spec of an example's job.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn check(&self) -> Result<JobSpec, ParseError> {
        let wrong = |field: &str, reason: String| {
            Err(ParseError::Field { what: "rule", field: field.into(), reason })
        };
        let begins = format!("{}x", self.prefix).parse::<StoredKey>();
        if let Err(bad) = begins {
            return wrong("prefix", format!("no key begins so: {bad}"));
        }
        let ends: Result<StoredKey, BadKey> = format!("x{}", self.suffix).parse();
        if self.suffix.len() > MAX_SUFFIX {
            return wrong("suffix", format!("at most {MAX_SUFFIX} characters"));
        }
        if let Err(bad) = ends {
            return wrong("suffix", format!("no key ends so: {bad}"));
        }
        if let Some(s) = self.poll_seconds.filter(|s| !POLL_SECONDS.contains(s)) {
            return wrong("poll_seconds", format!("{s} is not from 10 to 86400"));
        }
        let example = "name.mov".parse::<StoredKey>();
        let example = example.map_err(|bad| ParseError::Field {
            what: "rule",
            field: "job".into(),
            reason: bad.to_string(),
        })?;
        self.job.spec(&example).map_err(|e| match e {
            ParseError::Field { what, field, reason } => {
                ParseError::Field { what, field: format!("job.{field}"), reason }
            }
            e @ ParseError::TooLong { .. } => e,
        })
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rule {
    /// Its id.
    pub id: RuleId,
    /// What keys begin with.
    pub prefix: String,
    /// What keys end with.
    pub suffix: String,
    /// The job of each object, without its input.
    #[schema(value_type = Object)]
    pub job: JobTemplate,
    /// Seconds between two looks at the storage; where there is none, events alone bring jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_seconds: Option<u32>,
    /// Whether a look takes what was written before the rule was made.
    pub existing: bool,
    /// Its name in the resource of a cluster that manages it: it is changed and deleted there. None where the tenant made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<String>,
    /// When it was made; of a managed one, when its `prefix`, `suffix` or `existing` last changed.
    pub created_at: String,
    /// When the broker last came to the end of a look at the storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<String>,
    /// The last thing that kept an object from becoming a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<RuleProblem>,
}

/// What kept an object from becoming a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleProblem {
    /// When.
    pub at: String,
    /// The object's key, where it was one object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What it was.
    pub reason: String,
}

/// What became of a body of events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Taken {
    /// Jobs that were made.
    pub jobs: Vec<JobId>,
    /// Times that a job had been made of the object as it is, or of a newer one.
    pub known: u32,
    /// Events that no job comes of: other events, other keys, empty objects, objects that are gone.
    pub ignored: u32,
    /// Objects that cannot become jobs as the rule says. They are told to whoever sent the event and in the rule, and not tried again.
    pub refused: Vec<RefusedObject>,
}

/// An object that cannot become a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedObject {
    /// Its key.
    pub key: String,
    /// The rule.
    pub rule: RuleId,
    /// Why.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::InputRef;

    fn rule(text: &str) -> Result<JobSpec, String> {
        let rule: CreateRule = serde_json::from_str(text).map_err(|e| e.to_string())?;
        rule.check().map_err(|e| e.to_string())
    }

    #[test]
    fn a_rule_comes_to_a_job_spec_for_each_object() {
        let job: JobTemplate = serde_json::from_str(
            r#"{"version":1,"preset":"web","priority":7,"external_id":"{stem}","output":{"path":"in/{external_id}/{name}"}}"#,
        )
        .unwrap();
        let spec = job.spec(&"a/b.c/film.1.mov".parse().unwrap()).unwrap();
        assert_eq!(spec.input, InputRef::Storage("a/b.c/film.1.mov".into()));
        assert_eq!((spec.external_id.as_deref(), spec.priority.0), (Some("film.1"), 7));
        let whole: JobTemplate =
            serde_json::from_str(r#"{"version":1,"preset":"web","external_id":"s3:{key}"}"#).unwrap();
        assert_eq!(
            whole.spec(&"a/.x".parse().unwrap()).unwrap().external_id.as_deref(),
            Some("s3:a/.x"),
            "also of a name that begins with a dot"
        );
        assert!(whole.spec(&"a".repeat(200).parse().unwrap()).is_err(), "an id has 128 characters at most");
    }

    #[test]
    fn what_cannot_be_a_rule_is_told_by_field() {
        let job = r#""job":{"version":1,"preset":"web"}"#;
        assert!(rule(&format!(r#"{{"prefix":"in/","suffix":".mov","poll_seconds":10,{job}}}"#)).is_ok());
        assert!(rule(&format!("{{{job}}}")).is_ok());
        for (bad, part) in [
            (format!(r#"{{"prefix":"../",{job}}}"#), "prefix"),
            (format!(r#"{{"prefix":"/in/",{job}}}"#), "prefix"),
            (format!(r#"{{"prefix":"tnt_",{job}}}"#), "prefix"),
            (format!(r#"{{"prefix":"in\u0000/",{job}}}"#), "prefix"),
            (format!(r#"{{"suffix":"/",{job}}}"#), "suffix"),
            (format!(r#"{{"suffix":"%00",{job}}}"#), "suffix"),
            (format!(r#"{{"suffix":"{}",{job}}}"#, "a".repeat(65)), "suffix"),
            (format!(r#"{{"poll_seconds":9,{job}}}"#), "poll_seconds"),
            (format!(r#"{{"sufix":".mov",{job}}}"#), "sufix"),
            ("{}".into(), "job"),
            (r#"{"job":{"preset":"web"}}"#.into(), "version"),
            (r#"{"job":{"version":1,"preset":"web","priority":10}}"#.into(), "job.priority"),
            (r#"{"job":{"version":1,"preset":"web","prio":1}}"#.into(), "prio"),
            (r#"{"job":{"version":1,"preset":"web","input":{"storage":"a"}}}"#.into(), "job.input"),
        ] {
            let error = rule(&bad).unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }
}
