//! `carat pull OWNER/REPO`, against a server on this machine.

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

use common::{assert_fails, carat};
use sha2::{Digest, Sha256};

const TOKEN: &str = "hf_secret";

/// As much of the hub as is needed: the list of a repository's files, and ranges of them.
struct Hub {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Repository {
    files: HashMap<String, Vec<u8>>,
    /// Whether files are handed out to those with the token only.
    gated: bool,
    /// Whether what is sent differs from what was promised.
    broken: bool,
}

impl Hub {
    fn serve(repository: Repository) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (repository, log) = (repository.clone(), log.clone());
                std::thread::spawn(move || answer(stream, &repository, &log));
            }
        });
        Hub { address, requests }
    }

    fn pull(&self, home: &Path, source: &str, token: Option<&str>) -> Output {
        let mut c = carat();
        c.arg("pull").arg(source).env("HF_ENDPOINT", &self.address).env("HF_HOME", home);
        if let Some(token) = token {
            c.env("HF_TOKEN", token);
        }
        // No proxy stands between this machine and itself.
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            c.env_remove(name);
        }
        c.output().unwrap()
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, repository: &Repository, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    // The connection is kept until the client has enough.
    while let Some(Ok(request)) = lines.next() {
        let mut headers = HashMap::new();
        for line in lines.by_ref() {
            let line = line.unwrap_or_default();
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
        }
        let path = request.split(' ').nth(1).unwrap_or_default().to_string();
        log.lock().unwrap().push(path.clone());
        let allowed = headers.get("authorization").is_some_and(|a| a == &format!("Bearer {TOKEN}"));
        let response = if repository.gated && !allowed {
            respond("401 Unauthorized", "", b"")
        } else if path.starts_with("/api/models/some/gemma") {
            let files: Vec<_> =
                repository.files.keys().map(|f| serde_json::json!({"rfilename": f})).collect();
            let body = serde_json::json!({"sha": "c0ffee", "siblings": files}).to_string();
            respond("200 OK", "Content-Type: application/json\r\n", body.as_bytes())
        } else if let Some(bytes) =
            path.strip_prefix("/some/gemma/resolve/main/").and_then(|f| repository.files.get(f))
        {
            let range = headers.get("range").and_then(|r| r.strip_prefix("bytes=")).unwrap_or("0-");
            let (first, last) = range.split_once('-').unwrap();
            let first: usize = first.parse().unwrap();
            let last = last.parse().unwrap_or(bytes.len() - 1);
            let hash: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
            let mut body = bytes[first..=last].to_vec();
            if repository.broken {
                body[0] ^= 1;
            }
            let more = format!(
                "ETag: \"x\"\r\nX-Linked-Etag: \"{hash}\"\r\nX-Repo-Commit: c0ffee\r\n\
                 Content-Range: bytes {first}-{last}/{}\r\n",
                bytes.len()
            );
            respond("206 Partial Content", &more, &body)
        } else {
            respond("404 Not Found", "", b"")
        };
        if stream.write_all(&response).is_err() {
            return;
        }
    }
}

fn respond(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn repository(names: &[&str]) -> Repository {
    let mut files = HashMap::new();
    for (i, name) in names.iter().enumerate() {
        files.insert(name.to_string(), (0..300_000u32).map(|b| (b * 31 + i as u32) as u8).collect());
    }
    Repository { files, gated: false, broken: false }
}

/// The path printed, and the bytes there.
#[track_caller]
fn pulled(output: Output) -> (String, Vec<u8>) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = String::from_utf8(output.stdout).unwrap().trim_end().to_string();
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

#[test]
fn a_file_is_fetched_once_into_the_hubs_cache() {
    let home = tempfile::tempdir().unwrap();
    let files = repository(&["README.md", "gemma-Q4_0.gguf", "gemma-Q8_0.gguf"]);
    let hub = Hub::serve(files.clone());
    let output = hub.pull(home.path(), "some/gemma:q8_0", None);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Gemma Terms of Use"));
    let (path, bytes) = pulled(output);
    assert!(bytes == files.files["gemma-Q8_0.gguf"]);
    assert!(Path::new(&path).starts_with(home.path().join("hub")), "{path}");
    assert!(path.ends_with("gemma-Q8_0.gguf"), "{path}");
    assert!(hub.requests().iter().any(|r| r.ends_with("gemma-Q8_0.gguf")));

    // By its full name no question is asked any more, by a part of it only which one is meant.
    assert_eq!(pulled(hub.pull(home.path(), "some/gemma:gemma-Q8_0.gguf", None)).0, path);
    assert_eq!(hub.requests(), Vec::<String>::new());
    assert_eq!(pulled(hub.pull(home.path(), "some/gemma:q8_0", None)).0, path);
    assert!(!hub.requests().iter().any(|r| r.ends_with(".gguf")));
}

#[test]
fn what_is_meant_must_be_clear() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::serve(repository(&["gemma-Q4_0.gguf", "gemma-Q8_0.gguf"]));
    assert_fails(&hub.pull(home.path(), "some/gemma", None), 2, "some/gemma:gemma-Q4_0.gguf");
    assert_fails(&hub.pull(home.path(), "some/gemma:Q5_K", None), 2, "no GGUF file \"Q5_K\"");
    assert_fails(&hub.pull(home.path(), "other/model", None), 1, "no such repository");
}

#[test]
fn all_parts_of_a_split_model_are_fetched() {
    let home = tempfile::tempdir().unwrap();
    let names = ["g-00001-of-00003.gguf", "g-00002-of-00003.gguf", "g-00003-of-00003.gguf"];
    let files = repository(&names);
    let hub = Hub::serve(files.clone());
    let (path, _) = pulled(hub.pull(home.path(), "some/gemma", None));
    assert!(path.ends_with(names[0]), "{path}");
    for name in names {
        assert!(std::fs::read(Path::new(&path).with_file_name(name)).unwrap() == files.files[name]);
    }
}

#[test]
fn gated_models_need_the_token() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::serve(Repository { gated: true, ..repository(&["gemma.gguf"]) });
    assert_fails(&hub.pull(home.path(), "some/gemma", None), 1, "HF_TOKEN");
    assert_fails(&hub.pull(home.path(), "some/gemma", Some("hf_wrong")), 1, "HF_TOKEN");
    pulled(hub.pull(home.path(), "some/gemma", Some(TOKEN)));
}

#[test]
fn an_interrupted_download_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let files = repository(&["gemma.gguf"]);
    let bytes = &files.files["gemma.gguf"];
    let hash: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    let blobs = home.path().join("hub/models--some--gemma/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{hash}.part")), &bytes[..1000]).unwrap();
    let hub = Hub::serve(files.clone());
    let (_, found) = pulled(hub.pull(home.path(), "some/gemma", None));
    assert!(&found == bytes);
}

#[test]
fn other_bytes_than_promised_are_refused_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let files = repository(&["gemma.gguf"]);
    let hub = Hub::serve(Repository { broken: true, ..files.clone() });
    assert_fails(&hub.pull(home.path(), "some/gemma", None), 3, "SHA-256");
    let hub = Hub::serve(files.clone());
    let (_, found) = pulled(hub.pull(home.path(), "some/gemma", None));
    assert!(found == files.files["gemma.gguf"]);
}
