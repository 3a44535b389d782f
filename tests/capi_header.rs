//! The C header is what the sources say, and never takes back what it once said.
//!
//! `CARAT_BLESS=1` writes the header and adds what is new to the snapshot; what the snapshot has stays as it is.
#![cfg(feature = "capi")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn bless() -> bool {
    std::env::var_os("CARAT_BLESS").is_some()
}

/// The header that the sources make; blessing writes it, once, before anything reads it.
fn generate() -> &'static str {
    static GENERATED: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    GENERATED.get_or_init(|| {
        let text = by_cbindgen();
        if bless() {
            std::fs::write(root().join("include/carat.h"), &text).unwrap();
        }
        text
    })
}

fn by_cbindgen() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new().with_crate(root()).with_config(config).generate().unwrap();
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).unwrap()
}

fn header() -> String {
    std::fs::read_to_string(root().join("include/carat.h")).unwrap()
}

#[test]
fn the_header_is_that_of_the_sources() {
    let expected = generate();
    let found = std::fs::read_to_string(root().join("include/carat.h")).unwrap_or_default();
    assert!(found == expected, "include/carat.h is out of date: run `make header`");
}

/// A declaration of the header and the comment above it.
struct Item {
    comment: String,
    text: String,
}

/// The header's declarations, each in one line.
fn items(header: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let (mut comment, mut text) = (String::new(), String::new());
    for line in
        header.lines().skip_while(|l| !l.starts_with("#include")).skip_while(|l| l.starts_with("#include"))
    {
        let line = line.trim();
        if text.is_empty() && line.starts_with("//") {
            comment.push_str(line.trim_start_matches('/').trim());
            comment.push('\n');
            continue;
        }
        let code = line.split("//").next().unwrap().trim();
        if text.is_empty() && (code.is_empty() || code.starts_with("#if") || code.starts_with("#endif")) {
            comment.clear();
            continue;
        }
        if code == "extern \"C\" {" || (text.is_empty() && code.starts_with('}')) {
            continue;
        }
        if !text.is_empty() && !code.is_empty() {
            text.push(' ');
        }
        text.push_str(code);
        let complete = text.starts_with("#define") || (text.ends_with(';') && balanced(&text));
        if complete {
            items.push(Item { comment: std::mem::take(&mut comment), text: std::mem::take(&mut text) });
        }
    }
    items
}

fn balanced(text: &str) -> bool {
    let count = |c| text.matches(c).count();
    count('{') == count('}') && count('(') == count(')')
}

fn is_function(item: &Item) -> bool {
    item.text.contains('(') && !item.text.starts_with("typedef") && !item.text.starts_with('#')
}

/// The name of a function's declaration.
fn function_name(text: &str) -> &str {
    let before = text.split('(').next().unwrap();
    before.rsplit([' ', '*']).next().unwrap()
}

#[test]
fn every_function_says_what_a_caller_must_know() {
    let header = header();
    let items = items(&header);
    let functions: Vec<&Item> = items.iter().filter(|i| is_function(i)).collect();
    assert!(functions.len() > 60, "{} functions", functions.len());
    for f in functions {
        let name = function_name(&f.text);
        assert!(f.comment.contains("Threads: "), "{name}: which threads may call it?");
        if f.text.starts_with("carat_status ") && f.text.contains("carat_error **") {
            assert!(f.comment.contains("Errors: "), "{name}: which errors?");
        }
        let hands_out = f.text.contains("**out") || f.text.contains("const char *carat_");
        if hands_out || f.text.contains("const char *") {
            assert!(f.comment.contains("Ownership: "), "{name}: who owns what?");
        }
    }
}

/// The macros, types and functions that a program which includes the header gets.
fn names(header: &str) -> Vec<String> {
    let guard = |text: &str| text.starts_with("#define") && text.split_whitespace().count() == 2;
    let mut names = Vec::new();
    for line in header.lines().filter(|line| guard(line)) {
        names.push(line.split_whitespace().nth(1).unwrap().into());
    }
    for item in items(header) {
        let text = item.text.as_str();
        let (alone, body) = (text.trim_end_matches(';'), text.split('{').next().unwrap());
        let name = if let Some(define) = text.strip_prefix("#define ") {
            define.split([' ', '(']).next().unwrap()
        } else if is_function(&item) {
            function_name(text)
        } else if let Some((_, pointer)) = text.split_once("(*") {
            pointer.split(')').next().unwrap()
        } else {
            // A struct has a tag too, which in C++ is a name like any other.
            if let Some(tag) =
                body.split_once("struct ").or(body.split_once("enum ")).or(body.split_once("union "))
            {
                names.push(tag.1.split(' ').next().unwrap().into());
            }
            alone.split([' ', '*']).next_back().unwrap()
        };
        names.push(name.into());
    }
    names
}

/// The names that might be another header's.
fn without_prefix(header: &str) -> Vec<String> {
    let ours = |name: &String| name.starts_with("carat_") || name.starts_with("CARAT_");
    names(header).into_iter().filter(|name| !ours(name)).collect()
}

#[test]
fn every_name_has_the_prefix() {
    assert_eq!(without_prefix(generate()), [""; 0]);
    let names = names(generate());
    for known in ["CARAT_H", "CARAT_OK", "carat_isa_name", "carat_piece_fn", "carat_plan", "carat_session"] {
        assert!(names.iter().any(|name| name == known), "{known} is not among the names");
    }
    let leaks = "#ifndef H\n#define GUARD\n#include <stdint.h>\n#define MOST 4\n#define FIRST(x) x\ntypedef struct Tag Name;\n\
        typedef struct Body {\n    int a;\n} Body;\ntypedef int32_t number;\ntypedef int (*call_fn)(int a);\nint *get(void);\n";
    assert_eq!(
        without_prefix(leaks),
        ["GUARD", "MOST", "FIRST", "Tag", "Name", "Body", "Body", "number", "call_fn", "get"]
    );
}

/// What must stay as it is, each under a key: functions by their declaration, constants by their value, structs by the
/// size, the offsets and the types of their fields.
fn abi(header: &str) -> BTreeMap<String, String> {
    let mut abi = BTreeMap::new();
    let mut layout = String::from("#include \"carat.h\"\n#include <stdio.h>\nint main(void) {\n");
    for item in items(header) {
        let text = &item.text;
        if let Some(define) = text.strip_prefix("#define ") {
            let (name, value) = define.split_once(' ').unwrap();
            abi.insert(format!("constant {name}"), value.trim().into());
        } else if is_function(&item) {
            abi.insert(format!("function {}", function_name(text)), text.clone());
        } else if text.contains('{') {
            let name = text.strip_prefix("typedef struct ").unwrap().split(' ').next().unwrap();
            layout += &format!("printf(\"struct {name}|size at least %zu\\n\", sizeof({name}));\n");
            let body = &text[text.find('{').unwrap() + 1..text.rfind('}').unwrap()];
            for field in body.split(';').map(str::trim).filter(|f| !f.is_empty()) {
                let declared = field.split('[').next().unwrap();
                let own = declared.rsplit([' ', '*']).next().unwrap();
                layout += &format!(
                    "printf(\"field {name}.{own}|at %zu, %zu bytes: {field}\\n\", offsetof({name}, {own}), \
                     sizeof((({name} *)0)->{own}));\n"
                );
            }
        } else {
            let name = text.trim_end_matches(';').rsplit([' ', '*']).next().unwrap();
            let name = match text.split_once("(*") {
                Some((_, rest)) => rest.split(')').next().unwrap(),
                None => name,
            };
            abi.insert(format!("type {name}"), text.clone());
        }
    }
    layout += "return 0;\n}\n";
    for line in run_c(&layout).lines() {
        let (key, value) = line.split_once('|').unwrap();
        abi.insert(key.into(), value.into());
    }
    abi
}

/// What a C program prints.
fn run_c(source: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (c, exe) = (dir.path().join("layout.c"), dir.path().join("layout"));
    std::fs::write(&c, source).unwrap();
    let built = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(root().join("include"))
        .arg(&c)
        .arg("-o")
        .arg(&exe)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8(Command::new(&exe).output().unwrap().stdout).unwrap()
}

const SNAPSHOT: &str = "include/carat.abi";

fn read_snapshot(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines.map(|l| l.split_once(": ").unwrap()).map(|(k, v)| (k.into(), v.into())).collect()
}

/// What of the snapshot is no longer so. A struct may grow at its end.
fn broken(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let size = |s: &String| s.strip_prefix("size at least ").and_then(|n| n.parse::<usize>().ok());
    old.iter()
        .filter(|(key, was)| match new.get(*key) {
            None => true,
            Some(is) => match (size(was), size(is)) {
                (Some(was), Some(is)) => is < was,
                // The number of the ABI itself only rises.
                _ if *key == "constant CARAT_ABI_VERSION" => {
                    is.parse::<u32>().unwrap() < was.parse().unwrap()
                }
                _ => is != *was,
            },
        })
        .map(|(key, was)| format!("{key}: was {was}, is {}", new.get(key).map_or("gone", |s| s)))
        .collect()
}

/// Layouts are those of 64-bit systems.
#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn nothing_that_was_published_changes() {
    let path = root().join(SNAPSHOT);
    let (old, new) = (read_snapshot(&path), abi(generate()));
    let broken = broken(&old, &new);
    assert!(broken.is_empty(), "programs compiled earlier would break:\n{}", broken.join("\n"));
    if bless() {
        let mut text = String::from(
            "# What include/carat.h has promised to programs that are compiled: nothing here may change or go.\n\
             # Layouts are those of 64-bit systems. `make header` adds what is new.\n",
        );
        for (key, value) in &new {
            text += &format!("{key}: {value}\n");
        }
        std::fs::write(&path, text).unwrap();
    }
    assert!(read_snapshot(&path) == new, "{SNAPSHOT} lacks what is new: run `make header`");
}

#[test]
fn the_check_of_the_snapshot_sees_what_breaks() {
    let map = |items: &[(&str, &str)]| -> BTreeMap<String, String> {
        items.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    };
    let old = map(&[("function f", "int f(void);"), ("struct s", "size at least 16"), ("field s.a", "at 0")]);
    let mut grown = old.clone();
    grown.insert("function g".into(), "int g(void);".into());
    grown.insert("struct s".into(), "size at least 24".into());
    assert!(broken(&old, &grown).is_empty());
    for (key, value) in
        [("function f", "int f(int);"), ("struct s", "size at least 8"), ("field s.a", "at 4")]
    {
        let mut new = grown.clone();
        new.insert(key.into(), value.into());
        assert_eq!(broken(&old, &new).len(), 1, "{key} changed");
        new.remove(key);
        assert_eq!(broken(&old, &new).len(), 1, "{key} went");
    }
}

#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn the_header_is_clean_in_c99_and_cpp17() {
    let dir = tempfile::tempdir().unwrap();
    let source = "#include \"carat.h\"\n#include \"carat.h\"\nint main(void) { return (int)sizeof(carat_piece) == 0; }\n";
    for (compiler, name, standard) in [("cc", "twice.c", "-std=c99"), ("c++", "twice.cpp", "-std=c++17")] {
        let path = dir.path().join(name);
        std::fs::write(&path, source).unwrap();
        let built = Command::new(compiler)
            .args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I"])
            .arg(root().join("include"))
            .arg(&path)
            .output()
            .unwrap();
        assert!(built.status.success(), "{compiler}: {}", String::from_utf8_lossy(&built.stderr));
    }
}
