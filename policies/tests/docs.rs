//! docs/audit-findings.md is made from the catalogue of findings; this test keeps the committed page the same.
//! `UPDATE_DOCS=1 cargo test -p mpegflow-policies --test docs` writes it anew.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use mpegflow_policies::audit::catalog;
use std::fmt::Write;
use std::path::Path;

fn page() -> String {
    let mut page = String::from(
        "# What the audit finds\n\n\
         `mpegflow audit` names each finding by an id that does not change, for baselines and code scanners. Made from\n\
         `policies/src/audit/catalog.rs`; a test keeps both the same.\n",
    );
    let parts = [
        ("MF1", "What may be reached"),
        ("MF2", "Policies"),
        ("MF3", "Who may change the proof"),
        ("MF4", "Pods of workers"),
        ("MF5", "What was observed and accepted"),
    ];
    for (prefix, title) in parts {
        writeln!(
            page,
            "\n## {title}\n\n| id | name | severity | what it says | what to do |\n|---|---|---|---|---|"
        )
        .unwrap();
        for kind in catalog::ALL.iter().filter(|kind| kind.id.starts_with(prefix)) {
            writeln!(
                page,
                "| {} | `{}` | {} | {} | {} |",
                kind.id,
                kind.name,
                kind.severity.name(),
                kind.title,
                kind.fix
            )
            .unwrap();
        }
    }
    page
}

#[test]
fn the_page_of_findings_lists_the_catalogue() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/audit-findings.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), page(), "run with UPDATE_DOCS=1");
}
