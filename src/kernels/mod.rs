//! The inner loops, one set for each instruction set, chosen once by detection.
//!
//! Nothing outside this folder uses `core::arch`. A kernel knows nothing of models: it sees weight rows as they
//! lie in the file, activations in the one quantized format ([`Acts`]), and f32 buffers. [`Kernels`] is the only
//! way in: its methods check every length, so that the loops behind them may rely on it. The scalar set is always
//! there and is the oracle that the others are tested against.
//!
//! # The two matrix products over quantized weights
//!
//! *Step* ([`Kernels::gemv`], 1 to [`MAX_STEP_ROWS`] activation rows): weight rows are streamed once and unpacked in
//! registers; both planes of the activations are used (16-bit arithmetic).
//!
//! *Prefill* ([`Kernels::unpack_panel`], then [`Kernels::gemm_panel`]): [`PANEL`] weight rows are unpacked once into
//! a [`Panel`] laid out for the dot instruction, and multiplied with every row of the batch; plane `h` alone is used
//! (8-bit arithmetic).
//!
//! In both, products are summed in i32 within a group of 16 or 32 values and in f32 across groups, in order of K,
//! by the same operations whatever the number of rows: an output never depends on its batch-mates.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod elementwise;
#[cfg(all(test, unix))]
mod fence_tests;
mod float;
#[cfg(test)]
mod float_tests;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod probe;
#[cfg(test)]
mod random;
mod scalar;
mod simd;
#[cfg(target_arch = "aarch64")]
mod simd_neon;
#[cfg(target_arch = "x86_64")]
mod simd_x86;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
use std::ops::Range;

pub use float::KvRows;

use crate::DType;

/// Values in a block of quantized activations: they share one scale.
pub const BLOCK: usize = 32;
/// Weight rows in a panel.
pub const PANEL: usize = 32;
/// Activation rows that one step may have (one token, or a batch of drafts to verify).
pub(crate) const MAX_STEP_ROWS: usize = 16;
/// Most blocks of K that a [`Panel`] holds at a time (a slab): 64 blocks are 2048 values and keep it within L2.
pub const SLAB: usize = 64;

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, on every processor.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL, DQ, VBMI and VNNI.
    Avx512Vnni,
    /// 64-bit ARM.
    Neon,
    /// 64-bit ARM with the dot product of bytes (`sdot`).
    NeonDotprod,
    /// 64-bit ARM with the matrix product of bytes (`smmla`) too.
    NeonI8mm,
}

impl Isa {
    /// Every instruction set; of one architecture, the best last.
    pub const ALL: [Isa; 6] =
        [Isa::Scalar, Isa::Avx2, Isa::Avx512Vnni, Isa::Neon, Isa::NeonDotprod, Isa::NeonI8mm];

    /// Its name, as options and environment variables spell it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512Vnni => "avx512_vnni",
            Isa::Neon => "neon",
            Isa::NeonDotprod => "neon_dotprod",
            Isa::NeonI8mm => "neon_i8mm",
        }
    }

    /// The instruction set of that name.
    pub fn from_name(name: &str) -> Option<Isa> {
        Self::ALL.into_iter().find(|i| i.name() == name)
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vbmi")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => Isa::Neon.is_available() && is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => Isa::NeonDotprod.is_available() && is_aarch64_feature_detected!("i8mm"),
            _ => false,
        }
    }

    /// The best that this processor has.
    pub fn detect() -> Isa {
        Self::ALL.into_iter().rev().find(|i| i.is_available()).unwrap_or(Isa::Scalar)
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How a quantized type's values come out of unpacking: `w = scale · (q − offset) − min`, with one `scale` (and
/// `min`) for each group of 16 or 32 values and `q` an unsigned byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grouping {
    /// Values that share a scale: 16 or 32.
    pub group: usize,
    /// Subtracted from every `q`.
    pub offset: i32,
    /// Whether groups have a `min`.
    pub mins: bool,
    /// The largest `q`.
    pub max: u8,
}

impl Grouping {
    /// That of a quantized type.
    ///
    /// # Panics
    /// For the float types, which have none.
    pub(crate) const fn of(ty: DType) -> Grouping {
        let (group, offset, mins, max) = match ty {
            DType::Q4_0 => (32, 8, false, 15),
            DType::Q4_1 | DType::Q4_K => (32, 0, true, 15),
            DType::Q5_0 => (32, 16, false, 31),
            DType::Q5_1 | DType::Q5_K => (32, 0, true, 31),
            // Signed bytes, and table values in −127..=113, with the top bit flipped.
            DType::Q8_0 | DType::IQ4_NL | DType::IQ4_XS => (32, 128, false, 255),
            DType::Q2_K => (16, 0, true, 3),
            DType::Q3_K => (16, 4, false, 7),
            DType::Q6_K => (16, 32, false, 63),
            DType::F32 | DType::F16 | DType::BF16 => panic!("float types have no groups"),
        };
        Grouping { group, offset, mins, max }
    }

    /// Groups in a block of 32: 1 or 2.
    pub(crate) const fn per_block(self) -> usize {
        BLOCK / self.group
    }
}

/// A buffer of plain numbers that begins on a cache line. Zero pages are the operating system's own until they are
/// written, so that memory is used only as far as it is needed.
pub(crate) struct Aligned<T> {
    base: std::ptr::NonNull<u8>,
    layout: std::alloc::Layout,
    /// The first multiple of 64 in the allocation.
    start: std::ptr::NonNull<T>,
    len: usize,
}

/// Numbers for which any bytes are a value, and zero bytes are 0.
///
/// # Safety
/// Every bit pattern is valid, there is no padding, and the alignment divides 64.
pub(crate) unsafe trait Plain: Copy + Send + Sync {}
// SAFETY: integers and floats have no invalid bit patterns and no padding.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for i8 {}
// SAFETY: as above.
unsafe impl Plain for i16 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for half::bf16 {}
// SAFETY: as above; it is a u16 inside.
unsafe impl Plain for half::f16 {}

// SAFETY: it owns its memory as a Vec does, and T is Send and Sync.
unsafe impl<T: Plain> Send for Aligned<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Aligned<T> {}

impl<T: Plain> Aligned<T> {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize, what: &'static str) -> crate::Result<Self> {
        // An alignment of 16 is malloc's own, so that this is calloc, which does not touch the pages; asked for 64,
        // the allocator would write the zeros itself.
        let layout = len
            .checked_mul(size_of::<T>())
            .and_then(|n| n.checked_add(64))
            .and_then(|n| std::alloc::Layout::from_size_align(n, 16).ok())
            .ok_or(crate::Error::OutOfMemory { what, bytes: usize::MAX })?;
        // SAFETY: the size is at least 64, not zero.
        let base = std::ptr::NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })
            .ok_or(crate::Error::OutOfMemory { what, bytes: layout.size() })?;
        let pad = base.align_offset(64);
        // SAFETY: 64 bytes more than needed were allocated, and `pad` is below 64.
        let start = unsafe { base.add(pad) }.cast();
        Ok(Self { base, layout, start, len })
    }

    /// Shares the buffer between the workers of a pass, whose owner holds it mutably meanwhile.
    pub(crate) fn share(&self) -> crate::parallel::SharedMut<'_, T> {
        crate::parallel::SharedMut::from_raw(self.start, self.len)
    }

    /// Its bytes.
    pub(crate) fn bytes_of(&self) -> &[u8] {
        // SAFETY: `len` values of T from `start` are initialized and have no padding.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len * size_of::<T>()) }
    }

    /// Its bytes: any are a value of T.
    pub(crate) fn bytes_of_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len * size_of::<T>()) }
    }

    /// Bytes that `zeroed(len)` takes.
    pub(crate) const fn bytes(len: usize) -> usize {
        len * size_of::<T>() + 64
    }
}

impl<T> Drop for Aligned<T> {
    fn drop(&mut self) {
        // SAFETY: allocated by zeroed() with this layout, and freed only here.
        unsafe { std::alloc::dealloc(self.base.as_ptr(), self.layout) }
    }
}

impl<T: Plain> std::ops::Deref for Aligned<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `start` is aligned to 64 with room for `len` values of T, all initialized; T is Plain.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

/// Little-endian bytes as the f32 that they are, where they lie at a multiple of 4 (and the machine agrees).
pub(crate) fn as_f32(bytes: &[u8]) -> Option<&[f32]> {
    // SAFETY: any bytes are an f32; align_to() itself takes care of the alignment.
    let (head, values, tail) = unsafe { bytes.align_to::<f32>() };
    (head.is_empty() && tail.is_empty() && cfg!(target_endian = "little")).then_some(values)
}

impl<T: Plain> std::ops::DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in deref(), and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// Rows of quantized activations, the one format that every quantized weight type multiplies with.
///
/// A block of 32 values shares a scale `d = max|x| / 127`. Plane `h` is the 8-bit rounding of `x / d`; with plane
/// `l` it makes the 16-bit one: `x ≈ d · (h + l / 256)`, `h` in −127..=127 and `l` in −128..=127. Sums are those of
/// the values represented, in the precision of the planes present.
#[derive(Clone, Copy)]
pub struct Acts<'a> {
    /// Rows.
    pub rows: usize,
    /// Values in a row, a multiple of [`BLOCK`].
    pub k: usize,
    /// [rows, k]
    pub h: &'a [i8],
    /// [rows, k], or empty where the precision is 8 bits.
    pub l: &'a [i8],
    /// [rows, k / 32]
    pub scale: &'a [f32],
    /// [rows, k / 16]: sums of 16 values of `h`.
    pub sum_h: &'a [i16],
    /// [rows, k / 16]: sums of the 16 values represented: d · Σ(h + l / 256), or d · Σh without `l`.
    pub sum16: &'a [f32],
    /// [rows, k / 32]: sums of the 32 values represented (the two of `sum16` added).
    pub sum32: &'a [f32],
}

impl Acts<'_> {
    /// Panics when a slice has not the length that its shape says.
    fn check(&self) {
        let n = self.rows * self.k;
        assert!(self.k.is_multiple_of(BLOCK));
        assert!(self.h.len() == n && (self.l.is_empty() || self.l.len() == n));
        assert!(self.scale.len() == n / 32 && self.sum32.len() == n / 32);
        assert!(self.sum_h.len() == n / 16 && self.sum16.len() == n / 16);
    }
}

/// One or more blocks of one row of [`Acts`], to be written.
pub struct ActsMut<'a> {
    /// [k]
    pub h: &'a mut [i8],
    /// [k], or empty for 8 bits.
    pub l: &'a mut [i8],
    /// [k / 32]
    pub scale: &'a mut [f32],
    /// [k / 16]
    pub sum_h: &'a mut [i16],
    /// [k / 16]
    pub sum16: &'a mut [f32],
    /// [k / 32]
    pub sum32: &'a mut [f32],
}

/// How the values of a [`Panel`] lie for a dot instruction: [block][k / run][row: 32][k % run: run].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    /// Values of one row beside each other.
    run: usize,
    /// Whether values are signed, without their offset, or unsigned with it.
    signed: bool,
}

impl Layout {
    /// That of instructions that multiply unsigned bytes with signed ones.
    const UNSIGNED: Layout = Layout { run: 4, signed: false };

    /// Where value `k` of row `r` in block `b` is.
    #[cfg(test)]
    fn at(self, b: usize, r: usize, k: usize) -> usize {
        ((b * (BLOCK / self.run) + k / self.run) * PANEL + r) * self.run + k % self.run
    }
}

/// [`PANEL`] weight rows × up to [`SLAB`] blocks of K, unpacked for the dot instruction. Each worker owns one.
pub struct Panel {
    /// How the values were stored.
    pub(crate) grouping: Grouping,
    /// See [`Layout`].
    pub(crate) q: Aligned<u8>,
    /// [block][group: 1 or 2][row: 32]
    pub(crate) scale: Aligned<f32>,
    /// As `scale`; not used where the type has no mins.
    pub(crate) min: Aligned<f32>,
}

impl Panel {
    /// Room for a full slab of any quantized type, or for none where there are no quantized weights.
    pub fn new(quantized: bool) -> crate::Result<Panel> {
        let n = quantized as usize;
        Ok(Panel {
            grouping: Grouping::of(DType::Q4_0),
            q: Aligned::zeroed(n * SLAB * BLOCK * PANEL, "a panel of weights")?,
            scale: Aligned::zeroed(n * SLAB * 2 * PANEL, "a panel of scales")?,
            min: Aligned::zeroed(n * SLAB * 2 * PANEL, "a panel of minimums")?,
        })
    }

    /// Panics when it has no room for a slab.
    fn check(&self) {
        assert!(self.q.len() >= SLAB * BLOCK * PANEL);
        assert!(self.scale.len() >= SLAB * 2 * PANEL && self.min.len() >= SLAB * 2 * PANEL);
    }

    /// Bytes that `new` takes.
    pub(crate) const fn bytes(quantized: bool) -> usize {
        let n = quantized as usize;
        Aligned::<u8>::bytes(n * SLAB * BLOCK * PANEL) + 2 * Aligned::<f32>::bytes(n * SLAB * 2 * PANEL)
    }
}

/// A block of scalar truth: 32 values of a quantized row as integers, see [`Grouping`].
/// For types with one group in a block, both entries of `scale` and `min` are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Unpacked {
    /// The integers, in order.
    pub q: [u8; BLOCK],
    /// Of values 0..16 and 16..32.
    pub scale: [f32; 2],
    /// Of values 0..16 and 16..32; 0 where the type has no mins.
    pub min: [f32; 2],
}

/// Weight rows as they lie in the file.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// Their type.
    pub ty: DType,
    /// Values in a row.
    pub cols: usize,
    /// Bytes of a row.
    pub row_bytes: usize,
    /// The rows, one after the other.
    pub data: &'a [u8],
}

impl<'a> Rows<'a> {
    /// Number of rows.
    #[allow(clippy::len_without_is_empty)] // a kernel is never handed none
    pub fn len(&self) -> usize {
        self.data.len() / self.row_bytes
    }

    /// The bytes of one.
    pub(crate) fn row(&self, r: usize) -> &'a [u8] {
        &self.data[r * self.row_bytes..(r + 1) * self.row_bytes]
    }

    /// Some of them.
    pub(crate) fn range(&self, rows: Range<usize>) -> Rows<'a> {
        Rows { data: &self.data[rows.start * self.row_bytes..rows.end * self.row_bytes], ..*self }
    }

    fn check(&self) {
        assert_eq!(self.ty.row_bytes(self.cols), Some(self.row_bytes));
        assert!(self.data.len().is_multiple_of(self.row_bytes));
    }
}

/// Calls `$f::<F, ..>($args)` with the format `F` of the quantized type `$ty`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! with_format {
    ($ty:expr, $f:ident ( $($arg:expr),* )) => {{
        // Those of the instruction set whose file this stands in.
        use super::formats as f;
        match $ty {
            $crate::DType::Q4_0 => $f::<f::Q4_0>($($arg),*),
            $crate::DType::Q4_1 => $f::<f::Q4_1>($($arg),*),
            $crate::DType::Q5_0 => $f::<f::Q5_0>($($arg),*),
            $crate::DType::Q5_1 => $f::<f::Q5_1>($($arg),*),
            $crate::DType::Q8_0 => $f::<f::Q8_0>($($arg),*),
            $crate::DType::Q2_K => $f::<f::Q2_K>($($arg),*),
            $crate::DType::Q3_K => $f::<f::Q3_K>($($arg),*),
            $crate::DType::Q4_K => $f::<f::Q4_K>($($arg),*),
            $crate::DType::Q5_K => $f::<f::Q5_K>($($arg),*),
            $crate::DType::Q6_K => $f::<f::Q6_K>($($arg),*),
            $crate::DType::IQ4_NL => $f::<f::IQ4_NL>($($arg),*),
            $crate::DType::IQ4_XS => $f::<f::IQ4_XS>($($arg),*),
            ty => unreachable!("{ty} has no blocks"),
        }
    }};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use with_format;

/// The functions of one instruction set. See the methods of [`Kernels`] for what each does and is promised.
///
/// Every entry is unsafe for two reasons: the processor must have the instruction set, and lengths must have been
/// checked. Only [`Kernels`] calls them.
#[derive(Clone, Copy)]
struct Table {
    isa: Isa,
    /// How its panels lie, which only tests look at.
    #[cfg_attr(not(test), allow(dead_code))]
    layout: Layout,
    unpack_panel: unsafe fn(rows: Rows<'_>, blocks: Range<usize>, panel: &mut Panel),
    gemm_panel: unsafe fn(panel: &Panel, acts: &Acts<'_>, blocks: Range<usize>, acc: &mut [f32]),
    gemv: unsafe fn(rows: Rows<'_>, acts: &Acts<'_>, out: &mut [f32], stride: usize),
    float: &'static float::FloatTable,
}

/// The kernels of one instruction set, which this processor has.
#[derive(Clone, Copy)]
pub struct Kernels(&'static Table);

impl Kernels {
    /// Those of `isa`, or `None` where the processor lacks it.
    pub fn new(isa: Isa) -> Option<Kernels> {
        if !isa.is_available() {
            return None;
        }
        Some(Kernels(match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &avx2::TABLE,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => &avx512::TABLE,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => &neon::NEON,
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => &neon::NEON_DOTPROD,
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => &neon::NEON_I8MM,
            _ => &scalar::TABLE,
        }))
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.0.isa
    }

    /// Unpacks `blocks` (at most [`SLAB`], of 32 values) of up to [`PANEL`] rows of a quantized type to the start of
    /// `panel`. Rows that are missing from a full panel come out as zeros.
    pub fn unpack_panel(&self, rows: Rows<'_>, blocks: Range<usize>, panel: &mut Panel) {
        rows.check();
        assert!(!rows.ty.is_float() && (1..=PANEL).contains(&rows.len()));
        assert!(blocks.len() <= SLAB && blocks.end * BLOCK <= rows.cols);
        panel.check();
        panel.grouping = Grouping::of(rows.ty);
        // SAFETY: a value of Kernels exists only where the instruction set does; lengths were checked above.
        unsafe { (self.0.unpack_panel)(rows, blocks, panel) }
    }

    /// Adds to `acc` [acts.rows, PANEL] the products of the panel's rows with plane `h` of every row of `acts`,
    /// over `blocks` of K, whose weights are at the start of `panel`.
    ///
    /// For each output, block by block in order of K: `acc += d · Σ scale · (Σ q·h − offset · Σ h)`, and with mins
    /// `acc −= min · sum`, by the same operations wherever slabs begin and end.
    pub fn gemm_panel(&self, panel: &Panel, acts: &Acts<'_>, blocks: Range<usize>, acc: &mut [f32]) {
        acts.check();
        panel.check();
        assert!(blocks.len() <= SLAB && blocks.end * BLOCK <= acts.k);
        assert_eq!(acc.len(), acts.rows * PANEL);
        // SAFETY: as above.
        unsafe { (self.0.gemm_panel)(panel, acts, blocks, acc) }
    }

    /// Products of every row of a quantized type with both planes of up to [`MAX_STEP_ROWS`] rows of `acts`:
    /// `out[t · stride + r]` is that of weight row `r` with activation row `t`.
    ///
    /// The bits of an output depend on its weight row and its activation row only.
    pub fn gemv(&self, rows: Rows<'_>, acts: &Acts<'_>, out: &mut [f32], stride: usize) {
        rows.check();
        acts.check();
        assert!(!rows.ty.is_float() && rows.cols == acts.k && acts.l.len() == acts.h.len());
        assert!((1..=MAX_STEP_ROWS).contains(&acts.rows) && rows.len() <= stride);
        assert!(out.len() >= (acts.rows - 1) * stride + rows.len());
        // SAFETY: as above.
        unsafe { (self.0.gemv)(rows, acts, out, stride) }
    }
}
