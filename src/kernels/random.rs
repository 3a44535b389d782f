//! Test data: numbers that look random, the same in every run.

/// A xorshift generator; the seed must not be 0.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// In −1..1.
    pub(super) fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// In −by..by.
    pub(super) fn next(&mut self, by: f32) -> f32 {
        self.float() * by
    }

    /// `len` of them.
    pub(super) fn vec(&mut self, len: usize, by: f32) -> Vec<f32> {
        (0..len).map(|_| self.next(by)).collect()
    }

    /// In 0..n.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 33) as usize % n
    }
}
