//! Embeds hls.js, where `npm ci --ignore-scripts` in `web/` has fetched it.
//!
//! Without it everything still builds; the pages then play with the browser's own HLS (Safari, recent Chrome).

use std::path::{Path, PathBuf};
use std::{env, fs, io};

// The full build, not the light one: our audio is a rendition of its own (EXT-X-MEDIA), which the light build cannot play.
const HLS_JS: &str = "web/node_modules/hls.js/dist/hls.min.js";

fn main() -> io::Result<()> {
    let out_dir =
        env::var_os("OUT_DIR").map(PathBuf::from).ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    // A path that does not exist makes cargo run this each time, so a later `npm ci` is noticed.
    println!("cargo::rerun-if-changed={HLS_JS}");
    println!("cargo::rerun-if-changed=build.rs");
    let target = out_dir.join("hls.js");
    match fs::read_to_string(Path::new(HLS_JS)) {
        Ok(text) => {
            // The source map is not embedded, and a dangling reference makes every developer console complain.
            let body: Vec<&str> =
                text.lines().filter(|line| !line.starts_with("//# sourceMappingURL=")).collect();
            fs::write(target, body.join("\n"))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            println!(
                "cargo::warning=hls.js is not there, so the pages play only where the browser knows HLS; run `npm ci --ignore-scripts` in cli/web and build again"
            );
            fs::write(target, "")
        }
        Err(e) => Err(e),
    }
}
