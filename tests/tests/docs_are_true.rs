//! What the documents claim exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir()
            && name != "target"
            && name != "node_modules"
            && !name.to_string_lossy().starts_with('.')
        {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Names of all functions under a `#[test]` attribute (or one of tokio's, or inside `proptest!`).
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let mut names = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut attribute = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test") || line.starts_with("#[tokio::test") {
                attribute = true;
            } else if let Some(rest) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) {
                if attribute {
                    names.insert(rest.split('(').next().unwrap().to_owned());
                }
                attribute = false;
            }
        }
    }
    names
}

#[test]
fn every_promise_of_the_security_page_names_tests_that_exist() {
    let page = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let tests = tests();
    let promises: Vec<&str> = page.lines().filter(|l| l.starts_with("| ") && l.contains("_")).collect();
    let mut named = 0;
    for row in promises {
        for name in row.split('`').skip(1).step_by(2).filter(|n| n.matches('_').count() >= 3) {
            assert!(tests.contains(name), "SECURITY.md promises by `{name}`, which is no test");
            named += 1;
        }
    }
    assert!(named >= 30, "only {named} tests are named");
}

#[test]
fn every_requirement_names_tests_that_exist() {
    let page = std::fs::read_to_string(root().join("docs/requirements.md")).unwrap();
    let tests = tests();
    let rows: Vec<&str> = page.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| n |")).collect();
    for (n, row) in (1..).zip(&rows) {
        assert!(row.starts_with(&format!("| {n} |")), "requirement {n} is not in its place: {row}");
        let names: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        for name in &names {
            assert!(tests.contains(*name), "requirement {n} is shown by `{name}`, which is no test");
        }
        let shown = !names.is_empty() || row.contains("](../tests/bench/");
        assert!(shown, "nothing shows requirement {n}");
    }
    assert_eq!(rows.len(), 21);
}

#[test]
fn every_path_in_the_documents_exists() {
    for page in ["README.md", "SECURITY.md", "docs/ARCHITECTURE.md", "docs/requirements.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let folder = root().join(page).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if !link.contains("://") && !link.starts_with('#') {
                assert!(folder.join(link).exists(), "{page} links to {link}");
            }
        }
    }
}
