//! Where a tenant wants a job's output: a path of plain names, so that nobody downstream (a proxy, a CDN, a shell) reads it as
//! anything else.

use crate::ids::JobId;
use crate::parse::ParseError;

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
    fn a_path_is_split_where_its_object_begins() {
        assert_eq!(split("films/a/master.m3u8"), Some(("films/a", "master.m3u8")));
        for bad in
            ["master.m3u8", "films/../x", "films//x", "/films/x", "films/x/", "films/%2e%2e/x", "films/.x"]
        {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
