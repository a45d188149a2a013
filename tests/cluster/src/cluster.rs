//! A control plane, from start to end.

use crate::pki::Pki;
use crate::process::Process;
use crate::programs::program;
use crate::{audit, objects};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

/// What to start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// kube-scheduler, too. Without a node it can place nothing, and without it pods simply stay pending.
    pub scheduler: bool,
    /// Controllers with accounts of their own, as kubeadm's clusters have them, in place of one for all of them.
    pub controller_accounts: bool,
}

/// A running control plane. Dropping it ends it.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they end.
    programs: Mutex<Vec<(&'static str, Process)>>,
    dir: TempDir,
    port: u16,
    etcd: u16,
    pki: Pki,
    audit: audit::Log,
    config: Config,
}

impl Cluster {
    /// Starts one and waits until it serves and its controllers run.
    ///
    /// # Panics
    /// It does not come up; the logs' ends say why.
    pub async fn start(options: Options) -> Self {
        let dir = tempfile::Builder::new().prefix("mpegflow-cluster-").tempdir().expect("a temporary folder");
        let pki = Pki::make(&dir.path().join("pki"));
        let ports = [(); 3].map(|()| mpegflow_test_ports::port());
        let token = random();
        let controllers = random();
        let users = [(&token, "admin"), (&controllers, "system:kube-controller-manager")];
        let users = users.map(|(token, user)| format!("{token},{user},{user},\"system:masters\"\n"));
        pki.write("tokens.csv", &users.concat());
        pki.write("audit.yaml", audit::POLICY);
        let kubeconfig = dir.path().join("kubeconfig");
        fs::write(&kubeconfig, kubeconfig_text(&pki, ports[0], &token)).expect("a kubeconfig");
        let of_controllers = dir.path().join("kubeconfig-controllers");
        fs::write(of_controllers, kubeconfig_text(&pki, ports[0], &controllers)).expect("a kubeconfig");
        let config = config(&kubeconfig).await;
        let audit = audit::Log::at(dir.path().join("audit.log"));
        let cluster =
            Self { programs: Mutex::default(), dir, port: ports[0], etcd: ports[1], pki, audit, config };

        let mut etcd = Command::new(program("etcd", "etcd"));
        etcd.args(["--data-dir", &cluster.file("etcd"), "--unsafe-no-fsync", "--log-level", "warn"]);
        etcd.args(["--listen-client-urls", &format!("http://127.0.0.1:{}", ports[1])]);
        etcd.args(["--advertise-client-urls", &format!("http://127.0.0.1:{}", ports[1])]);
        etcd.args(["--listen-peer-urls", &format!("http://127.0.0.1:{}", ports[2])]);
        etcd.args(["--initial-advertise-peer-urls", &format!("http://127.0.0.1:{}", ports[2])]);
        etcd.args(["--initial-cluster", &format!("default=http://127.0.0.1:{}", ports[2])]);
        // Written by nobody but the API server: a revision of each object is enough.
        etcd.args(["--quota-backend-bytes", "4294967296"]);
        cluster.run("etcd", &etcd);
        cluster.start_api_server();
        cluster.until_ready().await;
        cluster.run("kube-controller-manager", &cluster.controller_manager(options));
        if options.scheduler {
            cluster.run("kube-scheduler", &cluster.scheduler());
        }
        // The first thing that controllers do where anybody can see it.
        let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), "default");
        objects::until("controllers run", || async { accounts.get_opt("default").await.ok().flatten() })
            .await;
        cluster
    }

    /// A client with all rights. A client belongs to the runtime of the test that made it.
    pub fn client(&self) -> Client {
        Client::try_from(self.config.clone()).expect("a client")
    }

    /// A client with exactly the rights of a service account, by a token of one hour for the API server.
    ///
    /// # Panics
    /// There is no such account.
    pub async fn client_of(&self, namespace: &str, account: &str) -> Client {
        let config = config(&self.kubeconfig_of(namespace, account).await).await;
        Client::try_from(config).expect("a client")
    }

    /// A kubeconfig of a service account.
    ///
    /// # Panics
    /// There is no such account.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> PathBuf {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(3600), ..Default::default() },
            ..Default::default()
        };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let token = answer.expect("a token").status.expect("a token").token;
        let path = self.dir.path().join(format!("kubeconfig-{namespace}-{account}"));
        fs::write(&path, kubeconfig_text(&self.pki, self.port, &token)).expect("a kubeconfig");
        path
    }

    /// The administrator's kubeconfig, for programs.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Makes a folder with a certificate for names, its key, and the CA: `tls.crt`, `tls.key`, `ca.crt`. It is good for
    /// servers and clients.
    pub fn issue(&self, dir: &Path, names: &[&str]) {
        self.pki.issue(dir, names);
    }

    /// A folder that goes with the cluster.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The API server's address.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Requests that may have written, since the start, oldest first. A request that has been answered is in it.
    pub fn writes(&self) -> Vec<audit::Write> {
        self.writes_after(0)
    }

    /// The same but for the first so many.
    pub fn writes_after(&self, count: usize) -> Vec<audit::Write> {
        self.audit.writes_after(count)
    }

    /// How many there were.
    pub fn write_count(&self) -> usize {
        self.audit.count()
    }

    /// Every request of the account `name` in the namespace `watched`, since the start, oldest first.
    pub fn requests_of(&self, name: &str) -> Vec<audit::Request> {
        let user = format!("system:serviceaccount:watched:{name}");
        self.audit.requests(&user)
    }

    /// Ends the API server and starts it again, as an upgrade of a control plane does: every watch breaks.
    pub async fn restart_api_server(&self) {
        self.stop_api_server();
        self.start_api_server();
        self.until_ready().await;
    }

    /// Ends the API server.
    pub fn stop_api_server(&self) {
        let old = {
            let mut programs = self.programs.lock().expect("no panic");
            let at = programs.iter().position(|(name, _)| *name == API_SERVER);
            at.map(|at| programs.remove(at))
        };
        drop(old);
    }

    /// Starts the API server, with all that it knew before.
    pub fn start_api_server(&self) {
        let mut api = Command::new(program("kubernetes", API_SERVER));
        let pki = |name: &str| self.pki.path(name).display().to_string();
        api.args(["--etcd-servers", &format!("http://127.0.0.1:{}", self.etcd)]);
        api.args(["--bind-address", "127.0.0.1", "--secure-port", &self.port.to_string()]);
        // It refuses to advertise loopback addresses; nobody connects to this one.
        api.args(["--advertise-address", "192.0.2.1", "--endpoint-reconciler-type", "none"]);
        api.args(["--tls-cert-file", &pki("server.crt"), "--tls-private-key-file", &pki("server.key")]);
        api.args(["--client-ca-file", &pki("ca.crt"), "--token-auth-file", &pki("tokens.csv")]);
        api.args(["--service-account-key-file", &pki("accounts.pub")]);
        api.args(["--service-account-signing-key-file", &pki("accounts.key")]);
        api.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
        api.args(["--service-cluster-ip-range", "10.96.0.0/16", "--authorization-mode", "RBAC"]);
        api.args(["--audit-policy-file", &pki("audit.yaml"), "--audit-log-path", &self.file("audit.log")]);
        // A request counts as done once it is in the log.
        api.args(["--audit-log-mode", "blocking-strict", "--profiling=false"]);
        // In one file, which is never moved away while a test reads it: what a cluster writes in its life is far less.
        api.args(["--audit-log-maxsize", "4096"]);
        api.args(["--requestheader-client-ca-file", &pki("ca.crt")]);
        api.args(["--requestheader-allowed-names", "front-proxy"]);
        api.args(["--requestheader-username-headers", "X-Remote-User"]);
        api.args(["--requestheader-group-headers", "X-Remote-Group"]);
        api.args(["--requestheader-extra-headers-prefix", "X-Remote-Extra-"]);
        api.args(["--proxy-client-cert-file", &pki("proxy.crt")]);
        api.args(["--proxy-client-key-file", &pki("proxy.key")]);
        self.run(API_SERVER, &api);
    }

    /// Starts a program that belongs to this cluster and ends with it.
    pub fn run(&self, name: &'static str, command: &Command) {
        let process = Process::start(name, self.dir.path(), command);
        // In front, because a Vec drops from its front and etcd should be last.
        self.programs.lock().expect("no panic").insert(0, (name, process));
    }

    /// What a program of this cluster has written.
    pub fn log(&self, name: &str) -> String {
        let programs = self.programs.lock().expect("no panic");
        programs.iter().find(|(other, _)| *other == name).map(|(_, p)| p.log()).unwrap_or_default()
    }

    fn controller_manager(&self, options: Options) -> Command {
        let mut manager = Command::new(program("kubernetes", "kube-controller-manager"));
        let kubeconfig = self.file("kubeconfig-controllers");
        manager.args(["--kubeconfig", &kubeconfig, "--leader-elect=false", "--secure-port", "0"]);
        let accounts = options.controller_accounts;
        manager.args([&format!("--use-service-account-credentials={accounts}"), "--profiling=false"]);
        let key = self.pki.path("accounts.key").display().to_string();
        manager.args(["--service-account-private-key-file", &key]);
        manager.args(["--root-ca-file", &self.pki.path("ca.crt").display().to_string()]);
        // Meant for nodes that pods come and go on; here they would only make tests wait.
        manager.args(["--kube-api-qps", "500", "--kube-api-burst", "1000"]);
        manager.args(["--horizontal-pod-autoscaler-sync-period", "1s"]);
        manager.args(["--horizontal-pod-autoscaler-downscale-stabilization", "1s"]);
        manager
    }

    fn scheduler(&self) -> Command {
        let mut scheduler = Command::new(program("kubernetes", "kube-scheduler"));
        let kubeconfig = self.file("kubeconfig");
        scheduler.args(["--kubeconfig", &kubeconfig, "--leader-elect=false", "--secure-port", "0"]);
        scheduler
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    async fn until_ready(&self) {
        let client = self.client();
        for _ in 0..1800 {
            let request = hyper::Request::get("/readyz").body(Vec::new()).expect("a request");
            if client.request_text(request).await.is_ok_and(|text| text == "ok") {
                return;
            }
            for (name, process) in &*self.programs.lock().expect("no panic") {
                assert!(!process.has_ended(), "{name} has ended:\n{}", process.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the API server does not serve:\n{}", self.log(API_SERVER));
    }
}

const API_SERVER: &str = "kube-apiserver";

/// 128 bits that nobody guesses.
fn random() -> String {
    let mut bytes = [0; 16];
    let mut source = fs::File::open("/dev/urandom").expect("random bytes");
    std::io::Read::read_exact(&mut source, &mut bytes).expect("random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn kubeconfig_text(pki: &Pki, port: u16, token: &str) -> String {
    let ca = pki.path("ca.crt").display().to_string();
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: \"{ca}\"}}}}]\n\
         users: [{{name: test, user: {{token: \"{token}\"}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n"
    )
}

async fn config(kubeconfig: &Path) -> Config {
    let file = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(file, &options).await.expect("a configuration")
}
