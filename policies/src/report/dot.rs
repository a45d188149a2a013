//! A picture of what is reachable, for Graphviz.

use super::table::clean;
use crate::audit::{Outcome, Reach};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Arrows drawn; beyond it the picture says how many are left out.
const MOST: usize = 500;

/// The outcome as a Graphviz digraph: red for what passes and should not, orange for what may, green for what is meant.
pub fn dot(outcome: &Outcome) -> String {
    let mut out = format!("// {}\ndigraph reach {{\n", clean(&outcome.sentence));
    let _ = writeln!(
        out,
        "  label={};\n  labelloc=t; rankdir=LR; node [shape=box, style=rounded];",
        quoted(&outcome.sentence)
    );
    let reach: Vec<&Reach> = outcome.reach.iter().take(MOST).collect();
    let names: BTreeSet<&str> = reach.iter().flat_map(|r| [r.from.as_str(), r.to.as_str()]).collect();
    for name in names {
        let _ = writeln!(out, "  {};", quoted(name));
    }
    for arrow in reach {
        let (color, style) = match (arrow.intended, arrow.passes.must()) {
            (true, true) => ("darkgreen", "solid"),
            (true, false) => ("darkgreen", "dashed"),
            (false, true) => ("red", "solid"),
            (false, false) => ("orange", "dashed"),
        };
        let _ = writeln!(
            out,
            "  {} -> {} [label={}, color={color}, style={style}];",
            quoted(&arrow.from),
            quoted(&arrow.to),
            quoted(&arrow.traffic)
        );
    }
    if let Some(more @ 1..) = outcome.reach.len().checked_sub(MOST) {
        let _ = writeln!(out, "  {} [shape=plaintext];", quoted(&format!("and {more} more arrows")));
    }
    out.push_str("}\n");
    out
}

/// A quoted id of the DOT language, where only the quote has to be escaped.
fn quoted(text: &str) -> String {
    format!("\"{}\"", clean(text).replace('\\', "\\\\").replace('"', "\\\""))
}
