//! Texts made from the keys: the reference page, and what `--check-config` prints.

use super::keys::{KEYS, Key, Raw};
use super::layers::{ENV_FILE, Origin};
use std::fmt::Write as _;

/// docs/configuration.md.
pub fn page() -> String {
    let mut page = format!(
        "# Configuration of the broker

Made from `broker/src/config/keys.rs`; a test keeps both the same.

`mpegflow-broker` reads one TOML file (`--config FILE`, or the variable `{ENV_FILE}`), the environment and its flags. **A flag
wins over the environment, the environment over the file, the file over the default.** A key that is not known is an error,
with its line and the nearest key there is.

`mpegflow-broker --check-config` prints what all three come to and where each value is from, or everything that is wrong, and
ends with 0 or 2. It reads the files with secrets, and connects to nothing.

**Secrets are in files.** No key, variable or flag holds one; keys name files, which are read again when they may have changed.

```toml
data = \"/var/lib/mpegflow\"

[public]
listen = \"0.0.0.0:8080\"

[worker]
listen = \"0.0.0.0:8443\"
names = [\"broker.mpegflow.svc\"]

[database]
url = \"postgres://mpegflow@db.example:5432/mpegflow\"
password_file = \"/run/secrets/database/password\"
```
"
    );
    let mut section = "";
    for (n, key) in KEYS.iter().enumerate() {
        if n == 0 || key.section() != section {
            section = key.section();
            let title =
                if section.is_empty() { "Top of the file".to_owned() } else { format!("`[{section}]`") };
            let _ = write!(
                page,
                "\n## {title}\n\n| key | flag | environment | default | |\n|---|---|---|---|---|\n"
            );
        }
        let default = match key.default {
            None => "–".to_owned(),
            Some("") => "empty".to_owned(),
            Some(default) => format!("`{default}`"),
        };
        let old = key.old_env.map_or_else(String::new, |old| format!(", formerly `{old}`"));
        let _ = writeln!(
            page,
            "| `{}` | `--{}` | `{}`{old} | {default} | {} *Values:* {}. |",
            key.name,
            key.flag,
            key.env(),
            key.doc.trim(),
            (key.values)()
        );
    }
    page
}

/// The raw configuration as TOML, each value with where it is from. Secrets are in files, and only those files' names are here.
pub fn listing(raw: &Raw) -> String {
    let mut text = String::new();
    let mut section = "";
    for (key, value) in raw.show() {
        if key.section() != section {
            section = key.section();
            let _ = write!(text, "\n[{section}]\n");
        }
        text.push_str(&line(key, value));
    }
    text
}

fn line(key: &Key, value: Option<(String, Origin)>) -> String {
    let name = key.name.rsplit('.').next().unwrap_or(key.name);
    match value {
        None => format!("# {name} is not set\n"),
        Some((value, origin)) => {
            let secret = key.secret.map_or_else(String::new, |what| format!("; {what}: from this file"));
            format!("{:<40} # {origin}{secret}\n", format!("{name} = {value}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    #[test]
    fn the_reference_page_is_the_one_made_from_the_keys() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let page = page();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == page,
            "docs/configuration.md is not what the keys say; run the test with UPDATE_DOCS=1"
        );
    }

    #[test]
    fn the_example_on_the_reference_page_is_accepted() {
        let page = page();
        let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.toml");
        std::fs::write(&path, example).unwrap();
        let (_, problems) = Layers { file: Some(path), ..Layers::default() }.read();
        assert!(problems.is_empty(), "{problems}");
    }

    #[test]
    fn the_listing_is_a_configuration_that_comes_to_the_same() {
        let mut layers = Layers::default();
        layers.flags.insert("worker.names", vec!["a\"b".into(), "c".into()]);
        layers.flags.insert("quotas.upload_bytes", vec!["12345".into()]);
        layers.flags.insert("s3.credentials", vec!["/run/c".into()]);
        let listing = listing(&layers.read().0);
        assert!(
            listing.contains("credentials = \"/run/c\"") && listing.contains("from this file"),
            "{listing}"
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.toml");
        std::fs::write(&path, &listing).unwrap();
        let (raw, problems) = Layers { file: Some(path), ..Layers::default() }.read();
        assert!(problems.is_empty(), "{problems}\n{listing}");
        assert_eq!(raw.worker_names.get().unwrap(), &["a\"b", "c"]);
        assert_eq!(raw.quotas_upload_bytes.get().unwrap().0, 12_345);
    }
}
