//! ggml's quantized formats: their blocks, bit for bit, and scalar code to quantize and dequantize them.
//!
//! A format is a struct that lies over the bytes of one block, at any alignment, and says what its integers and
//! scales are ([`Block::unpack`]). That is the one description from which values are made ([`dequantize`]) and
//! against which the kernels are tested. Any bytes are a valid block.

mod fit;
mod iq4;
mod k;
mod legacy;

use crate::kernels::{Grouping, Unpacked};
use crate::{DType, Error, Result};

/// Values in a sub-block, the unit of [`Unpacked`].
const SUB: usize = crate::kernels::BLOCK;

/// One block of a format, as it lies in the file.
///
/// # Safety
/// `#[repr(C)]`, of alignment 1, without padding, of `TYPE.block_bytes()` bytes, and with every bit pattern valid.
unsafe trait Block: Sized {
    /// The type that is made of these blocks.
    const TYPE: DType;

    /// The layout that [`cast`] relies on, checked when it is compiled.
    const LAYOUT: () = {
        assert!(align_of::<Self>() == 1 && size_of::<Self>() == Self::TYPE.block_bytes());
        assert!(Self::TYPE.block_len().is_multiple_of(SUB));
    };

    /// Values `SUB · sub ..` of the block.
    fn unpack(&self, sub: usize) -> Unpacked;

    /// The block for `TYPE.block_len()` values.
    fn quantize(x: &[f32]) -> Self;
}

/// The whole blocks that `bytes` holds.
fn cast<B: Block>(bytes: &[u8]) -> &[B] {
    const { B::LAYOUT };
    // SAFETY: the length is rounded down to whole blocks of B, which has alignment 1, no padding and no invalid bit
    // patterns (the contract of Block, its layout checked above); the lifetime is that of `bytes`.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<B>()) }
}

/// As [`cast`].
fn cast_mut<B: Block>(bytes: &mut [u8]) -> &mut [B] {
    const { B::LAYOUT };
    // SAFETY: as in cast(), with `bytes` borrowed mutably; what is written to a B is initialized bytes.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<B>()) }
}

/// The values of a block of 32.
fn sub(x: &[f32]) -> &[f32; SUB] {
    x.first_chunk().expect("quantize gives whole blocks")
}

/// A half-precision number at any alignment.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct F16([u8; 2]);

impl F16 {
    fn new(x: f32) -> F16 {
        F16(half::f16::from_f32(x).to_le_bytes())
    }

    fn get(self) -> f32 {
        half::f16::from_le_bytes(self.0).to_f32()
    }
}

/// Calls `$f::<B>($args)` with the block of the quantized type `$ty`.
macro_rules! with_block {
    ($ty:expr, $f:ident ( $($arg:expr),* )) => {
        match $ty {
            DType::Q4_0 => $f::<legacy::Q4_0>($($arg),*),
            DType::Q4_1 => $f::<legacy::Q4_1>($($arg),*),
            DType::Q5_0 => $f::<legacy::Q5_0>($($arg),*),
            DType::Q5_1 => $f::<legacy::Q5_1>($($arg),*),
            DType::Q8_0 => $f::<legacy::Q8_0>($($arg),*),
            DType::Q2_K => $f::<k::Q2_K>($($arg),*),
            DType::Q3_K => $f::<k::Q3_K>($($arg),*),
            DType::Q4_K => $f::<k::Q4_K>($($arg),*),
            DType::Q5_K => $f::<k::Q5_K>($($arg),*),
            DType::Q6_K => $f::<k::Q6_K>($($arg),*),
            DType::IQ4_NL => $f::<iq4::IQ4_NL>($($arg),*),
            DType::IQ4_XS => $f::<iq4::IQ4_XS>($($arg),*),
            DType::F32 | DType::F16 | DType::BF16 => unreachable!("{} has no blocks", $ty),
        }
    };
}

/// Block number `block` (of 32 values) of a row of the quantized type `ty`, as integers.
///
/// # Panics
/// For the float types, and when the row ends before the block does.
pub(crate) fn unpack(ty: DType, row: &[u8], block: usize) -> Unpacked {
    fn of<B: Block>(row: &[u8], block: usize) -> Unpacked {
        let subs = B::TYPE.block_len() / SUB;
        cast::<B>(row)[block / subs].unpack(block % subs)
    }
    with_block!(ty, of(row, block))
}

/// The values of `bytes`, whole blocks of any type, to `out`: bit for bit what ggml gives.
///
/// # Panics
/// When `bytes` is not as long as `out.len()` values of `ty` are.
pub(crate) fn dequantize(ty: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(ty.row_bytes(out.len()), Some(bytes.len()), "bytes of {} values of {ty}", out.len());
    fn of<B: Block>(bytes: &[u8], out: &mut [f32]) {
        let g = const { Grouping::of(B::TYPE) };
        for (block, out) in cast::<B>(bytes).iter().zip(out.chunks_exact_mut(B::TYPE.block_len())) {
            for (sub, out) in out.as_chunks_mut::<SUB>().0.iter_mut().enumerate() {
                let u = block.unpack(sub);
                // Scale · integer is exact in f32 (Q6_K's is rounded once), so that the order of ggml's own
                // formulas, and whether a compiler fuses them, make no difference.
                for (i, out) in out.iter_mut().enumerate() {
                    *out = u.scale[i / 16] * (u.q[i] as i32 - g.offset) as f32;
                    if g.mins {
                        *out -= u.min[i / 16];
                    }
                }
            }
        }
    }
    match ty {
        DType::F32 => {
            for (b, out) in bytes.as_chunks().0.iter().zip(out) {
                *out = f32::from_le_bytes(*b);
            }
        }
        DType::F16 => {
            for (b, out) in bytes.as_chunks().0.iter().zip(out) {
                *out = half::f16::from_le_bytes(*b).to_f32();
            }
        }
        DType::BF16 => {
            for (b, out) in bytes.as_chunks().0.iter().zip(out) {
                *out = f32::from_bits((u16::from_le_bytes(*b) as u32) << 16);
            }
        }
        _ => with_block!(ty, of(bytes, out)),
    }
}

impl DType {
    /// Quantizes `values` to `bytes`, whole blocks of this type.
    ///
    /// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and the float types are rounded as ggml rounds, bit for bit. For the others scales are
    /// fitted by plain least squares: blocks of the same quality, but not the same bits. Values that are not finite,
    /// or beyond the range of f16, give blocks of no use.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when `bytes` is not as long as `values.len()` values of this type are.
    pub fn quantize(self, values: &[f32], bytes: &mut [u8]) -> Result<()> {
        self.check_lengths(bytes.len(), values.len())?;
        fn of<B: Block>(values: &[f32], bytes: &mut [u8]) {
            for (block, x) in cast_mut::<B>(bytes).iter_mut().zip(values.chunks_exact(B::TYPE.block_len())) {
                *block = B::quantize(x);
            }
        }
        match self {
            DType::F32 => {
                for (b, x) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                    *b = x.to_le_bytes();
                }
            }
            DType::F16 => {
                for (b, x) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                    *b = half::f16::from_f32(*x).to_le_bytes();
                }
            }
            DType::BF16 => {
                for (b, x) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                    *b = half::bf16::from_f32(*x).to_le_bytes();
                }
            }
            _ => with_block!(self, of(values, bytes)),
        }
        Ok(())
    }

    /// Dequantizes `bytes`, whole blocks of this type, to `out`: bit for bit the values that ggml gives.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when `bytes` is not as long as `out.len()` values of this type are.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        self.check_lengths(bytes.len(), out.len())?;
        dequantize(self, bytes, out);
        Ok(())
    }

    fn check_lengths(self, bytes: usize, values: usize) -> Result<()> {
        match self.row_bytes(values) {
            Some(n) if n == bytes => Ok(()),
            Some(n) => Err(Error::InvalidOption {
                option: "bytes",
                expected: format!("{n} bytes for {values} values of {self}"),
                found: format!("{bytes}"),
            }),
            None => Err(Error::InvalidOption {
                option: "values",
                expected: format!("a multiple of {}, the block of {self}", self.block_len()),
                found: format!("{values}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
