//! Control calls: what storage says of objects and multipart uploads, and what is done to them without bytes.

use super::bucket::{Bucket, again};
use super::fault::Fault;
use super::limits::{COMPLETE, CONTROL};
use crate::objects::Listed;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart, Part};

/// A part that storage holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) number: i32,
    pub(super) size: u64,
    pub(super) tag: String,
    /// Its SHA-256, as base64.
    pub(super) sha256: String,
}

/// What storage says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) size: u64,
    /// Its ETag.
    pub(super) tag: String,
    /// Its SHA-256 as S3 gives it: base64, of a multipart object that of its parts' digests and `-` and their number.
    pub(super) sha256: Option<String>,
    /// When it was written, in seconds since 1970; 0 where storage does not say.
    pub(super) modified: i64,
}

fn held(part: &Part) -> Result<Held, Fault> {
    let (Some(number), Some(size), Some(tag)) = (part.part_number(), part.size(), part.e_tag()) else {
        return Err(Fault::Strange("a part without number, length or ETag"));
    };
    let sha256 = part.checksum_sha256().ok_or(Fault::Strange("a part without its checksum"))?;
    let size = u64::try_from(size).unwrap_or(0);
    Ok(Held { number, size, tag: tag.to_owned(), sha256: sha256.to_owned() })
}

impl Bucket {
    /// What storage says of an object; `None` where there is none.
    pub(super) async fn head(&self, object: &str) -> Result<Option<Head>, Fault> {
        let head = || {
            let head =
                self.sdk.head_object().bucket(&self.name).key(object).checksum_mode(ChecksumMode::Enabled);
            self.call(CONTROL, head.send())
        };
        let head = match again(head).await {
            Err(fault) if fault.is_missing() => return Ok(None),
            head => head?,
        };
        let size = head.content_length.and_then(|n| u64::try_from(n).ok());
        let (Some(size), Some(tag)) = (size, head.e_tag) else {
            return Err(Fault::Strange("no length or no ETag"));
        };
        let modified = head.last_modified.map_or(0, |time| time.secs());
        Ok(Some(Head { size, tag, sha256: head.checksum_sha256, modified }))
    }

    pub(super) async fn delete(&self, object: &str) -> Result<(), Fault> {
        let delete = || {
            let delete = self.sdk.delete_object().bucket(&self.name).key(object);
            self.call(CONTROL, delete.send())
        };
        match again(delete).await {
            Err(fault) if !fault.is_missing() => Err(fault),
            _ => Ok(()),
        }
    }

    /// Calls `each` with the name and the length of every object whose name starts with `prefix`.
    pub(super) async fn list(
        &self,
        prefix: &str,
        mut each: impl FnMut(&str, u64) + Send,
    ) -> Result<(), Fault> {
        let mut from: Option<String> = None;
        loop {
            let list = || {
                let list = self.sdk.list_objects_v2().bucket(&self.name).prefix(prefix);
                self.call(CONTROL, list.set_continuation_token(from.clone()).send())
            };
            let page = again(list).await?;
            for object in page.contents() {
                if let Some(name) = object.key() {
                    each(name, object.size().and_then(|n| u64::try_from(n).ok()).unwrap_or(0));
                }
            }
            match page.next_continuation_token {
                Some(next) if page.is_truncated == Some(true) && from.as_ref() != Some(&next) => {
                    from = Some(next)
                }
                _ => return Ok(()),
            }
        }
    }

    /// At most `most` objects whose names start with `prefix` and come after `after`, and whether there are more.
    pub(super) async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        most: u32,
    ) -> Result<(Vec<Listed>, bool), Fault> {
        let most = i32::try_from(most).unwrap_or(1_000);
        let list = || {
            let list = self.sdk.list_objects_v2().bucket(&self.name).prefix(prefix).max_keys(most);
            self.call(CONTROL, list.set_start_after(after.map(str::to_owned)).send())
        };
        let page = again(list).await?;
        let listed = page.contents().iter().filter_map(|object| {
            let key = object.key()?;
            // A list that does not go on would be looked at for ever.
            after.is_none_or(|after| key > after).then(|| Listed {
                key: key.to_owned(),
                size: object.size().and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                version: object.e_tag().unwrap_or_default().to_owned(),
                modified: object.last_modified().map_or(0, |time| time.secs()),
            })
        });
        Ok((listed.collect(), page.is_truncated == Some(true)))
    }

    /// Whether the bucket can be listed.
    pub(super) async fn ping(&self, prefix: &str) -> Result<(), Fault> {
        let list = self.sdk.list_objects_v2().bucket(&self.name).prefix(prefix).max_keys(1);
        self.call(CONTROL, list.send()).await.map(drop)
    }

    /// Opens a multipart upload.
    pub(super) async fn create(&self, object: &str) -> Result<String, Fault> {
        let create = || {
            let (encryption, key) = self.encryption();
            let create = self.sdk.create_multipart_upload().bucket(&self.name).key(object);
            let create = create.checksum_algorithm(ChecksumAlgorithm::Sha256);
            let create = create.set_server_side_encryption(encryption).set_ssekms_key_id(key);
            self.call(CONTROL, create.send())
        };
        again(create).await?.upload_id.ok_or(Fault::Strange("no upload id"))
    }

    /// The open multipart uploads of exactly this object, oldest first.
    pub(super) async fn multiparts(&self, object: &str) -> Result<Vec<String>, Fault> {
        let list = || {
            // Exactly the object's name: MinIO answers to no other prefix.
            let list = self.sdk.list_multipart_uploads().bucket(&self.name).prefix(object);
            self.call(CONTROL, list.send())
        };
        let page = again(list).await?;
        let mut found: Vec<_> = page
            .uploads()
            .iter()
            .filter(|upload| upload.key() == Some(object))
            .filter_map(|upload| {
                let initiated = upload.initiated().map_or((0, 0), |time| (time.secs(), time.subsec_nanos()));
                Some((initiated, upload.upload_id()?.to_owned()))
            })
            .collect();
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    /// The parts of a multipart upload, in order.
    pub(super) async fn parts(&self, object: &str, id: &str) -> Result<Vec<Held>, Fault> {
        let mut held: Vec<Held> = Vec::new();
        loop {
            let after = held.last().map(|last| last.number.to_string());
            let list = || {
                let list = self.sdk.list_parts().bucket(&self.name).key(object).upload_id(id);
                self.call(CONTROL, list.set_part_number_marker(after.clone()).send())
            };
            let page = again(list).await?;
            let before = held.len();
            for part in page.parts() {
                held.push(self::held(part)?);
            }
            if page.is_truncated != Some(true) || held.len() == before {
                return Ok(held);
            }
        }
    }

    /// One part of a multipart upload, where storage holds it.
    pub(super) async fn part(&self, object: &str, id: &str, number: i32) -> Result<Option<Held>, Fault> {
        let before = number.saturating_sub(1).to_string();
        let list = || {
            let list = self.sdk.list_parts().bucket(&self.name).key(object).upload_id(id);
            self.call(CONTROL, list.part_number_marker(before.clone()).max_parts(1).send())
        };
        let page = again(list).await?;
        page.parts().iter().find(|part| part.part_number() == Some(number)).map(held).transpose()
    }

    /// Makes the object of these parts.
    pub(super) async fn complete(&self, object: &str, id: &str, parts: &[Held]) -> Result<(), Fault> {
        let complete = || {
            let parts = parts.iter().map(|part| {
                let done = CompletedPart::builder().part_number(part.number).e_tag(&part.tag);
                done.checksum_sha256(&part.sha256).build()
            });
            let all = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
            let complete = self.sdk.complete_multipart_upload().bucket(&self.name).key(object).upload_id(id);
            self.call(COMPLETE, complete.multipart_upload(all).send())
        };
        again(complete).await.map(drop)
    }

    /// Gives a multipart upload up.
    pub(super) async fn abort(&self, object: &str, id: &str) -> Result<(), Fault> {
        let abort = || {
            let abort = self.sdk.abort_multipart_upload().bucket(&self.name).key(object).upload_id(id);
            self.call(CONTROL, abort.send())
        };
        match again(abort).await {
            Err(fault) if !fault.is_missing() => Err(fault),
            _ => Ok(()),
        }
    }
}
