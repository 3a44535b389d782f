//! The quantized formats; their layouts are described in `quant`.

use core::arch::aarch64::*;
use core::arch::asm;

use super::{Format, QUAD, Scales};
use crate::DType;
use crate::kernels::simd_neon::from_f16;

/// 16 bytes.
///
/// # Safety
/// They lie at `p`.
#[inline(always)]
unsafe fn load16(p: *const u8) -> uint8x16_t {
    // SAFETY: the caller's promise.
    unsafe { vld1q_u8(p) }
}

/// # Safety
/// Two bytes lie at `p`.
#[inline(always)]
unsafe fn load_u16(p: *const u8) -> u16 {
    // SAFETY: the caller's promise.
    unsafe { p.cast::<u16>().read_unaligned() }
}

/// # Safety
/// Four bytes lie at `p`.
#[inline(always)]
unsafe fn load_u32(p: *const u8) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { p.cast::<u32>().read_unaligned() }
}

/// # Safety
/// Eight bytes lie at `p`.
#[inline(always)]
unsafe fn load_u64(p: *const u8) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { p.cast::<u64>().read_unaligned() }
}

/// Field `mask` of every byte.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn and(v: uint8x16_t, mask: u8) -> uint8x16_t {
    // SAFETY: the caller's promise.
    unsafe { vandq_u8(v, vdupq_n_u8(mask)) }
}

/// Field `mask` of every byte after moving bits down by `DOWN`, or up where that is negative.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn field<const DOWN: i32>(v: uint8x16_t, mask: u8) -> uint8x16_t {
    // SAFETY: the caller's promise.
    unsafe {
        match DOWN {
            -4 => and(vshlq_n_u8::<4>(v), mask),
            -3 => and(vshlq_n_u8::<3>(v), mask),
            -2 => and(vshlq_n_u8::<2>(v), mask),
            -1 => and(vshlq_n_u8::<1>(v), mask),
            0 => and(v, mask),
            1 => and(vshrq_n_u8::<1>(v), mask),
            2 => and(vshrq_n_u8::<2>(v), mask),
            3 => and(vshrq_n_u8::<3>(v), mask),
            4 if mask == 15 => vshrq_n_u8::<4>(v),
            4 => and(vshrq_n_u8::<4>(v), mask),
            5 => and(vshrq_n_u8::<5>(v), mask),
            6 if mask == 3 => vshrq_n_u8::<6>(v),
            _ => unreachable!(),
        }
    }
}

/// The low and the high half of every byte.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn nibbles(v: uint8x16_t) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe { [field::<0>(v, 15), field::<4>(v, 15)] }
}

/// The 16-bit numbers at the start of [`QUAD`] blocks of `STRIDE` bytes, as one number: the processor joins them where it
/// does not hold up the vectors. The empty assembly keeps the compiler from loading them into vectors one by one.
///
/// # Safety
/// The blocks lie at `p`.
#[inline(always)]
unsafe fn starts_u16<const STRIDE: usize>(p: *const u8) -> u64 {
    // SAFETY: the caller's promise; the assembly is empty.
    unsafe {
        let at = |i: usize| load_u16(p.add(i * STRIDE)) as u64;
        let (mut low, mut high) = (at(0) | at(1) << 16, at(2) | at(3) << 16);
        asm!("/* {0} {1} */", inout(reg) low, inout(reg) high, options(pure, nomem, nostack, preserves_flags));
        low | high << 32
    }
}

/// Scales that are one half-precision number at the start of each block.
///
/// # Safety
/// [`QUAD`] blocks of `STRIDE` bytes lie at `p`.
#[inline(always)]
unsafe fn plain_scales<const STRIDE: usize>(p: *const u8) -> Scales {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = vdupq_n_f32(0.0);
        Scales { scale: [from_f16(vcreate_u16(starts_u16::<STRIDE>(p))), zero], min: [zero; 2] }
    }
}

/// Scales, and what is added (the negative of a min), at the start of each block.
///
/// # Safety
/// [`QUAD`] blocks of `STRIDE` bytes lie at `p`.
#[inline(always)]
unsafe fn plain_scales_and_mins<const STRIDE: usize>(p: *const u8) -> Scales {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = vdupq_n_f32(0.0);
        let plus = from_f16(vcreate_u16(starts_u16::<STRIDE>(p.add(2))));
        let scale = from_f16(vcreate_u16(starts_u16::<STRIDE>(p)));
        Scales { scale: [scale, zero], min: [vnegq_f32(plus), zero] }
    }
}

/// A half-precision number in every lane.
///
/// # Safety
/// It lies at `p`.
#[inline(always)]
unsafe fn splat_f16(p: *const u8) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe { from_f16(vdup_n_u16(load_u16(p))) }
}

/// Four bytes, the lowest first, times `by`.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn scaled(bytes: uint8x8_t, by: float32x4_t) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe { vmulq_f32(vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes)))), by) }
}

/// The same of signed bytes.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn scaled_signed(bytes: int8x8_t, by: float32x4_t) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe { vmulq_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes)))), by) }
}

/// Of 8 bytes, one for each 16 values of a quad, those of the blocks' first halves, and those of their second.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn halves(v: uint8x8_t) -> [uint8x8_t; 2] {
    // SAFETY: the caller's promise.
    unsafe { [vuzp1_u8(v, v), vuzp2_u8(v, v)] }
}

/// The 6-bit scales and mins of Q4_K and Q5_K, which begin alike, of quad `Q`.
///
/// # Safety
/// A block lies at `p`.
#[inline(always)]
unsafe fn k_scales_and_mins<const Q: usize>(p: *const u8) -> Scales {
    // SAFETY: the caller's promise: bytes 0..16 of the block are read.
    unsafe {
        let (a, b, c) = (load_u32(p.add(4)), load_u32(p.add(8)), load_u32(p.add(12)));
        let (scale, min) = if Q == 0 {
            (a & 0x3f3f_3f3f, b & 0x3f3f_3f3f)
        } else {
            (c & 0x0f0f_0f0f | a >> 2 & 0x3030_3030, c >> 4 & 0x0f0f_0f0f | b >> 2 & 0x3030_3030)
        };
        let zero = vdupq_n_f32(0.0);
        Scales {
            scale: [scaled(vcreate_u8(scale as u64), splat_f16(p)), zero],
            min: [scaled(vcreate_u8(min as u64), splat_f16(p.add(2))), zero],
        }
    }
}

/// The steps of IQ4_NL and IQ4_XS for the nibbles of `v`.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn steps(v: [uint8x16_t; 2]) -> [uint8x16_t; 2] {
    const TABLE: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
    // SAFETY: the table has 16 bytes.
    unsafe {
        let table = load16(TABLE.as_ptr().cast());
        [vqtbl1q_u8(table, v[0]), vqtbl1q_u8(table, v[1])]
    }
}

/// Nibbles with the fifth bits that are the 32 at `p`.
///
/// # Safety
/// They lie there.
#[inline(always)]
unsafe fn with_fifth_bits(v: [uint8x16_t; 2], p: *const u8) -> [uint8x16_t; 2] {
    const FIRST: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1];
    const SECOND: [u8; 16] = [2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3];
    // SAFETY: the caller's promise, and the tables have 16 bytes.
    unsafe {
        let bits = vreinterpretq_u8_u32(vdupq_n_u32(load_u32(p)));
        let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
        let first = vtstq_u8(vqtbl1q_u8(bits, load16(FIRST.as_ptr())), bit);
        let second = vtstq_u8(vqtbl1q_u8(bits, load16(SECOND.as_ptr())), bit);
        [vorrq_u8(v[0], and(first, 16)), vorrq_u8(v[1], and(second, 16))]
    }
}

/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn signed(v: [uint8x16_t; 2]) -> [int8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe { [vreinterpretq_s8_u8(v[0]), vreinterpretq_s8_u8(v[1])] }
}

/// A format with blocks of 32, `$bytes` long: what the one at `$p` is.
macro_rules! plain {
    ($name:ident, $bytes:literal, $scales:ident, |$p:ident| $block:expr) => {
        #[allow(non_camel_case_types)]
        pub(super) struct $name;

        // SAFETY: blocks have the size asserted; what reads their fields says where.
        unsafe impl Format for $name {
            const TYPE: DType = {
                assert!(DType::$name.block_bytes() == $bytes && DType::$name.block_len() == 32);
                DType::$name
            };

            #[inline(always)]
            unsafe fn scales<const Q: usize>(p: *const u8) -> Scales {
                // SAFETY: the caller's promise.
                unsafe { $scales::<$bytes>(p) }
            }

            #[inline(always)]
            unsafe fn block<const Q: usize, const I: usize>(p: *const u8) -> [int8x16_t; 2] {
                debug_assert!(Q == 0 && I < QUAD);
                // SAFETY: the caller's promise: block I lies there, and is read within its bytes.
                unsafe {
                    let $p = p.add(I * $bytes);
                    signed($block)
                }
            }
        }
    };
}

plain!(Q4_0, 18, plain_scales, |p| nibbles(load16(p.add(2))));
plain!(Q4_1, 20, plain_scales_and_mins, |p| nibbles(load16(p.add(4))));
plain!(Q5_0, 22, plain_scales, |p| with_fifth_bits(nibbles(load16(p.add(6))), p.add(2)));
plain!(Q5_1, 24, plain_scales_and_mins, |p| with_fifth_bits(nibbles(load16(p.add(8))), p.add(4)));
plain!(Q8_0, 34, plain_scales, |p| [load16(p.add(2)), load16(p.add(18))]);
plain!(IQ4_NL, 18, plain_scales, |p| steps(nibbles(load16(p.add(2)))));

/// A format with blocks of 256, which are two quads: the scales of quad `$q`, and its block `$i`.
macro_rules! super_block {
    ($name:ident, scales($ps:ident, $qs:ident) $scales:block, block($p:ident, $q:ident, $i:ident) $block:block) => {
        #[allow(non_camel_case_types)]
        pub(super) struct $name;

        // SAFETY: reads stay within the fields of the block, see each.
        unsafe impl Format for $name {
            const TYPE: DType = {
                assert!(DType::$name.block_len() == 256);
                DType::$name
            };

            #[inline(always)]
            unsafe fn scales<const $qs: usize>($ps: *const u8) -> Scales {
                debug_assert!($qs < 2);
                // SAFETY: the caller's promise, and the offsets are those of the block's fields.
                unsafe { $scales }
            }

            #[inline(always)]
            unsafe fn block<const $q: usize, const $i: usize>($p: *const u8) -> [int8x16_t; 2] {
                debug_assert!($q < 2 && $i < QUAD);
                // SAFETY: as above.
                unsafe { signed($block) }
            }
        }
    };
}

/// Field `$mask` of the 16 bytes at `$p` and the 16 that follow, moved down by `$by[$i]`.
macro_rules! fields {
    ($p:expr, $mask:expr, $by:expr, $i:expr) => {{
        let p = $p;
        let v = [load16(p), load16(p.add(16))];
        match const { $by[$i] } {
            -4 => [field::<-4>(v[0], $mask), field::<-4>(v[1], $mask)],
            -3 => [field::<-3>(v[0], $mask), field::<-3>(v[1], $mask)],
            -2 => [field::<-2>(v[0], $mask), field::<-2>(v[1], $mask)],
            -1 => [field::<-1>(v[0], $mask), field::<-1>(v[1], $mask)],
            0 => [field::<0>(v[0], $mask), field::<0>(v[1], $mask)],
            1 => [field::<1>(v[0], $mask), field::<1>(v[1], $mask)],
            2 => [field::<2>(v[0], $mask), field::<2>(v[1], $mask)],
            3 => [field::<3>(v[0], $mask), field::<3>(v[1], $mask)],
            4 => [field::<4>(v[0], $mask), field::<4>(v[1], $mask)],
            5 => [field::<5>(v[0], $mask), field::<5>(v[1], $mask)],
            6 => [field::<6>(v[0], $mask), field::<6>(v[1], $mask)],
            _ => unreachable!(),
        }
    }};
}

/// Both of two pairs.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn or(a: [uint8x16_t; 2], b: [uint8x16_t; 2]) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe { [vorrq_u8(a[0], b[0]), vorrq_u8(a[1], b[1])] }
}

super_block!(
    Q2_K,
    scales(p, Q) {
        let bytes = halves(vcreate_u8(load_u64(p.add(8 * Q))));
        let (d, dmin) = (splat_f16(p.add(80)), splat_f16(p.add(82)));
        let low = vdup_n_u8(15);
        Scales {
            scale: [scaled(vand_u8(bytes[0], low), d), scaled(vand_u8(bytes[1], low), d)],
            min: [scaled(vshr_n_u8::<4>(bytes[0]), dmin), scaled(vshr_n_u8::<4>(bytes[1]), dmin)],
        }
    },
    block(p, Q, I) { fields!(p.add(16 + 32 * Q), 3, [0, 2, 4, 6], I) }
);

super_block!(
    Q3_K,
    scales(p, Q) {
        let low = load_u64(p.add(96)) >> (4 * Q) & 0x0f0f_0f0f_0f0f_0f0f;
        let high = load_u32(p.add(104)) as u64;
        let high = high >> (4 * Q) & 0x0303_0303 | (high >> (4 * Q + 2) & 0x0303_0303) << 32;
        let bytes = vreinterpret_s8_u8(vcreate_u8(low | high << 4));
        let bytes = halves(vreinterpret_u8_s8(vsub_s8(bytes, vdup_n_s8(32))));
        let d = splat_f16(p.add(108));
        let scale = |b: uint8x8_t| scaled_signed(vreinterpret_s8_u8(b), d);
        Scales { scale: [scale(bytes[0]), scale(bytes[1])], min: [vdupq_n_f32(0.0); 2] }
    },
    block(p, Q, I) {
        or(
            fields!(p.add(32 + 32 * Q), 3, [0, 2, 4, 6], I),
            fields!(p, 4, [-2, -1, 0, 1, 2, 3, 4, 5], 4 * Q + I),
        )
    }
);

super_block!(
    Q4_K,
    scales(p, Q) { k_scales_and_mins::<Q>(p) },
    block(p, Q, I) { fields!(p.add(16 + 64 * Q + 32 * (I / 2)), 15, [0, 4, 0, 4], I) }
);

super_block!(
    Q5_K,
    scales(p, Q) { k_scales_and_mins::<Q>(p) },
    block(p, Q, I) {
        or(
            fields!(p.add(48 + 64 * Q + 32 * (I / 2)), 15, [0, 4, 0, 4], I),
            fields!(p.add(16), 16, [-4, -3, -2, -1, 0, 1, 2, 3], 4 * Q + I),
        )
    }
);

super_block!(
    Q6_K,
    scales(p, Q) {
        let bytes = halves(vcreate_u8(load_u64(p.add(192 + 8 * Q))));
        let d = splat_f16(p.add(208));
        let scale = |b: uint8x8_t| scaled_signed(vreinterpret_s8_u8(b), d);
        Scales { scale: [scale(bytes[0]), scale(bytes[1])], min: [vdupq_n_f32(0.0); 2] }
    },
    block(p, Q, I) {
        or(
            fields!(p.add(64 * Q + 32 * (I % 2)), 15, [0, 0, 4, 4], I),
            fields!(p.add(128 + 32 * Q), 0x30, [-4, -2, 0, 2], I),
        )
    }
);

super_block!(
    IQ4_XS,
    scales(p, Q) {
        let low = load_u16(p.add(4 + 2 * Q)) as u32;
        let high = load_u16(p.add(2)) as u32 >> (8 * Q);
        let low = vshlq_u32(vdupq_n_u32(low), vld1q_s32([0, -4, -8, -12].as_ptr()));
        let high = vshlq_u32(vdupq_n_u32(high << 4), vld1q_s32([0, -2, -4, -6].as_ptr()));
        let ls = vorrq_u32(vandq_u32(low, vdupq_n_u32(15)), vandq_u32(high, vdupq_n_u32(0x30)));
        let ls = vsubq_s32(vreinterpretq_s32_u32(ls), vdupq_n_s32(32));
        let zero = vdupq_n_f32(0.0);
        Scales { scale: [vmulq_f32(vcvtq_f32_s32(ls), splat_f16(p)), zero], min: [zero; 2] }
    },
    block(p, Q, I) { steps(nibbles(load16(p.add(8 + 64 * Q + 16 * I)))) }
);
