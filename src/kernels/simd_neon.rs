//! [`Simd`] for 64-bit ARM: NEON, which every such processor has.

use core::arch::aarch64::*;
use core::arch::asm;

use super::simd::Simd;

/// A method made of intrinsics that touch no memory.
macro_rules! op {
    ($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty { $body:expr }) => {
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $ret {
            // SAFETY: a value of this type exists only where the processor has NEON (see `new`).
            #[allow(unused_unsafe)]
            unsafe { $body }
        }
    };
}

/// NEON.
#[derive(Clone, Copy)]
pub(super) struct Neon(());

impl Neon {
    /// # Safety
    /// The processor has NEON.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

/// Four f16 to f32. In assembly because the intrinsic's type is not stable.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
pub(super) unsafe fn from_f16(v: uint16x4_t) -> float32x4_t {
    let to: float32x4_t;
    // SAFETY: register arithmetic of an instruction set that the processor has.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) to, in(vreg) v, options(pure, nomem, nostack, preserves_flags));
    }
    to
}

impl Simd for Neon {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 12;
    const ACCUMULATORS: usize = 16;
    type V = float32x4_t;
    type I = int32x4_t;

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a hint, whatever the address.
        unsafe { asm!("prfm pldl2keep, [{0}]", in(reg) p, options(readonly, nostack, preserves_flags)) }
    }
    op!(splat(x: f32) -> float32x4_t { vdupq_n_f32(x) });
    op!(splat_f16(bits: u16) -> float32x4_t { from_f16(vdup_n_u16(bits)) });
    op!(add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) });
    op!(sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) });
    op!(mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) });
    op!(div(a: float32x4_t, b: float32x4_t) -> float32x4_t { vdivq_f32(a, b) });
    op!(fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) });
    op!(nfma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmsq_f32(c, a, b) });
    op!(residue(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(vnegq_f32(c), a, b) });
    // fmax would give NaN where either is.
    op!(max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcgtq_f32(a, b), a, b) });
    op!(min(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcltq_f32(a, b), a, b) });
    op!(abs(a: float32x4_t) -> float32x4_t { vabsq_f32(a) });
    op!(copysign(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vdupq_n_u32(1 << 31), b, a) });

    op!(round(a: float32x4_t) -> int32x4_t { vcvtnq_s32_f32(a) });
    op!(to_f32(a: int32x4_t) -> float32x4_t { vcvtq_f32_s32(a) });
    op!(bits(a: float32x4_t) -> int32x4_t { vreinterpretq_s32_f32(a) });
    op!(with_bits(a: int32x4_t) -> float32x4_t { vreinterpretq_f32_s32(a) });
    op!(splat_i32(x: i32) -> int32x4_t { vdupq_n_s32(x) });
    op!(add_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vaddq_s32(a, b) });
    op!(sub_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vsubq_s32(a, b) });
    op!(max_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vmaxq_s32(a, b) });
    #[inline(always)]
    fn shl_i32<const S: u32>(self, a: int32x4_t) -> int32x4_t {
        // SAFETY: `self` exists only where NEON does. A constant count becomes an immediate.
        unsafe { vshlq_s32(a, vdupq_n_s32(S as i32)) }
    }
    #[inline(always)]
    fn shr_i32<const S: u32>(self, a: int32x4_t) -> int32x4_t {
        // SAFETY: as above.
        unsafe { vshlq_s32(a, vdupq_n_s32(-(S as i32))) }
    }

    op!(reduce_add(a: float32x4_t) -> f32 { {
        let two = vadd_f32(vget_low_f32(a), vget_high_f32(a));
        vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
    } });
    #[inline(always)]
    fn reduce_add4(self, a: [float32x4_t; 4]) -> [f32; 4] {
        // SAFETY: `self` exists only where NEON does.
        unsafe {
            // Transposed, so that the same additions are done side by side: [a0 + a2, b0 + b2, a1 + a3, b1 + b3].
            let ab = vaddq_f32(vzip1q_f32(a[0], a[1]), vzip2q_f32(a[0], a[1]));
            let cd = vaddq_f32(vzip1q_f32(a[2], a[3]), vzip2q_f32(a[2], a[3]));
            let low = vcombine_f32(vget_low_f32(ab), vget_low_f32(cd));
            let high = vcombine_f32(vget_high_f32(ab), vget_high_f32(cd));
            std::mem::transmute::<float32x4_t, [f32; 4]>(vaddq_f32(low, high))
        }
    }
    op!(reduce_max(a: float32x4_t) -> f32 { vmaxnmvq_f32(a) });
    #[inline(always)]
    fn reduce_add4_i32(self, a: [int32x4_t; 4]) -> [i32; 4] {
        // SAFETY: as above.
        unsafe {
            let all = vpaddq_s32(vpaddq_s32(a[0], a[1]), vpaddq_s32(a[2], a[3]));
            std::mem::transmute::<int32x4_t, [i32; 4]>(all)
        }
    }
    op!(reduce_max_i32(a: int32x4_t) -> i32 { vmaxvq_s32(a) });

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        // SAFETY: the caller's promise, and `self` exists only where NEON does; so in all that follows.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> float32x4_t {
        // SAFETY: as above; only the first `n` are read.
        unsafe {
            let zero = vdupq_n_f32(0.0);
            match n {
                1 => vld1q_lane_f32::<0>(p, zero),
                2 => vcombine_f32(vld1_f32(p), vdup_n_f32(0.0)),
                3 => vld1q_lane_f32::<2>(p.add(2), vcombine_f32(vld1_f32(p), vdup_n_f32(0.0))),
                _ => zero,
            }
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: float32x4_t) {
        // SAFETY: as above.
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, v: float32x4_t, n: usize) {
        // SAFETY: as above; only the first `n` are written.
        unsafe {
            if n == 1 {
                vst1q_lane_f32::<0>(p, v);
            } else if n >= 2 {
                vst1_f32(p, vget_low_f32(v));
            }
            if n == 3 {
                vst1q_lane_f32::<2>(p.add(2), v);
            }
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> float32x4_t {
        // SAFETY: as above.
        unsafe { from_f16(vreinterpret_u16_u8(vld1_u8(p))) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u8, v: float32x4_t) {
        // SAFETY: as above. Rounding is to the nearest, ties to even, as a thread of Rust has it.
        unsafe {
            let half: uint8x8_t;
            asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) half, in(vreg) v, options(pure, nomem, nostack, preserves_flags));
            vst1_u8(p, half);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u8) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vreinterpret_u16_u8(vld1_u8(p)))) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const u8) -> float32x4_t {
        // SAFETY: as above; four bytes.
        unsafe {
            let bytes = vcreate_s8(p.cast::<u32>().read_unaligned() as u64);
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        }
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, v: int32x4_t) {
        // SAFETY: as above; four bytes.
        unsafe {
            let half = vmovn_s32(v);
            let bytes = vmovn_s16(vcombine_s16(half, half));
            p.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_s8(bytes)));
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, src: *const f32, ld_src: usize, dst: *mut f32, ld_dst: usize) {
        // SAFETY: as above.
        unsafe {
            let r = [0, 1, 2, 3].map(|i| vld1q_f32(src.add(i * ld_src)));
            // Pairs of rows, then the halves among themselves.
            let t = [
                vtrn1q_f32(r[0], r[1]),
                vtrn2q_f32(r[0], r[1]),
                vtrn1q_f32(r[2], r[3]),
                vtrn2q_f32(r[2], r[3]),
            ];
            for j in 0..2 {
                let low = vcombine_f32(vget_low_f32(t[j]), vget_low_f32(t[j + 2]));
                let high = vcombine_f32(vget_high_f32(t[j]), vget_high_f32(t[j + 2]));
                vst1q_f32(dst.add(j * ld_dst), low);
                vst1q_f32(dst.add((j + 2) * ld_dst), high);
            }
        }
    }
}
