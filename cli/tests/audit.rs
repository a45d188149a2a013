//! `mpegflow audit` as a program: what it says first, its exit codes, and that bad input is never a verdict.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MPEGFLOW: &str = env!("CARGO_BIN_EXE_mpegflow");

/// Exit code, standard output, standard error.
type Ran = (i32, String, String);

fn run_as(program: &Path, args: &[&str], input: &str) -> Ran {
    let mut child = Command::new(program)
        .args(args)
        .env("NO_COLOR", "1")
        .env_remove("KUBECONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn audit(args: &[&str], input: &str) -> Ran {
    run_as(Path::new(MPEGFLOW), &[&["audit"], args].concat(), input)
}

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db, namespace: shop}
spec: {template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}]}]
";

const INTENTS: &str = "apiVersion: mpegflow.io/v1alpha1
kind: NetworkIntents
intents:
- name: the shop reaches its database and nothing else
  from: {namespace: shop, pods: {app: web}}
  may: [{namespace: shop, pods: {app: db}, ports: [5432]}]
";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn the_first_line_is_the_verdict_and_the_exit_code_says_the_same() {
    let folder = Folder::new();
    let intents = folder.write("intents.yaml", INTENTS);
    let judged = |manifests: &str, more: &[&str]| {
        audit(&[&["-", "--intents", &intents, "--cni", "calico@3.30"], more].concat(), manifests)
    };
    let first = |out: &str| out.lines().next().unwrap_or_default().to_owned();
    let (code, out, _) = judged(SHOP, &["--assume-complete"]);
    assert_eq!(
        (code, first(&out)),
        (0, "Proved for 1 pod: the shop reaches its database and nothing else.".into())
    );
    let (code, out, _) = judged(SHOP, &[]);
    assert_eq!(code, 2);
    assert!(
        first(&out).starts_with("Unknown whether the shop reaches") && out.contains("--assume-complete"),
        "{out}"
    );
    let (code, out, _) = judged(&SHOP.replace("ports: [{port: 5432}]", ""), &["--assume-complete"]);
    assert_eq!(code, 1);
    assert!(first(&out).starts_with("Violated: Deployment shop/web"), "{out}");
    for format in ["json", "sarif", "html", "dot", "table"] {
        let (code, out, _) = judged(SHOP, &["--assume-complete", "--format", format]);
        assert_eq!(code, 0, "{format}");
        assert!(first(&out).contains("Proved for 1 pod"), "{format}: {}", first(&out));
    }
}

#[test]
fn kubectl_finds_it_as_a_plugin() {
    let folder = Folder::new();
    let plugin: PathBuf = folder.0.path().join("kubectl-mpegflow_audit");
    std::os::unix::fs::symlink(MPEGFLOW, &plugin).unwrap();
    let intents = folder.write("intents.yaml", INTENTS);
    let (code, out, said) =
        run_as(&plugin, &["-", "--intents", &intents, "--assume-complete", "--cni", "calico"], SHOP);
    assert_eq!(code, 0, "{out}{said}");
    let (code, _, said) = run_as(&plugin, &["--no-such-option"], "");
    assert_eq!(code, 3, "wrong usage is bad input: {said}");
}

#[test]
fn bad_input_is_an_error_with_file_and_line_and_never_a_verdict() {
    let folder = Folder::new();
    let policy = |spec: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: a}}\nspec:\n  podSelector: {{}}\n  {spec}\n"
        )
    };
    let bomb: String = (1..40).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
        format!("{text}a{n}: &a{n} [*a{0}, *a{0}, *a{0}]\n", n - 1)
    });
    let cases = [
        ("broken", "apiVersion: v1\nkind: Pod\nmetadata: {name: a\nspec: {}\n".to_owned(), ":4:"),
        ("bomb", format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\n{bomb}"), ":11:"),
        ("twice", format!("{SHOP}---\n{SHOP}"), ":25:"),
        ("version", "apiVersion: networking.k8s.io/v9\nkind: NetworkPolicy\nmetadata: {name: p}\n".to_owned(), ":1:"),
        ("definition", "apiVersion: example.com/v1\nkind: Firewall\nmetadata: {name: p}\n".to_owned(), ":1:"),
        ("mapped", policy("ingress: [{from: [{ipBlock: {cidr: '::ffff:10.0.0.0/104'}}]}]"), ":6:"),
        ("except", policy("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}}]}]"), ":6:"),
        ("except-all", policy("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]"), ":6:"),
        ("except-twice", policy("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.1.2.0/24]}}]}]"), ":6:"),
        ("mapped-pod", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {}\nstatus: {podIP: '::ffff:10.0.1.3'}\n".to_owned(), ":5:"),
        ("flux", "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: p}\n".to_owned(), ":1:"),
        ("zero", policy("ingress: [{ports: [{port: 0}]}]"), ":6:"),
        ("selector", policy("ingress: [{from: [{podSelector: {matchExpressions: [{key: a, operator: Is}]}}]}]"), ":6:"),
        ("label", policy("ingress: [{from: [{podSelector: {matchLabels: {app: y}}}]}]"), ":6:"),
        (
            "calico",
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: p}\nspec:\n  selector: app = 'x'\n"
                .to_owned(),
            ":5:",
        ),
    ];
    for (name, text, line) in cases {
        let path = folder.write(&format!("{name}.yaml"), &text);
        let (code, out, said) = audit(&[&path, "--assume-complete"], "");
        assert_eq!(code, 3, "{name}: {out}{said}");
        assert_eq!(out, "", "{name}");
        assert!(!said.to_lowercase().contains("proved"), "{name}: {said}");
        let place = format!("{name}.yaml{line}");
        assert!(said.contains(&place), "{name} without {place}: {said}");
    }
    // Nothing is no mistake, and no proof.
    let path = folder.write("empty.yaml", "");
    let (code, out, said) = audit(&[&path, "--assume-complete"], "");
    assert_eq!(code, 2, "{out}{said}");
    assert!(out.starts_with("Unknown"), "{out}");
}

#[test]
fn a_file_of_a_gigabyte_is_refused_before_it_is_read() {
    let folder = Folder::new();
    let path = folder.write("huge.yaml", "");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 30).unwrap();
    let (code, out, said) = audit(&[&path], "");
    assert_eq!((code, &*out), (3, ""), "{said}");
    assert!(said.contains("huge.yaml") && said.contains("--max-file"), "{said}");
}

#[test]
fn without_worker_pools_the_report_says_what_to_give_it() {
    let (code, out, _) = audit(&["-", "--assume-complete"], SHOP);
    assert_eq!(code, 2, "{out}");
    let first = out.lines().next().unwrap_or_default();
    assert!(first.contains("--intents"), "{first}");
}

const KUSTOMIZATION: &str =
    "resources: [shop.yaml]\npatches: [{target: {kind: NetworkPolicy}, patch: '[]'}]\n";

#[test]
fn a_folder_is_read_whole_and_says_which_file_is_wrong() {
    let folder = Folder::new();
    let outside = Folder::new();
    let intents = outside.write("intents.yaml", INTENTS);
    let path = folder.0.path().to_str().unwrap().to_owned();
    std::fs::create_dir(folder.0.path().join("sub")).unwrap();
    let (first, rest) = SHOP.split_once("---\n").unwrap();
    folder.write("namespace.yaml", first);
    folder.write("sub/shop.yml", rest);
    folder.write("values.yaml", "replicas: 2\n");
    folder.write("notes.txt", "no manifest");
    let judged = || audit(&[&path, "--intents", &intents, "--assume-complete", "--cni", "calico@3.30"], "");
    let (code, out, said) = judged();
    assert_eq!(code, 0, "{out}{said}");
    assert!(out.starts_with("Proved for 1 pod"), "{out}");
    assert!(said.contains("values.yaml:1:1: left out"), "{said}");
    folder.write("sub/broken.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: 1}\n");
    let (code, out, said) = judged();
    assert_eq!((code, &*out), (3, ""), "{said}");
    assert!(said.contains("sub/broken.yaml:3:"), "{said}");
}

#[test]
fn a_folder_that_kustomize_renders_is_judged_by_what_it_renders_and_not_by_its_files() {
    let folder = Folder::new();
    let outside = Folder::new();
    let intents = outside.write("intents.yaml", INTENTS);
    let path = folder.0.path().to_str().unwrap().to_owned();
    folder.write("shop.yaml", SHOP);
    let more = ["--intents", &intents, "--assume-complete", "--cni", "calico@3.30"];
    for name in ["kustomization.yaml", "kustomization.yml", "Kustomization"] {
        let file = folder.write(name, KUSTOMIZATION);
        let (code, out, said) = audit(&[&[&*path], &more[..]].concat(), "");
        assert_eq!((code, &*out), (3, ""), "{name}: {said}");
        assert!(said.contains(&format!("{file}:1:1: ")), "{name}: {said}");
        assert!(said.contains(&format!("kubectl kustomize {path} | mpegflow audit -")), "{name}: {said}");
        std::fs::remove_file(file).unwrap();
    }
    // What it renders is a stream, in the order of kinds, each object with all its fields.
    let rendered = r#"apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: db
  namespace: shop
spec:
  template:
    metadata:
      labels:
        app: db
    spec:
      containers:
      - image: i
        name: c
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
spec:
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
      - image: i
        name: c
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web
  namespace: shop
spec:
  egress:
  - ports:
    - port: 5432
    to:
    - podSelector:
        matchLabels:
          app: db
  podSelector:
    matchLabels:
      app: web
  policyTypes:
  - Egress
"#;
    let (code, out, said) = audit(&[&["-"], &more[..]].concat(), rendered);
    assert_eq!(code, 0, "{out}{said}");
    let (code, out, _) =
        audit(&[&["-"], &more[..]].concat(), &rendered.replace("app: web\n  policy", "app: wep\n  policy"));
    assert_eq!(code, 1, "{out}");
}

#[test]
fn what_standard_input_says_wrong_has_its_line() {
    let (code, out, said) = audit(&["-", "--assume-complete"], "apiVersion: v1\nkind: Pod\nmetadata: [\n");
    assert_eq!((code, &*out), (3, ""), "{said}");
    assert!(said.contains("-:4:"), "{said}");
    // Nothing at all is no mistake, and no proof.
    let (code, out, _) = audit(&["-", "--assume-complete"], "");
    assert_eq!(code, 2, "{out}");
}

#[test]
fn a_format_that_an_answer_does_not_have_is_wrong_usage_and_not_a_table() {
    let folder = Folder::new();
    let shop = folder.write("shop.yaml", SHOP);
    for command in [
        vec!["diff", &shop, &shop],
        vec!["pairs", &shop],
        vec!["explain", "shop/web", "shop/db", "5432", &shop],
    ] {
        for format in ["sarif", "html", "dot"] {
            let (code, out, error) = audit(&[command.as_slice(), &["--format", format]].concat(), "");
            assert_eq!((code, &*out), (3, ""), "{command:?} {format}: {error}");
            assert!(error.contains("possible values: table, json"), "{command:?} {format}: {error}");
        }
        let (_, out, error) = audit(&[command.as_slice(), &["--format", "json"]].concat(), "");
        assert!(out.starts_with('{'), "{command:?}: {out}{error}");
    }
}
