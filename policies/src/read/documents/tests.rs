#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]

use proptest::prelude::*;

use super::super::testing::{read, read_all};
use super::*;

const HEAD: &str = "apiVersion: v1\nkind: Pod\n";

/// The objects of a text as `place: object`.
fn listed(documents: &Documents) -> Vec<String> {
    documents.documents.iter().map(|document| format!("{}: {document}", document.at)).collect()
}

fn from_folder(name: &str, text: &str) -> Result<Documents, String> {
    let mut input = Input::new(Limits::default());
    input.add_skipping_non_kubernetes(name, text).unwrap();
    documents(&input).map_err(|errors| errors.to_string())
}

#[test]
fn a_stream_s_objects_are_found_and_its_empty_documents_are_nothing() {
    let text = "\u{feff}# comment\n---\n---\napiVersion: networking.k8s.io/v1\r\nkind: NetworkPolicy\r\nmetadata:\r\n  \
                name: deny\r\n  namespace: a\r\n---\n# Source: chart/templates/pod.yaml\napiVersion: v1\nkind: Pod\n\
                metadata: {name: web}\n---\n~\n";
    let read = read(text).unwrap();
    assert_eq!(listed(&read), ["x.yaml:4:1: NetworkPolicy a/deny", "x.yaml:11:1: Pod web"]);
    let [policy, pod] = &read.documents[..] else { panic!("two") };
    assert_eq!((policy.group(), policy.version(), &policy.origin), ("networking.k8s.io", "v1", &None));
    assert_eq!((pod.group(), pod.version(), pod.namespace.as_ref()), ("", "v1", None));
    assert_eq!(pod.origin.as_deref(), Some("chart/templates/pod.yaml"));
    assert_eq!(read.notes, []);
}

#[test]
fn lists_are_replaced_by_their_items() {
    let yaml = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n\
                - {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Node, metadata: {name: b}}]}\n";
    assert_eq!(listed(&read(yaml).unwrap()), ["x.yaml:4:3: Pod a", "x.yaml:7:40: Node b"]);
    // Items of a typed list need no header of their own.
    let json = "{\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"NetworkPolicyList\", \"metadata\": {},\n\
                \"items\": [{\"metadata\": {\"name\": \"a\", \"namespace\": \"n\"}}]}";
    let typed = read(json).unwrap();
    assert_eq!(listed(&typed), ["x.yaml:2:11: NetworkPolicy n/a"]);
    assert_eq!(typed.documents[0].group(), "networking.k8s.io");
    for empty in ["items: []", "items:", ""] {
        let text = format!("apiVersion: v1\nkind: List\n{empty}");
        assert_eq!(read(&text), Ok(Documents::default()), "{empty:?}");
    }
    // A custom kind may be called so.
    let custom = "apiVersion: x.io/v1\nkind: AllowList\nmetadata: {name: a}\n";
    assert_eq!(listed(&read(custom).unwrap()), ["x.yaml:1:1: AllowList a"]);
    assert_eq!(
        read("apiVersion: v1\nkind: List\nitems: {a: 1}"),
        Err(vec!["x.yaml:3:8: items must be a list, is a map".into()])
    );
    assert_eq!(
        read("apiVersion: v1\nkind: List\nitems: [{kind: Pod}]"),
        Err(vec!["x.yaml:3:9: apiVersion is missing, so this is no Kubernetes object".into()])
    );
}

#[test]
fn json_is_read_as_json_also_one_object_after_the_other() {
    let text = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"\\ud83d\\ude00\"}}\n\
                {\"apiVersion\": \"v1\", \"kind\": \"Node\"}\n";
    let read = read(text).unwrap();
    assert_eq!(listed(&read), ["x.yaml:1:1: Pod 😀", "x.yaml:2:1: Node (no name)"]);
}

#[test]
fn a_broken_text_in_braces_is_reported_as_what_its_name_says() {
    let text: &[u8] = b"{\"apiVersion\": \"v1\", \"kind\" \"Pod\"}";
    let errors = |name| read_all(&[(name, text)]).unwrap_err();
    assert_eq!(errors("x.json"), ["x.json:1:29: not valid JSON: expected `:`, found \"\\\"\""]);
    assert!(errors("x.yaml")[0].contains("not valid YAML"), "{:?}", errors("x.yaml"));
}

#[test]
fn every_error_of_every_text_is_reported() {
    let errors = read_all(&[
        ("a.yaml", b"apiVersion: v1\nkind: Pod\n---\nkind: Pod\n---\nx: [\n---\n- 1\n"),
        ("b.yaml", b"apiVersion: v1\nkind: \xff\n"),
        ("c.yaml", b"apiVersion: v1\nkind: y\n"),
        ("d.yaml", b"apiVersion: a/b/c\nkind: X\n---\napiVersion: v1\nkind: X\nmetadata: []\n"),
        ("e.yaml", b"apiVersion: v1\nkind: X\nmetadata: {name: 1}\n--- {a: 1}\n"),
    ])
    .unwrap_err();
    assert_eq!(
        errors,
        [
            "a.yaml:4:1: apiVersion is missing, so this is no Kubernetes object",
            "a.yaml:7:1: not valid YAML: while parsing a node, did not find expected node content",
            "a.yaml:8:1: a Kubernetes object must be a map, is a list",
            "b.yaml:2:7: not UTF-8 at byte 21; save the file as UTF-8",
            "c.yaml:2:7: kind must be a string, is a boolean (true); put it in quotes",
            "d.yaml:1:1: apiVersion must be `version` or `group/version`, is \"a/b/c\"",
            "d.yaml:6:11: metadata must be a map, is a list",
            "e.yaml:3:18: metadata.name must be a string, is an integer (1); put it in quotes",
            "e.yaml:4:1: a document that begins on the line of its `---` is lost to kubectl; begin it on the next line",
        ]
    );
}

#[test]
fn errors_beyond_a_hundred_are_counted() {
    let errors = read(&"---\n- 1\n".repeat(103)).unwrap_err();
    assert_eq!(errors.len(), 101);
    assert_eq!(errors[100], "and 3 more");
}

#[test]
fn a_template_of_helm_is_named_as_such() {
    let errors = read("apiVersion: v1\nkind: Pod\nmetadata:\n  labels: {{ include \"x\" . }}\n").unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].ends_with("; if this is a template of Helm, audit what `helm template` prints"),
        "{errors:?}"
    );
}

#[test]
fn an_object_that_stands_twice_is_refused_with_both_places() {
    let pod = |extra: &str| format!("{HEAD}metadata: {{name: a{extra}}}\n");
    let texts = [pod(""), pod(", namespace: ns"), pod(", namespace: ns"), HEAD.into(), HEAD.into()];
    let texts: Vec<(&str, &[u8])> =
        ["a", "b", "c", "d", "e"].into_iter().zip(texts.iter().map(|text| text.as_bytes())).collect();
    assert_eq!(
        read_all(&texts).unwrap_err(),
        ["c:1:1: Pod ns/a stands here and in b:1:1; audit what is applied: one overlay, one rendering"]
    );
    // Another version of the same group is the same object; another group is not.
    let policy = |version: &str| {
        format!("apiVersion: {version}\nkind: NetworkPolicy\nmetadata: {{name: a, namespace: ns}}\n---\n")
    };
    // Without a namespace an object is in `default`; a kind that has none has none, whatever is written.
    let object = |api: &str, kind: &str, metadata: &str| {
        format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{{metadata}}}\n---\n")
    };
    for ((api, kind, metadata), (other_api, other_metadata)) in [
        (("v1", "Pod", "name: a"), ("v1", "name: a, namespace: default")),
        (("v1", "Namespace", "name: a"), ("v1", "name: a, namespace: b")),
        (
            ("rbac.authorization.k8s.io/v1", "ClusterRole", "name: a"),
            ("rbac.authorization.k8s.io/v1", "name: a, namespace: b"),
        ),
        // Calico's two APIs show one store.
        (
            ("projectcalico.org/v3", "NetworkPolicy", "name: a, namespace: b"),
            ("crd.projectcalico.org/v1", "name: default.a, namespace: b"),
        ),
        (("projectcalico.org/v3", "Tier", "name: a"), ("crd.projectcalico.org/v1", "name: a")),
    ] {
        let errors =
            read(&(object(api, kind, metadata) + &object(other_api, kind, other_metadata))).unwrap_err();
        assert!(errors[0].contains("stands here and in x.yaml:1:1"), "{kind}: {errors:?}");
    }
    let other = policy("networking.k8s.io/v1") + &policy("crd.projectcalico.org/v1");
    assert_eq!(read(&other).unwrap().documents.len(), 2);
    assert!(read(&(policy("networking.k8s.io/v1") + &policy("networking.k8s.io/v1beta1"))).is_err());
}

#[test]
fn in_a_folder_what_is_clearly_something_else_is_left_out_with_a_note() {
    let table = [
        (
            "c/Chart.yaml",
            "apiVersion: v2\nname: c\n",
            "a Helm chart's description; audit what `helm template` prints",
        ),
        ("c/values.yaml", "replicas: 2\n", "it has neither `apiVersion` nor `kind`"),
        ("hosts.yaml", "- a\n- b\n", "a list, not a Kubernetes object"),
    ];
    for (name, text, what) in table {
        let note =
            Note { at: At { file: name.into(), line: 1, column: 1 }, message: format!("left out: {what}") };
        assert_eq!(from_folder(name, text), Ok(Documents { documents: vec![], notes: vec![note] }), "{name}");
        assert!(read_all(&[(name, text.as_bytes())]).is_err(), "{name} named by the user");
    }
}

#[test]
fn in_a_folder_a_kustomization_is_an_error_that_names_what_renders_it() {
    let kind = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";
    let bare = "resources: [a.yaml]\n";
    for (name, text, folder) in [
        ("k/kustomization.yaml", bare, "k"),
        ("k/kustomization.yml", kind, "k"),
        ("a/b/Kustomization", bare, "a/b"),
        ("component.yaml", kind, "."),
    ] {
        let error = from_folder(name, text).unwrap_err();
        let way_out = format!("kubectl kustomize {folder} | mpegflow audit -");
        assert!(error.starts_with(&format!("{name}:1:1: ")) && error.contains(&way_out), "{error}");
    }
    // Flux has a kind of that name, which is no file of Kustomize.
    let flux = "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: a}\n";
    assert_eq!(from_folder("flux.yaml", flux).unwrap().documents.len(), 1);
}

#[test]
fn in_a_folder_a_manifest_is_a_manifest_whatever_its_file_is_called() {
    let read = from_folder("values.yaml", HEAD).unwrap();
    assert_eq!((read.documents.len(), read.notes.len()), (1, 0));
    for text in ["kind: Pod\n", "apiVersion: v1\n", "metadata: {name: a}\n", "spec: {}\n", "a: [\n"] {
        assert!(from_folder("values.yaml", text).is_err(), "{text:?}");
    }
}

#[test]
fn a_gigabyte_is_refused_by_its_size_alone() {
    let input = Input::new(Limits::default());
    assert_eq!(
        input.admit("big.yaml", 1_000_000_000).unwrap_err().to_string(),
        "big.yaml: 1000000000 bytes, and a file may have 268435456; split it, or raise the limit on bytes per file"
    );
    assert!(input.admit("small.yaml", 268_435_456).is_ok());
    assert!(input.admit("absurd.yaml", u64::MAX).is_err());
}

#[test]
fn each_limit_is_named_when_it_is_exceeded() {
    let limits = Limits { bytes_per_source: 100, bytes: 150, documents: 2, nodes: 100 };
    let mut input = Input::new(limits);
    assert!(input.add("a", vec![b' '; 101]).is_err());
    input.add("a", vec![b' '; 100]).unwrap();
    assert_eq!(
        input.add("b", vec![b' '; 51]).unwrap_err().to_string(),
        "b: with this file the input exceeds 150 bytes; audit fewer files at once, or raise the limit on bytes"
    );
    input.add("b", vec![b' '; 50]).unwrap();

    let errors = |limits, text: &str| {
        let mut input = Input::new(Limits { bytes_per_source: 1 << 20, bytes: 1 << 20, ..limits });
        input.add("x", text).unwrap();
        input.add("y", text).unwrap();
        documents(&input).map(|read| read.documents.len()).map_err(|errors| errors.to_string())
    };
    let two = format!("{HEAD}---\n{HEAD}");
    assert_eq!(
        errors(limits, &two),
        Err("y:1:1: the input holds more than 2 objects; \
             audit fewer files at once, or raise the limit on documents"
            .into())
    );
    assert_eq!(errors(limits, HEAD), Ok(2));
    // Flow style YAML is tried as JSON first; that costs nothing.
    assert_eq!(errors(Limits { nodes: 10, ..limits }, "{\"apiVersion\": \"v1\", \"a\": 1, kind: P}"), Ok(2));
    assert_eq!(
        errors(Limits { nodes: 4, ..limits }, HEAD),
        Err("y:2:7: the input holds more values than the limit on nodes allows; \
             audit fewer files at once, or raise the limit"
            .into())
    );
}

/// Pieces of manifests that are put together at random.
const PIECES: &[&str] = &[
    "apiVersion: v1\n",
    "kind: List\n",
    "kind: Pod\n",
    "items:\n",
    "- ",
    "metadata: ",
    "{name: a}",
    "\n",
    "  ",
    "---\n",
    "&a ",
    "*a",
    "<<: ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    ": ",
    "? ",
    "\"",
    "'",
    "|\n",
    ">-\n",
    "!!str ",
    "! ",
    "\t",
    "#",
    "\\",
    "é",
    "\u{feff}",
    "\u{2028}",
    "\r",
    "\u{0}",
    "%YAML 1.1\n",
    "...\n",
    "0x1F",
    ".inf",
    "~",
    "\\u12",
    "\\ud83d",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = read_all(&[("x", &bytes)]);
    }

    #[test]
    fn any_pieces_of_manifests_are_read_or_refused(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        let text = pieces.concat();
        if let Err(errors) = read(&text) {
            prop_assert!(!errors.is_empty());
            for error in errors {
                // Each error has a place, which is within the text or just behind it.
                let line: usize = error.strip_prefix("x.yaml:").unwrap().split(':').next().unwrap().parse().unwrap();
                prop_assert!(line <= text.split(['\n', '\r']).count() + 1, "{error}");
            }
        }
    }

    #[test]
    fn a_changed_manifest_is_read_or_refused(at in 0usize..400, byte in any::<u8>(), cut in 0usize..8) {
        let mut bytes = format!(
            "{HEAD}metadata:\n  name: &n web\n  labels: {{app: *n, \"q\": 'x'}}\nspec:\n  - |\n    a\n  - >-\n   b\n  - <<: {{x: 1}}\n"
        ).into_bytes();
        let at = at.min(bytes.len());
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, [byte]);
        let _ = read_all(&[("x", &bytes)]);
    }

    #[test]
    fn json_s_meaning_does_not_depend_on_the_reader(value in json_value()) {
        // As JSON, and as the same text in YAML, where a leading comment hides that it is JSON.
        let object = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "spec": value});
        let plain = read(&object.to_string()).unwrap();
        let yaml = read(&format!("# as YAML\n{object}")).unwrap();
        let json = |read: &Documents| super::super::testing::json(&read.documents[0].root);
        prop_assert_eq!(json(&plain), object);
        prop_assert_eq!(json(&yaml), json(&plain));
    }
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[ -~é日\\n\\t]{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map("[a-z0-9./ ]{0,8}", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn what_is_read_on_all_cores_is_what_is_read_on_one() {
    let text = |broken: Option<usize>| -> String {
        let object = |i: usize| format!("---\napiVersion: v1\nkind: P\nmetadata: {{name: n{i}}}\n");
        (0..400).map(|i| if Some(i) == broken { "---\na: [\n".into() } else { object(i) }).collect()
    };
    // An object has five nodes. The least that is enough for one reader is drawn by the first of several, so that the others
    // find nothing and the reader goes on alone.
    let read = |broken, nodes| {
        let mut input = Input::new(Limits { nodes, ..Limits::default() });
        input.add("y", text(broken)).unwrap();
        documents(&input)
    };
    let all = read(None, 1 << 20).unwrap();
    assert_eq!(all.documents.len(), 400);
    assert_eq!(read(None, 2_000).unwrap(), all);
    assert!(read(None, 1_999).unwrap_err().to_string().contains("limit on nodes"));
    for broken in [0, 17, 399] {
        let (one, several) = (read(Some(broken), 2_000), read(Some(broken), 1 << 20));
        assert_eq!(one.unwrap_err().to_string(), several.unwrap_err().to_string());
    }
}
