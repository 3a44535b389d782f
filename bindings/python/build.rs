//! Writes the declarations of include/carat.h to where maturin reads them for cffi, whose parser knows no preprocessor.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let header = here.join("../../include/carat.h");
    let out = target_dir().join("header.h");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", header.display());
    println!("cargo::rerun-if-changed={}", out.display());
    let text = fs::read_to_string(&header).unwrap_or_else(|e| panic!("{}: {e}", header.display()));
    fs::write(&out, declarations(&text)).unwrap_or_else(|e| panic!("{}: {e}", out.display()));
}

/// The target folder, which cargo tells nobody: ours is TARGET/PROFILE/build/PACKAGE/out in it, or with the triple before
/// the profile.
fn target_dir() -> PathBuf {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let triple = env::var_os("TARGET").expect("cargo sets it");
    let above = out.ancestors().nth(4).expect("it is that deep");
    match above.parent() {
        Some(parent) if above.file_name() == Some(&triple) => parent.to_path_buf(),
        _ => above.to_path_buf(),
    }
}

/// What remains of a header without comments, conditionals, and macros other than numbers.
fn declarations(header: &str) -> String {
    let mut kept = String::new();
    let mut in_cpp = false;
    let mut in_comment = false;
    for line in header.lines() {
        let start = line.trim_start();
        in_comment |= start.starts_with("/*");
        if in_comment {
            in_comment = !line.contains("*/");
        } else if start.starts_with("#ifdef __cplusplus") {
            in_cpp = true;
        } else if start.starts_with("#endif") {
            in_cpp = false;
        } else if in_cpp || start.starts_with("//") {
        } else if let Some(define) = start.strip_prefix("#define ") {
            let value = define.split_once(' ').map(|(_, value)| value);
            if value.is_some_and(|v| v.trim().parse::<i64>().is_ok()) {
                kept.push_str(line);
                kept.push('\n');
            }
        } else if !start.is_empty() && !start.starts_with('#') {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}
