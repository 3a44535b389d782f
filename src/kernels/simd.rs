//! Vectors of f32 and i32, as the algorithms of `float.rs` see them.
//!
//! A value that implements [`Simd`] is proof that the processor has the instruction set: it can be made with an
//! unsafe `new` only. Everything that needs nothing but the instruction set is therefore safe to call; loads and
//! stores through pointers are not. The vectors themselves hold nothing but numbers.
//!
//! Every method is `#[inline(always)]`, and must be reached from a function with the right `#[target_feature]`:
//! only there do the intrinsics become single instructions. For the same reason the algorithms use no closures.

/// The operations of one instruction set.
pub(super) trait Simd: Copy {
    /// Lanes of a vector.
    const LANES: usize;
    /// Rows of the matrix product's register tile, which is two vectors wide.
    const TILE_ROWS: usize;
    /// Vectors of accumulators that fit in registers beside the operands.
    const ACCUMULATORS: usize;
    /// [`Self::LANES`] f32.
    type V: Copy;
    /// [`Self::LANES`] i32.
    type I: Copy;

    fn splat(self, x: f32) -> Self::V;
    /// All lanes the f16 of these bits.
    fn splat_f16(self, bits: u16) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c, rounded once where the instruction set can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// c − a · b, rounded once where the instruction set can.
    fn nfma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// a · b − c, where c is about a · b: what rounding took from the product.
    fn residue(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The greater; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The lesser; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    /// The magnitude of `a`, the sign of `b`.
    fn copysign(self, a: Self::V, b: Self::V) -> Self::V;

    /// To the nearest integer, ties to even. Only for |a| < 2²²: else (and for NaN) the result is some integer.
    fn round(self, a: Self::V) -> Self::I;
    fn to_f32(self, a: Self::I) -> Self::V;
    fn bits(self, a: Self::V) -> Self::I;
    fn with_bits(self, a: Self::I) -> Self::V;
    fn splat_i32(self, x: i32) -> Self::I;
    /// Wraps, as do all the i32 operations.
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub_i32(self, a: Self::I, b: Self::I) -> Self::I;
    fn max_i32(self, a: Self::I, b: Self::I) -> Self::I;
    fn shl_i32<const N: u32>(self, a: Self::I) -> Self::I;
    /// Copies of the sign come in from the left.
    fn shr_i32<const N: u32>(self, a: Self::I) -> Self::I;

    /// a · 2ⁿ for −252 ≤ n ≤ 254, rounded once: also where the result is subnormal, or overflows.
    #[inline(always)]
    fn scale_by_exp2(self, a: Self::V, n: Self::I) -> Self::V {
        // In two steps, each a power of two that f32 can hold.
        let half = self.shr_i32::<1>(n);
        let rest = self.sub_i32(n, half);
        let bias = self.splat_i32(127);
        let first = self.with_bits(self.shl_i32::<23>(self.add_i32(half, bias)));
        let second = self.with_bits(self.shl_i32::<23>(self.add_i32(rest, bias)));
        self.mul(self.mul(a, first), second)
    }

    /// The sum of the lanes: halves are added to each other, down to one lane.
    fn reduce_add(self, a: Self::V) -> f32;
    /// [`Self::reduce_add`] of each, bit for bit.
    #[inline(always)]
    fn reduce_add4(self, a: [Self::V; 4]) -> [f32; 4] {
        [self.reduce_add(a[0]), self.reduce_add(a[1]), self.reduce_add(a[2]), self.reduce_add(a[3])]
    }
    /// The greatest lane, of lanes without NaN.
    fn reduce_max(self, a: Self::V) -> f32;
    fn reduce_add4_i32(self, a: [Self::I; 4]) -> [i32; 4];
    fn reduce_max_i32(self, a: Self::I) -> i32;

    /// # Safety
    /// `p` is valid for reads of LANES f32, at any alignment.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// The first `n` lanes; the others are 0.
    ///
    /// # Safety
    /// `p` is valid for reads of `n` f32; n < LANES.
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V;
    /// # Safety
    /// `p` is valid for writes of LANES f32, at any alignment.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// # Safety
    /// `p` is valid for writes of `n` f32; n < LANES.
    unsafe fn store_part(self, p: *mut f32, v: Self::V, n: usize);
    /// # Safety
    /// `p` is valid for reads of LANES f16, at any alignment.
    unsafe fn load_f16(self, p: *const u8) -> Self::V;
    /// Rounded to the nearest, ties to even.
    ///
    /// # Safety
    /// `p` is valid for writes of LANES f16, at any alignment.
    unsafe fn store_f16(self, p: *mut u8, v: Self::V);
    /// # Safety
    /// `p` is valid for reads of LANES bf16, at any alignment.
    unsafe fn load_bf16(self, p: *const u8) -> Self::V;
    /// # Safety
    /// `p` is valid for reads of LANES i8.
    unsafe fn load_i8(self, p: *const u8) -> Self::V;
    /// The low byte of each lane.
    ///
    /// # Safety
    /// `p` is valid for writes of LANES i8.
    unsafe fn store_i8(self, p: *mut i8, v: Self::I);
    /// Asks for the cache line at `p`, into L2; `p` need not be valid.
    #[inline(always)]
    fn prefetch(self, _p: *const u8) {}
    /// `dst[j · ld_dst + i] = src[i · ld_src + j]` for i and j below LANES.
    ///
    /// # Safety
    /// Those places are valid to read and to write, and do not overlap.
    unsafe fn transpose(self, src: *const f32, ld_src: usize, dst: *mut f32, ld_dst: usize);
}

/// Plain Rust over arrays, which LLVM turns into whatever vectors the target's baseline has.
#[derive(Clone, Copy)]
pub(super) struct Portable;

/// Lanes of [`Portable`].
const N: usize = 8;

/// `[f(0), f(1), …]`. A plain loop vectorizes where `array::from_fn` does not always.
#[inline(always)]
fn lanes<T: Copy + Default>(f: impl Fn(usize) -> T) -> [T; N] {
    let mut out = [T::default(); N];
    for (i, out) in out.iter_mut().enumerate() {
        *out = f(i);
    }
    out
}

/// The value of an f16, without branches, so that loops over it vectorize.
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = ((bits & 0x7fff) as u32) << 13;
    // The exponent's bias goes from 15 to 127 by a multiplication, which gives subnormals their right value too.
    let finite = f32::from_bits(magnitude) * f32::from_bits((254 - 15) << 23);
    let special = f32::from_bits(magnitude | 0x7f80_0000);
    let abs = if magnitude >= 31 << 23 { special } else { finite };
    f32::from_bits(abs.to_bits() | (bits as u32 & 0x8000) << 16)
}

/// Adding this to an f32 of magnitude below 2²² leaves the nearest integer in the low bits.
const ROUND: f32 = 12582912.0; // 1.5 · 2²³

impl Simd for Portable {
    const LANES: usize = N;
    const TILE_ROWS: usize = 2;
    const ACCUMULATORS: usize = 4;
    type V = [f32; N];
    type I = [i32; N];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; N]
    }
    #[inline(always)]
    fn splat_f16(self, bits: u16) -> Self::V {
        [f16_to_f32(bits); N]
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] / b[i])
    }
    // f32::mul_add is a call to the C library where the baseline has no such instruction.
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn nfma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes(|i| c[i] - a[i] * b[i])
    }
    #[inline(always)]
    fn residue(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes(|i| (a[i] as f64 * b[i] as f64 - c[i] as f64) as f32)
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn abs(self, a: Self::V) -> Self::V {
        lanes(|i| a[i].abs())
    }
    #[inline(always)]
    fn copysign(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i].copysign(b[i]))
    }

    #[inline(always)]
    fn round(self, a: Self::V) -> Self::I {
        lanes(|i| ((a[i] + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32))
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::V {
        lanes(|i| a[i] as f32)
    }
    #[inline(always)]
    fn bits(self, a: Self::V) -> Self::I {
        lanes(|i| a[i].to_bits() as i32)
    }
    #[inline(always)]
    fn with_bits(self, a: Self::I) -> Self::V {
        lanes(|i| f32::from_bits(a[i] as u32))
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        [x; N]
    }
    #[inline(always)]
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I {
        lanes(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub_i32(self, a: Self::I, b: Self::I) -> Self::I {
        lanes(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn max_i32(self, a: Self::I, b: Self::I) -> Self::I {
        lanes(|i| a[i].max(b[i]))
    }
    #[inline(always)]
    fn shl_i32<const S: u32>(self, a: Self::I) -> Self::I {
        lanes(|i| a[i] << S)
    }
    #[inline(always)]
    fn shr_i32<const S: u32>(self, a: Self::I) -> Self::I {
        lanes(|i| a[i] >> S)
    }

    #[inline(always)]
    fn reduce_add(self, a: Self::V) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    fn reduce_max(self, a: Self::V) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, |m, x| if x > m { x } else { m })
    }
    #[inline(always)]
    fn reduce_add4_i32(self, a: [Self::I; 4]) -> [i32; 4] {
        a.map(|a| a.into_iter().fold(0, i32::wrapping_add))
    }
    #[inline(always)]
    fn reduce_max_i32(self, a: Self::I) -> i32 {
        a.into_iter().fold(i32::MIN, i32::max)
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; N]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V {
        let mut v = [0.0; N];
        // SAFETY: the caller's promise; v is longer than n.
        unsafe { std::ptr::copy_nonoverlapping(p, v.as_mut_ptr(), n) };
        v
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; N]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, v: Self::V, n: usize) {
        // SAFETY: the caller's promise; v is longer than n.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), p, n) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> Self::V {
        // SAFETY: the caller's promise.
        let bits = unsafe { p.cast::<[u16; N]>().read_unaligned() };
        lanes(|i| f16_to_f32(bits[i]))
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u8, v: Self::V) {
        let bits: [u16; N] = lanes(|i| half::f16::from_f32(v[i]).to_bits());
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[u16; N]>().write_unaligned(bits) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u8) -> Self::V {
        // SAFETY: the caller's promise.
        let bits = unsafe { p.cast::<[u16; N]>().read_unaligned() };
        lanes(|i| f32::from_bits((bits[i] as u32) << 16))
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const u8) -> Self::V {
        // SAFETY: the caller's promise.
        let bytes = unsafe { p.cast::<[i8; N]>().read_unaligned() };
        lanes(|i| bytes[i] as f32)
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, v: Self::I) {
        let bytes: [i8; N] = lanes(|i| v[i] as i8);
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[i8; N]>().write_unaligned(bytes) }
    }
    #[inline(always)]
    unsafe fn transpose(self, src: *const f32, ld_src: usize, dst: *mut f32, ld_dst: usize) {
        for j in 0..N {
            for i in 0..N {
                // SAFETY: the caller's promise.
                unsafe { *dst.add(j * ld_dst + i) = *src.add(i * ld_src + j) };
            }
        }
    }
}
