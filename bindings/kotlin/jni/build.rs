//! Declares the C ABI for Rust from include/carat.abi, the record of what the header has promised: this crate uses carat
//! as any other language does.

use std::fmt::Write as _;
use std::path::Path;

fn main() {
    // Of this run, not of the build of this program: a copy of the sources may share a target folder.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let abi = Path::new(&here).join("../../../include/carat.abi");
    println!("cargo::rerun-if-changed={}", abi.display());
    let text = std::fs::read_to_string(&abi).expect("include/carat.abi can be read");
    let out = Path::new(&std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("carat.rs");
    std::fs::write(out, declarations(&text)).expect("OUT_DIR can be written");
}

/// Lines of `kind name: rest`.
fn lines<'a>(text: &'a str, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.lines().filter_map(move |line| line.strip_prefix(kind)?.strip_prefix(' ')?.split_once(": "))
}

fn declarations(abi: &str) -> String {
    let mut rust = String::new();
    for (name, value) in lines(abi, "constant") {
        writeln!(rust, "pub const {name}: i32 = {value};").unwrap();
    }
    let structs: Vec<&str> = lines(abi, "struct").map(|(name, _)| name).collect();
    for name in &structs {
        let mut fields: Vec<(usize, &str)> = lines(abi, "field")
            .filter(|(field, _)| field.split_once('.').is_some_and(|(of, _)| of == *name))
            .map(|(_, rest)| {
                let (place, declaration) = rest.split_once(": ").expect("a field has a type");
                let at =
                    place.strip_prefix("at ").and_then(|p| p.split(',').next()).expect("a field has a place");
                (at.parse().expect("a place is a number"), declaration)
            })
            .collect();
        fields.sort();
        writeln!(rust, "#[repr(C)] #[derive(Clone, Copy)] pub struct {name} {{").unwrap();
        for (_, declaration) in &fields {
            let (name, ty) = declared(declaration);
            writeln!(rust, "    pub {name}: {ty},").unwrap();
        }
        rust += "}\n";
        // The record says where each field is.
        for (at, declaration) in &fields {
            let field = declared(declaration).0;
            writeln!(rust, "const _: () = assert!(std::mem::offset_of!({name}, {field}) == {at});").unwrap();
        }
    }
    for (name, rest) in lines(abi, "type") {
        let rest = rest.strip_prefix("typedef ").expect("a type is a typedef").trim_end_matches(';');
        if let Some((returns, arguments)) = rest.split_once(&format!("(*{name})(")) {
            let arguments = arguments.trim_end_matches(')');
            let signature = signature(arguments, returns);
            writeln!(rust, "pub type {name} = Option<unsafe extern \"C\" fn{signature}>;").unwrap();
        } else if rest.starts_with("struct ") {
            writeln!(rust, "#[repr(C)] pub struct {name} {{ _opaque: [u8; 0] }}").unwrap();
        } else {
            writeln!(rust, "pub type {name} = {};", declared(rest).1).unwrap();
        }
    }
    rust += "unsafe extern \"C\" {\n";
    for (name, rest) in lines(abi, "function") {
        let (returns, arguments) = rest.split_once(&format!("{name}(")).expect("a function has arguments");
        let arguments = arguments.trim_end_matches(';').trim_end_matches(')');
        writeln!(rust, "    pub fn {name}{};", signature(arguments, returns)).unwrap();
    }
    rust += "}\n";
    rust
}

/// `(a: T, b: U) -> R` of the arguments and result of a C function.
fn signature(arguments: &str, returns: &str) -> String {
    let mut rust = String::from("(");
    for argument in arguments.split(", ").filter(|a| *a != "void") {
        let (name, ty) = declared(argument);
        write!(rust, "{name}: {ty}, ").unwrap();
    }
    rust += ")";
    let returns = returns.trim();
    if returns != "void" {
        write!(rust, " -> {}", declared(&format!("{returns} it")).1).unwrap();
    }
    rust
}

/// The name and the Rust type of a C declaration such as `const struct carat_x *name`.
fn declared(c: &str) -> (&str, String) {
    let (c, array) = match c.strip_suffix(']').and_then(|c| c.split_once('[')) {
        Some((c, n)) => (c, Some(n)),
        None => (c, None),
    };
    let start = c.rfind(|ch: char| !ch.is_alphanumeric() && ch != '_').expect("a type and a name") + 1;
    let (ty, name) = c.split_at(start);
    let constant = ty.contains("const ");
    let base = ty.replace('*', "").replace("const ", "").replace("struct ", "");
    let mut rust = match base.trim() {
        "int32_t" => "i32".to_string(),
        "uint8_t" => "u8".to_string(),
        "uint32_t" => "u32".to_string(),
        "uint64_t" => "u64".to_string(),
        "size_t" => "usize".to_string(),
        "float" => "f32".to_string(),
        "double" => "f64".to_string(),
        "char" => "std::ffi::c_char".to_string(),
        "void" => "std::ffi::c_void".to_string(),
        other => other.to_string(),
    };
    for level in 0..ty.matches('*').count() {
        rust = format!("*{} {rust}", if constant && level == 0 { "const" } else { "mut" });
    }
    if let Some(n) = array {
        rust = format!("[{rust}; {n}]");
    }
    (name, rust)
}
