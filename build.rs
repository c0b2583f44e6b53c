//! Checks that libtorch is in place and tells the linker where binaries find it at run time.

use std::path::PathBuf;
use std::{env, fs};

/// The torch release that tch 0.24 is made for.
const TORCH: &str = "2.11.";

fn main() -> Result<(), String> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?;
    let torch = match env::var_os("LIBTORCH") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(root).join(".venv/libtorch"),
    };
    let version_file = torch.join("version.py");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", version_file.display());
    println!("cargo:rerun-if-env-changed=LIBTORCH");

    let version = fs::read_to_string(&version_file)
        .map_err(|e| format!("run `make setup` first: {} cannot be read ({e})", version_file.display()))?;
    let found = version
        .lines()
        .find_map(|line| line.strip_prefix("__version__ = "))
        .map_or("of an unknown version", |quoted| quoted.trim_matches(['\'', '"']));
    if !found.starts_with(TORCH) {
        return Err(format!("run `make setup` first: {} holds torch {found}, not {TORCH}x", torch.display()));
    }

    // The link argument of torch-sys does not reach the packages that depend on it.
    let lib =
        env::var("DEP_TCH_LIBTORCH_LIB").map_err(|_| "torch-sys names no libtorch folder".to_owned())?;
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    Ok(())
}
