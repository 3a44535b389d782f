//! The quantized formats; their layouts are described in `quant`.

use core::arch::x86_64::*;

use super::{Format, ORDER, Scales};
use crate::DType;

/// 16 bytes.
///
/// # Safety
/// They lie at `p`.
#[inline(always)]
unsafe fn load16(p: *const u8) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { _mm_loadu_si128(p.cast()) }
}

/// 32 bytes.
///
/// # Safety
/// They lie at `p`.
#[inline(always)]
unsafe fn load32(p: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_loadu_si256(p.cast()) }
}

/// 16 bytes at `a` and 16 at `b`.
///
/// # Safety
/// They lie there.
#[inline(always)]
unsafe fn load16x2(a: *const u8, b: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(load16(a)), load16(b)) }
}

/// 16 bytes, twice.
///
/// # Safety
/// They lie at `p`.
#[inline(always)]
unsafe fn load16_twice(p: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_broadcastsi128_si256(load16(p)) }
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

/// Byte by byte `v & mask`.
#[inline(always)]
unsafe fn and(v: __m256i, mask: u8) -> __m256i {
    // SAFETY: the processor has AVX2.
    unsafe { _mm256_and_si256(v, _mm256_set1_epi8(mask as i8)) }
}

/// The upper four bits of every byte.
#[inline(always)]
unsafe fn high_nibbles(v: __m256i) -> __m256i {
    // SAFETY: the processor has AVX2.
    unsafe { and(_mm256_srli_epi16::<4>(v), 15) }
}

/// Field `mask` of every byte after moving bits down by `a` in the lower half of the register and by `b` in the
/// upper one (up, if negative). Fields stay within their bytes, so that a rotation of 32 bits does for a shift.
#[inline(always)]
unsafe fn fields(v: __m256i, a: i32, b: i32, mask: u8) -> __m256i {
    // SAFETY: the processor has AVX-512 VL.
    unsafe { and(_mm256_rorv_epi32(v, _mm256_setr_epi32(a, a, a, a, b, b, b, b)), mask) }
}

/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_or_si256(a, b) }
}

/// The 16-bit numbers at the start of `N` blocks of `stride` bytes, by ORDER.
///
/// # Safety
/// The blocks lie at `p`.
#[inline(always)]
unsafe fn starts_u16<const N: usize>(p: *const u8, stride: usize) -> __m128i {
    // SAFETY: the caller's promise: only blocks below N are read.
    unsafe {
        let at = |i: usize| if ORDER[i] < N { load_u16(p.add(ORDER[i] * stride)) as i16 } else { 0 };
        _mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7))
    }
}

/// The 32-bit numbers at the start of `N` blocks of `stride` bytes, by ORDER.
///
/// # Safety
/// The blocks lie at `p`.
#[inline(always)]
unsafe fn starts_u32<const N: usize>(p: *const u8, stride: usize) -> __m256i {
    // SAFETY: the caller's promise: only blocks below N are read.
    unsafe {
        let at = |i: usize| if ORDER[i] < N { load_u32(p.add(ORDER[i] * stride)) as i32 } else { 0 };
        _mm256_setr_epi32(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7))
    }
}

/// Scales that are one half-precision number at the start of each block.
///
/// # Safety
/// `N` blocks of `stride` bytes lie at `p`.
#[inline(always)]
unsafe fn plain_scales<const N: usize>(p: *const u8, stride: usize) -> Scales {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = _mm256_setzero_ps();
        Scales { scale: [_mm256_cvtph_ps(starts_u16::<N>(p, stride)), zero], min: [zero; 2] }
    }
}

/// Scales, and what is added (the negative of a min), at the start of each block.
///
/// # Safety
/// `N` blocks of `stride` bytes lie at `p`.
#[inline(always)]
unsafe fn plain_scales_and_mins<const N: usize>(p: *const u8, stride: usize) -> Scales {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = _mm256_setzero_ps();
        let both = starts_u32::<N>(p, stride);
        let scale = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(both));
        let plus = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(_mm256_srli_epi32::<16>(both)));
        let sign = _mm256_set1_ps(-0.0);
        // Of missing blocks too, which makes their min −0: as good as 0.
        Scales { scale: [scale, zero], min: [_mm256_xor_ps(plus, sign), zero] }
    }
}

/// A half-precision number in every lane.
///
/// # Safety
/// It lies at `p`.
#[inline(always)]
unsafe fn splat_f16(p: *const u8) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_cvtph_ps(_mm_set1_epi16(load_u16(p) as i16)) }
}

/// The lower eight bytes of `v`, signed or not, times `by`.
macro_rules! scaled {
    ($widen:ident, $v:expr, $by:expr) => {
        _mm256_mul_ps(_mm256_cvtepi32_ps($widen($v)), $by)
    };
}

/// Bytes 8 and up, moved down.
#[inline(always)]
unsafe fn upper(v: __m128i) -> __m128i {
    // SAFETY: the processor has SSE2.
    unsafe { _mm_unpackhi_epi64(v, v) }
}

/// 16 bytes, one for each 16 values of an octet: those of the blocks' first halves by ORDER, then of their second.
#[inline(always)]
unsafe fn order_by_16(v: __m128i) -> __m128i {
    // SAFETY: the processor has SSSE3.
    unsafe { _mm_shuffle_epi8(v, _mm_setr_epi8(0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15)) }
}

/// Twice 8 bytes, one for each block of an octet, by ORDER.
#[inline(always)]
unsafe fn order_by_32(v: __m128i) -> __m128i {
    // SAFETY: the processor has SSSE3.
    unsafe { _mm_shuffle_epi8(v, _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)) }
}

/// The 6-bit scales and mins of Q4_K and Q5_K, which begin alike.
///
/// # Safety
/// A block lies at `p`.
#[inline(always)]
unsafe fn k_scales_and_mins(p: *const u8) -> Scales {
    // SAFETY: the caller's promise: bytes 0..16 of the block are read.
    unsafe {
        let (a, b, c) = (load_u32(p.add(4)), load_u32(p.add(8)), load_u32(p.add(12)));
        let low = |x: u32| (x & 0x3f3f_3f3f) as u64;
        let high = |nibbles: u32, top: u32| ((nibbles & 0x0f0f_0f0f | top >> 2 & 0x3030_3030) as u64) << 32;
        let both = _mm_set_epi64x((low(b) | high(c >> 4, b)) as i64, (low(a) | high(c, a)) as i64);
        let both = order_by_32(both);
        let zero = _mm256_setzero_ps();
        Scales {
            scale: [scaled!(_mm256_cvtepu8_epi32, both, splat_f16(p)), zero],
            min: [scaled!(_mm256_cvtepu8_epi32, upper(both), splat_f16(p.add(2))), zero],
        }
    }
}

/// The steps of IQ4_NL and IQ4_XS for the nibbles of `v`, top bit flipped.
#[inline(always)]
unsafe fn steps(v: __m256i) -> __m256i {
    const TABLE: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];
    // SAFETY: the table has 16 bytes, and the processor AVX2.
    unsafe { _mm256_shuffle_epi8(load16_twice(TABLE.as_ptr()), v) }
}

/// A format with blocks of 32, `$bytes` long: `$pair` makes a pair from where A and B are, `$single` from where the
/// only block is.
macro_rules! plain {
    ($name:ident, $bytes:literal, $scales:ident, $pair:ident, $single:ident) => {
        #[allow(non_camel_case_types)]
        pub(super) struct $name;

        // SAFETY: blocks have the size asserted, and the functions named read within them.
        unsafe impl Format for $name {
            const TYPE: DType = {
                assert!(DType::$name.block_bytes() == $bytes && DType::$name.block_len() == 32);
                DType::$name
            };

            #[inline(always)]
            unsafe fn scales<const N: usize>(p: *const u8) -> Scales {
                // SAFETY: the caller's promise.
                unsafe { $scales::<N>(p, $bytes) }
            }

            #[inline(always)]
            unsafe fn pair<const I: usize>(p: *const u8) -> [__m256i; 2] {
                // SAFETY: the caller's promise: blocks 2 I and 2 I + 1 lie there.
                unsafe { $pair(p.add(2 * I * $bytes), p.add((2 * I + 1) * $bytes)) }
            }

            #[inline(always)]
            unsafe fn single(p: *const u8) -> [__m256i; 2] {
                // SAFETY: the caller's promise.
                unsafe { $single(p) }
            }
        }
    };
}

plain!(Q4_0, 18, plain_scales, pair_q4_0, single_q4_0);
plain!(Q4_1, 20, plain_scales_and_mins, pair_q4_1, single_q4_1);
plain!(Q5_0, 22, plain_scales, pair_q5_0, single_q5_0);
plain!(Q5_1, 24, plain_scales_and_mins, pair_q5_1, single_q5_1);
plain!(Q8_0, 34, plain_scales, pair_q8_0, single_q8_0);
plain!(IQ4_NL, 18, plain_scales, pair_iq4_nl, single_iq4_nl);

/// The two functions of a format that has its nibbles at `$at`, where `$finish` makes values of those of a block at
/// `$a` and, for a pair, one at `$b`.
macro_rules! nibbles {
    ($pair:ident, $single:ident, $at:literal, |$v:ident, $a:ident, $b:ident| $finish:expr) => {
        /// # Safety
        /// A block lies at `a` and one at `b`.
        #[inline(always)]
        unsafe fn $pair(a: *const u8, b: *const u8) -> [__m256i; 2] {
            // SAFETY: the caller's promise: 16 bytes of nibbles end the blocks, other fields precede them.
            unsafe {
                let raw = load16x2(a.add($at), b.add($at));
                let ($v, $a, $b) = ([and(raw, 15), high_nibbles(raw)], a, Some(b));
                $finish
            }
        }

        /// # Safety
        /// A block lies at `a`.
        #[inline(always)]
        unsafe fn $single(a: *const u8) -> [__m256i; 2] {
            // SAFETY: as above.
            unsafe {
                let raw = _mm256_zextsi128_si256(load16(a.add($at)));
                let ($v, $a, $b) = ([and(raw, 15), high_nibbles(raw)], a, None::<*const u8>);
                $finish
            }
        }
    };
}

nibbles!(pair_q4_0, single_q4_0, 2, |v, _a, _b| v);
nibbles!(pair_q4_1, single_q4_1, 4, |v, _a, _b| v);
nibbles!(pair_q5_0, single_q5_0, 6, |v, a, b| with_fifth_bits(v, a.add(2), b.map(|b| b.add(2))));
nibbles!(pair_q5_1, single_q5_1, 8, |v, a, b| with_fifth_bits(v, a.add(4), b.map(|b| b.add(4))));
nibbles!(pair_iq4_nl, single_iq4_nl, 2, |v, _a, _b| v.map(|v| steps(v)));

/// Nibbles with the fifth bits that are at `a` and at `b`.
///
/// # Safety
/// 32 bits lie there.
#[inline(always)]
unsafe fn with_fifth_bits(v: [__m256i; 2], a: *const u8, b: Option<*const u8>) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let a = load_u32(a);
        let b = match b {
            Some(b) => load_u32(b),
            None => 0,
        };
        let bit = _mm256_set1_epi8(16);
        [
            _mm256_mask_add_epi8(v[0], a & 0xffff | b << 16, v[0], bit),
            _mm256_mask_add_epi8(v[1], a >> 16 | b & 0xffff_0000, v[1], bit),
        ]
    }
}

/// # Safety
/// A block lies at `a` and one at `b`.
#[inline(always)]
unsafe fn pair_q8_0(a: *const u8, b: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's promise: a block has 32 bytes from byte 2.
    unsafe {
        let flip = _mm256_set1_epi8(-128);
        [
            _mm256_xor_si256(load16x2(a.add(2), b.add(2)), flip),
            _mm256_xor_si256(load16x2(a.add(18), b.add(18)), flip),
        ]
    }
}

/// # Safety
/// A block lies at `a`.
#[inline(always)]
unsafe fn single_q8_0(a: *const u8) -> [__m256i; 2] {
    // SAFETY: as above.
    unsafe {
        let flip = _mm_set1_epi8(-128);
        [2, 18].map(|at| _mm256_zextsi128_si256(_mm_xor_si128(load16(a.add(at)), flip)))
    }
}

/// A format with blocks of 256, which are whole octets.
macro_rules! super_block {
    ($name:ident, scales($ps:ident) $scales:block, pair($i:ident, $p:ident) $pair:block) => {
        #[allow(non_camel_case_types)]
        pub(super) struct $name;

        // SAFETY: reads stay within the fields of the block, see each.
        unsafe impl Format for $name {
            const TYPE: DType = {
                assert!(DType::$name.block_len() == 256);
                DType::$name
            };

            #[inline(always)]
            unsafe fn scales<const N: usize>($ps: *const u8) -> Scales {
                debug_assert!(N == 8);
                // SAFETY: the caller's promise, and the offsets are those of the block's fields.
                unsafe { $scales }
            }

            #[inline(always)]
            unsafe fn pair<const $i: usize>($p: *const u8) -> [__m256i; 2] {
                const { assert!($i < 4) };
                // SAFETY: as above.
                unsafe { $pair }
            }
        }
    };
}

super_block!(
    Q2_K,
    scales(p) {
        let bytes = order_by_16(load16(p));
        let scale = _mm_and_si128(bytes, _mm_set1_epi8(15));
        let min = _mm_and_si128(_mm_srli_epi16::<4>(bytes), _mm_set1_epi8(15));
        let (d, dmin) = (splat_f16(p.add(80)), splat_f16(p.add(82)));
        Scales {
            scale: [scale, upper(scale)].map(|s| scaled!(_mm256_cvtepu8_epi32, s, d)),
            min: [min, upper(min)].map(|m| scaled!(_mm256_cvtepu8_epi32, m, dmin)),
        }
    },
    pair(I, p) {
        let qs = p.add(16 + 32 * (I / 2));
        let shift = 4 * (I % 2) as i32;
        [qs, qs.add(16)].map(|qs| fields(load16_twice(qs), shift, shift + 2, 3))
    }
);

super_block!(
    Q3_K,
    scales(p) {
        let (a, b, c) = (load_u32(p.add(96)), load_u32(p.add(100)), load_u32(p.add(104)));
        let join = |low: u32, high: u32| (low & 0x0f0f_0f0f | (high & 0x0303_0303) << 4) as i32;
        let bytes = _mm_setr_epi32(join(a, c), join(b, c >> 2), join(a >> 4, c >> 4), join(b >> 4, c >> 6));
        let scale = order_by_16(_mm_sub_epi8(bytes, _mm_set1_epi8(32)));
        let d = splat_f16(p.add(108));
        Scales {
            scale: [scale, upper(scale)].map(|s| scaled!(_mm256_cvtepi8_epi32, s, d)),
            min: [_mm256_setzero_ps(); 2],
        }
    },
    pair(I, p) {
        let qs = p.add(32 + 32 * (I / 2));
        let shift = 4 * (I % 2) as i32;
        let s = 2 * I as i32;
        [0, 16].map(|half| {
            let low = fields(load16_twice(qs.add(half)), shift, shift + 2, 3);
            or(low, fields(load16_twice(p.add(half)), s - 2, s - 1, 4))
        })
    }
);

super_block!(
    Q4_K,
    scales(p) { k_scales_and_mins(p) },
    pair(I, p) {
        let qs = p.add(16 + 32 * I);
        [qs, qs.add(16)].map(|qs| fields(load16_twice(qs), 0, 4, 15))
    }
);

super_block!(
    Q5_K,
    scales(p) { k_scales_and_mins(p) },
    pair(I, p) {
        let s = 2 * I as i32;
        [0, 16].map(|half| {
            let low = fields(load16_twice(p.add(48 + 32 * I + half)), 0, 4, 15);
            or(low, fields(load16_twice(p.add(16 + half)), s - 4, s - 3, 16))
        })
    }
);

super_block!(
    Q6_K,
    scales(p) {
        let scale = order_by_16(load16(p.add(192)));
        let d = splat_f16(p.add(208));
        Scales {
            scale: [scale, upper(scale)].map(|s| scaled!(_mm256_cvtepi8_epi32, s, d)),
            min: [_mm256_setzero_ps(); 2],
        }
    },
    pair(I, p) {
        let (ql, qh) = (p.add(64 * (I / 2)), p.add(128 + 32 * (I / 2)));
        let shift = 4 * (I % 2) as i32;
        [0, 16].map(|half| {
            let low = load16x2(ql.add(half), ql.add(32 + half));
            let low = if I % 2 == 0 { and(low, 15) } else { high_nibbles(low) };
            or(low, fields(load16_twice(qh.add(half)), shift - 4, shift - 2, 0x30))
        })
    }
);

super_block!(
    IQ4_XS,
    scales(p) {
        // Each block's bits, by ORDER.
        let low = _mm256_set1_epi32(load_u32(p.add(4)) as i32);
        let low = _mm256_srlv_epi32(low, _mm256_setr_epi32(0, 8, 16, 24, 4, 12, 20, 28));
        let high = _mm256_set1_epi32(load_u16(p.add(2)) as i32);
        let high = _mm256_srlv_epi32(high, _mm256_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14));
        let low = _mm256_and_si256(low, _mm256_set1_epi32(15));
        let high = _mm256_slli_epi32::<4>(_mm256_and_si256(high, _mm256_set1_epi32(3)));
        let ls = _mm256_sub_epi32(or(low, high), _mm256_set1_epi32(32));
        let zero = _mm256_setzero_ps();
        Scales { scale: [_mm256_mul_ps(_mm256_cvtepi32_ps(ls), splat_f16(p)), zero], min: [zero; 2] }
    },
    pair(I, p) {
        let raw = load32(p.add(8 + 32 * I));
        [steps(and(raw, 15)), steps(high_nibbles(raw))]
    }
);
