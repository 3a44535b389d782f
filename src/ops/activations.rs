//! The inputs of matrix products: rows quantized once for each group of matrices, or kept in f32 for float weights.

use std::ops::Range;

use super::Arithmetic;
use crate::Result;
use crate::kernels::{Acts, ActsMut, Aligned, BLOCK, Kernels, MAX_STEP_ROWS};
use crate::parallel::SharedMut;

/// What the matrices that read a buffer need of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Needs {
    /// Quantized rows.
    pub quantized: bool,
    /// f32 rows.
    pub float: bool,
}

/// Room for `rows` rows of `k` values as inputs of a matrix product.
pub(crate) struct Activations {
    k: usize,
    needs: Needs,
    h: Aligned<i8>,
    l: Aligned<i8>,
    scale: Aligned<f32>,
    sum_h: Aligned<i16>,
    sum16: Aligned<f32>,
    sum32: Aligned<f32>,
    x: Aligned<f32>,
}

impl Activations {
    /// Room for `rows` rows of `k` values.
    pub(crate) fn new(rows: usize, k: usize, needs: Needs) -> Result<Self> {
        let what = "activations";
        let n = if needs.quantized { rows * k } else { 0 };
        let l = if needs.quantized { rows.min(MAX_STEP_ROWS) * k } else { 0 };
        Ok(Self {
            k,
            needs,
            h: Aligned::zeroed(n, what)?,
            l: Aligned::zeroed(l, what)?,
            scale: Aligned::zeroed(n / 32, what)?,
            sum_h: Aligned::zeroed(n / 16, what)?,
            sum16: Aligned::zeroed(n / 16, what)?,
            sum32: Aligned::zeroed(n / 32, what)?,
            x: Aligned::zeroed(if needs.float { rows * k } else { 0 }, what)?,
        })
    }

    /// Bytes that `new` takes.
    pub(crate) fn bytes(rows: usize, k: usize, needs: Needs) -> usize {
        let n = if needs.quantized { rows * k } else { 0 };
        let l = if needs.quantized { rows.min(MAX_STEP_ROWS) * k } else { 0 };
        let x = if needs.float { rows * k } else { 0 };
        Aligned::<i8>::bytes(n)
            + Aligned::<i8>::bytes(l)
            + 2 * Aligned::<f32>::bytes(n / 32)
            + Aligned::<i16>::bytes(n / 16)
            + Aligned::<f32>::bytes(n / 16)
            + Aligned::<f32>::bytes(x)
    }

    /// Shares it for a pass.
    pub(crate) fn share(&mut self) -> SharedActivations<'_> {
        SharedActivations {
            k: self.k,
            needs: self.needs,
            h: SharedMut::new(&mut self.h),
            l: SharedMut::new(&mut self.l),
            scale: SharedMut::new(&mut self.scale),
            sum_h: SharedMut::new(&mut self.sum_h),
            sum16: SharedMut::new(&mut self.sum16),
            sum32: SharedMut::new(&mut self.sum32),
            x: SharedMut::new(&mut self.x),
        }
    }
}

/// [`Activations`] during a pass.
#[derive(Clone, Copy)]
pub(crate) struct SharedActivations<'a> {
    k: usize,
    needs: Needs,
    h: SharedMut<'a, i8>,
    l: SharedMut<'a, i8>,
    scale: SharedMut<'a, f32>,
    sum_h: SharedMut<'a, i16>,
    sum16: SharedMut<'a, f32>,
    sum32: SharedMut<'a, f32>,
    x: SharedMut<'a, f32>,
}

/// Rows to multiply with.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// Rows.
    pub rows: usize,
    /// Quantized, if some matrix needs it.
    pub acts: Option<Acts<'a>>,
    /// f32 [rows, k], if some matrix needs it.
    pub x: Option<&'a [f32]>,
}

impl<'a> SharedActivations<'a> {
    /// Stores `values` as columns `at..` of row `t`; `at` and the length are multiples of 32.
    ///
    /// # Safety
    /// Nobody else touches these columns of the row meanwhile.
    pub(crate) unsafe fn store(&self, k: &Kernels, a: Arithmetic, t: usize, at: usize, values: &[f32]) {
        debug_assert!(at.is_multiple_of(BLOCK) && at + values.len() <= self.k);
        let span = |unit: usize| -> Range<usize> {
            let start = (t * self.k + at) / unit;
            start..start + values.len() / unit
        };
        if self.needs.quantized {
            // SAFETY: the caller's promise, block by block: columns at.. begin at a block.
            let mut out = unsafe {
                ActsMut {
                    h: self.h.get_mut(span(1)),
                    l: if a == Arithmetic::Step { self.l.get_mut(span(1)) } else { &mut [] },
                    scale: self.scale.get_mut(span(32)),
                    sum_h: self.sum_h.get_mut(span(16)),
                    sum16: self.sum16.get_mut(span(16)),
                    sum32: self.sum32.get_mut(span(32)),
                }
            };
            k.quantize(values, &mut out);
        }
        if self.needs.float {
            // SAFETY: the caller's promise.
            unsafe { self.x.get_mut(span(1)) }.copy_from_slice(values);
        }
    }

    /// Rows `rows`, to multiply with.
    ///
    /// # Safety
    /// Nobody writes them meanwhile: they were stored before the last barrier, with the same arithmetic.
    pub(crate) unsafe fn inputs(&self, a: Arithmetic, rows: Range<usize>) -> Inputs<'a> {
        let n = rows.len();
        let span = |unit: usize| rows.start * self.k / unit..rows.end * self.k / unit;
        // SAFETY: the caller's promise.
        unsafe {
            Inputs {
                rows: n,
                acts: self.needs.quantized.then(|| Acts {
                    rows: n,
                    k: self.k,
                    h: self.h.get(span(1)),
                    l: if a == Arithmetic::Step { self.l.get(span(1)) } else { &[] },
                    scale: self.scale.get(span(32)),
                    sum_h: self.sum_h.get(span(16)),
                    sum16: self.sum16.get(span(16)),
                    sum32: self.sum32.get(span(32)),
                }),
                x: self.needs.float.then(|| self.x.get(span(1))),
            }
        }
    }
}
