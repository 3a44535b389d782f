//! Saying what a file is that is not GGUF: the usual mistakes, recognised by their first bytes.

/// What `bytes`, the whole of a file that does not begin with GGUF's magic, looks like.
pub(super) fn looks_like(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(256)];
    let text = head.trim_ascii_start();
    let starts = |prefix: &str| {
        text.len() >= prefix.len() && text[..prefix.len()].eq_ignore_ascii_case(prefix.as_bytes())
    };
    let known = match head {
        [] => Some("an empty file"),
        [b'F', b'U', b'G', b'G', ..] => Some("a GGUF file with its bytes swapped"),
        [b'P', b'K', 3, 4, ..] => Some("a zip archive (such as a PyTorch checkpoint)"),
        [0x1f, 0x8b, ..] => Some("a gzip archive"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("a zstd archive"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("an xz archive"),
        [0x80, 2..=5, ..] => Some("a Python pickle (such as an old PyTorch checkpoint)"),
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => Some("a TensorFlow Lite model"),
        [b'l', b'm', b'g', b'g', ..]
        | [b'f', b'm', b'g', b'g', ..]
        | [b't', b'j', b'g', b'g', ..]
        | [b'a', b'l', b'g', b'g', ..] => Some("a GGML file from before GGUF (convert the model again)"),
        _ if starts("version https://git-lfs") => {
            Some("a Git LFS pointer (the file itself was not downloaded)")
        }
        _ if starts("<!doctype") || starts("<html") || starts("<?xml") || starts("<head") => {
            Some("a web page (such as the error of a failed download)")
        }
        _ if is_safetensors(bytes) => Some("a safetensors file (convert it to GGUF)"),
        _ if starts("{") => Some("a JSON file"),
        [0x0a, ..] if bytes.windows(5).take(256).any(|w| w == b"<unk>" || w == b"<pad>") => {
            Some("a SentencePiece model (the tokenizer alone)")
        }
        _ if head.len() >= 4 && head.iter().all(|b| *b == 0) => {
            Some("zeros (such as an unfinished download)")
        }
        _ => None,
    };
    match known {
        Some(what) => what.into(),
        None => {
            let hex: Vec<String> = head.iter().take(4).map(|b| format!("{b:02x}")).collect();
            format!("bytes {}{}", hex.join(" "), if head.len() < 4 { " and the end of the file" } else { "" })
        }
    }
}

/// A length in 8 bytes, then as many of JSON.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((len, rest)) = bytes.split_first_chunk() else { return false };
    rest.first() == Some(&b'{') && u64::from_le_bytes(*len) < 1 << 30
}
