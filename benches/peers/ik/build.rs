//! Compiles the shim against ik_llama.cpp's header and links its static libraries. `IK_LLAMA_SOURCE` and
//! `IK_LLAMA_BUILD` say where they are; scripts/bench.py fetches and builds them.

fn main() {
    let source = std::env::var("IK_LLAMA_SOURCE").expect("IK_LLAMA_SOURCE: ik_llama.cpp's source");
    let build = std::env::var("IK_LLAMA_BUILD").expect("IK_LLAMA_BUILD: its build directory");
    cc::Build::new()
        .file("src/shim.c")
        .include(format!("{source}/include"))
        .include(format!("{source}/ggml/include"))
        .warnings(false)
        .compile("shim");
    for (library, directory) in [("llama", "src"), ("ggml", "ggml/src")] {
        println!("cargo:rustc-link-search=native={build}/{directory}");
        println!("cargo:rustc-link-lib=static={library}");
        println!("cargo:rerun-if-changed={build}/{directory}/lib{library}.a");
    }
    for library in ["stdc++", "gomp", "m"] {
        println!("cargo:rustc-link-lib={library}");
    }
    println!("cargo:rerun-if-changed=src/shim.c");
    println!("cargo:rerun-if-env-changed=IK_LLAMA_SOURCE");
    println!("cargo:rerun-if-env-changed=IK_LLAMA_BUILD");
}
