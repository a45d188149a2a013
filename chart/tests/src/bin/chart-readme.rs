//! Writes the table of values into the chart's README. `tools/chart-readme` calls it; a test compares.

fn main() -> std::io::Result<()> {
    let text = mpegflow_chart_tests::readme();
    std::fs::write(mpegflow_chart_tests::chart_folder().join("mpegflow/README.md"), text)
}
