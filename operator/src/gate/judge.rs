//! What a canary's report is worth. Pure.

use crate::crd::ConditionStatus;
use crate::desired::Target;
use mpegflow_protocol::canary::{MAX_REPORT, Outcome, Report};
use mpegflow_protocol::{from_json, text};
use std::net::SocketAddr;

/// Longest sentence of a finding.
const MAX_SENTENCE: usize = 480;

/// What a finding says, as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The broker answers, and nobody else does who answers others.
    Verified,
    /// Somebody answers who must not.
    Reachable,
    /// The broker does not answer.
    BrokerSilent,
    /// Somebody who must not answer answers nobody.
    Untested,
    /// The canary said something else.
    BadReport,
    /// The canary ended without a word.
    CanaryFailed,
    /// The canary did not end in time.
    CanaryTimedOut,
    /// Somebody took the canary away.
    CanaryGone,
    /// The API server does not let the operator make it.
    CanaryRefused,
}

impl Code {
    /// The reason in a condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "Verified",
            Self::Reachable => "Reachable",
            Self::BrokerSilent => "BrokerSilent",
            Self::Untested => "Untested",
            Self::BadReport => "BadReport",
            Self::CanaryFailed => "CanaryFailed",
            Self::CanaryTimedOut => "CanaryTimedOut",
            Self::CanaryGone => "CanaryGone",
            Self::CanaryRefused => "CanaryRefused",
        }
    }

    /// What it says of the isolation. Whatever is neither proof nor disproof says nothing.
    pub fn status(self) -> ConditionStatus {
        match self {
            Self::Verified => ConditionStatus::True,
            Self::Reachable => ConditionStatus::False,
            _ => ConditionStatus::Unknown,
        }
    }
}

/// What came of a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// As one word.
    pub code: Code,
    /// As a sentence, the same for the same facts.
    pub sentence: String,
}

impl Finding {
    pub(super) fn new(code: Code, sentence: impl AsRef<str>) -> Self {
        Self { code, sentence: text::clean(sentence.as_ref(), MAX_SENTENCE) }
    }
}

/// Judges a report against what the canary was to look at. `is_tested` says of an address whether somebody answered there all the while.
pub fn judge(report: &str, targets: &[Target], is_tested: impl Fn(SocketAddr) -> bool) -> Finding {
    let report: Report = match from_json("report", report.as_bytes(), MAX_REPORT) {
        Ok(report) => report,
        Err(error) => {
            return Finding::new(Code::BadReport, format!("the canary's report cannot be read: {error}"));
        }
    };
    let mut looked: Vec<SocketAddr> = report.looks.iter().map(|look| look.at).collect();
    let mut asked: Vec<SocketAddr> = targets.iter().map(|target| target.address).collect();
    looked.sort_unstable();
    asked.sort_unstable();
    if looked != asked {
        let sentence = "the canary looked at other addresses than it was told";
        return Finding::new(Code::BadReport, sentence);
    }
    // An answer counts whoever gives it; only silence has to be told from nobody being there.
    let answered =
        |address| report.looks.iter().any(|look| look.at == address && look.is == Outcome::Answered);
    let mut open: Vec<String> =
        targets.iter().filter(|target| answered(target.address)).map(called).collect();
    if report.node == Outcome::Answered {
        open.push("the agent of its node".into());
    }
    if !open.is_empty() {
        let verb = if open.len() == 1 { "answers" } else { "answer" };
        return Finding::new(Code::Reachable, format!("{} {verb} a pod of this pool", open.join(", ")));
    }
    if !report.broker {
        let sentence =
            "the broker does not answer a pod of this pool, so that silence elsewhere means nothing";
        return Finding::new(Code::BrokerSilent, sentence);
    }
    let (asked, unasked): (Vec<&Target>, Vec<&Target>) = targets.iter().partition(|target| target.asked);
    let absent: Vec<String> =
        asked.iter().filter(|target| !is_tested(target.address)).map(|t| called(t)).collect();
    if !absent.is_empty() {
        let sentence = format!(
            "{} did not answer the operator either, so that silence means nothing",
            absent.join(", ")
        );
        return Finding::new(Code::Untested, sentence);
    }
    if asked.is_empty() {
        let sentence = "no address is known where somebody answers: name one with --unreachable";
        return Finding::new(Code::Untested, sentence);
    }
    let tested: Vec<String> = asked.into_iter().map(called).collect();
    let mut untested: Vec<&str> = unasked.iter().map(|target| target.name.as_str()).collect();
    untested.dedup();
    untested.push("the agent of its node");
    let sentence = format!(
        "the broker answers; {} answered the operator and no pod of this pool; silent, and perhaps not there: {}",
        tested.join(", "),
        untested.join(", ")
    );
    Finding::new(Code::Verified, sentence)
}

fn called(target: &Target) -> String {
    format!("{} ({})", target.name, target.address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_protocol::canary::Look;

    const API: &str = "10.96.0.1:443";
    const DNS: &str = "10.96.0.10:53";
    const METADATA: &str = "169.254.169.254:80";

    fn target(name: &str, address: &str, asked: bool) -> Target {
        Target { name: name.into(), address: address.parse().unwrap(), asked }
    }

    fn targets() -> Vec<Target> {
        vec![
            target("API server", API, true),
            target("DNS", DNS, true),
            target("metadata service", METADATA, false),
        ]
    }

    fn report(broker: bool, node: Outcome, looks: &[(&str, Outcome)]) -> String {
        let looks = looks.iter().map(|(at, is)| Look { at: at.parse().unwrap(), is: *is }).collect();
        String::from_utf8(mpegflow_protocol::to_json(&Report { broker, node, looks })).unwrap()
    }

    fn all(is: Outcome) -> [(&'static str, Outcome); 3] {
        [(API, is), (DNS, is), (METADATA, is)]
    }

    #[test]
    fn silence_proves_something_only_where_somebody_answers_others() {
        use Outcome::{Refused, Silent};
        let code = |report: &str, tested: &[&str]| {
            judge(report, &targets(), |address| tested.iter().any(|t| *t == address.to_string())).code
        };
        let closed = report(true, Silent, &all(Silent));
        assert_eq!(code(&closed, &[API, DNS]), Code::Verified);
        assert_eq!(
            code(&report(true, Refused, &all(Refused)), &[API, DNS]),
            Code::Verified,
            "refused is no answer"
        );
        assert_eq!(code(&closed, &[API]), Code::Untested, "nobody is there");
        assert_eq!(code(&closed, &[]), Code::Untested);
        assert_eq!(code(&report(false, Silent, &all(Silent)), &[API, DNS]), Code::BrokerSilent);
        let nobody = [target("metadata service", METADATA, false)];
        let alone = report(true, Silent, &[(METADATA, Silent)]);
        assert_eq!(judge(&alone, &nobody, |_| true).code, Code::Untested, "nothing had a control");
        let says = judge(&closed, &targets(), |_| false).sentence;
        assert!(
            says.contains("API server (10.96.0.1:443), DNS (10.96.0.10:53) did not answer the operator"),
            "{says}"
        );
        let says = judge(&closed, &targets(), |_| true).sentence;
        assert!(says.ends_with("perhaps not there: metadata service, the agent of its node"), "{says}");
    }

    #[test]
    fn one_answer_is_enough_whatever_else_is_so() {
        use Outcome::{Answered, Silent};
        for at in [API, DNS, METADATA] {
            let looks = all(Silent).map(|(other, is)| (other, if other == at { Answered } else { is }));
            for broker in [true, false] {
                let found = judge(&report(broker, Silent, &looks), &targets(), |_| false);
                assert_eq!(found.code, Code::Reachable, "{at}");
                assert!(
                    found.sentence.contains(at) && found.sentence.contains("answers"),
                    "{}",
                    found.sentence
                );
            }
        }
        let found = judge(&report(true, Answered, &all(Silent)), &targets(), |_| true);
        assert_eq!(
            (found.code, found.sentence.as_str()),
            (Code::Reachable, "the agent of its node answers a pod of this pool")
        );
    }

    #[test]
    fn what_is_no_report_on_exactly_these_addresses_says_nothing() {
        use Outcome::Silent;
        let code = |report: &str| judge(report, &targets(), |_| true).code;
        let three = all(Silent);
        for (what, text) in [
            ("nothing", String::new()),
            ("words", "all is well".into()),
            ("another field", r#"{"broker":true,"node":"silent","looks":[],"verified":true}"#.into()),
            ("too few", report(true, Silent, &three[..2])),
            ("too many", report(true, Silent, &[three[0], three[1], three[2], ("192.0.2.1:1", Silent)])),
            ("one twice", report(true, Silent, &[three[0], three[1], three[1]])),
            ("too long", format!("{}{}", report(true, Silent, &three), " ".repeat(MAX_REPORT))),
            ("two", report(true, Silent, &three).repeat(2)),
        ] {
            assert_eq!(code(&text), Code::BadReport, "{what}");
        }
        let evil = judge("\u{1b}[31m{\"evil\u{202e}\":1}", &targets(), |_| true).sentence;
        assert!(text::is_label(&evil, MAX_SENTENCE), "{evil}");
    }
}
