//! Observed flows: what was seen on the wire, to be compared with what the policies say.
//!
//! Read are Hubble's JSON lines (`hubble observe -o json`, with or without the `flow` wrapper) and Calico's flow logs in JSON
//! lines (`source_ip`, `dest_ip`, `action`…, as written to file or by Goldmane). Only forwarded packets that open a
//! connection count: replies follow their connection, and a dropped packet contradicts no denial.

use crate::sets::Protocol;
use crate::source::At;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;

/// Bytes of one line.
const MOST_LINE: usize = 1 << 20;
/// Flows of one file.
const MOST_FLOWS: usize = 5_000_000;

/// A packet that was seen to pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Its line.
    pub at: At,
    /// Who sent it.
    pub source: Party,
    /// Who got it.
    pub destination: Party,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination port; `type × 256 + code` on ICMP.
    pub port: u16,
}

/// One end of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// Its address, if the log has it.
    pub address: Option<IpAddr>,
    /// Namespace and name of its pod, if it is one.
    pub pod: Option<(Arc<str>, Arc<str>)>,
}

/// What a log held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flows {
    /// Forwarded packets that open a connection.
    pub flows: Vec<Flow>,
    /// Lines that say something else: drops, replies, protocols without a destination.
    pub passed_over: usize,
}

/// Why a log was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// A line that is neither of the two formats.
    #[error("{at}: {what}; expected Hubble's or Calico's flows, one JSON object a line")]
    Line {
        /// Where.
        at: At,
        /// What is wrong.
        what: String,
    },
    /// Too many.
    #[error("{0}: more than {MOST_FLOWS} flows; audit a shorter time")]
    TooMany(Arc<str>),
}

/// Reads a log.
pub fn read(name: &str, text: &[u8]) -> Result<Flows, FlowError> {
    let file: Arc<str> = name.into();
    let mut read = Flows::default();
    for (i, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let at = At {
            file: file.clone(),
            line: u32::try_from(i.saturating_add(1)).unwrap_or(u32::MAX),
            column: 1,
        };
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let bad = |what: &str| FlowError::Line { at: at.clone(), what: what.into() };
        if line.len() > MOST_LINE {
            return Err(bad("the line is longer than 1 MiB"));
        }
        let value: Value = serde_json::from_slice(line).map_err(|_| bad("it is not JSON"))?;
        let flow = match value.get("flow").unwrap_or(&value) {
            hubble if hubble.get("verdict").is_some() => self::hubble(hubble, &at),
            calico if calico.get("action").is_some() => self::calico(calico, &at),
            // Hubble mixes other events of its nodes into the stream.
            other if other.get("node_status").is_some() || other.get("lost_events").is_some() => Ok(None),
            _ => Err("it has neither `verdict` nor `action`"),
        };
        match flow.map_err(bad)? {
            Some(flow) if read.flows.len() < MOST_FLOWS => read.flows.push(flow),
            Some(_) => return Err(FlowError::TooMany(file)),
            None => read.passed_over = read.passed_over.saturating_add(1),
        }
    }
    Ok(read)
}

fn hubble(flow: &Value, at: &At) -> Result<Option<Flow>, &'static str> {
    let is_reply = match flow.get("is_reply") {
        Some(Value::Bool(reply)) => *reply,
        _ => flow.get("reply").and_then(Value::as_bool).unwrap_or(false),
    };
    if flow.get("verdict").and_then(Value::as_str) != Some("FORWARDED") || is_reply {
        return Ok(None);
    }
    let Some(l4) = flow.get("l4").and_then(Value::as_object) else { return Ok(None) };
    let Some((name, l4)) = l4.iter().next() else { return Ok(None) };
    let port = |key| l4.get(key).and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let icmp = || {
        let kind = port("type").unwrap_or(0).min(255);
        let code = port("code").unwrap_or(0).min(255);
        (kind << 8) | code
    };
    let (protocol, port) = match name.as_str() {
        "TCP" => (Protocol::Tcp, port("destination_port")),
        "UDP" => (Protocol::Udp, port("destination_port")),
        "SCTP" => (Protocol::Sctp, port("destination_port")),
        "ICMPv4" => (Protocol::Icmp, Some(icmp())),
        "ICMPv6" => (Protocol::Icmpv6, Some(icmp())),
        _ => return Ok(None),
    };
    let port = port.ok_or("its layer 4 has no destination port")?;
    let party = |side: &str| -> Result<Party, &'static str> {
        let ip =
            flow.get("IP").or_else(|| flow.get("ip")).and_then(|ip| ip.get(side)).and_then(Value::as_str);
        let text =
            |key| flow.get(side).and_then(|s| s.get(key)).and_then(Value::as_str).filter(|t| !t.is_empty());
        let pod =
            text("namespace").zip(text("pod_name")).map(|(namespace, name)| (namespace.into(), name.into()));
        let address = ip.map(|ip| ip.parse().map_err(|_| "its address is not an IP address")).transpose()?;
        Ok(Party { address, pod })
    };
    let (source, destination) = (party("source")?, party("destination")?);
    Ok(Some(Flow { at: at.clone(), source, destination, protocol, port }))
}

fn calico(flow: &Value, at: &At) -> Result<Option<Flow>, &'static str> {
    let text =
        |keys: &[&str]| keys.iter().find_map(|key| flow.get(*key).and_then(Value::as_str)).map(str::to_owned);
    if !text(&["action"]).is_some_and(|action| action.eq_ignore_ascii_case("allow")) {
        return Ok(None);
    }
    let number = |key: &str| match flow.get(key) {
        Some(Value::Number(number)) => number.as_u64().and_then(|n| u16::try_from(n).ok()),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let protocol = match text(&["proto", "protocol"]).unwrap_or_default().to_ascii_lowercase().as_str() {
        "tcp" | "6" => Protocol::Tcp,
        "udp" | "17" => Protocol::Udp,
        "sctp" | "132" => Protocol::Sctp,
        // Their type and code are not in the log.
        _ => return Ok(None),
    };
    let Some(port) = number("dest_port").filter(|port| *port > 0) else { return Ok(None) };
    let party = |side: &str| -> Result<Party, &'static str> {
        let get = |what: &str| text(&[&format!("{side}_{what}")]).filter(|t| !t.is_empty() && t != "-");
        let is_pod = get("type").is_none_or(|kind| kind.eq_ignore_ascii_case("wep"));
        // An aggregated log has `name_aggr` alone, which is no pod's name.
        let pod = get("namespace").zip(get("name")).filter(|_| is_pod);
        let address =
            get("ip").map(|ip| ip.parse().map_err(|_| "its address is not an IP address")).transpose()?;
        Ok(Party { address, pod: pod.map(|(namespace, name)| (namespace.into(), name.into())) })
    };
    let (source, destination) = (party("source")?, party("dest")?);
    Ok(Some(Flow { at: at.clone(), source, destination, protocol, port }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const HUBBLE: &str = r#"{"flow":{"time":"2026-01-01T00:00:00Z","verdict":"FORWARDED","IP":{"source":"10.0.0.5","destination":"10.0.0.6","ipVersion":"IPv4"},"l4":{"TCP":{"source_port":40000,"destination_port":8443,"flags":{"SYN":true}}},"source":{"namespace":"media","pod_name":"worker-1"},"destination":{"namespace":"mpegflow","pod_name":"broker-1"},"is_reply":false}}"#;
    const CALICO: &str = r#"{"start_time":1,"source_ip":"10.0.0.5","source_name":"worker-1","source_namespace":"media","source_type":"wep","source_port":40000,"dest_ip":"1.1.1.1","dest_name":"-","dest_namespace":"-","dest_type":"net","dest_port":53,"proto":"udp","action":"allow","reporter":"src"}"#;

    #[test]
    fn both_formats_are_read() {
        let read = read("flows.json", format!("{HUBBLE}\n\n{CALICO}\n").as_bytes()).unwrap();
        let seen: Vec<_> = read
            .flows
            .iter()
            .map(|f| (f.at.line, f.source.pod.is_some(), f.destination.pod.is_some(), f.protocol, f.port))
            .collect();
        assert_eq!(seen, [(1, true, true, Protocol::Tcp, 8443), (3, true, false, Protocol::Udp, 53)]);
        assert_eq!(read.flows.get(1).unwrap().destination.address, Some("1.1.1.1".parse().unwrap()));
    }

    #[test]
    fn drops_and_replies_contradict_nothing() {
        for (from, to) in [("FORWARDED", "DROPPED"), ("\"is_reply\":false", "\"is_reply\":true")] {
            let read = read("f", HUBBLE.replace(from, to).as_bytes()).unwrap();
            assert_eq!((read.flows.len(), read.passed_over), (0, 1));
        }
        let read = read("f", CALICO.replace("\"allow\"", "\"deny\"").as_bytes()).unwrap();
        assert_eq!((read.flows.len(), read.passed_over), (0, 1));
    }

    #[test]
    fn a_line_that_is_no_flow_is_an_error_with_its_number() {
        for (text, expected) in [
            ("{}\n", "f:1:1: it has neither"),
            ("\nnot json\n", "f:2:1: it is not JSON"),
            (&HUBBLE.replace("10.0.0.6", "10.0.0"), "f:1:1: its address is not an IP address"),
        ] {
            let error = read("f", text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
