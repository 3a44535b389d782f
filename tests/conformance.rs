//! The suite of tests/conformance over the Rust API; its README.md says what each kind of case means. Other tests here
//! hold the suite itself to the golden data: see conformance/golden.rs.

mod common;
#[path = "conformance/golden.rs"]
mod golden;
#[path = "conformance/runner.rs"]
mod runner;

use std::fmt::Write;
use std::fs;

use runner::{Runner, cases};

#[test]
fn every_case() {
    let mut runner = Runner::new();
    let (mut report, mut failed) = (String::new(), 0);
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        if let Some(why) = case["not_in"]["rust"].as_str() {
            writeln!(report, "n/a {name}: {why}").unwrap();
            continue;
        }
        // Without the real model the case is left out, and lacks in the report.
        let Some(result) = runner.run(&case) else { continue };
        match result {
            Ok(()) => writeln!(report, "pass {name}").unwrap(),
            Err(why) => {
                failed += 1;
                writeln!(report, "FAIL {name}: {}", why.replace('\n', " ")).unwrap();
                eprintln!("{name}: {why}");
            }
        }
    }
    if let Some(path) = std::env::var_os("CARAT_CONFORMANCE_REPORT") {
        fs::write(path, &report).unwrap();
    }
    assert!(report.lines().count() > 150);
    assert_eq!(failed, 0, "cases failed");
}
