//! Spans as OTLP's messages.

use crate::trace::{self, Attribute, Name, Value};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;

/// `flags` of a span: the trace is sampled; it is known whether the parent is another process's, and it is.
const SAMPLED: u32 = 0x1;
const REMOTE_KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

/// A request with a batch of spans of this broker.
pub(super) fn request(spans: &[trace::Span], instance: &str) -> Vec<u8> {
    let text = |key: &str, text: &str| pair(key, any_value::Value::StringValue(text.to_owned()));
    let version = env!("CARGO_PKG_VERSION");
    let resource = Resource {
        attributes: vec![
            text("service.name", "mpegflow-broker"),
            text("service.version", version),
            text("service.instance.id", instance),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "mpegflow".into(),
        version: version.into(),
        ..InstrumentationScope::default()
    };
    let spans = spans.iter().map(span).collect();
    let scopes = vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }];
    let all = ResourceSpans { resource: Some(resource), scope_spans: scopes, schema_url: String::new() };
    ExportTraceServiceRequest { resource_spans: vec![all] }.encode_to_vec()
}

fn span(span: &trace::Span) -> Span {
    let link = |remote: &trace::Remote| Link {
        trace_id: remote.trace.bytes().to_vec(),
        span_id: remote.span.bytes().to_vec(),
        flags: REMOTE_KNOWN | REMOTE | u32::from(remote.sampled),
        ..Link::default()
    };
    Span {
        trace_id: span.trace.bytes().to_vec(),
        span_id: span.id.bytes().to_vec(),
        parent_span_id: span.parent.map_or_else(Vec::new, |parent| parent.bytes().to_vec()),
        flags: SAMPLED | REMOTE_KNOWN | if span.parent_is_remote { REMOTE } else { 0 },
        name: span.name.as_str().to_owned(),
        kind: kind(span.name).into(),
        start_time_unix_nano: nanos(span.start_us),
        end_time_unix_nano: nanos(span.end_us),
        attributes: span.attributes.iter().map(attribute).collect(),
        links: span.link.iter().map(link).collect(),
        status: span.error.map(|code| Status { code: StatusCode::Error.into(), message: code.to_owned() }),
        ..Span::default()
    }
}

const fn kind(name: Name) -> SpanKind {
    match name {
        Name::Submit => SpanKind::Server,
        Name::Attempt(_) => SpanKind::Consumer,
        _ => SpanKind::Internal,
    }
}

fn nanos(us: i64) -> u64 {
    u64::try_from(us).unwrap_or(0).saturating_mul(1_000)
}

fn attribute((key, value): &(Attribute, Value)) -> KeyValue {
    let text = |text: String| any_value::Value::StringValue(text);
    let value = match value {
        Value::Word(word) => text((*word).to_owned()),
        Value::Number(n) => any_value::Value::IntValue(*n),
        Value::Tenant(id) => text(id.to_string()),
        Value::Pool(name) => text(name.to_string()),
        Value::Job(id) => text(id.to_string()),
        Value::Task(id) => text(id.to_string()),
        Value::Attempt(id) => text(id.to_string()),
    };
    pair(key.as_str(), value)
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
