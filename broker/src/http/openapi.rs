//! The public API's description.

use super::{intake, public, webhooks};
use mpegflow_protocol::api::{Event, Problem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(title = "mpegflow", description = "Transcodes untrusted media in locked processes.", license(name = "Apache-2.0")),
    paths(
        public::create_upload,
        public::show_upload,
        public::put_upload,
        public::patch_upload,
        public::delete_upload,
        public::submit,
        public::list_jobs,
        public::show_job,
        public::delete_job,
        public::cancel_job,
        public::job_logs,
        public::job_events,
        public::events,
        public::object,
        public::file,
        public::presets,
        webhooks::create,
        webhooks::list,
        webhooks::show,
        webhooks::delete,
        webhooks::rotate,
        webhooks::enable,
        webhooks::deliveries,
        webhooks::redeliver,
        intake::events,
        intake::create,
        intake::list,
        intake::show,
        intake::delete,
        intake::look,
        public::healthz,
        public::readyz,
        public::openapi_json,
    ),
    components(schemas(Problem, Event)),
    security(("api_key" = [])),
    modifiers(&Common)
)]
struct Api;

/// What every operation has: the key, and problems as its errors.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("mf_…").build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("api_key", SecurityScheme::Http(scheme));
        for item in document.paths.paths.values_mut() {
            let operations =
                [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch]
                    .into_iter()
                    .flatten();
            for operation in operations {
                let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
                let response = ResponseBuilder::new()
                    .description("A problem")
                    .content("application/problem+json", problem)
                    .build();
                operation.responses.responses.insert("default".into(), RefOr::T(response));
            }
        }
    }
}

/// The document.
pub fn document() -> Document {
    Api::openapi()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_codes_are_described_as_they_are_sent() {
        let json = serde_json::to_string(&document()).unwrap();
        for code in mpegflow_protocol::failure::FailureCode::ALL {
            assert!(json.contains(&format!("\"{code}\"")), "{code} is not described");
        }
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let json = serde_json::to_value(document()).unwrap();
        let mut described: Vec<(String, String)> = Vec::new();
        for (path, item) in json["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                described.push((method.to_uppercase(), path.clone()));
            }
        }
        described.sort();
        let mut routes: Vec<(String, String)> = public::ROUTES
            .iter()
            .chain(webhooks::ROUTES)
            .chain(intake::ROUTES)
            .map(|(m, p)| ((*m).to_owned(), (*p).to_owned()))
            .collect();
        routes.sort();
        assert_eq!(described, routes);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let json = serde_json::to_value(document()).unwrap();
        let text = json.to_string();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(json["components"]["schemas"].get(name).is_some(), "{name}");
        }
    }
}
