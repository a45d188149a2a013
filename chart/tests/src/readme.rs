//! The chart's README: its own words, and a table of every value, made from `values.schema.json` and `values.yaml`.

use crate::chart_folder;
use serde_json::Value;
use std::fmt::Write as _;

/// What stands around the table in the README.
const MARKS: (&str, &str) = ("<!-- values: made by tools/chart-readme -->\n", "<!-- end of values -->\n");

/// The README as it should be: what is written by hand in the file, with the table made anew.
///
/// # Panics
/// The chart's files cannot be read, or the marks are missing.
pub fn readme() -> String {
    let chart = chart_folder().join("mpegflow");
    let text =
        |name: &str| std::fs::read_to_string(chart.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let schema: Value = serde_json::from_str(&text("values.schema.json")).expect("a schema");
    let values: Value = serde_saphyr::from_str(&text("values.yaml")).expect("values");
    let mut table = String::from("\n| value | default | meaning |\n|---|---|---|\n");
    rows("", &schema, &schema, Some(&values), &mut table);
    table.push('\n');
    let old = text("README.md");
    let (before, rest) = old.split_once(MARKS.0).expect("README.md has the first mark");
    let (_, after) = rest.split_once(MARKS.1).expect("README.md has the last mark");
    format!("{before}{}{table}{}{after}", MARKS.0, MARKS.1)
}

fn rows(prefix: &str, of: &Value, schema: &Value, values: Option<&Value>, table: &mut String) {
    let Some(properties) = resolve(of, schema)["properties"].as_object() else { return };
    for (name, property) in properties {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let value = values.and_then(|values| values.get(name));
        let resolved = resolve(property, schema);
        let meaning =
            property["description"].as_str().or(resolved["description"].as_str()).unwrap_or_default();
        let is_group = resolved["properties"].is_object();
        let default = match value {
            Some(value) if !is_group => format!("`{value}`"),
            _ => String::new(),
        };
        if !meaning.is_empty() || !is_group {
            let _ = writeln!(table, "| `{path}` | {default} | {} |", meaning.replace('|', "\\|"));
        }
        rows(&path, resolved, schema, value, table);
        if let Some(items) =
            resolved.get("items").filter(|items| items["$ref"].as_str() == Some("#/definitions/pool"))
        {
            rows(&format!("{path}[]"), items, schema, None, table);
        }
    }
}

/// Follows `$ref` and a lone `allOf`.
fn resolve<'a>(property: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = property["$ref"].as_str().or_else(|| property["allOf"][0]["$ref"].as_str());
    match reference {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).expect("a definition"),
        None => property,
    }
}
