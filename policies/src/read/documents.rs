//! Named texts → Kubernetes objects, with all that is wrong with any of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::{At, Budget, Entry, Node, Value, quoted};
use super::stream::{Piece, pieces};
use super::{ReadError, ReadErrors, json, kinds, parallel, plain, yaml};

/// Names of a file that Kustomize renders a folder by (`api/konfig`, RecognizedKustomizationFileNames).
pub const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// How much an [`Input`] may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one text.
    pub bytes_per_source: u64,
    /// Bytes of all texts.
    pub bytes: u64,
    /// Objects in all texts, a list's items counted one by one.
    pub documents: usize,
    /// Values in all texts: scalars, lists and maps, and what aliases copy. About 60 bytes of memory each.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_per_source: 256 << 20, bytes: 1 << 30, documents: 1_000_000, nodes: 32_000_000 }
    }
}

/// Texts to read, each with a name. The caller reads files; it asks [`Input::admit`] before it does.
#[derive(Debug)]
pub struct Input {
    limits: Limits,
    sources: Vec<Source>,
    bytes: u64,
}

#[derive(Debug)]
struct Source {
    name: Arc<str>,
    bytes: Vec<u8>,
    skip_non_kubernetes: bool,
}

impl Input {
    /// No texts yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, sources: Vec::new(), bytes: 0 }
    }

    /// Whether a text of `bytes` bytes may still be added; to be asked with a file's size before the file is read.
    ///
    /// # Errors
    /// The limit that would be exceeded.
    pub fn admit(&self, name: &str, bytes: u64) -> Result<(), ReadError> {
        let at = || At::whole(&name.into());
        if bytes > self.limits.bytes_per_source {
            let most = self.limits.bytes_per_source;
            return Err(ReadError::new(at(), format!("{bytes} bytes, and a file may have {most}"))
                .hint("split it, or raise the limit on bytes per file"));
        }
        let most = self.limits.bytes;
        if self.bytes.checked_add(bytes).is_none_or(|sum| sum > most) {
            return Err(ReadError::new(at(), format!("with this file the input exceeds {most} bytes"))
                .hint("audit fewer files at once, or raise the limit on bytes"));
        }
        Ok(())
    }

    /// Adds a text that was named by the user: whatever it holds must be Kubernetes objects.
    ///
    /// # Errors
    /// As [`Input::admit`].
    pub fn add(&mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Result<(), ReadError> {
        self.push(name, bytes.into(), false)
    }

    /// Adds a text that was found in a folder: documents that are clearly something else (Helm's `values.yaml` and
    /// `Chart.yaml`, a workflow) are left out with a [`Note`]. A Kustomization is an error: the files are not what it renders.
    ///
    /// # Errors
    /// As [`Input::admit`].
    pub fn add_skipping_non_kubernetes(
        &mut self,
        name: &str,
        bytes: impl Into<Vec<u8>>,
    ) -> Result<(), ReadError> {
        self.push(name, bytes.into(), true)
    }

    fn push(&mut self, name: &str, bytes: Vec<u8>, skip_non_kubernetes: bool) -> Result<(), ReadError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.admit(name, length)?;
        self.bytes = self.bytes.saturating_add(length);
        self.sources.push(Source { name: name.into(), bytes, skip_non_kubernetes });
        Ok(())
    }
}

/// A Kubernetes object. Its header is read; the rest is in `root`, which is a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Where it begins.
    pub at: At,
    /// The template that made it, where Helm's `# Source:` comment says so.
    pub origin: Option<Arc<str>>,
    /// `networking.k8s.io/v1`, `v1`
    pub api_version: Arc<str>,
    /// `NetworkPolicy`
    pub kind: Arc<str>,
    /// `metadata.namespace`, unless empty.
    pub namespace: Option<Arc<str>>,
    /// `metadata.name`, unless empty.
    pub name: Option<Arc<str>>,
    /// The whole object.
    pub root: Node,
}

impl Document {
    /// The API group: `networking.k8s.io`; empty for the core group.
    pub fn group(&self) -> &str {
        group(&self.api_version)
    }

    /// The version within the group: `v1`.
    pub fn version(&self) -> &str {
        self.api_version.split_once('/').map_or(&self.api_version, |(_, version)| version)
    }
}

/// `NetworkPolicy team-a/deny-all`
impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(self.name.as_deref().unwrap_or("(no name)"))
    }
}

/// Something was left out that the user should know about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Where it is.
    pub at: At,
    /// What, and why.
    pub message: String,
}

/// What an input held.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Documents {
    /// The objects, in the order of the texts.
    pub documents: Vec<Document>,
    /// What was left out.
    pub notes: Vec<Note>,
}

/// Reads all objects of all texts. Lists are replaced by their items; empty documents are nothing.
///
/// # Errors
/// Everything that is wrong in any text: what is not UTF-8, YAML or JSON, what is no Kubernetes object, objects that are
/// there twice, and exceeded limits. After a limit, nothing more is read.
pub fn documents(input: &Input) -> Result<Documents, ReadErrors> {
    let (parts, notes) = each(input, |all: &mut Vec<Document>, document| all.push(document))?;
    Ok(Documents { documents: parts.into_iter().flatten().collect(), notes })
}

/// Reads all objects as [`documents`] does, and hands each on as soon as it is read, so that trees need not all be kept: many
/// parts are made at once, each of objects that stand together. The parts come back in their order, with what was left out.
///
/// # Errors
/// As [`documents`].
pub(super) fn each<P: Default + Send>(
    input: &Input,
    take: impl Fn(&mut P, Document) + Sync,
) -> Result<(Vec<P>, Vec<Note>), ReadErrors> {
    let mut errors = ReadErrors::none();
    let mut read = ahead(input, &take).unwrap_or_else(|| {
        let mut reader = Reader::new(input.limits, &take);
        let mut budget = Budget::new(input.limits.nodes);
        for source in &input.sources {
            let stop = match source.text() {
                Ok(text) => pieces(text).any(|piece| reader.piece(source, piece, &mut budget) == Next::Stop),
                Err(error) => {
                    reader.errors.push(not_utf8(source, error.valid_up_to()));
                    false
                }
            };
            if stop {
                break;
            }
        }
        vec![reader.finish()]
    });
    read.iter_mut().for_each(|part| errors.append(std::mem::replace(&mut part.errors, ReadErrors::none())));
    duplicates(read.iter().flat_map(|part| &part.headers), &mut errors);
    let notes = read.iter_mut().flat_map(|part| std::mem::take(&mut part.notes)).collect();
    errors.or((read.into_iter().map(|part| part.part).collect(), notes))
}

/// Parts of all texts, read on all cores. `None` where that does not pay, or a limit is used up: then reading one object after
/// the other finds the place where it is.
fn ahead<P: Default + Send>(
    input: &Input,
    take: &(impl Fn(&mut P, Document) + Sync),
) -> Option<Vec<ReadPart<P>>> {
    let mut all: Vec<(&Source, Result<Piece<'_>, usize>)> = Vec::new();
    for source in &input.sources {
        match source.text() {
            Ok(text) => all.extend(pieces(text).map(|piece| (source, Ok(piece)))),
            Err(error) => all.push((source, Err(error.valid_up_to()))),
        }
    }
    if all.len() > input.limits.documents {
        return None;
    }
    let parts = parallel::map(&all, input.limits.nodes, |some, budget| {
        let mut reader = Reader::new(input.limits, take);
        for (source, piece) in some {
            let next = match piece {
                Ok(piece) => reader.piece(source, *piece, budget),
                Err(valid_up_to) => {
                    reader.errors.push(not_utf8(source, *valid_up_to));
                    Next::GoOn
                }
            };
            if next == Next::Stop {
                break;
            }
        }
        reader.finish()
    })?;
    let objects = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.objects));
    (objects <= input.limits.documents).then_some(parts)
}

impl Source {
    /// The text; a byte order mark is no content.
    fn text(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.bytes).map(|text| text.strip_prefix('\u{feff}').unwrap_or(text))
    }
}

/// Reads pieces that stand together into a part.
struct Reader<'t, P, T> {
    limits: Limits,
    take: &'t T,
    read: ReadPart<P>,
    errors: ReadErrors,
}

/// A part, and what is known of the objects that it was made from.
struct ReadPart<P> {
    part: P,
    headers: Vec<Header>,
    /// How many there were, unnamed ones too; more than are allowed where there was one too many.
    objects: usize,
    notes: Vec<Note>,
    errors: ReadErrors,
}

/// What an object is called, if it has a name.
struct Header {
    at: At,
    api_version: Arc<str>,
    kind: Arc<str>,
    namespace: Option<Arc<str>>,
    name: Arc<str>,
}

#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    /// A limit on the whole input is used up.
    Stop,
}

/// What an item takes from the list it stands in.
struct Parent {
    api_version: Arc<str>,
    kind: Arc<str>,
}

impl<'t, P: Default, T: Fn(&mut P, Document)> Reader<'t, P, T> {
    fn new(limits: Limits, take: &'t T) -> Self {
        let read = ReadPart {
            part: P::default(),
            headers: Vec::new(),
            objects: 0,
            notes: Vec::new(),
            errors: ReadErrors::none(),
        };
        Self { limits, take, read, errors: ReadErrors::none() }
    }

    fn finish(self) -> ReadPart<P> {
        ReadPart { errors: self.errors, ..self.read }
    }

    fn piece(&mut self, source: &Source, piece: Piece<'_>, budget: &mut Budget) -> Next {
        if piece.bad_separator {
            let at =
                At { file: Arc::clone(&source.name), line: piece.first_line.saturating_sub(1), column: 1 };
            let error =
                ReadError::new(at, "a document that begins on the line of its `---` is lost to kubectl");
            self.errors.push(error.hint("begin it on the next line"));
        }
        match parse(source, piece, budget) {
            Ok(nodes) => {
                for node in nodes {
                    if self.node(source, piece.origin, node, None) == Next::Stop {
                        return Next::Stop;
                    }
                }
            }
            Err(mut error) => {
                if error.hint.is_none() && piece.text.contains("{{") {
                    error = error.hint("if this is a template of Helm, audit what `helm template` prints");
                }
                self.errors.push(error);
                if budget.is_exhausted() {
                    return Next::Stop;
                }
            }
        }
        Next::GoOn
    }

    /// One object, or a list of them. Recursion is bounded by the depth of a tree.
    fn node(&mut self, source: &Source, origin: Option<&str>, node: Node, parent: Option<&Parent>) -> Next {
        if self.read.objects >= self.limits.documents {
            self.read.objects = usize::MAX;
            let message = format!("the input holds more than {} objects", self.limits.documents);
            let error = ReadError::new(node.pos.of(&source.name), message);
            self.errors.push(error.hint("audit fewer files at once, or raise the limit on documents"));
            return Next::Stop;
        }
        if source.skip_non_kubernetes && parent.is_none() && is_kustomization(&source.name, &node) {
            let folder = source.name.rsplit_once(['/', '\\']).map_or(".", |(folder, _)| folder);
            let message = "a Kustomization: what it makes of the files beside it is not what they say";
            let hint = format!(
                "audit what it renders, `kubectl kustomize {folder} | mpegflow audit -`, or name the files that are meant"
            );
            self.errors.push(ReadError::new(node.pos.of(&source.name), message).hint(hint));
            return Next::GoOn;
        }
        if source.skip_non_kubernetes
            && parent.is_none()
            && let Some(what) = other_than_kubernetes(&source.name, &node)
        {
            self.read
                .notes
                .push(Note { at: node.pos.of(&source.name), message: format!("left out: {what}") });
            return Next::GoOn;
        }
        let document = match header(&source.name, origin, node, parent) {
            Ok(document) => document,
            Err(error) => {
                self.errors.push(error);
                return Next::GoOn;
            }
        };
        let Some(item_kind) = document.kind.strip_suffix("List") else {
            self.take(document);
            return Next::GoOn;
        };
        if !item_kind.is_empty() && document.root.get("items").is_none() {
            // A custom kind that is just called so.
            self.take(document);
            return Next::GoOn;
        }
        let parent = (!item_kind.is_empty())
            .then(|| Parent { api_version: Arc::clone(&document.api_version), kind: item_kind.into() });
        match items(document) {
            Ok(items) => {
                for item in items {
                    if self.node(source, origin, item, parent.as_ref()) == Next::Stop {
                        return Next::Stop;
                    }
                }
            }
            Err(error) => self.errors.push(error),
        }
        Next::GoOn
    }

    fn take(&mut self, document: Document) {
        self.read.objects = self.read.objects.saturating_add(1);
        if let Some(name) = &document.name {
            self.read.headers.push(Header {
                at: document.at.clone(),
                api_version: Arc::clone(&document.api_version),
                kind: Arc::clone(&document.kind),
                namespace: document.namespace.clone(),
                name: Arc::clone(name),
            });
        }
        (self.take)(&mut self.read.part, document);
    }
}

/// The trees of a piece.
fn parse(source: &Source, piece: Piece<'_>, budget: &mut Budget) -> Result<Vec<Node>, ReadError> {
    let name = &source.name;
    let left = budget.left();
    let not_json = if json::looks_like_json(piece.text) {
        match json::parse(name, piece.text, piece.first_line, budget) {
            Ok(nodes) => return Ok(nodes),
            // Flow style YAML looks like this, too. What was read so far is dropped.
            Err(error) => {
                budget.restore(left);
                Some(error)
            }
        }
    } else {
        None
    };
    if let Some(root) = plain::parse(piece.text, piece.first_line, budget) {
        return Ok(vec![root]);
    }
    yaml::parse(name, piece.text, piece.first_line, budget).map(|node| node.into_iter().collect()).map_err(
        |error| match not_json {
            Some(not_json) if name.ends_with(".json") => not_json,
            _ => error,
        },
    )
}

fn not_utf8(source: &Source, offset: usize) -> ReadError {
    let before = source.bytes.get(..offset).unwrap_or_default();
    let line = before.iter().filter(|&&b| b == b'\n').count().saturating_add(1);
    let last = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at.saturating_add(1));
    let column = String::from_utf8_lossy(before.get(last..).unwrap_or_default()).chars().count();
    let at = At {
        file: Arc::clone(&source.name),
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column.saturating_add(1)).unwrap_or(u32::MAX),
    };
    ReadError::new(at, format!("not UTF-8 at byte {offset}")).hint("save the file as UTF-8")
}

/// Whether a document from a folder tells Kustomize what to do with the other files: by its kind, or by the names that Kustomize
/// looks for, under which the kind may be left out.
fn is_kustomization(name: &str, node: &Node) -> bool {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let api_version = node.get("apiVersion").and_then(Node::as_str);
    KUSTOMIZATIONS.contains(&file)
        || api_version.is_some_and(|version| version.starts_with("kustomize.config.k8s.io/"))
}

/// What a document from a folder is, if it is clearly no Kubernetes object.
fn other_than_kubernetes(name: &str, node: &Node) -> Option<String> {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let Value::Map(_) = node.value else {
        return Some(format!("{}, not a Kubernetes object", node.value.describe()));
    };
    let has = |key| node.get(key).is_some();
    if file == "Chart.yaml" && !has("kind") {
        return Some("a Helm chart's description; audit what `helm template` prints".into());
    }
    // A manifest with a missing or misspelt header is a mistake, not another kind of file.
    let manifest = ["apiVersion", "kind", "metadata", "spec"].into_iter().any(has);
    (!manifest).then(|| "it has neither `apiVersion` nor `kind`".into())
}

/// Reads `apiVersion`, `kind`, `metadata.namespace` and `metadata.name`.
fn header(
    file: &Arc<str>,
    origin: Option<&str>,
    root: Node,
    parent: Option<&Parent>,
) -> Result<Document, ReadError> {
    let at = root.pos.of(file);
    let Value::Map(_) = root.value else {
        return Err(ReadError::new(
            at,
            format!("a Kubernetes object must be a map, is {}", root.value.describe()),
        ));
    };
    let text = |map: &Node, key: &str, path: &str| match map.get(key).map(|node| (node, &node.value)) {
        None | Some((_, Value::Null)) => Ok(None),
        Some((_, Value::String(text))) => Ok((!text.is_empty()).then(|| Arc::clone(text))),
        Some((node, other)) => {
            let message = format!("{path} must be a string, is {}", other.describe());
            Err(ReadError::new(node.pos.of(file), message).hint("put it in quotes"))
        }
    };
    let missing = |field: &str| {
        ReadError::new(at.clone(), format!("{field} is missing, so this is no Kubernetes object"))
    };
    let api_version = text(&root, "apiVersion", "apiVersion")?
        .or_else(|| parent.map(|parent| Arc::clone(&parent.api_version)))
        .ok_or_else(|| missing("apiVersion"))?;
    let kind = text(&root, "kind", "kind")?
        .or_else(|| parent.map(|parent| Arc::clone(&parent.kind)))
        .ok_or_else(|| missing("kind"))?;
    if api_version.matches('/').count() > 1 || api_version.starts_with('/') || api_version.ends_with('/') {
        let message = format!("apiVersion must be `version` or `group/version`, is {}", quoted(&api_version));
        return Err(ReadError::new(at, message));
    }
    let (mut namespace, mut name) = (None, None);
    match root.get("metadata") {
        None => {}
        Some(Node { value: Value::Null, .. }) => {}
        Some(metadata @ Node { value: Value::Map(_), .. }) => {
            namespace = text(metadata, "namespace", "metadata.namespace")?;
            name = text(metadata, "name", "metadata.name")?;
        }
        Some(other) => {
            let message = format!("metadata must be a map, is {}", other.value.describe());
            return Err(ReadError::new(other.pos.of(file), message));
        }
    }
    Ok(Document { at, origin: origin.map(Into::into), api_version, kind, namespace, name, root })
}

/// The items of a list object.
fn items(list: Document) -> Result<Vec<Node>, ReadError> {
    let Value::Map(entries) = list.root.value else { return Ok(Vec::new()) };
    let Some(Entry { value, .. }) = entries.into_iter().find(|entry| &*entry.key.text == "items") else {
        return Ok(Vec::new());
    };
    match value.value {
        Value::List(items) => Ok(items.into_vec()),
        Value::Null => Ok(Vec::new()),
        other => {
            let message = format!("items must be a list, is {}", other.describe());
            Err(ReadError::new(value.pos.of(&list.at.file), message))
        }
    }
}

/// Objects that stand twice: which of them a cluster would hold depends on the order of the files. Without a namespace an object
/// is in `default`, as it is for kubectl, unless its kind has none; then what is written there counts for nothing.
fn duplicates<'h>(headers: impl Iterator<Item = &'h Header>, errors: &mut ReadErrors) {
    let mut seen: HashMap<(&str, &str, &str, &str), &Header> = HashMap::new();
    for header in headers {
        let Header { kind, .. } = header;
        let mut group = group(&header.api_version);
        let mut name = &*header.name;
        if group == "crd.projectcalico.org" || group == "projectcalico.org" {
            // One store, seen through two APIs. A policy of the default tier goes by its name with and without the tier's.
            group = "projectcalico.org";
            if kind.ends_with("NetworkPolicy") {
                name = name.strip_prefix("default.").unwrap_or(name);
            }
        }
        let namespace = if kinds::is_cluster_wide(group, kind) {
            ""
        } else {
            header.namespace.as_deref().unwrap_or("default")
        };
        match seen.entry((group, kind, namespace, name)) {
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(header);
            }
            std::collections::hash_map::Entry::Occupied(first) => {
                let place = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
                let message = format!("{kind} {place}{name} stands here and in {}", first.get().at);
                let error = ReadError::new(header.at.clone(), message);
                errors.push(error.hint("audit what is applied: one overlay, one rendering"));
            }
        }
    }
}

/// The API group of `group/version`; empty for the core group.
fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

#[cfg(test)]
mod tests;
