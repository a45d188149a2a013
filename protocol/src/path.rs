//! Where a tenant wants a job's output: a path of plain names, so that nobody downstream (a proxy, a CDN, a shell) reads it as
//! anything else.

use crate::ids::JobId;
use crate::parse::ParseError;
use serde::{Deserialize, Serialize};

/// Characters of a path.
pub const MAX_PATH: usize = 512;
/// Names in a path, the object's own among them.
pub const MAX_DEPTH: usize = 8;
/// What the last name of a template is.
const NAME: &str = "{name}";

/// Whether a text is one name of a path: letters, digits, `.`, `-` and `_`, not beginning with a dot, 128 at most.
pub fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !text.is_empty() && text.len() <= 128 && !text.starts_with('.') && text.bytes().all(plain)
}

/// Splits a path into its folder and the object's name; `None` where it is no path.
pub fn split(path: &str) -> Option<(&str, &str)> {
    let fits = path.len() <= MAX_PATH && path.split('/').count() <= MAX_DEPTH;
    if !fits || !path.split('/').all(is_name) {
        return None;
    }
    path.rsplit_once('/')
}

/// Characters of a [`StoredKey`]. With the longest prefix it is shorter than the 1,024 bytes that S3 takes.
pub const MAX_KEY: usize = 700;

/// The key of an object in a tenant's own storage, below the tenant's prefix. It can only be parsed, so that there is none that leads
/// elsewhere: no step is empty or made of dots, nothing is absolute or encoded, every character has one form, and what the broker keeps
/// for itself (below the tenant's id) is nobody's input.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoredKey(String);

/// Why a text is no [`StoredKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Too short or too long.
    #[error("a key has 1 to {MAX_KEY} characters")]
    Length,
    /// A character that it may not have.
    #[error(
        "a key has letters and digits of ASCII, spaces and -_.!~'()@,=+&/ in it, and nothing else; give the object such a name, or upload it"
    )]
    Character,
    /// A step that is none.
    #[error(
        "a key does not begin or end with a slash, and none of its steps is empty or made of dots: it is read from the tenant's prefix on"
    )]
    Step,
    /// It is the broker's.
    #[error("what begins with `tnt_` is the broker's own, and no input")]
    Reserved,
}

impl StoredKey {
    /// The key itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for StoredKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        if text.is_empty() || text.len() > MAX_KEY {
            return Err(BadKey::Length);
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b" -_.!~'()@,=+&/".contains(&b);
        if !text.bytes().all(plain) {
            return Err(BadKey::Character);
        }
        if text.split('/').any(|step| step.bytes().all(|b| b == b'.')) {
            return Err(BadKey::Step);
        }
        if text.starts_with("tnt_") {
            return Err(BadKey::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for StoredKey {
    type Error = BadKey;

    fn try_from(text: String) -> Result<Self, BadKey> {
        text.parse()
    }
}

impl From<StoredKey> for String {
    fn from(key: StoredKey) -> Self {
        key.0
    }
}

/// What a template's variables stand for.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'a> {
    /// `{job}`.
    pub job: JobId,
    /// `{preset}`.
    pub preset: &'a str,
    /// `{external_id}`.
    pub external_id: Option<&'a str>,
}

/// The folder that a template such as `films/{external_id}/{name}` leads to.
///
/// # Errors
/// It does not end in `/{name}`, has an unknown variable, or comes to something that is no path.
pub fn folder(template: &str, variables: Variables<'_>) -> Result<String, ParseError> {
    let wrong = |reason: String| ParseError::Field { what: "job spec", field: "output.path".into(), reason };
    let folder = template
        .strip_suffix(NAME)
        .and_then(|rest| rest.strip_suffix('/'))
        .ok_or_else(|| wrong("it has to end in /{name}: a job has many objects, side by side".into()))?;
    let mut path = String::new();
    let mut rest = folder;
    while let Some((before, after)) = rest.split_once('{') {
        let (variable, after) = after.split_once('}').ok_or_else(|| wrong("a { is not closed".into()))?;
        path.push_str(before);
        match (variable, variables.external_id) {
            ("job", _) => path.push_str(&variables.job.to_string()),
            ("preset", _) => path.push_str(variables.preset),
            ("external_id", Some(id)) if is_name(id) => path.push_str(id),
            ("external_id", Some(_)) => {
                return Err(wrong(
                    "external_id is not fit for a path: letters, digits, `.`, `-` and `_`, not beginning with a dot".into(),
                ));
            }
            ("external_id", None) => return Err(wrong("the job has no external_id".into())),
            ("name", _) => return Err(wrong("{name} comes once, at the end".into())),
            _ => {
                return Err(wrong("known are {job}, {preset}, {external_id} and, at the end, {name}".into()));
            }
        }
        rest = after;
    }
    path.push_str(rest);
    // One more for the object's name, which is 64 characters at most.
    let fits = path.len() <= MAX_PATH.saturating_sub(65) && path.split('/').count() < MAX_DEPTH;
    if !fits || !path.split('/').all(is_name) {
        return Err(wrong(format!(
            "names are letters, digits, `.`, `-` and `_`, do not begin with a dot, and are {MAX_DEPTH} at most, in {MAX_PATH} characters"
        )));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(template: &str, external_id: Option<&str>) -> Result<String, String> {
        let variables = Variables { job: JobId::from_u128(1), preset: "web", external_id };
        folder(template, variables).map_err(|e| e.to_string())
    }

    #[test]
    fn a_template_comes_to_a_folder_of_plain_names() {
        let job = JobId::from_u128(1).to_string();
        assert_eq!(of("{job}/{name}", None), Ok(job.clone()));
        assert_eq!(
            of("films/{external_id}/{preset}-1/{name}", Some("a-7.b")),
            Ok("films/a-7.b/web-1".into())
        );
        assert_eq!(of("a/{job}x/{name}", None), Ok(format!("a/{job}x")));
    }

    #[test]
    fn no_spelling_leads_elsewhere() {
        for bad in [
            "{name}",
            "",
            "films",
            "films/{name}.mp4",
            "{name}/{name}",
            "../{name}",
            "a/../{name}",
            "/a/{name}",
            "a//{name}",
            "./{name}",
            ".hidden/{name}",
            "a b/{name}",
            "a%2e/{name}",
            "a\\b/{name}",
            "a\0/{name}",
            "ü/{name}",
            "{job/{name}",
            "{tenant}/{name}",
            "a}/{name}",
            "a/a/a/a/a/a/a/a/{name}",
            "{external_id}/{name}",
        ] {
            assert!(of(bad, None).is_err(), "{bad}");
        }
        for id in ["..", ".a", "a/b", "", "a b", "%2e%2e"] {
            assert!(of("{external_id}/{name}", Some(id)).is_err(), "{id:?}");
        }
        assert!(of(&format!("{}/{{name}}", "a/".repeat(300)), None).is_err());
    }

    #[test]
    fn a_key_of_a_stored_object_leads_nowhere_else() {
        for good in ["a.mov", "in/2026 (1)/a+b,c=d&e'f!~@.mov", ".hidden/..a", &"a".repeat(MAX_KEY)] {
            assert_eq!(good.parse::<StoredKey>().map(String::from), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", BadKey::Length),
            (&*"a".repeat(MAX_KEY + 1), BadKey::Length),
            ("/a", BadKey::Step),
            ("a/", BadKey::Step),
            ("a//b", BadKey::Step),
            ("..", BadKey::Step),
            ("../b", BadKey::Step),
            ("a/../b", BadKey::Step),
            ("a/./b", BadKey::Step),
            ("a/.../b", BadKey::Step),
            ("a%2fb", BadKey::Character),
            ("%2e%2e/b", BadKey::Character),
            ("a\\..\\b", BadKey::Character),
            ("a\0b", BadKey::Character),
            ("a\nb", BadKey::Character),
            ("s3://bucket/b", BadKey::Character),
            ("a?versionId=1", BadKey::Character),
            ("a#b", BadKey::Character),
            // A full-width full stop and slash, one dot leader, and one letter in its two forms.
            ("\u{ff0e}\u{ff0e}\u{ff0f}b", BadKey::Character),
            ("\u{2024}\u{2024}/b", BadKey::Character),
            ("\u{e9}.mov", BadKey::Character),
            ("e\u{301}.mov", BadKey::Character),
            (
                "tnt_0192f0c1a2b37c4d8e9f001122334455/uploads/upl_0192f0c1a2b37c4d8e9f001122334455",
                BadKey::Reserved,
            ),
            ("tnt_/x", BadKey::Reserved),
        ] {
            assert_eq!(bad.parse::<StoredKey>(), Err(why), "{bad:?}");
            assert!(serde_json::from_value::<StoredKey>(bad.into()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_is_split_where_its_object_begins() {
        assert_eq!(split("films/a/master.m3u8"), Some(("films/a", "master.m3u8")));
        for bad in
            ["master.m3u8", "films/../x", "films//x", "/films/x", "films/x/", "films/%2e%2e/x", "films/.x"]
        {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
