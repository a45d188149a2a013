//! The three layers, read into the raw configuration. Each mistake is noted with its place; reading goes on, so that all of
//! them are told at once.

use super::keys::{KEYS, Key, Raw};
use super::problem::Problems;
use super::setting::Value;
use clap::{ArgAction, ArgMatches};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// What the names of all keys start with in the environment.
pub const ENV_PREFIX: &str = "MPEGFLOW_BROKER_";
/// Names the file.
pub const ENV_FILE: &str = "MPEGFLOW_BROKER_CONFIG";
/// A configuration file is not longer.
const MAX_FILE: u64 = 1 << 20;

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// A line of the file.
    File(String, usize),
    /// A variable of the environment.
    Env(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file, line) => write!(f, "{file}:{line}"),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// A key's value and where it is from; empty where nobody gave one and there is no default.
#[derive(Debug, Clone)]
pub struct Slot<T>(pub Option<(T, Origin)>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Slot<T> {
    pub(super) const fn given(value: T, origin: Origin) -> Self {
        Self(Some((value, origin)))
    }

    /// The value.
    pub fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|(value, _)| value)
    }

    /// Where it is from.
    pub fn origin(&self) -> Option<&Origin> {
        self.0.as_ref().map(|(_, origin)| origin)
    }

    /// Whether somebody gave it.
    pub fn is_given(&self) -> bool {
        self.origin().is_some_and(|origin| *origin != Origin::Default)
    }
}

/// The layers as the process finds them.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The file.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Flags that were given, by the key's name.
    pub flags: BTreeMap<&'static str, Vec<String>>,
}

impl Layers {
    /// Reads all three.
    ///
    /// # Errors
    /// Everything that is wrong. What could be read is in the raw configuration all the same.
    pub fn read(&self) -> (Raw, Problems) {
        let (mut raw, mut problems) = (Raw::default(), Problems::default());
        for key in KEYS {
            if let Some(default) = key.default {
                set(&mut raw, &mut problems, key, &Value::Text(default.into()), Origin::Default);
            }
        }
        if let Some(path) = &self.file {
            read_file(path, &mut raw, &mut problems);
        }
        self.read_env(&mut raw, &mut problems);
        for key in KEYS {
            let Some(given) = self.flags.get(key.name) else { continue };
            let value = match given.as_slice() {
                _ if key.list => Value::List(given.iter().cloned().map(Value::Text).collect()),
                [.., last] => Value::Text(last.clone()),
                [] => continue,
            };
            set(&mut raw, &mut problems, key, &value, Origin::Flag(key.flag));
        }
        (raw, problems)
    }

    fn read_env(&self, raw: &mut Raw, problems: &mut Problems) {
        for key in KEYS {
            // The newer name wins over the older.
            for name in key.old_env.map(str::to_owned).into_iter().chain([key.env()]) {
                if let Some(value) = self.env.get(&name) {
                    set(raw, problems, key, &Value::Text(value.clone()), Origin::Env(name));
                }
            }
        }
        for name in self.env.keys().filter(|name| name.starts_with(ENV_PREFIX) && *name != ENV_FILE) {
            if !is_of_a_service(name) && !KEYS.iter().any(|key| key.env() == *name) {
                let near = nearest(name, KEYS.iter().map(Key::env));
                problems.add(Origin::Env(name.clone()), format!("there is no such key{near}"));
            }
        }
    }
}

fn set(raw: &mut Raw, problems: &mut Problems, key: &Key, value: &Value, origin: Origin) {
    if let Err(reason) = raw.set(key.name, value, origin.clone()) {
        problems.add(origin, format!("{}: {reason}", key.name));
    }
}

/// Kubernetes sets these in every pod for each Service whose name begins with `mpegflow-broker`; they are no keys.
pub(super) fn is_of_a_service(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(ENV_PREFIX) else { return false };
    let rest = format!("_{rest}");
    let numbered =
        rest.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|end| rest.ends_with(end))
        || rest.contains("_SERVICE_PORT_")
        || numbered
}

/// `; did you mean …?` where a known name is near enough to be meant.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    let near = known.map(|known| (strsim::damerau_levenshtein(name, &known), known)).min();
    // A third of the letters wrong is another word.
    match near {
        Some((distance, known)) if distance <= name.len().div_ceil(3) => format!("; did you mean `{known}`?"),
        _ => "; docs/configuration.md lists them".into(),
    }
}

fn read_file(path: &Path, raw: &mut Raw, problems: &mut Problems) {
    use std::io::Read as _;
    let shown = path.display().to_string();
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE.saturating_add(1)).read_to_string(&mut text));
    if let Err(e) = read {
        return problems.add(&shown, format!("the file cannot be read: {e}"));
    }
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return problems.add(&shown, "the file is longer than 1 MiB");
    }
    let (table, errors) = DeTable::parse_recoverable(&text);
    let line = |at: usize| {
        let before = text.as_bytes().get(..at).unwrap_or_default();
        before.iter().filter(|b| **b == b'\n').count().saturating_add(1)
    };
    for error in errors {
        let place = Origin::File(shown.clone(), error.span().map_or(1, |span| line(span.start)));
        problems.add(place, format!("not TOML: {}", error.message()));
    }
    let mut todo = vec![(String::new(), table.get_ref())];
    let mut found = Vec::new();
    while let Some((prefix, table)) = todo.pop() {
        for (name, value) in table {
            let full = format!("{prefix}{}", name.get_ref());
            match value.get_ref() {
                // A table stands for its keys, unless there is a key of that name or nothing below it.
                DeValue::Table(inner) if KEYS.iter().any(|key| key.section() == full) => {
                    todo.push((format!("{full}."), inner));
                }
                value => found.push((line(name.span().start), full, read_value(value))),
            }
        }
    }
    // As they stand in the file.
    found.sort_by_key(|(line, ..)| *line);
    for (line, name, value) in found {
        let place = Origin::File(shown.clone(), line);
        match KEYS.iter().find(|key| key.name == name) {
            Some(key) => set(raw, problems, key, &value, place),
            None => {
                let sections = KEYS.iter().map(|key| key.section()).filter(|section| !section.is_empty());
                let known = KEYS.iter().map(|key| key.name).chain(sections);
                let near = nearest(&name, known.map(str::to_owned));
                let name = mpegflow_protocol::text::clean(&name, 128);
                problems.add(place, format!("there is no key `{name}`{near}"));
            }
        }
    }
}

fn read_value(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
            .map_or(Value::Other("a number too large"), Value::Integer),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Array(values) => Value::List(values.iter().map(|v| read_value(v.get_ref())).collect()),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Table(_) => Value::Other("a table"),
    }
}

/// The flags of all keys, for clap.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    given: BTreeMap<&'static str, Vec<String>>,
}

impl Flags {
    /// By the key's name.
    pub fn into_map(self) -> BTreeMap<&'static str, Vec<String>> {
        self.given
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for key in KEYS {
            if let Ok(Some(values)) = matches.try_get_many::<String>(key.name) {
                self.given.insert(key.name, values.cloned().collect());
            }
        }
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(KEYS.iter().map(|key| {
            let default = key
                .default
                .filter(|d| !d.is_empty())
                .map_or_else(String::new, |d| format!(" [default: {d}]"));
            let arg = clap::Arg::new(key.name)
                .long(key.flag)
                .value_name(key.word)
                .help(format!("{}{default}", key.doc.trim().trim_end_matches('.')))
                .help_heading(
                    "Configuration (also in the file and in the environment; docs/configuration.md)",
                )
                .global(true);
            if key.switch {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else if key.list {
                arg.action(ArgAction::Append)
            } else {
                arg
            }
        }))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, Layers) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.toml");
        std::fs::write(&path, text).unwrap();
        (dir, Layers { file: Some(path), ..Layers::default() })
    }

    fn texts(problems: &Problems, dir: &tempfile::TempDir) -> Vec<String> {
        problems.iter().map(|p| p.to_string().replace(&format!("{}/", dir.path().display()), "")).collect()
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file_and_that_over_the_default() {
        let (_dir, mut layers) =
            file("[public]\nlisten = \"1.1.1.1:1\"\n[worker]\nlisten = \"1.1.1.1:2\"\nlease = 20\n");
        layers.env.insert("MPEGFLOW_BROKER_PUBLIC_LISTEN".into(), "2.2.2.2:1".into());
        layers.env.insert("MPEGFLOW_BROKER_WORKER_LISTEN".into(), "2.2.2.2:2".into());
        layers.flags.insert("public.listen", vec!["3.3.3.3:1".into()]);
        let (raw, problems) = layers.read();
        assert!(problems.is_empty(), "{problems}");
        let shown = |addr: &Slot<std::net::SocketAddr>| {
            (addr.get().unwrap().to_string(), addr.origin().unwrap().clone())
        };
        assert_eq!(shown(&raw.public_listen), ("3.3.3.3:1".into(), Origin::Flag("listen")));
        assert_eq!(
            shown(&raw.worker_listen),
            ("2.2.2.2:2".into(), Origin::Env("MPEGFLOW_BROKER_WORKER_LISTEN".into()))
        );
        assert!(matches!(raw.worker_lease.origin(), Some(Origin::File(_, 5))));
        assert_eq!(raw.data.origin(), Some(&Origin::Default));
    }

    #[test]
    fn every_mistake_of_every_layer_is_told_at_once_with_its_place() {
        let (dir, mut layers) = file(
            "dta = \"x\"\n[database]\nconections = 4\nconnections = 1\n[databse]\nurl = 1\n[s3]\npath_style = \"maybe\"\nbucket = 1979-05-27\nquite_another_thing = 1\n",
        );
        layers.env.insert("MPEGFLOW_BROKER_S3_BUKET".into(), "x".into());
        layers.env.insert("MPEGFLOW_BROKER_SERVICE_PORT_HTTPS".into(), "8443".into());
        layers.env.insert("MPEGFLOW_BROKER_PORT_8443_TCP_ADDR".into(), "10.0.0.1".into());
        layers.env.insert("MPEGFLOW_BROKER_METRICS_SERVICE_HOST".into(), "10.0.0.1".into());
        layers.env.insert("MPEGFLOW_BROKER_METRICS_PORT".into(), "tcp://10.0.0.1:9090".into());
        layers.flags.insert("worker.lease", vec!["1".into()]);
        let (_, problems) = layers.read();
        assert_eq!(
            texts(&problems, &dir),
            [
                "broker.toml:1: there is no key `dta`; did you mean `data`?",
                "broker.toml:3: there is no key `database.conections`; did you mean `database.connections`?",
                "broker.toml:4: database.connections: it is no number from 2 to 1000",
                "broker.toml:5: there is no key `databse`; did you mean `database`?",
                "broker.toml:8: s3.path_style: it is neither true nor false",
                "broker.toml:9: s3.bucket: a date is no text",
                "broker.toml:10: there is no key `s3.quite_another_thing`; docs/configuration.md lists them",
                "environment MPEGFLOW_BROKER_S3_BUKET: there is no such key; did you mean `MPEGFLOW_BROKER_S3_BUCKET`?",
                "--lease: worker.lease: it is no time from 2s to 10m; write one such as \"2s\"",
            ]
        );
    }

    #[test]
    fn what_is_no_toml_is_told_by_line_and_the_rest_is_read() {
        let (dir, layers) = file("data = \"x\"\n[public\nlisten = \"a\"\nworker = = 3\n");
        let (_, problems) = layers.read();
        let texts = texts(&problems, &dir);
        assert!(texts.iter().any(|t| t.starts_with("broker.toml:2: not TOML")), "{texts:?}");
        assert!(texts.iter().any(|t| t.starts_with("broker.toml:4: not TOML")), "{texts:?}");
        let (dir, layers) = file("");
        std::fs::remove_file(layers.file.as_ref().unwrap()).unwrap();
        assert!(layers.read().1.to_string().contains("cannot be read"));
        drop(dir);
    }

    #[test]
    fn older_names_in_the_environment_still_work_and_newer_ones_win() {
        let mut layers = Layers::default();
        layers.env.insert("MPEGFLOW_S3_BUCKET".into(), "old".into());
        layers.env.insert("MPEGFLOW_S3_REGION".into(), "old".into());
        layers.env.insert("MPEGFLOW_BROKER_S3_REGION".into(), "new".into());
        let (raw, _) = layers.read();
        assert_eq!(raw.s3_bucket.get().map(String::as_str), Some("old"));
        assert_eq!(raw.s3_region.get().map(String::as_str), Some("new"));
    }
}
