//! One page without scripts and without anything from elsewhere, to be mailed to an auditor or kept as evidence.

use super::table::clean;
use super::{deciding, looked_at, packet};
use crate::audit::{Finding, Outcome, Reach, word};
use crate::truth::Truth;
use std::fmt::Write as _;

/// Arrows drawn; beyond it the page says how many are left out.
const MOST: usize = 120;

/// The outcome as an HTML page. Nothing of the input reaches it unescaped, and its own policy forbids scripts.
pub fn html(outcome: &Outcome) -> String {
    let verdict = outcome.word();
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1 class=\"{verdict}\">{title}</h1>\n",
        title = escaped(&outcome.sentence),
    );
    let _ = writeln!(out, "<p>Looked at {} under <b>{}</b>.</p>", looked_at(&outcome.input), outcome.profile);
    if !outcome.intents.is_empty() {
        out.push_str("<h2>Intents</h2>\n<table>\n<tr><th>verdict</th><th>intent</th><th>pods</th><th>why unknown</th></tr>\n");
        for intent in &outcome.intents {
            let doubts: Vec<String> =
                intent.doubts.iter().take(10).map(|d| escaped(&d.to_string())).collect();
            let _ = writeln!(
                out,
                "<tr><td class=\"{word}\">{word}</td><td>{}<br><small>{}</small></td><td>{}</td><td>{}</td></tr>",
                escaped(&intent.name),
                escaped(&intent.from),
                intent.pods,
                doubts.join("<br>"),
                word = word(intent.proved),
            );
        }
        out.push_str("</table>\n");
    }
    if !outcome.reach.is_empty() {
        out.push_str("<h2>What is reachable</h2>\n");
        picture(&mut out, &outcome.reach);
    }
    let _ = writeln!(out, "<h2>Findings ({})</h2>", outcome.findings.len());
    for finding in &outcome.findings {
        write_finding(&mut out, finding);
    }
    if !outcome.accepted.is_empty() {
        out.push_str("<h2>Accepted by the baseline</h2>\n<ul>\n");
        for accepted in &outcome.accepted {
            let _ = writeln!(
                out,
                "<li><b>{}</b> {}: {} (by {}, until {})</li>",
                accepted.finding.id,
                escaped(&accepted.finding.object.to_string()),
                escaped(&accepted.reason),
                escaped(&accepted.owner),
                escaped(&accepted.expires)
            );
        }
        out.push_str("</ul>\n");
    }
    out.push_str("<h2>This holds if</h2>\n<ul>\n");
    for assumption in &outcome.assumptions {
        let _ = writeln!(out, "<li>{}</li>", escaped(assumption));
    }
    out.push_str("</ul>\n</body>\n</html>\n");
    out
}

fn write_finding(out: &mut String, finding: &Finding) {
    let unsure = if finding.certain == Truth::Yes { "" } else { " (possible)" };
    let at = finding.at.as_ref().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(
        out,
        "<section class=\"{}\"><h3>{} {}{unsure} <code>{}</code> <small>{}</small></h3>\n<p>{}</p>",
        finding.severity.name(),
        finding.id,
        finding.severity.name(),
        escaped(&finding.object.to_string()),
        escaped(&at),
        escaped(&finding.reason)
    );
    if let Some(witness) = &finding.witness {
        let _ = write!(out, "<pre>{}", escaped(&packet(witness)));
        for rule in &witness.rules {
            let _ = write!(out, "\n  {}", escaped(&deciding(rule)));
        }
        out.push_str("</pre>\n");
    }
    for doubt in finding.doubts.iter().take(10) {
        let _ = writeln!(out, "<p>Unknown: {}</p>", escaped(&doubt.to_string()));
    }
    let _ = writeln!(out, "<p><b>Fix:</b> {}</p></section>", escaped(&finding.fix));
}

/// Sources to the left, destinations to the right, an arrow for each pair.
fn picture(out: &mut String, reach: &[Reach]) {
    let shown: Vec<&Reach> = reach.iter().take(MOST).collect();
    let column = |pick: fn(&Reach) -> &str| -> Vec<&str> {
        let mut names: Vec<&str> = shown.iter().map(|arrow| pick(arrow)).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let (left, right) = (column(|arrow| &arrow.from), column(|arrow| &arrow.to));
    let y = |names: &[&str], name: &str| {
        let place = names.iter().position(|other| *other == name).unwrap_or_default();
        place.saturating_mul(34).saturating_add(30)
    };
    let height = left.len().max(right.len()).saturating_mul(34).saturating_add(30);
    let _ =
        writeln!(out, "<svg viewBox=\"0 0 1000 {height}\" role=\"img\" aria-label=\"what is reachable\">");
    for arrow in &shown {
        let class = match (arrow.intended, arrow.passes.must()) {
            (true, _) => "intended",
            (false, true) => "bad",
            (false, false) => "unsure",
        };
        let (from, to) = (y(&left, &arrow.from), y(&right, &arrow.to));
        let _ = writeln!(
            out,
            "<path class=\"{class}\" d=\"M330 {from} C 460 {from}, 540 {to}, 670 {to}\"><title>{} → {}: {}</title></path>",
            escaped(&arrow.from),
            escaped(&arrow.to),
            escaped(&arrow.traffic)
        );
    }
    for (names, x, anchor) in [(&left, 320, "end"), (&right, 680, "start")] {
        for name in names {
            let label = if name.chars().count() > 44 {
                name.chars().take(43).chain(std::iter::once('…')).collect::<String>()
            } else {
                (*name).to_owned()
            };
            let _ = writeln!(
                out,
                "<text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{}<title>{}</title></text>",
                y(names, name).saturating_add(4),
                escaped(&label),
                escaped(name)
            );
        }
    }
    out.push_str("</svg>\n");
    if let Some(more @ 1..) = reach.len().checked_sub(MOST) {
        let _ = writeln!(out, "<p>And {more} more arrows.</p>");
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#1d2733}\
h1{font-size:1.4rem;padding:.7rem 1rem;border-radius:6px;color:#fff}h1.proved{background:#1a7f37}h1.violated{background:#b42318}\
h1.unknown{background:#9a6700}td.proved{color:#1a7f37}td.violated{color:#b42318}td.unknown{color:#9a6700}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d0d7de;vertical-align:top}\
section{border-left:4px solid #d0d7de;padding:.1rem 1rem;margin:1rem 0}section.error{border-color:#b42318}\
section.warning{border-color:#9a6700}section.note{border-color:#0969da}h3{font-size:1rem;margin:.4rem 0}\
pre{background:#f6f8fa;padding:.6rem;overflow:auto}svg{width:100%;font-size:12px}path{fill:none;stroke-width:1.6}\
path.intended{stroke:#1a7f37}path.bad{stroke:#b42318}path.unsure{stroke:#bf8700;stroke-dasharray:5 4}";
