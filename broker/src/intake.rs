//! What storage says when an object arrives, read without believing it: an event names an object, and what that is, storage is asked.
//!
//! Taken are the bodies of S3's event notifications (`Records`, with keys that are URL-encoded) as Amazon S3, MinIO and others send them,
//! and *Object Created* of Amazon EventBridge (one event, whose key is as it is). Envelopes of SNS are refused: whether one is genuine,
//! only a certificate says that would have to be fetched from where the envelope says.

use mpegflow_protocol::intake::MAX_RECORDS;
use mpegflow_protocol::text;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

/// An object is said to have arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The bucket.
    pub bucket: String,
    /// The object's whole name in it, decoded once; `None` where it is no text.
    pub key: Option<String>,
    /// Its length in bytes, where the event says it.
    pub size: Option<u64>,
    /// What tells this event from others about the same object.
    pub sequencer: Option<String>,
}

/// Why a body is not one of events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEvents {
    /// It is no JSON.
    #[error("the body is no JSON: {0}")]
    Json(String),
    /// It is JSON, and no event.
    #[error(
        "the body is no event of storage: it has neither `Records` as S3's notifications, nor is it `Object Created` of EventBridge"
    )]
    Other,
    /// It is an envelope of SNS.
    #[error(
        "envelopes of SNS are not taken, since nothing in them can be checked here: send events by EventBridge with an API destination, or have the rule look by itself"
    )]
    Sns,
    /// A record lacks what it has to have.
    #[error("record {0} has no bucket or no key")]
    Record(usize),
    /// Too many records.
    #[error("there are {0} records; at most {MAX_RECORDS} are taken at once")]
    TooMany(usize),
}

/// A body of either kind. What is not looked at may be anything.
#[derive(Deserialize)]
struct Body {
    #[serde(rename = "Records")]
    records: Option<Vec<Record>>,
    /// `s3:TestEvent`, which S3 sends when notifications are set up.
    #[serde(rename = "Event")]
    event: Option<String>,
    #[serde(rename = "TopicArn")]
    topic: Option<serde::de::IgnoredAny>,
    #[serde(rename = "detail-type")]
    kind: Option<String>,
    detail: Option<Entity>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventName")]
    name: Option<String>,
    s3: Option<Entity>,
}

#[derive(Deserialize)]
struct Entity {
    bucket: Option<Bucket>,
    object: Option<Object>,
}

#[derive(Deserialize)]
struct Bucket {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Object {
    key: Option<String>,
    size: Option<u64>,
    sequencer: Option<String>,
}

impl Entity {
    fn event(self, decode: impl FnOnce(&str) -> Option<String>) -> Option<Event> {
        let object = self.object?;
        Some(Event {
            bucket: self.bucket?.name?,
            key: decode(&object.key?),
            size: object.size,
            sequencer: object.sequencer.and_then(|text| sequencer(&text)),
        })
    }
}

/// Keys are encoded as values of forms are.
fn decoded(key: &str) -> Option<String> {
    percent_decode_str(&key.replace('+', " ")).decode_utf8().ok().map(Into::into)
}

/// Sequencers are hexadecimal numbers of any length that are compared from the left, the shorter one filled up with zeros; so filled up
/// they sort as text.
fn sequencer(text: &str) -> Option<String> {
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| format!("{:0<64}", text.to_ascii_uppercase()))
}

/// The objects that a body says have arrived; events of other kinds are left out.
///
/// # Errors
/// It is no body of events.
pub fn read(bytes: &[u8]) -> Result<Vec<Event>, BadEvents> {
    let json = |e: serde_json::Error| BadEvents::Json(text::clean(&e.to_string(), 128));
    let body: Body = match serde_json::from_slice(bytes) {
        Ok(body) => body,
        // JSON of another shape is told as that.
        Err(e) => match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
            Ok(_) => return Err(BadEvents::Other),
            Err(_) => return Err(json(e)),
        },
    };
    match body {
        Body { records: Some(records), .. } => {
            if records.len() > MAX_RECORDS {
                return Err(BadEvents::TooMany(records.len()));
            }
            let created = records.into_iter().enumerate().filter(|(_, record)| {
                let name = record.name.as_deref().unwrap_or_default();
                name.strip_prefix("s3:").unwrap_or(name).starts_with("ObjectCreated:")
            });
            created
                .map(|(n, record)| record.s3.and_then(|s3| s3.event(decoded)).ok_or(BadEvents::Record(n)))
                .collect()
        }
        Body { event: Some(event), .. } if event == "s3:TestEvent" => Ok(Vec::new()),
        Body { topic: Some(_), .. } => Err(BadEvents::Sns),
        Body { kind: Some(kind), detail: Some(detail), .. } if kind == "Object Created" => {
            let event = detail.event(|key| Some(key.to_owned()));
            event.map(|event| vec![event]).ok_or(BadEvents::Record(0))
        }
        Body { kind: Some(_), detail: Some(_), .. } => Ok(Vec::new()),
        _ => Err(BadEvents::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bucket: &str, key: &str, size: u64, sequencer: Option<&str>) -> Event {
        let sequencer = sequencer.map(|s| format!("{s:0<64}"));
        Event { bucket: bucket.into(), key: Some(key.into()), size: Some(size), sequencer }
    }

    /// As Amazon's documentation of the message's structure has it.
    const AMAZON: &str = r#"{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"us-west-2",
        "eventTime":"1970-01-01T00:00:00.000Z","eventName":"ObjectCreated:Put",
        "userIdentity":{"principalId":"AIDAJDPLRKLG7UEXAMPLE"},"requestParameters":{"sourceIPAddress":"127.0.0.1"},
        "responseElements":{"x-amz-request-id":"C3D13FE58DE4C810","x-amz-id-2":"FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMUE5JgHvANOjpD"},
        "s3":{"s3SchemaVersion":"1.0","configurationId":"testConfigRule",
          "bucket":{"name":"amzn-s3-demo-bucket","ownerIdentity":{"principalId":"A3NL1KOZZKExample"},"arn":"arn:aws:s3:::amzn-s3-demo-bucket"},
          "object":{"key":"in/red+flower%282%29.mov","size":1024,"eTag":"d41d8cd98f00b204e9800998ecf8427e",
            "versionId":"096fKKXTRTtl3on89fVO.nfljtsv6qko","sequencer":"0055AED6DCD90281E5"}}}]}"#;
    const BRIDGE: &str = r#"{"version":"0","id":"17793124-05d4-b198-2fde-7ededc63b103","detail-type":"Object Created","source":"aws.s3",
        "account":"111122223333","time":"2021-11-12T00:00:00Z","region":"ca-central-1","resources":["arn:aws:s3:::amzn-s3-demo-bucket1"],
        "detail":{"version":"0","bucket":{"name":"amzn-s3-demo-bucket1"},
          "object":{"key":"example+key","size":5,"etag":"b1946ac92492d2347c6235b4d2611184","version-id":"IYV3p45BT0ac8hjHg1houSdS1a.Mro8e","sequencer":"617f08299329d189"},
          "request-id":"N4N7GDK58NMKJ12R","requester":"123456789012","source-ip-address":"1.2.3.4","reason":"PutObject"}}"#;

    #[test]
    fn what_storage_sends_is_read() {
        let amazon = event("amzn-s3-demo-bucket", "in/red flower(2).mov", 1_024, Some("0055AED6DCD90281E5"));
        assert_eq!(read(AMAZON.as_bytes()), Ok(vec![amazon]));
        assert_eq!(
            read(BRIDGE.as_bytes()),
            Ok(vec![event("amzn-s3-demo-bucket1", "example+key", 5, Some("617F08299329D189"))])
        );
        let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2014-10-13T15:57:02.089Z","Bucket":"b","RequestId":"5582815E1AEA5ADF","HostId":"8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE"}"#;
        assert_eq!(read(test.as_bytes()), Ok(vec![]));
        for name in ["ObjectRemoved:DeleteMarkerCreated", "s3:ObjectAccessed:Get", "ObjectCreated", "Other"] {
            assert_eq!(read(AMAZON.replace("ObjectCreated:Put", name).as_bytes()), Ok(vec![]), "{name}");
        }
        for name in ["s3:ObjectCreated:Put", "ObjectCreated:CompleteMultipartUpload", "ObjectCreated:Copy"] {
            assert_eq!(
                read(AMAZON.replace("ObjectCreated:Put", name).as_bytes()).unwrap().len(),
                1,
                "{name}"
            );
        }
        assert_eq!(read(BRIDGE.replace("Object Created", "Object Deleted").as_bytes()), Ok(vec![]));
        assert_eq!(read(br#"{"Records":[]}"#), Ok(vec![]));
    }

    #[test]
    fn a_key_is_decoded_once_and_no_more() {
        let key = |text: &str| {
            let body = AMAZON.replace("in/red+flower%282%29.mov", text);
            read(body.as_bytes()).unwrap().remove(0).key
        };
        for (encoded, plain) in [
            ("in%2Fa%2Bb.mov", Some("in/a+b.mov")),
            ("%2e%2e%2Fx", Some("../x")),
            ("%252e%252e%252Fx", Some("%2e%2e%2Fx")),
            ("a%00b", Some("a\0b")),
            ("%", Some("%")),
            ("%zz", Some("%zz")),
            ("%ff", None),
            ("caf%C3%A9", Some("caf\u{e9}")),
        ] {
            assert_eq!(key(encoded).as_deref(), plain, "{encoded}");
        }
    }

    #[test]
    fn a_body_that_is_none_is_told_and_never_taken_for_nothing() {
        let sns = r#"{"Type":"Notification","MessageId":"m","TopicArn":"arn:aws:sns:us-west-2:123456789012:t","Message":"{\"Records\":[]}","SigningCertURL":"https://sns.us-west-2.amazonaws.com/x.pem"}"#;
        assert_eq!(read(sns.as_bytes()), Err(BadEvents::Sns));
        for broken in [&b""[..], b"{", b"\xff", b"{\"Records\":[}", &[b'['; 10_000]] {
            assert!(matches!(read(broken), Err(BadEvents::Json(_))), "{broken:?}");
        }
        for other in ["{}", "[]", "null", "7", r#"{"Records":7}"#, r#"{"Event":"x"}"#, r#"{"Records":null}"#]
        {
            assert_eq!(read(other.as_bytes()), Err(BadEvents::Other), "{other}");
        }
        for part in [r#""name":"amzn-s3-demo-bucket","#, r#""key":"in/red+flower%282%29.mov","#] {
            assert_eq!(read(AMAZON.replace(part, "").as_bytes()), Err(BadEvents::Record(0)), "{part}");
        }
        let record = r#"{"eventName":"ObjectRemoved:Delete"}"#;
        let many = vec![record; MAX_RECORDS + 1].join(",");
        assert_eq!(
            read(format!(r#"{{"Records":[{many}]}}"#).as_bytes()),
            Err(BadEvents::TooMany(MAX_RECORDS + 1))
        );
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_sender_puts_in_gives_bounded_events_or_an_error(
            bytes: Vec<u8>, name in "(s3:)?Object(Created|Removed):.{0,9}", bucket: String, key: String, size: i64, order: String,
        ) {
            let _ = read(&bytes);
            let object = serde_json::json!({ "key": key, "size": size, "sequencer": order });
            let record = serde_json::json!({ "eventName": name, "s3": { "bucket": { "name": bucket }, "object": object } });
            let body = serde_json::to_vec(&serde_json::json!({ "Records": [record] })).unwrap();
            if let Ok(events) = read(&body) {
                proptest::prop_assert!(events.len() <= 1);
                proptest::prop_assert!(events.iter().all(|e| e.sequencer.as_ref().is_none_or(|s| s.len() == 64)));
                // Decoding makes no key longer.
                proptest::prop_assert!(events.iter().flat_map(|e| &e.key).all(|k| k.len() <= key.len()));
            }
        }
    }

    #[test]
    fn sequencers_sort_as_they_follow_each_other() {
        let filled = |text: &str| sequencer(text).unwrap();
        assert!(filled("0055aed6") < filled("0055AED6DCD90281E5"));
        assert!(filled("0055AED6DCD90281E4") < filled("0055AED6DCD90281E5"));
        for bad in ["", "xyz", "0x1", &"1".repeat(65)] {
            assert_eq!(sequencer(bad), None, "{bad}");
        }
    }
}
