//! What tells one model from another: a saved session fits only the model that it was saved from.

use super::Inner;
use crate::Result;
use crate::xxh64::Xxh64;

/// Bytes looked at in the beginning, the middle and the end of each tensor.
const SAMPLE: usize = 64;

impl Inner {
    /// A hash of what the computation depends on: the keys of the architecture, and each tensor's name, type, shape
    /// and a few of its bytes. The order and the place of things in the file do not count, nor does its name.
    ///
    /// Touches a page or three of each tensor when first asked.
    pub(crate) fn fingerprint(&self) -> Result<u64> {
        if let Some(&known) = self.fingerprint.get() {
            return Ok(known);
        }
        self.gguf.check_unchanged()?;
        let prefix = format!("{}.", self.config.arch.name());
        let mut sum = Xxh64::of(prefix.as_bytes());
        for (key, value) in self.gguf.metadata().iter().filter(|(key, _)| key.starts_with(&prefix)) {
            // Sums do not depend on the order.
            sum = sum.wrapping_add(Xxh64::of(format!("{key}={value}").as_bytes()));
        }
        for t in self.gguf.tensors() {
            let mut h = Xxh64::new();
            h.update(format!("{} {} {:?}", t.name(), t.dtype(), t.dims()).as_bytes());
            let data = t.data();
            let n = SAMPLE.min(data.len());
            for start in [0, (data.len() - n) / 2, data.len() - n] {
                h.update(&data[start..start + n]);
            }
            sum = sum.wrapping_add(h.finish());
        }
        Ok(*self.fingerprint.get_or_init(|| sum))
    }
}
