//! The command line: what may be typed, and the help that says so.

use crate::exit;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use mpegflow_protocol::job::Moment;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Transcode untrusted video safely.
///
/// The bytes of a file that a stranger sent are parsed in a process of its own that has no network, no files and about
/// thirty system calls; a file that takes it over can spoil its own output and nothing else.
#[derive(Debug, Parser)]
#[command(name = "mpegflow", version, propagate_version = true, max_term_width = 110)]
#[command(after_help = "Examples:
  mpegflow transcode holiday.mov --out dist/     one file, on this machine
  mpegflow serve                                 a broker with a page and an API on this machine
  mpegflow doctor                                what is missing on this machine
  mpegflow audit manifests/                      prove what pods can reach
  mpegflow help exit-codes                       what the exit codes mean")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// How results are written to standard output: `text`, or `json` for programs
    #[arg(long, global = true, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT", hide_possible_values = true)]
    pub(crate) output: OutputFormat,
    /// Say more on standard error (twice: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// No progress on standard error; errors still appear
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    Text,
    /// For programs: one JSON document, or one a line where results come in one by one.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Transcode files on this machine: one, several, or whatever comes into a folder
    Transcode(Transcode),
    /// Play a folder that `transcode` or `download` made
    Play(Play),
    /// Run a broker and workers on this machine, with a page and an API
    Serve(Serve),
    /// Make one picture of a video, as `ffmpeg -ss … -frames:v 1` does, from inside the locked process
    Thumbnail(Thumbnail),
    /// Say what a file is, as ffprobe does, from inside the locked process
    Probe(Probe),
    /// Send a file to a broker
    Upload(Upload),
    /// Fetch a job's output from a broker, verified
    Download(Download),
    /// Submit, list, show, watch and cancel jobs
    #[command(subcommand)]
    Jobs(Jobs),
    /// Have messages about jobs sent to a server, or to one on this machine
    #[command(subcommand)]
    Webhooks(Webhooks),
    /// List a broker's presets
    Presets(Presets),
    /// Prove what pods can reach, from manifests or a live cluster
    Audit(Box<Audit>),
    /// Say whether a cluster can run mpegflow, and enforces what its isolation rests on
    Preflight(Preflight),
    /// Make the Secrets that an installation in a cluster starts with, where they are not there
    FirstStart(Box<FirstStart>),
    /// Say which lock, library or right is missing on this machine
    Doctor(Doctor),
    /// Print the completions of a shell
    Completions(Completions),
    /// What the exit codes mean
    #[command(name = "exit-codes", after_help = exit::TABLE)]
    ExitCodes,
    // How a worker is started so that it cannot outlive this program; see `workers`.
    #[command(name = crate::workers::SHIM, hide = true)]
    Shim(Shim),
}

/// See [`Command::Transcode`].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mpegflow transcode in.mp4 --out dist/
  mpegflow transcode in.mov --out dist/ --max-height 720
  mpegflow transcode old.wmv --out dist/ --legacy-decoders
  mpegflow transcode in.mp4 --out dist/ --spec job.yaml   # a job spec without its `input`
  mpegflow transcode in.mp4 --out dist/ --preset mp4     # `mpegflow presets --local` explains each
  mpegflow play dist/

  mpegflow transcode *.mov --out dist/ --jobs 2          # dist/a/ of a.mov, dist/b/ of b.mov…
  mpegflow transcode --watch inbox/ --out dist/          # whatever comes into the folder, until Ctrl-C

Nothing appears in an output folder before everything of that file is there and verified.
Ctrl-C cancels and leaves nothing half-made; Ctrl-C twice aborts at once.
Of several files, those whose result is there (of the same file, by the same options) are not done again: after an
interruption, the same command goes on. Exit code 0: each is done; 3: some are not, each by its own fault; 1: some are not
for another reason. `mpegflow exit-codes` has all.")]
pub(crate) struct Transcode {
    /// The files to transcode
    #[arg(required_unless_present = "watch", value_name = "FILE")]
    pub(crate) inputs: Vec<PathBuf>,
    /// The folder to make, which must not hold anything yet; of several files, the folder for a folder of each
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// A folder within --out for each file, named after it, even where there is one file only
    #[arg(long)]
    pub(crate) batch: bool,
    /// Files at once; each has workers of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) jobs: u16,
    /// Take the files that are in this folder and those that come into it (not those of folders in it)
    #[arg(long, value_name = "FOLDER", conflicts_with = "inputs")]
    pub(crate) watch: Option<PathBuf>,
    /// A file in the watched folder is taken once it has not changed for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 5, requires = "watch", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) settle: u64,
    /// End when there has been nothing to do in the watched folder for this long
    #[arg(long, value_name = "SECONDS", requires = "watch", value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub(crate) until_idle: Option<u64>,
    #[command(flatten)]
    pub(crate) job: JobOptions,
    /// Replace what an earlier `transcode` or `download` put into the output folder (nothing else is ever deleted)
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) local: LocalOptions,
}

/// What to make: a preset and changes to it, or a whole job spec.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct JobOptions {
    /// What to make; `mpegflow presets` lists a broker's, with --local those of this program [default: web]
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// A job spec in YAML or JSON (version 1), instead of the options beside this one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["preset", "legacy_decoders", "max_height", "allow_partial", "early", "max_output_minutes", "max_core_seconds"])]
    pub(crate) spec: Option<PathBuf>,
    /// Also accept the formats of the past (wmv, flv, 3gp, avi, mpeg…): more attack surface, behind the same locks
    #[arg(long)]
    pub(crate) legacy_decoders: bool,
    /// Take what there is of a file that is cut off or damaged, rather than fail
    #[arg(long)]
    pub(crate) allow_partial: bool,
    /// Make the HLS output play while the rest of it is still made: the lowest rendition comes first, a part at a time
    #[arg(long)]
    pub(crate) early: bool,
    /// Height of the highest rendition in pixels: even, 144 to 2160
    #[arg(long, value_name = "PIXELS")]
    pub(crate) max_height: Option<u32>,
    /// Minutes of output that the job may make: one that would make more fails before anything is encoded
    #[arg(long, value_name = "MINUTES")]
    pub(crate) max_output_minutes: Option<u32>,
    /// Core-seconds that the job may take, as estimated: one that would take more fails before anything is encoded
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_core_seconds: Option<u32>,
}

/// Options of the commands that run a broker and workers here.
#[derive(Debug, Clone, Args)]
pub(crate) struct LocalOptions {
    /// Worker processes; each transcodes one file at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
    #[command(flatten)]
    pub(crate) libexec: Libexec,
}

/// Where mpegflow-worker and mpegflow-codec are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Libexec {
    /// Folder of mpegflow-worker and mpegflow-codec [default: beside this program, then ../libexec/mpegflow]
    #[arg(long, value_name = "DIR", env = "MPEGFLOW_LIBEXEC")]
    pub(crate) libexec: Option<PathBuf>,
}

/// See [`Command::Play`].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mpegflow play dist/
  mpegflow play dist/ --listen 127.0.0.1:9000")]
pub(crate) struct Play {
    /// The folder to play; nothing outside it is served
    pub(crate) dir: PathBuf,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
}

/// See [`Command::Serve`].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mpegflow serve
  mpegflow serve --listen 127.0.0.1:9000 --workers 2
  mpegflow serve --data /srv/mpegflow
  mpegflow serve --cors-origin http://localhost:3000     # a page of yours uploads from the browser

The data folder holds uploads, results, the database and the API key (mode 0600).
Ctrl-C stops; jobs under way go on at the next start.")]
pub(crate) struct Serve {
    /// Folder for everything that must last [default: $XDG_DATA_HOME/mpegflow or ~/.local/share/mpegflow]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the API and the page listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Where Prometheus metrics listen [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Origin whose pages may call the API from a browser, such as http://localhost:3000, or `*` for any (repeatable)
    #[arg(long = "cors-origin", value_name = "ORIGIN", value_parser = mpegflow_broker::http::cors::Origin::parse)]
    pub(crate) origins: Vec<mpegflow_broker::http::cors::Origin>,
    #[command(flatten)]
    pub(crate) local: LocalOptions,
}

/// See [`Command::Thumbnail`].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mpegflow thumbnail in.mp4 poster.jpg
  mpegflow thumbnail in.mp4 poster.jpg --at 12 --max-height 360
  mpegflow thumbnail -ss 12 -i in.mp4 -frames:v 1 -vf scale=-2:360 -y poster.jpg   # ffmpeg's words

Called by the name ffmpeg (a link to this program), it takes those words too; docs/drop-in.md has all.")]
pub(crate) struct Thumbnail {
    /// The video
    pub(crate) input: PathBuf,
    /// The JPEG to make
    pub(crate) picture: PathBuf,
    /// Which moment, in seconds from the start, such as 12 or 12.5 [default: a tenth of the duration]
    #[arg(long, value_name = "SECONDS", value_parser = moment)]
    pub(crate) at: Option<Moment>,
    /// Height of the picture at most, in pixels: even, 144 to 2160
    #[arg(long, value_name = "PIXELS")]
    pub(crate) max_height: Option<u32>,
    /// Replace a file that is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Also accept the formats of the past
    #[arg(long)]
    pub(crate) legacy_decoders: bool,
    #[command(flatten)]
    pub(crate) libexec: Libexec,
}

/// See [`Command::Probe`].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mpegflow probe in.mp4
  mpegflow probe in.mp4 | jq -r '.streams[0].codec_name'
  mpegflow probe -v error -show_entries format=duration -of default=nw=1:nk=1 in.mp4   # ffprobe's words

Called by the name ffprobe (a link to this program), it takes those words too; docs/drop-in.md has all.
Prints JSON as `ffprobe -show_format -show_streams -of json` does: the same names and units,
without the fields that are about FFmpeg rather than the file.")]
pub(crate) struct Probe {
    /// The file to look at
    pub(crate) input: PathBuf,
    /// Show the format [default: format and streams, where neither and no entries are asked for]
    #[arg(long)]
    pub(crate) show_format: bool,
    /// Show the streams
    #[arg(long)]
    pub(crate) show_streams: bool,
    /// Show these fields alone, such as stream=width,height:format=duration
    #[arg(long, value_name = "ENTRIES")]
    pub(crate) show_entries: Option<String>,
    /// Show these streams alone: v, a, s or d, v:0 and so on, or an index
    #[arg(long, value_name = "STREAMS")]
    pub(crate) select_streams: Option<String>,
    /// How it is written: json, default or csv, with ffprobe's options of each, such as csv=p=0
    #[arg(long, value_name = "FORM", default_value = "json", value_parser = crate::probe_format::Form::parse)]
    pub(crate) print_format: crate::probe_format::Form,
    /// Also accept the formats of the past
    #[arg(long)]
    pub(crate) legacy_decoders: bool,
    #[command(flatten)]
    pub(crate) libexec: Libexec,
}

/// Which broker to talk to, and as whom. The API key comes from MPEGFLOW_API_KEY or a file; never from the command line,
/// where every process of the machine could read it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// The broker's address
    #[arg(long, value_name = "URL", env = "MPEGFLOW_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// File that holds the API key [default: the environment's MPEGFLOW_API_KEY]
    #[arg(long, value_name = "FILE", env = "MPEGFLOW_API_KEY_FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// PEM file of the CA to trust, instead of the system's
    #[arg(long, value_name = "FILE", env = "MPEGFLOW_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Send the API key without TLS to a machine other than this one
    #[arg(long)]
    pub(crate) allow_http: bool,
}

/// See [`Command::Upload`].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mpegflow upload in.mp4
  mpegflow upload in.mp4 --resume upl_0192f0c1a2b37c4d8e9f001122334455
  mpegflow jobs submit $(mpegflow upload in.mp4)")]
pub(crate) struct Upload {
    /// The file to send
    pub(crate) file: PathBuf,
    /// Go on with an upload that was interrupted
    #[arg(long, value_name = "UPLOAD")]
    pub(crate) resume: Option<mpegflow_protocol::ids::UploadId>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// See [`Command::Download`].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mpegflow download job_0192f0c1a2b37c4d8e9f001122334455 --out dist/
  mpegflow play dist/")]
pub(crate) struct Download {
    /// The job
    pub(crate) job: mpegflow_protocol::ids::JobId,
    /// The folder to make [default: the job's id]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace what an earlier `transcode` or `download` put into the output folder
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// See [`Command::Jobs`].
#[derive(Debug, Subcommand)]
pub(crate) enum Jobs {
    /// Submit a job for an upload, a file or an object of your own storage
    #[command(after_help = "Examples:
  mpegflow jobs submit in.mp4 --watch
  mpegflow jobs submit upl_0192f0c1a2b37c4d8e9f001122334455 --preset web --max-height 720
  mpegflow jobs submit in.mp4 --spec job.json
  mpegflow jobs submit --from-storage incoming/film.mov --watch
  mpegflow jobs submit in.mp4 --dry-run --watch
  mpegflow jobs submit in.mp4 --max-output-minutes 120")]
    Submit {
        /// An upload's id, or a file that is uploaded first
        #[arg(required_unless_present = "from_storage", conflicts_with = "from_storage")]
        input: Option<String>,
        /// An object of the tenant's own storage, by its key below the tenant's prefix, in place of an upload
        #[arg(long, value_name = "KEY")]
        from_storage: Option<String>,
        #[command(flatten)]
        job: JobOptions,
        /// Only look at the input and say what the job would cost; nothing is encoded
        #[arg(long)]
        dry_run: bool,
        /// Stay until the job has ended; the exit code says how
        #[arg(short, long)]
        watch: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// List jobs, newest first
    #[command(after_help = "Examples:
  mpegflow jobs list
  mpegflow jobs list --limit 200 --output json | jq -r '.[] | select(.state == \"failed\") | .id'")]
    List {
        /// The most jobs to list
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        limit: u16,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show one job: state, tasks, output, and the locks each task ran under
    #[command(after_help = "Examples:
  mpegflow jobs show job_0192f0c1a2b37c4d8e9f001122334455
  mpegflow jobs show job_0192f0c1a2b37c4d8e9f001122334455 --output json | jq '.tasks[].evidence'")]
    Show {
        /// The job
        job: mpegflow_protocol::ids::JobId,
        #[command(flatten)]
        connection: Connection,
    },
    /// Follow a job until it has ended; the exit code says how
    #[command(after_help = "Examples:
  mpegflow jobs watch job_0192f0c1a2b37c4d8e9f001122334455
  mpegflow jobs watch job_0192f0c1a2b37c4d8e9f001122334455 --output json   # one job document a line")]
    Watch {
        /// The job
        job: mpegflow_protocol::ids::JobId,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show what the codecs of a job's attempts wrote, latest attempt last
    #[command(after_help = "Examples:
  mpegflow jobs logs job_0192f0c1a2b37c4d8e9f001122334455
  mpegflow jobs logs job_0192f0c1a2b37c4d8e9f001122334455 --output json | jq -r '.attempts[0].lines[]'")]
    Logs {
        /// The job
        job: mpegflow_protocol::ids::JobId,
        #[command(flatten)]
        connection: Connection,
    },
    /// Cancel a job; it may still succeed when it is nearly done
    #[command(after_help = "Examples:
  mpegflow jobs cancel job_0192f0c1a2b37c4d8e9f001122334455")]
    Cancel {
        /// The job
        job: mpegflow_protocol::ids::JobId,
        #[command(flatten)]
        connection: Connection,
    },
    /// Delete a job that has ended, with its output, logs and events; its upload stays
    #[command(after_help = "Examples:
  mpegflow jobs delete job_0192f0c1a2b37c4d8e9f001122334455")]
    Delete {
        /// The job
        job: mpegflow_protocol::ids::JobId,
        #[command(flatten)]
        connection: Connection,
    },
}

/// See [`Command::Webhooks`].
#[derive(Debug, Subcommand)]
pub(crate) enum Webhooks {
    /// Have messages sent to a URL; prints the webhook's id and, this once, its secret
    #[command(after_help = "Examples:
  mpegflow webhooks create https://example.com/hooks/mpegflow
  mpegflow webhooks create https://example.com/hooks/mpegflow --type job.succeeded --type job.failed")]
    Create {
        /// Where messages are posted: https
        #[arg(value_name = "URL")]
        receiver: String,
        /// A type of messages: job.created, job.succeeded, job.failed or job.canceled (repeatable) [default: all]
        #[arg(long = "type", value_name = "TYPE", value_parser = message_type)]
        types: Vec<mpegflow_protocol::webhook::MessageType>,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// List webhooks
    #[command(after_help = "Examples:
  mpegflow webhooks list
  mpegflow webhooks list --output json | jq -r '.[] | select(.enabled | not) | .id'")]
    List {
        #[command(flatten)]
        connection: Connection,
    },
    /// Give a webhook a new secret, and print it this once; the old one signs along for a while
    #[command(after_help = "Examples:
  mpegflow webhooks rotate whk_0192f0c1a2b37c4d8e9f001122334455
  mpegflow webhooks rotate whk_0192f0c1a2b37c4d8e9f001122334455 --overlap 0   # the old secret leaked")]
    Rotate {
        /// The webhook
        webhook: mpegflow_protocol::ids::WebhookId,
        /// For how many seconds messages are signed with the old secret too
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(0..=604_800))]
        overlap: u32,
        #[command(flatten)]
        connection: Connection,
    },
    /// Enable a webhook that was disabled because it failed or was gone
    #[command(after_help = "Examples:
  mpegflow webhooks enable whk_0192f0c1a2b37c4d8e9f001122334455")]
    Enable {
        /// The webhook
        webhook: mpegflow_protocol::ids::WebhookId,
        #[command(flatten)]
        connection: Connection,
    },
    /// Delete a webhook, with the messages to it
    #[command(after_help = "Examples:
  mpegflow webhooks delete whk_0192f0c1a2b37c4d8e9f001122334455")]
    Delete {
        /// The webhook
        webhook: mpegflow_protocol::ids::WebhookId,
        #[command(flatten)]
        connection: Connection,
    },
    /// List the messages to a webhook, latest first: which arrived, which are tried again, which were given up, and why
    #[command(after_help = "Examples:
  mpegflow webhooks deliveries whk_0192f0c1a2b37c4d8e9f001122334455
  mpegflow webhooks deliveries whk_0192f0c1a2b37c4d8e9f001122334455 --output json | jq -r '.[] | select(.state == \"failed\") | .id'")]
    Deliveries {
        /// The webhook
        webhook: mpegflow_protocol::ids::WebhookId,
        /// The most messages to list
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
        limit: u16,
        #[command(flatten)]
        connection: Connection,
    },
    /// Have a message sent again, with the same id
    #[command(after_help = "Examples:
  mpegflow webhooks redeliver whk_0192f0c1a2b37c4d8e9f001122334455 msg_0192f0c1a2b37c4d8e9f001122334455")]
    Redeliver {
        /// The webhook
        webhook: mpegflow_protocol::ids::WebhookId,
        /// The message
        message: mpegflow_protocol::ids::MessageId,
        #[command(flatten)]
        connection: Connection,
    },
    /// For development: hear events here and post them to a server on this machine, signed as the broker signs
    #[command(after_help = "Examples:
  mpegflow webhooks listen --forward http://127.0.0.1:3000/hooks

The first line is the secret that this run signs with. Nothing is registered at the broker, and nothing is sent again.")]
    Listen {
        /// Where to post messages
        #[arg(long, value_name = "URL")]
        forward: String,
        #[command(flatten)]
        connection: Connection,
    },
}

fn moment(text: &str) -> Result<Moment, String> {
    let seconds = text.parse().ok().and_then(Moment::from_seconds);
    seconds.ok_or_else(|| "write seconds from 0 to 86400, such as 12 or 12.5".into())
}

fn message_type(text: &str) -> Result<mpegflow_protocol::webhook::MessageType, String> {
    let all = mpegflow_protocol::webhook::MessageType::ALL;
    all.iter().copied().find(|t| t.as_str() == text).ok_or_else(|| {
        let known: Vec<&str> = all.iter().map(|t| t.as_str()).collect();
        format!("there are {}", known.join(", "))
    })
}

/// See [`Command::Presets`].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mpegflow presets
  mpegflow presets --local
  MPEGFLOW_URL=https://media.example.com mpegflow presets --output json")]
pub(crate) struct Presets {
    /// Those of this program's own `transcode`, without asking a broker
    #[arg(long)]
    pub(crate) local: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// See [`Command::Audit`].
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:
  mpegflow audit manifests/ --assume-complete             worker pools reach only the broker?
  helm template my-release ./chart | mpegflow audit - --intents intents.yaml --assume-complete
  mpegflow audit --cluster                                the live cluster, read-only
  mpegflow audit manifests/ --cni cilium@1.18 --format sarif > audit.sarif
  mpegflow audit manifests/ --baseline accepted.yaml --flows hubble.jsonl
  mpegflow audit diff before/ after/                      what became reachable
  mpegflow audit explain media/worker 169.254.169.254 80 manifests/

A file of intents says what other pods may reach:
  apiVersion: mpegflow.io/v1alpha1
  kind: NetworkIntents
  intents:
  - name: the shop reaches its database and nothing else
    from: {namespace: shop, pods: {app: web}}
    may: [{namespace: shop, pods: {app: db}, ports: [5432]}]
    must-not: [{group: metadata}]
    reached-by: [{namespace: ingress}]

Exit codes: 0 proved, 1 violated, 2 unknown, 3 bad input or wrong usage. Where --baseline accepts every error and nothing
is unknown beside it, the verdict still reads violated and the exit code is 0. As a kubectl plugin:
  ln -s $(command -v mpegflow) ~/.local/bin/kubectl-mpegflow_audit && kubectl mpegflow-audit")]
pub(crate) struct Audit {
    #[command(subcommand)]
    pub(crate) command: Option<AuditCommand>,
    #[command(flatten)]
    pub(crate) source: AuditSource,
    #[command(flatten)]
    pub(crate) world: AuditWorld,
    /// What is to be proved [default: worker pools reach only the broker]
    #[arg(long, value_name = "FILE")]
    pub(crate) intents: Option<PathBuf>,
    /// Findings that somebody answers for, with owner, reason and day
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// Observed flows (Hubble or Calico, JSON lines): each that was judged denied is reported
    #[arg(long, value_name = "FILE")]
    pub(crate) flows: Vec<PathBuf>,
    /// How the result is written
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<AuditFormat>,
}

/// What is audited.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AuditSource {
    /// Manifests: files, folders, or `-` for standard input
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Read the live cluster of the kubeconfig's context instead (GET requests only)
    #[arg(long, conflicts_with = "paths")]
    pub(crate) cluster: bool,
    #[command(flatten)]
    pub(crate) kubeconfig: Kubeconfig,
}

/// Which cluster.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Kubeconfig {
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The kubeconfig [default: $KUBECONFIG, ~/.kube/config, or the pod's own account]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// What is assumed of the world around the manifests.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuditWorld {
    /// The network plugin: generic, cilium, calico or aws-vpc, with or without @VERSION [default: generic; with --cluster, the one found]
    #[arg(long, value_name = "PROFILE")]
    pub(crate) cni: Option<mpegflow_policies::profile::Profile>,
    /// The input is all there is: no pod and no policy is elsewhere (a cluster always is)
    #[arg(long)]
    pub(crate) assume_complete: bool,
    /// Block that pods get addresses from, where manifests do not say (repeatable)
    #[arg(long, value_name = "CIDR")]
    pub(crate) pod_cidr: Vec<mpegflow_policies::sets::Cidr>,
    /// Leave out a kind that is not known and does not matter here, such as Rollout.argoproj.io (repeatable)
    #[arg(long, value_name = "KIND")]
    pub(crate) ignore_kind: Vec<String>,
    /// Largest file that is read, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) max_file: u64,
}

/// How an audit is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuditFormat {
    /// For people
    Table,
    /// For programs
    Json,
    /// For code scanners (SARIF 2.1.0)
    Sarif,
    /// A page for the auditor
    Html,
    /// A picture for Graphviz
    Dot,
}

/// How an answer is written that is no report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnswerFormat {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Commands of an audit beside the audit itself.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// What became reachable, and what stopped being so, from one set of manifests to another
    #[command(after_help = "Examples:
  mpegflow audit diff before/ after/
  git worktree add /tmp/old HEAD~1 && mpegflow audit diff /tmp/old/manifests manifests --format json

Exit codes: 0 nothing became reachable, 1 something did, 2 something may have, 3 bad input.")]
    Diff {
        /// Manifests before: a file or a folder
        old: PathBuf,
        /// Manifests after
        new: PathBuf,
        #[command(flatten)]
        world: AuditWorld,
        /// How it is written
        #[arg(long, value_enum, value_name = "FORMAT")]
        format: Option<AnswerFormat>,
    },
    /// How many pairs of pods can exchange packets, cannot, or may
    #[command(after_help = "Examples:
  mpegflow audit pairs manifests/ --cni cilium
  mpegflow audit pairs --cluster --output json

Pods that no policy tells apart are one kind; a workload's template stands for two pods.
Exit codes: 0 counted, 3 bad input.")]
    Pairs {
        #[command(flatten)]
        input: AuditSource,
        #[command(flatten)]
        world: AuditWorld,
        /// How it is written
        #[arg(long, value_enum, value_name = "FORMAT")]
        format: Option<AnswerFormat>,
    },
    /// Why a packet passes or does not, rule by rule
    #[command(after_help = "Examples:
  mpegflow audit explain media/worker mpegflow/broker 8443 manifests/
  mpegflow audit explain media/worker 169.254.169.254 80 manifests/ --cni calico
  mpegflow audit explain media/worker svc/kube-system/kube-dns 53/UDP --cluster
  mpegflow audit explain node/n1 media/worker any manifests/

Who sends is NAMESPACE/NAME of a pod or workload, node/NAME or an IP address; who gets it may also be svc/NAMESPACE/NAME or a
DNS name, which has a dot in it. What is sent to a Service or a node port is judged as it reaches who is behind it.
Exit codes: 0 it passes, 1 it does not, 2 unknown, 3 bad input.")]
    Explain {
        /// Who sends
        source: String,
        /// Who gets it
        destination: String,
        /// Port, such as 443, 53/UDP, http, icmp or any
        port: String,
        #[command(flatten)]
        input: AuditSource,
        #[command(flatten)]
        world: AuditWorld,
        /// How it is written
        #[arg(long, value_enum, value_name = "FORMAT")]
        format: Option<AnswerFormat>,
    },
}

/// See [`Command::FirstStart`].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mpegflow first-start --namespace mpegflow --identity mpegflow-identity --api-key mpegflow-api-key \\
      --join default=mpegflow-join-default --broker mpegflow-broker:8443 \\
      --database-url postgres://mpegflow@db.example.com/mpegflow --database-password-file password

The chart runs it as a Job. What is there is left as it is.")]
pub(crate) struct FirstStart {
    /// Namespace of the Secrets
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: String,
    /// Secret for the broker's authority and the key of its capabilities
    #[arg(long, value_name = "SECRET")]
    pub(crate) identity: String,
    /// Secret for the API key
    #[arg(long, value_name = "SECRET")]
    pub(crate) api_key: String,
    /// Tenant of the API key, made where there is none of that name
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) tenant: String,
    /// A pool and the Secret for its join file (repeatable)
    #[arg(long, value_name = "POOL=SECRET")]
    pub(crate) join: Vec<crate::commands::first_start::JoinSecret>,
    /// The worker API's address, as workers reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) broker: String,
    /// Folder for keys on their way
    #[arg(long, value_name = "DIR", default_value_os_t = crate::commands::first_start::scratch())]
    pub(crate) data: PathBuf,
    /// The broker's PostgreSQL database, without a password; a file in the data folder where it is left out
    #[arg(long, value_name = "URL", conflicts_with = "database_url_file", value_parser = mpegflow_broker::store::postgres::DatabaseUrl::parse_without_password)]
    pub(crate) database_url: Option<mpegflow_broker::store::postgres::DatabaseUrl>,
    /// File with the database's URL, which may hold a password
    #[arg(long, value_name = "FILE")]
    pub(crate) database_url_file: Option<PathBuf>,
    /// File with the database's password
    #[arg(long, value_name = "FILE")]
    pub(crate) database_password_file: Option<PathBuf>,
    /// Most connections to the database
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub(crate) database_connections: u32,
}

/// See [`Command::Preflight`].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mpegflow preflight
  mpegflow preflight --operator --context production
  mpegflow preflight --output json | jq '.[] | select(.outcome != \"ok\")'

Reads the cluster and changes nothing. Exit code 1 when a check fails or cannot be made; a warning is none.")]
pub(crate) struct Preflight {
    /// Namespace that mpegflow goes into
    #[arg(long, value_name = "NAME", default_value = "mpegflow")]
    pub(crate) namespace: String,
    /// Also what the operator and KEDA need
    #[arg(long)]
    pub(crate) operator: bool,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Kubeconfig [default: KUBECONFIG, ~/.kube/config or the pod's own account]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// See [`Command::Doctor`].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mpegflow doctor
  mpegflow doctor --output json | jq '.[] | select(.ok | not)'

Exit code 1 when something that is required is missing.")]
pub(crate) struct Doctor {
    /// Also look for free space here [default: the current folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) libexec: Libexec,
}

/// See [`Command::Completions`].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mpegflow completions bash > ~/.local/share/bash-completion/completions/mpegflow
  mpegflow completions zsh  > \"${fpath[1]}/_mpegflow\"
  mpegflow completions fish > ~/.config/fish/completions/mpegflow.fish")]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// See [`Command::Shim`].
#[derive(Debug, Args)]
pub(crate) struct Shim {
    /// Process id of the program that must stay alive.
    pub(crate) parent: u32,
    /// The program to become.
    pub(crate) program: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<std::ffi::OsString>,
}

/// The command line without hidden commands, which some shells' completions would offer.
pub(crate) fn visible() -> clap::Command {
    let whole = Cli::command();
    clap::Command::new("mpegflow")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .args(whole.get_arguments().cloned())
        .subcommands(whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_visible_command_has_examples() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command
                .get_subcommands()
                .filter(|c| !c.is_hide_set() && !["help", "exit-codes"].contains(&c.get_name()))
            {
                let path = format!("{path} {}", sub.get_name());
                if sub.has_subcommands() {
                    check(sub, &path);
                } else {
                    let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                    assert!(help.starts_with("Examples:\n"), "{path} has no examples");
                }
            }
        }
        check(&Cli::command(), "mpegflow");
    }

    #[test]
    fn completions_offer_no_hidden_command() {
        for shell in clap_complete::Shell::value_variants() {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut visible(), "mpegflow", &mut text);
            let text = String::from_utf8_lossy(&text);
            assert!(text.contains("transcode") && text.contains("max-height"), "{shell}");
            assert!(!text.contains(crate::workers::SHIM), "{shell}");
        }
    }

    #[test]
    fn no_option_takes_an_api_key_on_the_command_line() {
        for attempt in ["--api-key=x", "--key=x", "--token=x"] {
            assert!(parse(&format!("mpegflow presets {attempt}")).is_err(), "{attempt}");
        }
    }

    #[test]
    fn a_spec_excludes_the_options_it_would_contradict() {
        assert!(parse("mpegflow transcode a --out b --spec c").is_ok());
        for option in ["--preset web", "--legacy-decoders", "--max-height 720"] {
            assert!(parse(&format!("mpegflow transcode a --out b --spec c {option}")).is_err(), "{option}");
        }
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        for line in [
            "mpegflow",
            "mpegflow transcode in.mp4",
            "mpegflow transcode in.mp4 --out d --workers 0",
            "mpegflow jobs show upl_0192f0c1a2b37c4d8e9f001122334455",
            "mpegflow jobs show ../../etc",
            "mpegflow play d --listen everywhere",
            "mpegflow presets --output yaml",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
