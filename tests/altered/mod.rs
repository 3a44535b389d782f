//! Copies of the tiny models with some keys and tensors changed.
#![allow(dead_code)] // each test takes what it needs

use std::path::{Path, PathBuf};

use carat::gguf::{Builder, Gguf, Value};
use carat::{DType, Model, Result, Storage};

pub const TINY: [&str; 4] = ["tiny-gemma-mqa", "tiny-gemma-mha", "tiny-gemma2", "tiny-gemma3"];

pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A value for a key.
#[derive(Clone)]
pub enum New {
    One(Value<'static>),
    Bools(Vec<bool>),
    Numbers(Vec<u32>),
    Strings(Vec<&'static str>),
}

impl<T: Into<Value<'static>>> From<T> for New {
    fn from(value: T) -> New {
        New::One(value.into())
    }
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dtype: DType,
    /// Innermost first.
    pub dims: Vec<usize>,
    pub data: Vec<u8>,
}

impl Tensor {
    pub fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.dims.iter().product()];
        self.dtype.dequantize(&self.data, &mut values).unwrap();
        values
    }

    /// The same values as another type.
    pub fn convert(&mut self, dtype: DType) {
        let values = self.values();
        self.data = vec![0; dtype.row_bytes(values.len()).unwrap()];
        dtype.quantize(&values, &mut self.data).unwrap();
        self.dtype = dtype;
    }

    /// Whether it is a matrix, not a norm.
    pub fn is_matrix(&self) -> bool {
        self.dims.len() > 1
    }
}

/// A file to be.
pub struct Altered {
    source: Gguf,
    arch: String,
    /// Keys that are changed or left out.
    changes: Vec<(String, Option<New>)>,
    pub tensors: Vec<Tensor>,
}

impl Altered {
    pub fn tiny(name: &str) -> Altered {
        let source = Gguf::open(data(&format!("{name}.gguf"))).unwrap();
        let arch = source.metadata().require::<&str>("general.architecture").unwrap().to_owned();
        let tensors = source.tensors().iter().map(|t| Tensor {
            name: t.name().into(),
            dtype: t.dtype(),
            dims: t.dims().into(),
            data: t.data().into(),
        });
        let tensors = tensors.collect();
        Altered { source, arch, changes: Vec::new(), tensors }
    }

    /// A key, with the architecture before it where it has no other prefix.
    fn key(&self, key: &str) -> String {
        match ["general.", "tokenizer.", "split."].iter().any(|prefix| key.starts_with(prefix)) {
            true => key.to_owned(),
            false => format!("{}.{key}", self.arch),
        }
    }

    pub fn set(mut self, key: &str, value: impl Into<New>) -> Self {
        self.changes.push((self.key(key), Some(value.into())));
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.changes.push((self.key(key), None));
        self
    }

    pub fn without_tensor(mut self, name: &str) -> Self {
        let before = self.tensors.len();
        self.tensors.retain(|t| t.name != name);
        assert_eq!(self.tensors.len(), before - 1, "{name}");
        self
    }

    /// Changes a tensor.
    pub fn tensor(mut self, name: &str, change: impl FnOnce(&mut Tensor)) -> Self {
        change(self.tensors.iter_mut().find(|t| t.name == name).expect(name));
        self
    }

    /// Adds a tensor of zeros.
    pub fn add(mut self, name: &str, dtype: DType, dims: &[usize]) -> Self {
        let len = dtype.row_bytes(dims[0]).unwrap() * dims[1..].iter().product::<usize>();
        self.tensors.push(Tensor { name: name.into(), dtype, dims: dims.into(), data: vec![0; len] });
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut b = Builder::new();
        for (key, value) in self.source.metadata().iter() {
            if !self.changes.iter().any(|(changed, _)| changed == key) {
                b.set(key, value).unwrap();
            }
        }
        for (key, value) in &self.changes {
            match value {
                None => continue,
                Some(New::One(value)) => b.set(key, *value),
                Some(New::Bools(values)) => b.set_array(key, values),
                Some(New::Numbers(values)) => b.set_array(key, values),
                Some(New::Strings(values)) => b.set_strings(key, values),
            }
            .unwrap();
        }
        for t in &self.tensors {
            b.tensor(&t.name, t.dtype, &t.dims).unwrap();
        }
        let mut w = b.write(Vec::new(), "altered").unwrap();
        for t in &self.tensors {
            w.write(&t.data).unwrap();
        }
        w.finish().unwrap()
    }

    /// Opens it from memory, on one thread; messages call it bad.gguf.
    pub fn open(&self) -> Result<Model> {
        open_bytes(self.bytes())
    }
}

pub fn open_bytes(bytes: Vec<u8>) -> Result<Model> {
    Model::builder().threads(1).open_storage(vec![Storage::from_bytes(bytes).with_name("bad.gguf")])
}
