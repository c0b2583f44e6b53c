//! Checks that libtorch is in place and tells the linker where binaries find it at run time.

use std::path::Path;
use std::{env, fs};

/// The torch release that tch 0.24 is made for.
const TORCH: &str = "2.11.";

fn main() -> Result<(), String> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?;
    // What torch-sys links, whichever of its variables named it.
    let lib =
        env::var("DEP_TCH_LIBTORCH_LIB").map_err(|_| "torch-sys names no libtorch folder".to_owned())?;
    let torch = Path::new(&lib).parent().unwrap_or(Path::new(&lib));
    println!("cargo:rerun-if-changed=build.rs");

    let is_own = torch.starts_with(Path::new(&root).join(".venv"));
    let hint = if is_own { "run `make setup` first: " } else { "" };
    match version(torch) {
        Some(found) if found.starts_with(TORCH) => {}
        Some(found) => return Err(format!("{hint}{} holds torch {found}, not {TORCH}x", torch.display())),
        None if is_own => return Err(format!("{hint}{} holds no torch", torch.display())),
        None => println!("cargo:warning={} does not say whether it is torch {TORCH}x", torch.display()),
    }

    // The link argument of torch-sys does not reach the packages that depend on it.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    Ok(())
}

/// The release in `torch`: a Python package has it in `version.py`, an unpacked libtorch zip in `build-version`.
fn version(torch: &Path) -> Option<String> {
    let read = |name: &str| {
        let path = torch.join(name);
        let text = fs::read_to_string(&path).ok()?;
        // Not of a file that is not there: cargo would take it for changed at every build.
        println!("cargo:rerun-if-changed={}", path.display());
        Some(text)
    };
    if let Some(text) = read("version.py") {
        let quoted = text.lines().find_map(|line| line.strip_prefix("__version__ = "));
        return Some(quoted.unwrap_or("of an unknown version").trim_matches(['\'', '"']).to_owned());
    }
    read("build-version").map(|text| text.trim().to_owned())
}
