//! Observed flows: what was seen on the wire, to be compared with what the policies say.
//!
//! Read are Hubble's JSON lines (`hubble observe -o json`, with or without the `flow` wrapper) and Calico's flow logs in JSON
//! lines: as its agent writes them to file (`source_ip`, `dest_name_aggr`, `action`…), as Goldmane hands them out (`Key`, in
//! either spelling of JSON) and as Whisker does. Only packets that passed and that open a connection count: replies follow their
//! connection, and a dropped packet contradicts no denial.

use crate::sets::Protocol;
use crate::source::At;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
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
    /// Namespace and name of its pod, if it is one. A name that ends in `*` stands for every pod whose name starts so.
    pub pod: Option<(Arc<str>, Arc<str>)>,
}

/// What a log held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flows {
    /// Packets that passed and open a connection.
    pub flows: Vec<Flow>,
    /// Lines that say something else: drops, replies, events that are no packet.
    pub passed_over: usize,
    /// Lines that may be of packets that passed, and do not say enough to be a [`Flow`]: by what is missing, how many, and the first.
    pub unread: BTreeMap<&'static str, (usize, At)>,
}

/// What became of a line.
enum Line {
    /// A packet that passed.
    Flow(Flow),
    /// Nothing that could contradict a denial.
    Other,
    /// It may be one, and this is missing.
    Unread(&'static str),
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
        let line = match value.get("flow").unwrap_or(&value) {
            hubble if hubble.get("verdict").is_some() => self::hubble(hubble, &at),
            calico if Fields(calico).get("action").is_some() => self::calico(&Fields(calico), &at),
            // Hubble mixes other events of its nodes into the stream.
            other if other.get("node_status").is_some() => Ok(Line::Other),
            other if other.get("lost_events").is_some() => {
                Ok(Line::Unread("the exporter lost events, which nobody has seen"))
            }
            _ => Err("it has neither `verdict` nor `action`"),
        };
        match line.map_err(bad)? {
            Line::Flow(flow) if read.flows.len() < MOST_FLOWS => read.flows.push(flow),
            Line::Flow(_) => return Err(FlowError::TooMany(file)),
            Line::Other => read.passed_over = read.passed_over.saturating_add(1),
            Line::Unread(why) => {
                let (count, _) = read.unread.entry(why).or_insert_with(|| (0, at.clone()));
                *count = count.saturating_add(1);
            }
        }
    }
    Ok(read)
}

/// An address of either family. One of IPv4 in IPv6's clothes would be in no block of a policy.
fn address(text: &str) -> Result<IpAddr, &'static str> {
    match text.parse() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            Err("its address is of IPv4, mapped into IPv6; write it as IPv4")
        }
        Ok(address) => Ok(address),
        Err(_) => Err("its address is not an IP address"),
    }
}

fn hubble(flow: &Value, at: &At) -> Result<Line, &'static str> {
    let is_reply = match flow.get("is_reply") {
        Some(Value::Bool(reply)) => *reply,
        _ => flow.get("reply").and_then(Value::as_bool).unwrap_or(false),
    };
    // api/v1/flow/flow.proto, Verdict: what the proxy gets has passed the policy of its layers, and what is audited would have been
    // dropped and has passed. The others are drops, and points on the way of packets that have a verdict of their own.
    match flow.get("verdict").and_then(Value::as_str) {
        Some("FORWARDED" | "REDIRECTED" | "AUDIT") if !is_reply => {}
        Some("FORWARDED" | "REDIRECTED" | "AUDIT" | "DROPPED" | "ERROR" | "TRACED" | "TRANSLATED") => {
            return Ok(Line::Other);
        }
        _ => return Ok(Line::Unread("its verdict is not known")),
    }
    const NO_LAYER_4: &str = "it does not say which protocol and port";
    let Some(l4) = flow.get("l4").and_then(Value::as_object) else { return Ok(Line::Unread(NO_LAYER_4)) };
    let Some((name, l4)) = l4.iter().next() else { return Ok(Line::Unread(NO_LAYER_4)) };
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
        _ => return Ok(Line::Unread(NO_LAYER_4)),
    };
    let port = port.ok_or("its layer 4 has no destination port")?;
    let party = |side: &str| -> Result<Party, &'static str> {
        let ip =
            flow.get("IP").or_else(|| flow.get("ip")).and_then(|ip| ip.get(side)).and_then(Value::as_str);
        let text =
            |key| flow.get(side).and_then(|s| s.get(key)).and_then(Value::as_str).filter(|t| !t.is_empty());
        let pod =
            text("namespace").zip(text("pod_name")).map(|(namespace, name)| (namespace.into(), name.into()));
        Ok(Party { address: ip.map(address).transpose()?, pod })
    };
    let (source, destination) = (party("source")?, party("destination")?);
    Ok(Line::Flow(Flow { at: at.clone(), source, destination, protocol, port }))
}

/// Fields of a flow of Calico by their names in the agent's log: also in small letters with capitals between, and in the `Key` of
/// Goldmane's (`goldmane/proto/api.proto`).
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        let mut camel = String::with_capacity(key.len());
        for (i, word) in key.split('_').enumerate() {
            let (first, rest) = word.split_at_checked(usize::from(i > 0)).unwrap_or((word, ""));
            camel.push_str(&first.to_ascii_uppercase());
            camel.push_str(rest);
        }
        let places = [Some(self.0), self.0.get("Key"), self.0.get("key")];
        let found = |place: &'a Value| place.get(key).or_else(|| place.get(&camel));
        places.into_iter().flatten().find_map(found).filter(|value| !value.is_null())
    }

    /// A text that says something: `-` is how the agent leaves a field out.
    fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str).filter(|text| !matches!(*text, "" | "-"))
    }

    fn number(&self, key: &str) -> Option<u16> {
        match self.get(key)? {
            Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A word, or its number in Goldmane's enumerations.
    fn word(&self, key: &str) -> Option<Cow<'a, str>> {
        match self.get(key)? {
            Value::Number(number) => Some(number.to_string().into()),
            _ => self.text(key).map(|text| text.to_ascii_lowercase().into()),
        }
    }
}

fn calico(flow: &Fields<'_>, at: &At) -> Result<Line, &'static str> {
    match flow.word("action").as_deref() {
        Some("allow" | "1") => {}
        // A `pass` is the step of a tier, on the way to the action that counts.
        Some("deny" | "2" | "pass" | "3") => return Ok(Line::Other),
        _ => return Ok(Line::Unread("its action is not known")),
    }
    let protocol = match flow.word("proto").or_else(|| flow.word("protocol")).as_deref() {
        Some("tcp" | "6") => Protocol::Tcp,
        Some("udp" | "17") => Protocol::Udp,
        Some("sctp" | "132") => Protocol::Sctp,
        _ => {
            return Ok(Line::Unread("it has no port: Calico logs no types of ICMP, and no other protocol's"));
        }
    };
    let Some(port) = flow.number("dest_port").filter(|port| *port > 0) else {
        return Ok(Line::Unread("its destination port is aggregated away"));
    };
    let party = |side: &str| -> Result<Party, &'static str> {
        let key = |what: &str| format!("{side}_{what}");
        let kind = flow.word(&key("type"));
        let is_pod = matches!(kind.as_deref(), None | Some("wep" | "workloadendpoint" | "1"));
        // Where the name is aggregated away, the start of it is left.
        let name = flow.text(&key("name")).or_else(|| flow.text(&key("name_aggr")));
        let pod = flow.text(&key("namespace")).zip(name).filter(|_| is_pod);
        let address = flow.text(&key("ip")).map(address).transpose()?;
        Ok(Party { address, pod: pod.map(|(namespace, name)| (namespace.into(), name.into())) })
    };
    let (source, destination) = (party("source")?, party("dest")?);
    Ok(Line::Flow(Flow { at: at.clone(), source, destination, protocol, port }))
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
        for (from, to) in
            [("FORWARDED", "DROPPED"), ("FORWARDED", "TRACED"), ("\"is_reply\":false", "\"is_reply\":true")]
        {
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
            (
                &HUBBLE.replace("10.0.0.6", "::ffff:10.0.0.6"),
                "f:1:1: its address is of IPv4, mapped into IPv6",
            ),
            (&CALICO.replace("1.1.1.1", "::ffff:1.1.1.1"), "f:1:1: its address is of IPv4, mapped into IPv6"),
        ] {
            let error = read("f", text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn what_hubble_saw_at_its_proxy_and_what_it_only_audited_has_passed() {
        for verdict in ["REDIRECTED", "AUDIT"] {
            let read = read("f", HUBBLE.replace("FORWARDED", verdict).as_bytes()).unwrap();
            assert_eq!((read.flows.len(), read.passed_over), (1, 0), "{verdict}");
        }
    }

    #[test]
    fn calico_s_flows_are_read_in_each_of_their_spellings() {
        // The agent's log with names aggregated; Goldmane's as protojson and as its emitter posts it; Whisker's.
        for line in [
            r#"{"action":"allow","source_namespace":"a","source_name":"-","source_name_aggr":"w-*","source_type":"wep","dest_namespace":"z","dest_name":"-","dest_name_aggr":"o","dest_type":"wep","dest_port":9000,"proto":"tcp","source_ip":null,"dest_ip":null}"#,
            r#"{"startTime":"1","action":"Allow","sourceName":"w-*","sourceNamespace":"a","sourceType":"WorkloadEndpoint","destName":"o","destNamespace":"z","destPort":"9000","proto":"tcp","reporter":"Src"}"#,
            r#"{"id":1,"flow":{"Key":{"source_name":"w-*","source_namespace":"a","source_type":1,"dest_name":"o","dest_namespace":"z","dest_type":1,"dest_port":9000,"proto":"tcp","reporter":1,"action":1},"start_time":1}}"#,
            r#"{"start_time":"t","action":"Allow","source_name":"w-*","source_namespace":"a","dest_name":"o","dest_namespace":"z","protocol":"tcp","dest_port":9000,"reporter":"Src"}"#,
        ] {
            let read = read("f", line.as_bytes()).unwrap();
            let flow = read.flows.first().unwrap();
            let pod =
                |party: &Party| party.pod.as_ref().map(|(namespace, name)| format!("{namespace}/{name}"));
            assert_eq!(
                (pod(&flow.source).as_deref(), pod(&flow.destination).as_deref(), flow.protocol, flow.port),
                (Some("a/w-*"), Some("z/o"), Protocol::Tcp, 9000),
                "{line}"
            );
        }
    }

    #[test]
    fn what_a_line_does_not_say_is_counted_by_what_is_missing() {
        let calico = |from: &str, to: &str| CALICO.replace(from, to);
        for (line, expected) in [
            (HUBBLE.replace("\"l4\"", "\"l5\""), "it does not say which protocol and port"),
            (HUBBLE.replace("FORWARDED", "WHATEVER"), "its verdict is not known"),
            (
                r#"{"lost_events":{"source":"x"}}"#.to_owned(),
                "the exporter lost events, which nobody has seen",
            ),
            (calico("\"allow\"", "\"perhaps\""), "its action is not known"),
            (
                calico("\"udp\"", "\"icmp\""),
                "it has no port: Calico logs no types of ICMP, and no other protocol's",
            ),
            (calico("\"dest_port\":53", "\"dest_port\":0"), "its destination port is aggregated away"),
        ] {
            let read = read("f", format!("{line}\n{line}\n").as_bytes()).unwrap();
            let unread: Vec<_> =
                read.unread.iter().map(|(why, (count, at))| (*why, *count, at.line)).collect();
            assert_eq!((read.flows.len(), unread), (0, vec![(expected, 2, 1)]), "{line}");
        }
    }
}
