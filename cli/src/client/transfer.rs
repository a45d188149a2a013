//! Whole transfers: an upload that survives broken connections, and a download that is verified.

use super::{Client, ClientError, STALL, UploadSource, backoff};
use crate::digest::PartsDigest;
use http_body_util::BodyExt as _;
use mpegflow_protocol::api::{Output, Upload};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::AsyncWriteExt as _;

/// Tries in a row that brought no new byte.
const TRIES: u32 = 8;

impl Client {
    /// Sends a file, from where the broker has got to; a broken connection is taken up again. `at` is called with the
    /// bytes that have been sent.
    pub(crate) async fn upload_file(
        &self,
        source: &UploadSource,
        mut upload: Upload,
        at: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Upload, ClientError> {
        if upload.size != source.size {
            return Err(ClientError::Usage(format!(
                "{} has {} bytes, but upload {} was announced with {}; it is another file",
                source.path.display(),
                source.size,
                upload.id,
                upload.size
            )));
        }
        let mut failures = 0_u32;
        while upload.offset < upload.size {
            let sent = Arc::new(AtomicU64::new(upload.offset));
            at(upload.offset);
            let on_bytes = {
                let (at, sent) = (Arc::clone(&at), Arc::clone(&sent));
                Arc::new(move |n: u64| at(sent.fetch_add(n, Ordering::Relaxed).saturating_add(n)))
            };
            let before = upload.offset;
            match self.send_upload_watched(&upload, source, &sent, on_bytes).await {
                Ok(now) => upload = now,
                // A file cut short ends the body early, which looks like a broken connection from here.
                Err(_) if source.has_changed() => return Err(source.changed()),
                Err(e) if e.is_transient() || is_offset_conflict(&e) => {
                    if failures >= TRIES {
                        return Err(e);
                    }
                    tokio::time::sleep(backoff(failures)).await;
                    upload = match self.upload(upload.id).await {
                        Ok(now) => now,
                        Err(e) if e.is_transient() => upload,
                        Err(e) => return Err(e),
                    };
                }
                Err(e) => return Err(e),
            }
            failures = if upload.offset > before { 0 } else { failures.saturating_add(1) };
            if failures > TRIES {
                return Err(self.unreachable("the upload does not get any further"));
            }
        }
        at(upload.size);
        Ok(upload)
    }

    /// Sends the rest, and gives up when nothing moves for [`STALL`] (but not while the broker digests the last bytes).
    async fn send_upload_watched(
        &self,
        upload: &Upload,
        source: &UploadSource,
        sent: &AtomicU64,
        on_bytes: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Upload, ClientError> {
        let call = self.send_upload(upload.id, source, upload.offset, on_bytes);
        tokio::pin!(call);
        let mut seen = upload.offset;
        loop {
            match tokio::time::timeout(STALL, &mut call).await {
                Ok(result) => return result,
                Err(_) => {
                    let now = sent.load(Ordering::Relaxed);
                    if now == seen {
                        return Err(self.unreachable("the upload stalled"));
                    }
                    seen = now;
                }
            }
        }
    }

    /// Fetches one object of a job into `dir`, synced to disk and verified against the committed size and digest.
    /// `on_bytes` hears of each chunk.
    pub(crate) async fn download(
        &self,
        output: &Output,
        dir: &Path,
        on_bytes: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), ClientError> {
        // The name becomes a path here, and the broker may be anyone's.
        let name = object_name(&output.name)?;
        // The URL is the broker's word too; the key must not follow it elsewhere.
        let ours = ["/v1/objects/", "/v1/files/"].iter().any(|place| output.url.starts_with(place));
        if !ours || output.url.contains(['\\', '#', '?', ' ']) {
            return Err(ClientError::Answer {
                call: format!("the output {name}"),
                reason: "its address is not an object of this broker".into(),
            });
        }
        let path = dir.join(name);
        let mut attempt = 0_u32;
        loop {
            match self.download_once(output, &path, on_bytes).await {
                Err(e) if e.is_transient() && attempt < 4 => {
                    attempt = attempt.saturating_add(1);
                    tokio::time::sleep(backoff(attempt)).await;
                }
                result => return result,
            }
        }
    }

    async fn download_once(
        &self,
        output: &Output,
        path: &Path,
        on_bytes: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), ClientError> {
        let file_error = |source: std::io::Error| ClientError::File { path: path.to_owned(), source };
        let corrupt = |what| ClientError::Corrupt { name: output.name.clone(), what };
        let mut body = self.object(&output.url).await?.into_body();
        let mut file = tokio::fs::File::create(path).await.map_err(file_error)?;
        let mut digest = PartsDigest::new();
        loop {
            let frame = tokio::time::timeout(STALL, body.frame()).await.map_err(|_| {
                self.unreachable(&format!("{}: nothing came for {} s", output.name, STALL.as_secs()))
            })?;
            let Some(frame) = frame else { break };
            let frame = frame
                .map_err(|e| self.unreachable(&format!("{}: {}", output.name, super::root_cause(&e))))?;
            let Ok(bytes) = frame.into_data() else { continue };
            digest.update(&bytes);
            if digest.size() > output.size {
                return Err(corrupt("more bytes than were committed"));
            }
            file.write_all(&bytes).await.map_err(file_error)?;
            on_bytes(u64::try_from(bytes.len()).unwrap_or(0));
        }
        file.sync_all().await.map_err(file_error)?;
        if digest.size() != output.size {
            return Err(corrupt("fewer bytes than were committed"));
        }
        if digest.finish() != output.digest {
            return Err(corrupt("another digest than was committed"));
        }
        Ok(())
    }
}

fn is_offset_conflict(error: &ClientError) -> bool {
    matches!(error, ClientError::Problem { status: 409, .. })
}

/// A name that is one plain component of a path, whoever made it.
fn object_name(name: &str) -> Result<&str, ClientError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let ours = matches!(name, crate::output::REPORT | crate::output::PAGE | crate::output::PLAYER);
    if name.is_empty() || name.len() > 255 || name.starts_with('.') || !name.bytes().all(plain) || ours {
        return Err(ClientError::Answer {
            call: "the job".into(),
            reason: format!("an output is named {:?}", mpegflow_protocol::text::clean(name, 80)),
        });
    }
    Ok(name)
}

/// The name of a rendition as people read it: `video-720p.mp4` is `720p`.
pub(crate) fn stem(name: &str) -> &str {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    stem.strip_prefix("video-").unwrap_or(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_more_than_one_plain_component_is_refused() {
        assert!(object_name("video-720p.mp4").is_ok());
        for bad in
            ["", ".", "..", ".ssh", "../x", "a/b", "a\\b", "a\0", "a b", "ü", "index.html", "mpegflow.json"]
        {
            assert!(object_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_rendition_is_called_by_its_height() {
        assert_eq!((stem("video-720p.mp4"), stem("audio-0.mp4"), stem("x")), ("720p", "audio-0", "x"));
    }
}
