//! The GGUF reader and writer: sound files.

use carat::gguf::{Builder, Gguf};
use carat::{CancelToken, DType, Storage};

#[test]
fn what_is_written_is_read() {
    let mut b = Builder::new();
    b.set("general.architecture", "gemma3").unwrap();
    b.set("n", 7u32).unwrap();
    b.set_array("scores", &[1.5f32, -2.0]).unwrap();
    b.set_strings("tokens", ["<pad>", "", "▁a"]).unwrap();
    b.tensor("a", DType::F32, &[3]).unwrap();
    b.tensor("b", DType::Q4_0, &[64, 2]).unwrap();
    let len = b.file_len();
    let mut w = b.write(Vec::new(), "test").unwrap();
    w.write(&[1; 12]).unwrap();
    w.write(&[2; 50]).unwrap();
    w.write(&[3; 22]).unwrap();
    let bytes = w.finish().unwrap();
    assert_eq!(bytes.len() as u64, len);
    let g = Gguf::from_parts(vec![Storage::from_bytes(bytes)], &CancelToken::new()).unwrap();
    assert_eq!(g.metadata().require::<&str>("general.architecture").unwrap(), "gemma3");
    assert_eq!(g.tensor("b").unwrap().data(), [[2; 50].as_slice(), &[3; 22]].concat());
}
