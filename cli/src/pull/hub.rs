//! Files of the Hugging Face hub, through hf-hub: its cache (`HF_HOME`), its address (`HF_ENDPOINT`), and the
//! user's token (`HF_TOKEN`, or the one that the hub's own tools have stored).

use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use hf_hub::Cache;
use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Result};
use crate::output;

/// `OWNER/REPO[:FILE]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    repo: String,
    file: Option<String>,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (repo, file) = match text.split_once(':') {
            Some((repo, file)) => (repo, Some(file)),
            None => (text, None),
        };
        let sound = |name: &str| {
            !name.is_empty()
                && !name.starts_with('.')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        match repo.split_once('/') {
            Some((owner, name)) if sound(owner) && sound(name) && file != Some("") => {
                Ok(Source { repo: repo.into(), file: file.map(Into::into) })
            }
            _ => Err("expected OWNER/REPO or OWNER/REPO:FILE".into()),
        }
    }
}

/// Fetches what is not in the hub's cache yet and checks it; of a split model, every part. The path of the (first)
/// file.
pub fn fetch(source: &Source) -> Result<PathBuf> {
    let mut builder = ApiBuilder::from_env().with_progress(false).with_retries(3);
    if let Ok(token) = std::env::var("HF_TOKEN")
        && !token.trim().is_empty()
    {
        builder = builder.with_token(Some(token.trim().to_string()));
    }
    let api = builder.build().map_err(|e| told(source, &e))?;
    let repo = api.model(source.repo.clone());
    let cached = Cache::from_env().model(source.repo.clone());
    if let Some(file) = &source.file
        && let Some(parts) = parts_of(file).iter().map(|p| cached.get(p)).collect::<Option<Vec<_>>>()
    {
        return Ok(parts[0].clone());
    }
    let listed = repo.info().map_err(|e| told(source, &e))?;
    let listed: Vec<String> = listed.siblings.into_iter().map(|s| s.rfilename).collect();
    let file = choose(source, &listed)?;
    eprintln!("carat: fetching {file} of {}", source.repo);
    if source.repo.to_ascii_lowercase().contains("gemma") {
        eprintln!(
            "carat: Gemma is provided under and subject to the Gemma Terms of Use: ai.google.dev/gemma/terms"
        );
    }
    let mut first = None;
    for part in parts_of(&file) {
        let path = match cached.get(&part) {
            Some(path) => path,
            None => download(&repo, source, &part)?,
        };
        first.get_or_insert(path);
    }
    first.ok_or_else(|| Failure::Runtime(format!("{}: nothing to fetch", source.repo)))
}

/// The file that is meant.
fn choose(source: &Source, listed: &[String]) -> Result<String> {
    let models: Vec<&String> = listed
        .iter()
        // Paths come from the server and go into the file system. Of a split model the first part stands for all.
        .filter(|f| Path::new(f).components().all(|c| matches!(c, Component::Normal(_))))
        .filter(|f| f.ends_with(".gguf") && split_part(f).is_none_or(|(_, part, _)| part == 1))
        .collect();
    let several = |found: &[&String]| {
        let names = found.iter().map(|f| format!("\n  {}:{f}", source.repo)).collect::<String>();
        Failure::Usage(format!("{} has several models, name one:{names}", source.repo))
    };
    let Some(wanted) = &source.file else {
        return match models[..] {
            [] => Err(Failure::Usage(format!("{} has no GGUF file", source.repo))),
            [only] => Ok(only.clone()),
            _ => Err(several(&models)),
        };
    };
    if let Some(exact) = models.iter().find(|f| f.as_str() == wanted) {
        return Ok(exact.to_string());
    }
    let lower = wanted.to_ascii_lowercase();
    let matching: Vec<&String> =
        models.iter().copied().filter(|f| f.to_ascii_lowercase().contains(&lower)).collect();
    match matching[..] {
        [] => {
            let names = models.iter().map(|f| format!("\n  {}:{f}", source.repo)).collect::<String>();
            Err(Failure::Usage(format!("{} has no GGUF file {wanted:?}; there are:{names}", source.repo)))
        }
        [only] => Ok(only.clone()),
        _ => Err(several(&matching)),
    }
}

/// `name-00002-of-00003.gguf`: the name, 2, and 3.
fn split_part(file: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = file.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (name, part) = rest.rsplit_once('-')?;
    let number = |digits: &str| (digits.len() == 5).then(|| digits.parse().ok()).flatten();
    Some((name, number(part)?, number(count)?))
}

/// All the files that a model consists of, the first one first.
fn parts_of(file: &str) -> Vec<String> {
    match split_part(file) {
        Some((name, 1, count)) => (1..=count).map(|i| format!("{name}-{i:05}-of-{count:05}.gguf")).collect(),
        _ => vec![file.to_string()],
    }
}

fn download(repo: &ApiRepo, source: &Source, file: &str) -> Result<PathBuf> {
    let bar = Bar(output::bytes_bar(0, file));
    let path = repo.download_with_progress(file, bar).map_err(|e| told(source, &e))?;
    verify(&path)?;
    Ok(path)
}

/// The hub names large files by their SHA-256, and so does its cache: hf-hub itself does not look.
fn verify(path: &Path) -> Result {
    let blob = fs::canonicalize(path).map_err(|e| Failure::file(path, "find", e))?;
    let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.len() != 64 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    let mut file = File::open(&blob).map_err(|e| Failure::file(&blob, "open", e))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(|e| Failure::file(&blob, "read", e))? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let found: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if found == name.to_ascii_lowercase() {
        return Ok(());
    }
    // So that the next call fetches it again.
    let _ = fs::remove_file(path);
    let _ = fs::remove_file(&blob);
    Err(Failure::File(format!("{}: SHA-256 is {found}, the hub says {name}", path.display())))
}

/// hf-hub's word, and what to do about the usual ones.
fn told(source: &Source, error: &ApiError) -> Failure {
    let error = error.to_string();
    let hint = if error.contains("401") || error.contains("403") {
        " (it does not exist, or is gated: accept its terms on the hub's page and set HF_TOKEN)"
    } else if error.contains("404") {
        " (no such repository or file)"
    } else {
        ""
    };
    Failure::Runtime(format!("{}: {error}{hint}", source.repo))
}

/// hf-hub's progress on our bar.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn init(&mut self, size: usize, _: &str) {
        self.0.set_length(size as u64);
        self.0.set_position(0);
    }

    fn update(&mut self, size: usize) {
        self.0.inc(size as u64);
    }

    fn finish(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read() {
        let source =
            |repo: &str, file: Option<&str>| Source { repo: repo.into(), file: file.map(Into::into) };
        assert_eq!("a/b".parse(), Ok(source("a/b", None)));
        assert_eq!("a-1/b.c_d:Q4_0".parse(), Ok(source("a-1/b.c_d", Some("Q4_0"))));
        for bad in ["", "a", "/b", "a/", "a/b/c", "a/b:", "../b", "a/..", "a b/c"] {
            assert!(bad.parse::<Source>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn files_are_chosen() {
        let listed = ["README.md", "m-Q4_0.gguf", "m-Q8_0.gguf", "../m-Q5_0.gguf"].map(String::from);
        let choose = |source: &str, listed: &[String]| choose(&source.parse().unwrap(), listed);
        assert_eq!(choose("a/b:m-Q4_0.gguf", &listed).unwrap(), "m-Q4_0.gguf");
        assert_eq!(choose("a/b:q8_0", &listed).unwrap(), "m-Q8_0.gguf");
        for (source, says) in
            [("a/b", "several"), ("a/b:gguf", "several"), ("a/b:q5_0", "no GGUF file \"q5_0\"")]
        {
            assert!(choose(source, &listed).unwrap_err().to_string().contains(says), "{source}");
        }
        assert_eq!(choose("a/b", &listed[..2]).unwrap(), "m-Q4_0.gguf");
        assert!(choose("a/b", &listed[..1]).unwrap_err().to_string().contains("no GGUF"));

        let split = [2, 1, 3].map(|i| format!("d/m-{i:05}-of-00003.gguf"));
        let first = choose("a/b", &split).unwrap();
        assert_eq!(first, split[1]);
        assert_eq!(parts_of(&first), [&split[1], &split[0], &split[2]].map(String::from));
    }
}
