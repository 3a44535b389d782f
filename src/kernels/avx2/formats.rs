//! The quantized formats; their layouts are described in `quant`.

use core::arch::x86_64::*;

use super::{Format, Scales, lane};
use crate::DType;
use crate::kernels::x86::{load_u16, load_u32, load16};

/// 16 bytes at `a` and 16 at `b`.
///
/// # Safety
/// They lie there, and the processor has AVX2.
#[inline(always)]
unsafe fn load16x2(a: *const u8, b: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(load16(a)), load16(b)) }
}

/// Field `mask` of every byte.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn and(v: __m256i, mask: u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_and_si256(v, _mm256_set1_epi8(mask as i8)) }
}

/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_or_si256(a, b) }
}

/// Field `mask` of every byte after moving bits down by `DOWN`, or up where that is negative. Fields stay within
/// their bytes, so that a shift of 16 bits does.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn field<const DOWN: i32>(v: __m256i, mask: u8) -> __m256i {
    // SAFETY: the caller's promise. A count is a constant once this is inlined.
    unsafe {
        let v = match DOWN {
            0 => v,
            1.. => _mm256_srl_epi16(v, _mm_cvtsi32_si128(DOWN)),
            _ => _mm256_sll_epi16(v, _mm_cvtsi32_si128(-DOWN)),
        };
        and(v, mask)
    }
}

/// The low and the high half of every byte.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn nibbles(v: __m256i) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe { [and(v, 15), field::<4>(v, 15)] }
}

/// Twice the same of different things. Closures would not do: one that is not inlined has not the instructions of its
/// surroundings, and calls a function for each.
macro_rules! both {
    ($x:ident in $a:expr, $b:expr => $value:expr) => {
        [
            {
                let $x = $a;
                $value
            },
            {
                let $x = $b;
                $value
            },
        ]
    };
}

/// The 16-bit numbers at the start of `N` blocks of `STRIDE` bytes, by `lane`.
///
/// # Safety
/// The blocks lie at `p`.
#[inline(always)]
unsafe fn starts_u16<const N: usize, const STRIDE: usize>(p: *const u8) -> __m128i {
    debug_assert!(STRIDE >= 16);
    // SAFETY: x86-64 has SSE2.
    let mut v = unsafe { _mm_setzero_si128() };
    // Loads begin so that what is wanted of each is at its place already, and need only be blended.
    macro_rules! take {
        ($($j:literal)*) => {$(
            if $j < N {
                // SAFETY: the caller's promise. A load begins 2 · lane bytes before block $j, which is not before
                // the first one; its 16 bytes end within block $j.
                unsafe {
                    let from = load16(p.add($j * STRIDE - 2 * const { lane($j, N) }));
                    v = match const { lane($j, N) } {
                        0 => _mm_blend_epi16::<0x01>(v, from),
                        1 => _mm_blend_epi16::<0x02>(v, from),
                        2 => _mm_blend_epi16::<0x04>(v, from),
                        3 => _mm_blend_epi16::<0x08>(v, from),
                        4 => _mm_blend_epi16::<0x10>(v, from),
                        5 => _mm_blend_epi16::<0x20>(v, from),
                        6 => _mm_blend_epi16::<0x40>(v, from),
                        _ => _mm_blend_epi16::<0x80>(v, from),
                    };
                }
            }
        )*};
    }
    take!(0 1 2 3 4 5 6 7);
    v
}

/// The 32-bit numbers at the start of `N` blocks of `STRIDE` bytes, by `lane`.
///
/// # Safety
/// The blocks lie at `p`, and the processor has AVX2.
#[inline(always)]
unsafe fn starts_u32<const N: usize, const STRIDE: usize>(p: *const u8) -> __m256i {
    debug_assert!(STRIDE >= 20 && N >= 2);
    // SAFETY: the processor has AVX2.
    let mut v = unsafe { _mm256_setzero_si256() };
    // As in starts_u16().
    macro_rules! take {
        ($($j:literal)*) => {$(
            if $j < N {
                // SAFETY: the caller's promise. A load begins 4 · lane bytes before block $j, at byte 4 or later
                // unless it is the first one; its 32 bytes end within the N blocks: the last ones begin 20 bytes or
                // more before the last block.
                unsafe {
                    let at = const {
                        let at = $j * STRIDE - 4 * lane($j, N);
                        assert!($j >= N || at + 32 <= N * STRIDE);
                        at
                    };
                    let from = _mm256_loadu_si256(p.add(at).cast());
                    v = match const { lane($j, N) } {
                        0 => _mm256_blend_epi32::<0x01>(v, from),
                        1 => _mm256_blend_epi32::<0x02>(v, from),
                        2 => _mm256_blend_epi32::<0x04>(v, from),
                        3 => _mm256_blend_epi32::<0x08>(v, from),
                        4 => _mm256_blend_epi32::<0x10>(v, from),
                        5 => _mm256_blend_epi32::<0x20>(v, from),
                        6 => _mm256_blend_epi32::<0x40>(v, from),
                        _ => _mm256_blend_epi32::<0x80>(v, from),
                    };
                }
            }
        )*};
    }
    take!(0 1 2 3 4 5 6 7);
    v
}

/// Scales that are one half-precision number at the start of each block.
///
/// # Safety
/// `N` blocks of `STRIDE` bytes lie at `p`, and the processor has F16C.
#[inline(always)]
unsafe fn plain_scales<const N: usize, const STRIDE: usize>(p: *const u8) -> Scales {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = _mm256_setzero_ps();
        Scales { scale: [_mm256_cvtph_ps(starts_u16::<N, STRIDE>(p)), zero], min: [zero; 2] }
    }
}

/// Scales, and what is added (the negative of a min), at the start of each block.
///
/// # Safety
/// `N` blocks of `STRIDE` bytes lie at `p`, and the processor has AVX2 and F16C.
#[inline(always)]
unsafe fn plain_scales_and_mins<const N: usize, const STRIDE: usize>(p: *const u8) -> Scales {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = _mm256_setzero_ps();
        let both = starts_u32::<N, STRIDE>(p);
        // [scales 0..4, mins 0..4 | scales 4..8, mins 4..8], then all scales and all mins.
        #[rustfmt::skip]
        let split = _mm256_setr_epi8(
            0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
            0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
        );
        let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_shuffle_epi8(both, split));
        let scale = _mm256_cvtph_ps(_mm256_castsi256_si128(both));
        let plus = _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(both));
        // Of missing blocks too, which makes their min −0: as good as 0.
        Scales { scale: [scale, zero], min: [_mm256_xor_ps(plus, _mm256_set1_ps(-0.0)), zero] }
    }
}

/// A half-precision number in every lane.
///
/// # Safety
/// It lies at `p`, and the processor has F16C.
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
///
/// # Safety
/// None: x86-64 has SSE2.
#[inline(always)]
unsafe fn upper(v: __m128i) -> __m128i {
    // SAFETY: see above.
    unsafe { _mm_unpackhi_epi64(v, v) }
}

/// Of 16 bytes, one for each 16 values of an octet, those of the blocks' first halves, then those of their second.
///
/// # Safety
/// The processor has SSSE3.
#[inline(always)]
unsafe fn halves(v: __m128i) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { _mm_shuffle_epi8(v, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)) }
}

/// The 6-bit scales and mins of Q4_K and Q5_K, which begin alike.
///
/// # Safety
/// A block lies at `p`, and the processor has AVX2 and F16C.
#[inline(always)]
unsafe fn k_scales_and_mins(p: *const u8) -> Scales {
    // SAFETY: the caller's promise: bytes 0..16 of the block are read.
    unsafe {
        let (a, b, c) = (load_u32(p.add(4)), load_u32(p.add(8)), load_u32(p.add(12)));
        let low = |x: u32| (x & 0x3f3f_3f3f) as u64;
        let high = |nibbles: u32, top: u32| ((nibbles & 0x0f0f_0f0f | top >> 2 & 0x3030_3030) as u64) << 32;
        let scale = _mm_cvtsi64_si128((low(a) | high(c, a)) as i64);
        let min = _mm_cvtsi64_si128((low(b) | high(c >> 4, b)) as i64);
        let zero = _mm256_setzero_ps();
        Scales {
            scale: [scaled!(_mm256_cvtepu8_epi32, scale, splat_f16(p)), zero],
            min: [scaled!(_mm256_cvtepu8_epi32, min, splat_f16(p.add(2))), zero],
        }
    }
}

/// The steps of IQ4_NL and IQ4_XS for the nibbles of `v`.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn steps(v: [__m256i; 2]) -> [__m256i; 2] {
    const TABLE: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
    // SAFETY: the table has 16 bytes, and the caller's promise.
    unsafe {
        let table = _mm256_broadcastsi128_si256(load16(TABLE.as_ptr().cast()));
        both!(v in v[0], v[1] => _mm256_shuffle_epi8(table, v))
    }
}

/// Nibbles with the fifth bits that are at byte `AT` of the 16 bytes at `a` and at `b`.
///
/// # Safety
/// 16 bytes lie there, and the processor has AVX2.
#[inline(always)]
unsafe fn with_fifth_bits<const AT: i8>(v: [__m256i; 2], a: *const u8, b: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let bits = load16x2(a, b);
        let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201u64 as i64);
        both!(i in 0, 1 => {
            let (x, y) = (AT + 2 * i as i8, AT + 2 * i as i8 + 1);
            let one = _mm_setr_epi8(x, x, x, x, x, x, x, x, y, y, y, y, y, y, y, y);
            let spread = _mm256_shuffle_epi8(bits, _mm256_broadcastsi128_si256(one));
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
            or(v[i], and(set, 16))
        })
    }
}

/// A format with blocks of 32, `$bytes` long. The pair is made of where A and B are.
macro_rules! plain {
    ($name:ident, $bytes:literal, $scales:ident, |$a:ident, $b:ident| $pair:expr) => {
        #[allow(non_camel_case_types)]
        pub(super) struct $name;

        // SAFETY: blocks have the size asserted; what reads their fields says where.
        unsafe impl Format for $name {
            const TYPE: DType = {
                assert!(DType::$name.block_bytes() == $bytes && DType::$name.block_len() == 32);
                DType::$name
            };

            #[inline(always)]
            unsafe fn scales<const N: usize>(p: *const u8) -> Scales {
                // SAFETY: the caller's promise.
                unsafe { $scales::<N, $bytes>(p) }
            }

            #[inline(always)]
            unsafe fn pair<const N: usize, const I: usize>(p: *const u8) -> [__m256i; 2] {
                debug_assert!(I < N / 2);
                // SAFETY: the caller's promise: N blocks lie there, and each is read within its bytes.
                unsafe {
                    let ($a, $b) = (p.add(I * $bytes), p.add((I + N / 2) * $bytes));
                    $pair
                }
            }
        }
    };
}

plain!(Q4_0, 18, plain_scales, |a, b| nibbles(load16x2(a.add(2), b.add(2))));
plain!(Q4_1, 20, plain_scales_and_mins, |a, b| nibbles(load16x2(a.add(4), b.add(4))));
plain!(Q5_0, 22, plain_scales, |a, b| with_fifth_bits::<2>(nibbles(load16x2(a.add(6), b.add(6))), a, b));
plain!(Q5_1, 24, plain_scales_and_mins, |a, b| with_fifth_bits::<4>(
    nibbles(load16x2(a.add(8), b.add(8))),
    a,
    b
));
plain!(Q8_0, 34, plain_scales, |a, b| [load16x2(a.add(2), b.add(2)), load16x2(a.add(18), b.add(18))]);
plain!(IQ4_NL, 18, plain_scales, |a, b| steps(nibbles(load16x2(a.add(2), b.add(2)))));

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
            unsafe fn pair<const N: usize, const $i: usize>($p: *const u8) -> [__m256i; 2] {
                debug_assert!(N == 8 && $i < 4);
                // SAFETY: as above.
                unsafe { $pair }
            }
        }
    };
}

/// Field `$mask` of `$v` moved down by `$by[I]`, which is −4..=6.
macro_rules! field_by {
    ($v:expr, $mask:expr, $i:ident, $by:expr) => {
        match const { $by[$i] } {
            -4 => field::<-4>($v, $mask),
            -3 => field::<-3>($v, $mask),
            -2 => field::<-2>($v, $mask),
            -1 => field::<-1>($v, $mask),
            0 => field::<0>($v, $mask),
            1 => field::<1>($v, $mask),
            2 => field::<2>($v, $mask),
            4 => field::<4>($v, $mask),
            6 => field::<6>($v, $mask),
            _ => unreachable!(),
        }
    };
}

/// The bits of blocks 0..4 in the low halves of 16 bytes' places, and those of blocks 4..8 moved there too.
///
/// # Safety
/// 16 bytes lie at `p`, and the processor has AVX2.
#[inline(always)]
unsafe fn bit_planes(p: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let v = _mm256_broadcastsi128_si256(load16(p));
        _mm256_srlv_epi32(v, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4))
    }
}

super_block!(
    Q2_K,
    scales(p) {
        let bytes = halves(load16(p));
        let scale = _mm_and_si128(bytes, _mm_set1_epi8(15));
        let min = _mm_and_si128(_mm_srli_epi16::<4>(bytes), _mm_set1_epi8(15));
        let (d, dmin) = (splat_f16(p.add(80)), splat_f16(p.add(82)));
        Scales {
            scale: both!(s in scale, upper(scale) => scaled!(_mm256_cvtepu8_epi32, s, d)),
            min: both!(m in min, upper(min) => scaled!(_mm256_cvtepu8_epi32, m, dmin)),
        }
    },
    pair(I, p) {
        both!(at in 16, 32 => field_by!(load16x2(p.add(at), p.add(at + 32)), 3, I, [0, 2, 4, 6]))
    }
);

super_block!(
    Q3_K,
    scales(p) {
        let (a, b, c) = (load_u32(p.add(96)), load_u32(p.add(100)), load_u32(p.add(104)));
        let join = |low: u32, high: u32| (low & 0x0f0f_0f0f | (high & 0x0303_0303) << 4) as i32;
        let bytes = _mm_setr_epi32(join(a, c), join(b, c >> 2), join(a >> 4, c >> 4), join(b >> 4, c >> 6));
        let scale = halves(_mm_sub_epi8(bytes, _mm_set1_epi8(32)));
        let d = splat_f16(p.add(108));
        Scales {
            scale: both!(s in scale, upper(scale) => scaled!(_mm256_cvtepi8_epi32, s, d)),
            min: [_mm256_setzero_ps(); 2],
        }
    },
    pair(I, p) {
        both!(at in 0, 16 => {
            let low = load16x2(p.add(32 + at), p.add(64 + at));
            let high = bit_planes(p.add(at));
            or(field_by!(low, 3, I, [0, 2, 4, 6]), field_by!(high, 4, I, [-2, -1, 0, 1]))
        })
    }
);

super_block!(
    Q4_K,
    scales(p) { k_scales_and_mins(p) },
    pair(I, p) {
        let qs = p.add(16 + 32 * (I / 2));
        both!(at in 0, 16 => field_by!(load16x2(qs.add(at), qs.add(64 + at)), 15, I, [0, 4, 0, 4]))
    }
);

super_block!(
    Q5_K,
    scales(p) { k_scales_and_mins(p) },
    pair(I, p) {
        let qs = p.add(48 + 32 * (I / 2));
        both!(at in 0, 16 => {
            let low = load16x2(qs.add(at), qs.add(64 + at));
            let high = bit_planes(p.add(16 + at));
            or(field_by!(low, 15, I, [0, 4, 0, 4]), field_by!(high, 16, I, [-4, -3, -2, -1]))
        })
    }
);

super_block!(
    Q6_K,
    scales(p) {
        let scale = halves(load16(p.add(192)));
        let d = splat_f16(p.add(208));
        Scales {
            scale: both!(s in scale, upper(scale) => scaled!(_mm256_cvtepi8_epi32, s, d)),
            min: [_mm256_setzero_ps(); 2],
        }
    },
    pair(I, p) {
        let (ql, qh) = (p.add(32 * (I % 2)), p.add(128));
        both!(at in 0, 16 => {
            let low = load16x2(ql.add(at), ql.add(64 + at));
            let high = load16x2(qh.add(at), qh.add(32 + at));
            or(field_by!(low, 15, I, [0, 0, 4, 4]), field_by!(high, 0x30, I, [-4, -2, 0, 2]))
        })
    }
);

super_block!(
    IQ4_XS,
    scales(p) {
        let low = _mm256_set1_epi32(load_u32(p.add(4)) as i32);
        let low = _mm256_srlv_epi32(low, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
        let high = _mm256_set1_epi32(load_u16(p.add(2)) as i32);
        let high = _mm256_srlv_epi32(high, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
        let low = _mm256_and_si256(low, _mm256_set1_epi32(15));
        let high = _mm256_slli_epi32::<4>(_mm256_and_si256(high, _mm256_set1_epi32(3)));
        let ls = _mm256_sub_epi32(or(low, high), _mm256_set1_epi32(32));
        let zero = _mm256_setzero_ps();
        Scales { scale: [_mm256_mul_ps(_mm256_cvtepi32_ps(ls), splat_f16(p)), zero], min: [zero; 2] }
    },
    pair(I, p) {
        steps(nibbles(load16x2(p.add(8 + 16 * I), p.add(8 + 16 * (I + 4)))))
    }
);
