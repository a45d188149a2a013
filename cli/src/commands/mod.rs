//! One module for each command.

pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod doctor;
pub(crate) mod download;
pub(crate) mod first_start;
pub(crate) mod jobs;
pub(crate) mod listen;
pub(crate) mod play;
pub(crate) mod preflight;
pub(crate) mod presets;
pub(crate) mod probe;
pub(crate) mod serve;
pub(crate) mod thumbnail;
pub(crate) mod transcode;
pub(crate) mod upload;
pub(crate) mod webhooks;

use crate::args::JobOptions;
use crate::client::{Client, UploadSource};
use crate::exit::{Exit, Failed};
use crate::ui::Ui;
use mpegflow_protocol::api::{Job, JobState, Upload};
use mpegflow_protocol::ids::{JobId, UploadId};
use mpegflow_protocol::job::{
    AudioOptions, DecoderSet, InputRef, JobSpec, MAX_LABEL_CHARS, MaxSpend, OutputOptions, ThumbnailOptions,
    VideoOptions,
};
use mpegflow_protocol::limits::MAX_API_BODY;
use mpegflow_protocol::text::clean;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

/// The label that holds a file's name; the page uses the same.
pub(crate) const NAME: &str = "name";

/// What was asked for, before its input has an id.
pub(crate) enum JobTemplate {
    /// By options.
    Options(JobOptions),
    /// By a file, which holds no input.
    Spec(serde_json::Map<String, serde_json::Value>),
}

impl JobTemplate {
    /// From the options; a spec file is read now, so that a mistake in it shows before the upload.
    pub(crate) fn new(options: &JobOptions) -> Result<Self, Failed> {
        let template = match &options.spec {
            None => Self::Options(options.clone()),
            Some(path) => Self::Spec(read_spec(path)?),
        };
        template.for_upload(UploadId::from_u128(0), None)?;
        Ok(template)
    }

    /// The job spec for an upload, labelled with the file's name where that is known.
    pub(crate) fn for_upload(&self, upload: UploadId, file: Option<&Path>) -> Result<JobSpec, Failed> {
        self.for_input(InputRef::Upload(upload), file)
    }

    /// The job spec for any input, labelled with its name where that is known.
    pub(crate) fn for_input(&self, input: InputRef, file: Option<&Path>) -> Result<JobSpec, Failed> {
        let bytes = match self {
            Self::Options(options) => mpegflow_protocol::to_json(&JobSpec {
                version: 1,
                input,
                preset: options.preset.clone().unwrap_or_else(|| "web".into()),
                decoders: if options.legacy_decoders { DecoderSet::Legacy } else { DecoderSet::Core },
                video: VideoOptions { max_height: options.max_height, ..VideoOptions::default() },
                audio: AudioOptions::default(),
                thumbnails: ThumbnailOptions::default(),
                priority: Default::default(),
                pool: None,
                output: OutputOptions { early: options.early, ..OutputOptions::default() },
                metadata: Default::default(),
                allow_partial: options.allow_partial,
                dry_run: false,
                max_spend: MaxSpend {
                    output_minutes: options.max_output_minutes,
                    core_seconds: options.max_core_seconds,
                },
                external_id: None,
                labels: file.and_then(label).map(|name| (NAME.to_owned(), name)).into_iter().collect(),
            }),
            Self::Spec(spec) => {
                let mut spec = spec.clone();
                spec.insert("input".into(), serde_json::json!(input));
                mpegflow_protocol::to_json(&spec)
            }
        };
        JobSpec::parse(&bytes).map_err(|e| Failed::new(Exit::BadInput, "bad_job_spec", e.to_string()))
    }
}

fn label(file: &Path) -> Option<String> {
    let name = clean(&file.file_name()?.to_string_lossy(), MAX_LABEL_CHARS);
    (!name.is_empty()).then_some(name)
}

fn read_spec(path: &Path) -> Result<serde_json::Map<String, serde_json::Value>, Failed> {
    let bad =
        |reason: String| Failed::new(Exit::BadInput, "bad_job_spec", format!("{}: {reason}", path.display()));
    let mut text = Vec::new();
    let max = u64::try_from(MAX_API_BODY).unwrap_or(u64::MAX);
    std::fs::File::open(path)
        .and_then(|file| file.take(max.saturating_add(1)).read_to_end(&mut text))
        .map_err(|e| Failed::input(path, &e))?;
    if text.len() > MAX_API_BODY {
        return Err(bad(format!("a job spec has at most {MAX_API_BODY} bytes")));
    }
    // YAML reads most of JSON, but says less well where it is broken.
    let json = text.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let read: Result<serde_json::Value, String> = if json {
        serde_json::from_slice(&text).map_err(|e| format!("not JSON: {e}"))
    } else {
        std::str::from_utf8(&text).map_err(|_| "not text".to_owned()).and_then(crate::yaml::parse)
    };
    let serde_json::Value::Object(spec) = read.map_err(bad)? else {
        return Err(bad("not a map of fields".into())
            .help("The shortest has two lines: `version: 1` and `preset: web`; docs/job-v1.schema.json has all fields."));
    };
    if spec.contains_key("input") {
        return Err(bad("it has an `input`, but that is given on the command line".into())
            .help("Leave `input` out of the file."));
    }
    Ok(spec)
}

/// Announces and sends a file, with a bar.
pub(crate) async fn send(
    client: &Client,
    source: &UploadSource,
    ui: Ui,
    resume: Option<Upload>,
) -> Result<Upload, Failed> {
    let upload = match resume {
        Some(upload) => upload,
        None => client.create_upload(source).await?,
    };
    let bar = ui.bytes_bar("upload", source.size);
    let moving = bar.clone();
    let result = client.upload_file(source, upload, Arc::new(move |at| moving.set_position(at))).await;
    bar.finish_and_clear();
    Ok(result?)
}

/// Follows a job with a bar, to its end.
pub(crate) async fn watch(client: &Client, id: JobId, ui: Ui) -> Result<Job, Failed> {
    let mut bar = ui.job_bar();
    let mut told = false;
    let job = client
        .follow(id, &mut |job| {
            bar.show(job);
            if let Some(news) = plays_early(client.base(), job).filter(|_| !told) {
                told = true;
                bar.note(&news);
            }
        })
        .await?;
    bar.clear();
    Ok(job)
}

/// Where a job plays already, or why one that was to does not.
fn plays_early(base: &str, job: &Job) -> Option<String> {
    let early = job.early.as_ref().filter(|_| !job.state.is_final())?;
    match (&early.url, &early.whole_because) {
        (Some(url), _) => Some(format!("plays already: {base}{}", clean(url, 640))),
        (None, Some(why)) => {
            Some(format!("plays when it is done: the input is encoded as a whole, since {}", clean(why, 200)))
        }
        (None, None) => None,
    }
}

/// The failure of a job that ended without success.
pub(crate) fn ended(job: &Job) -> Result<(), Failed> {
    match (job.state, &job.failure) {
        (JobState::Succeeded, _) => Ok(()),
        (JobState::Canceled, _) => {
            Err(Failed::new(Exit::Failed, "canceled", format!("{} was canceled", job.id)))
        }
        (_, Some(failure)) => Err(Failed::job(failure)),
        (state, None) => Err(Failed::new(
            Exit::Failed,
            "job_failed",
            format!("{} ended {} without a reason", job.id, state.as_str()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec_file(text: &str) -> Result<JobTemplate, Failed> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job.json");
        std::fs::write(&path, text).unwrap();
        JobTemplate::new(&JobOptions { spec: Some(path), ..JobOptions::default() })
    }

    #[test]
    fn a_spec_file_gets_its_input_from_the_command_line() {
        let template = spec_file(r#"{"version":1,"preset":"web","external_id":"a-7"}"#).unwrap();
        let spec = template.for_upload(UploadId::from_u128(5), Some(Path::new("in.mp4"))).unwrap();
        assert_eq!(
            (spec.input, spec.external_id.as_deref()),
            (InputRef::Upload(UploadId::from_u128(5)), Some("a-7"))
        );
    }

    #[test]
    fn an_object_of_the_tenants_own_storage_is_named_by_a_key_that_leads_nowhere_else() {
        let templates = || {
            let spec = spec_file(r#"{"version":1,"preset":"web"}"#).unwrap();
            [JobTemplate::new(&JobOptions::default()).unwrap(), spec]
        };
        for template in templates() {
            let input = InputRef::Storage("in/film.mov".into());
            let spec = template.for_input(input.clone(), Some(Path::new("in/film.mov"))).unwrap();
            assert_eq!(spec.input, input);
            for bad in ["../film.mov", "/film.mov", "in/%2e%2e/film.mov", ""] {
                let Err(failed) = template.for_input(InputRef::Storage(bad.into()), None) else {
                    panic!("{bad} was taken")
                };
                assert!(failed.what.contains("input.storage"), "{bad}: {}", failed.what);
            }
        }
    }

    #[test]
    fn a_mistake_in_a_spec_is_found_before_anything_is_uploaded() {
        for (text, part) in [
            (r#"{"version":1,"preset":"web","video":{"crf":1}}"#, "video.crf"),
            (r#"{"version":1,"preset":"web","input":{"upload":"x"}}"#, "`input`"),
            ("version: 1\npreset: web\nvideo: {crf: 1}", "video.crf"),
            ("version: 1\nversion: 2", "line 2"),
            ("[]", "not a map"),
            (r#"{"preset":"web"}"#, "version"),
        ] {
            let Err(failed) = spec_file(text) else { panic!("{text} was taken") };
            assert!(failed.exit == Exit::BadInput && failed.what.contains(part), "{text}: {}", failed.what);
        }
    }

    #[test]
    fn a_hostile_file_name_becomes_a_label_that_the_broker_takes() {
        let template = JobTemplate::new(&JobOptions::default()).unwrap();
        let file = format!("/a/\u{1b}[2J\u{202e}{}", "x".repeat(300));
        let spec = template.for_upload(UploadId::from_u128(5), Some(Path::new(&file))).unwrap();
        assert!(
            spec.labels[NAME].starts_with(" [2J x") && spec.labels[NAME].chars().count() == MAX_LABEL_CHARS
        );
    }

    #[test]
    fn options_are_held_to_the_same_limits() {
        let options = JobOptions { max_height: Some(721), ..JobOptions::default() };
        assert!(JobTemplate::new(&options).is_err_and(|failed| failed.what.contains("video.max_height")));
    }
}
