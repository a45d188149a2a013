//! What a message says: enough to know which job of the receiver's own it is about; the rest is asked for.

use mpegflow_protocol::api::{EventKind, JobState};
use mpegflow_protocol::failure::Failure;
use mpegflow_protocol::ids::JobId;
use mpegflow_protocol::job::JobSpec;
use mpegflow_protocol::to_json;
use mpegflow_protocol::webhook::{MAX_MESSAGE, MessageType};
use serde::Serialize;
use std::collections::BTreeMap;

/// The message that an event makes; `None` where it makes none.
pub const fn type_of(kind: EventKind, state: JobState) -> Option<MessageType> {
    match (kind, state) {
        (EventKind::Created, _) => Some(MessageType::Created),
        (EventKind::Finished, JobState::Succeeded) => Some(MessageType::Succeeded),
        (EventKind::Finished, JobState::Failed) => Some(MessageType::Failed),
        (EventKind::Finished, JobState::Canceled) => Some(MessageType::Canceled),
        _ => None,
    }
}

#[derive(Serialize)]
struct Message<'a> {
    r#type: MessageType,
    timestamp: &'a str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    job: JobId,
    state: JobState,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    labels_left_out: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a Failure>,
}

/// The body of a message: JSON of less than 20 kB. Labels that would make it longer are left out, and it says so. `at` is the
/// RFC 3339 time of the event.
pub fn body(
    r#type: MessageType,
    job: JobId,
    state: JobState,
    at: &str,
    spec: Option<&JobSpec>,
    failure: Option<&Failure>,
) -> Vec<u8> {
    let labels = spec.map(|spec| &spec.labels).filter(|labels| !labels.is_empty());
    let message = |labels, labels_left_out| Message {
        r#type,
        timestamp: at,
        data: Data {
            job,
            state,
            url: format!("/v1/jobs/{job}"),
            external_id: spec.and_then(|spec| spec.external_id.as_deref()),
            labels,
            labels_left_out,
            failure,
        },
    };
    let body = to_json(&message(labels, false));
    if body.len() < MAX_MESSAGE { body } else { to_json(&message(None, true)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_protocol::failure::FailureCode;

    fn spec(label: &str, labels: usize) -> JobSpec {
        let labels: BTreeMap<String, String> = (0..labels)
            .map(|n| (format!("{n}{}", label.chars().skip(2).collect::<String>()), label.to_owned()))
            .collect();
        let spec = serde_json::json!({
            "version": 1, "input": {"upload": "upl_00000000000000000000000000000001"}, "preset": "web",
            "external_id": "a-7", "labels": labels,
        });
        JobSpec::parse(spec.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_message_is_small_whatever_the_tenants_labels_are() {
        let failure = Failure::new(FailureCode::InputCorrupt, "\u{1f3ac}".repeat(512));
        let job = JobId::from_u128(1);
        let longest = "\u{1f3ac}".repeat(128);
        let body = body(
            MessageType::Failed,
            job,
            JobState::Failed,
            "2026-01-01T00:00:00Z",
            Some(&spec(&longest, 15)),
            Some(&failure),
        );
        assert!(body.len() < MAX_MESSAGE, "{}", body.len());
    }

    #[test]
    fn a_message_has_the_shape_that_the_specification_asks_for() {
        let job = JobId::from_u128(1);
        let body = body(
            MessageType::Succeeded,
            job,
            JobState::Succeeded,
            "2026-01-01T00:00:00Z",
            Some(&spec("ab", 1)),
            None,
        );
        let expected = serde_json::json!({
            "type": "job.succeeded",
            "timestamp": "2026-01-01T00:00:00Z",
            "data": {
                "job": job, "state": "succeeded", "url": format!("/v1/jobs/{job}"), "external_id": "a-7", "labels": {"0": "ab"},
            },
        });
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap(), expected);
    }
}
