//! The quantized formats; their layouts are described in `quant`.

use core::arch::x86_64::*;

use super::{Format, Scales};
use crate::DType;
use crate::kernels::x86::{load_u16, load_u32, load16};

/// 64 bytes.
///
/// # Safety
/// They lie at `p`.
#[inline(always)]
unsafe fn load64(p: *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_loadu_si512(p.cast()) }
}

/// 16 bytes, four times.
///
/// # Safety
/// They lie at `p`.
#[inline(always)]
unsafe fn load16_x4(p: *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_broadcast_i32x4(load16(p)) }
}

/// 32 bytes, twice.
///
/// # Safety
/// They lie at `p`.
#[inline(always)]
unsafe fn load32_x2(p: *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(p.cast())) }
}

/// 16 bytes at each of four places, `stride` bytes apart.
///
/// # Safety
/// They lie there.
#[inline(always)]
unsafe fn load16_at4(p: *const u8, stride: usize) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let two = |p: *const u8| {
            _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(load16(p)), load16(p.add(stride)))
        };
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(two(p)), two(p.add(2 * stride)))
    }
}

/// Byte by byte `v & mask`.
#[inline(always)]
unsafe fn and(v: __m512i, mask: u8) -> __m512i {
    // SAFETY: the processor has AVX-512.
    unsafe { _mm512_and_si512(v, _mm512_set1_epi8(mask as i8)) }
}

/// The upper four bits of every byte.
#[inline(always)]
unsafe fn high_nibbles(v: __m512i) -> __m512i {
    // SAFETY: the processor has AVX-512 BW.
    unsafe { and(_mm512_srli_epi16::<4>(v), 15) }
}

/// Field `mask` of every byte after moving bits down by as many as `by` says for each lane of 16 bytes (up, if
/// negative). Fields stay within their bytes, so that a rotation of 32 bits does for a shift.
#[inline(always)]
unsafe fn fields(v: __m512i, by: [i32; 4], mask: u8) -> __m512i {
    let [a, b, c, d] = by;
    // SAFETY: the processor has AVX-512.
    unsafe {
        and(_mm512_rorv_epi32(v, _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d)), mask)
    }
}

/// # Safety
/// The processor has AVX-512.
#[inline(always)]
unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_or_si512(a, b) }
}

/// The 16-bit numbers at the start of `N` blocks of `stride` bytes.
///
/// # Safety
/// The blocks lie at `p`.
#[inline(always)]
unsafe fn starts_u16<const N: usize>(p: *const u8, stride: usize) -> __m128i {
    // SAFETY: the caller's promise: only blocks below N are read.
    unsafe {
        match (N, stride) {
            (8, 18) => starts_of_18(p),
            (8, 22) => starts_of_22(p),
            _ => {
                let at = |i: usize| if i < N { load_u16(p.add(i * stride)) as i16 } else { 0 };
                _mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7))
            }
        }
    }
}

/// Where the words at the start of eight blocks of `stride` bytes are, as an index of words.
const fn words(stride: usize, blocks: [usize; 8]) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 8 {
        index[i] = (blocks[i] * stride / 2) as u16;
        i += 1;
    }
    index
}

/// The 16-bit numbers at the start of eight blocks of 18 bytes, which lie within 128 bytes.
///
/// In assembly because the compiler, where it sees these loads beside those of the blocks' other bytes, makes
/// permutes of them all.
///
/// # Safety
/// They lie at `p`, and the processor has the instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn starts_of_18(p: *const u8) -> __m128i {
    const INDEX: [u16; 32] = words(18, [0, 1, 2, 3, 4, 5, 6, 7]);
    let v: __m512i;
    // SAFETY: the caller's promise: 144 bytes.
    unsafe {
        core::arch::asm!(
            "vmovdqu64 {v}, [{p}]",
            "vpermt2w {v}, {index}, [{p} + 64]",
            v = out(zmm_reg) v,
            index = in(zmm_reg) _mm512_loadu_si512(INDEX.as_ptr().cast()),
            p = in(reg) p,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    _mm512_castsi512_si128(v)
}

/// The 16-bit numbers at the start of eight blocks of 22 bytes. In assembly as above.
///
/// # Safety
/// They lie at `p`, and the processor has the instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn starts_of_22(p: *const u8) -> __m128i {
    // Of blocks 0..5 in 128 bytes from the first, and 5.. in 64 bytes from byte 110, where block 5 begins.
    const FIRST: [u16; 32] = words(22, [0, 1, 2, 3, 4, 0, 0, 0]);
    const LAST: [u16; 32] = words(22, [0, 0, 0, 0, 0, 0, 1, 2]);
    let v: __m512i;
    // SAFETY: the caller's promise: 176 bytes.
    unsafe {
        core::arch::asm!(
            "vmovdqu64 {v}, [{p}]",
            "vpermt2w {v}, {first}, [{p} + 64]",
            "vpermw {v} {{{mask}}}, {last}, [{p} + 110]",
            v = out(zmm_reg) v,
            first = in(zmm_reg) _mm512_loadu_si512(FIRST.as_ptr().cast()),
            last = in(zmm_reg) _mm512_loadu_si512(LAST.as_ptr().cast()),
            mask = in(kreg) 0b1110_0000u32,
            p = in(reg) p,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    _mm512_castsi512_si128(v)
}

/// The 32-bit numbers at the start of `N` blocks of `stride` bytes.
///
/// # Safety
/// The blocks lie at `p`.
#[inline(always)]
unsafe fn starts_u32<const N: usize>(p: *const u8, stride: usize) -> __m256i {
    // SAFETY: the caller's promise: only blocks below N are read.
    unsafe {
        let at = |i: usize| if i < N { load_u32(p.add(i * stride)) as i32 } else { 0 };
        _mm256_setr_epi32(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7))
    }
}

/// Scales, one for each block.
#[inline(always)]
unsafe fn one_group(scale: __m256, min: __m256) -> Scales {
    // SAFETY: the processor has AVX-512.
    unsafe { Scales { scale: _mm512_castps256_ps512(scale), min: _mm512_castps256_ps512(min) } }
}

/// Scales that are one half-precision number at the start of each block.
///
/// # Safety
/// `N` blocks of `stride` bytes lie at `p`.
#[inline(always)]
unsafe fn plain_scales<const N: usize>(p: *const u8, stride: usize) -> Scales {
    // SAFETY: the caller's promise.
    unsafe { one_group(_mm256_cvtph_ps(starts_u16::<N>(p, stride)), _mm256_setzero_ps()) }
}

/// Scales, and what is added (the negative of a min), at the start of each block.
///
/// # Safety
/// `N` blocks of `stride` bytes lie at `p`.
#[inline(always)]
unsafe fn plain_scales_and_mins<const N: usize>(p: *const u8, stride: usize) -> Scales {
    // SAFETY: the caller's promise.
    unsafe {
        let both = starts_u32::<N>(p, stride);
        let scale = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(both));
        let plus = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(_mm256_srli_epi32::<16>(both)));
        let sign = _mm256_set1_ps(-0.0);
        // Of missing blocks too, which makes their min −0: as good as 0.
        one_group(scale, _mm256_xor_ps(plus, sign))
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

/// The same, sixteen times.
///
/// # Safety
/// It lies at `p`.
#[inline(always)]
unsafe fn splat_f16_x16(p: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_broadcastss_ps(_mm256_castps256_ps128(splat_f16(p))) }
}

/// The lower eight bytes of `v` times `by`.
#[inline(always)]
unsafe fn scaled(v: __m128i, by: __m256) -> __m256 {
    // SAFETY: the processor has AVX2.
    unsafe { _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v)), by) }
}

/// Sixteen signed bytes times `by`.
#[inline(always)]
unsafe fn scaled_x16(v: __m128i, by: __m512) -> __m512 {
    // SAFETY: the processor has AVX-512.
    unsafe { _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v)), by) }
}

/// 16 bytes, one for each 16 values of an octet, to the places of [`super::lane`].
#[inline(always)]
unsafe fn by_lanes(v: __m128i) -> __m128i {
    // SAFETY: the processor has SSSE3.
    unsafe { _mm_shuffle_epi8(v, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)) }
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
        one_group(scaled(both, splat_f16(p)), scaled(_mm_unpackhi_epi64(both, both), splat_f16(p.add(2))))
    }
}

/// The steps of IQ4_NL and IQ4_XS for the nibbles of `v`, top bit flipped.
#[inline(always)]
unsafe fn steps(v: __m512i) -> __m512i {
    const TABLE: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];
    // SAFETY: the table has 16 bytes, and the processor AVX-512 BW.
    unsafe { _mm512_shuffle_epi8(load16_x4(TABLE.as_ptr()), v) }
}

/// A format with blocks of 32, `$bytes` long.
macro_rules! plain {
    ($name:ident, $bytes:literal, $scales:ident, quad($p:ident) $quad:block) => {
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
            unsafe fn quad<const Q: usize>(p: *const u8) -> [__m512i; 2] {
                // SAFETY: the caller's promise: four blocks lie there.
                unsafe {
                    let $p = p.add(4 * Q * $bytes);
                    $quad
                }
            }
        }
    };
}

plain!(Q4_0, 18, plain_scales, quad(p) {
    let raw = load16_at4(p.add(2), 18);
    [and(raw, 15), high_nibbles(raw)]
});
plain!(Q4_1, 20, plain_scales_and_mins, quad(p) {
    let raw = load16_at4(p.add(4), 20);
    [and(raw, 15), high_nibbles(raw)]
});
plain!(Q5_0, 22, plain_scales, quad(p) {
    let raw = load16_at4(p.add(6), 22);
    with_fifth_bits([and(raw, 15), high_nibbles(raw)], p.add(2), 22)
});
plain!(Q5_1, 24, plain_scales_and_mins, quad(p) {
    let raw = load16_at4(p.add(8), 24);
    with_fifth_bits([and(raw, 15), high_nibbles(raw)], p.add(4), 24)
});
plain!(Q8_0, 34, plain_scales, quad(p) {
    let flip = _mm512_set1_epi8(-128);
    [_mm512_xor_si512(load16_at4(p.add(2), 34), flip), _mm512_xor_si512(load16_at4(p.add(18), 34), flip)]
});
plain!(IQ4_NL, 18, plain_scales, quad(p) {
    let raw = load16_at4(p.add(2), 18);
    [steps(and(raw, 15)), steps(high_nibbles(raw))]
});

/// Nibbles with the fifth bits that are at `p` and at three more places, `stride` bytes apart.
///
/// # Safety
/// 32 bits lie there.
#[inline(always)]
unsafe fn with_fifth_bits(v: [__m512i; 2], p: *const u8, stride: usize) -> [__m512i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let at = |i: usize| load_u32(p.add(i * stride)) as i32;
        let qh = _mm_setr_epi32(at(0), at(1), at(2), at(3));
        // Twice in the lane that needs it. The fifth bit of value i comes to bit 4 of byte i of the eight bits that
        // begin at bit i − 4, or i + 12 for those of the second half.
        let spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        let qh = _mm512_permutexvar_epi32(spread, _mm512_castsi128_si512(qh));
        let from =
            _mm512_broadcast_i32x4(_mm_setr_epi8(60, 61, 62, 63, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11));
        let low = _mm512_multishift_epi64_epi8(from, qh);
        let high = _mm512_multishift_epi64_epi8(_mm512_add_epi8(from, _mm512_set1_epi8(16)), qh);
        [or(v[0], and(low, 16)), or(v[1], and(high, 16))]
    }
}

/// A format with blocks of 256, which are whole octets: the scales of the one at `$ps`, and register `$i` of quad `$q`
/// of the one at `$p`.
macro_rules! super_block {
    ($name:ident, scales($ps:ident) $scales:block, register($p:ident, $q:ident, $i:ident) $body:block) => {
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
            unsafe fn quad<const Q: usize>($p: *const u8) -> [__m512i; 2] {
                const { assert!(Q < 2) };
                // SAFETY: as above.
                unsafe {
                    [
                        {
                            let ($q, $i) = (Q, 0usize);
                            $body
                        },
                        {
                            let ($q, $i) = (Q, 1usize);
                            $body
                        },
                    ]
                }
            }
        }
    };
}

super_block!(
    Q2_K,
    scales(p) {
        let bytes = by_lanes(load16(p));
        let scale = _mm_and_si128(bytes, _mm_set1_epi8(15));
        let min = _mm_and_si128(_mm_srli_epi16::<4>(bytes), _mm_set1_epi8(15));
        Scales {
            scale: scaled_x16(scale, splat_f16_x16(p.add(80))),
            min: scaled_x16(min, splat_f16_x16(p.add(82))),
        }
    },
    register(p, q, i) {
        let s = 4 * i as i32;
        fields(load32_x2(p.add(16 + 32 * q)), [s, s, s + 2, s + 2], 3)
    }
);

super_block!(
    Q3_K,
    scales(p) {
        let (a, b, c) = (load_u32(p.add(96)), load_u32(p.add(100)), load_u32(p.add(104)));
        let join = |low: u32, high: u32| (low & 0x0f0f_0f0f | (high & 0x0303_0303) << 4) as i32;
        let bytes = _mm_setr_epi32(join(a, c), join(b, c >> 2), join(a >> 4, c >> 4), join(b >> 4, c >> 6));
        let scale = by_lanes(_mm_sub_epi8(bytes, _mm_set1_epi8(32)));
        Scales { scale: scaled_x16(scale, splat_f16_x16(p.add(108))), min: _mm512_setzero_ps() }
    },
    register(p, q, i) {
        let s = 4 * i as i32;
        let low = fields(load32_x2(p.add(32 + 32 * q)), [s, s, s + 2, s + 2], 3);
        // The third bit: from bit 4 q + 2 i, and from the next one, to bit 2.
        let s = (4 * q + 2 * i) as i32 - 2;
        or(low, fields(load32_x2(p), [s, s, s + 1, s + 1], 4))
    }
);

super_block!(
    Q4_K,
    scales(p) { k_scales_and_mins(p) },
    register(p, q, i) { fields(k_nibbles(p.add(16 + 64 * q), i), [0, 4, 0, 4], 15) }
);

super_block!(
    Q5_K,
    scales(p) { k_scales_and_mins(p) },
    register(p, q, i) {
        let low = fields(k_nibbles(p.add(48 + 64 * q), i), [0, 4, 0, 4], 15);
        let s = 4 * q as i32 - 4;
        or(low, fields(load16_x4(p.add(16 + 16 * i)), [s, s + 1, s + 2, s + 3], 16))
    }
);

/// Of 64 bytes of nibbles of Q4_K and Q5_K, those of register `i`: A's are low ones, B's the high ones of the same
/// bytes, and so C's and D's.
///
/// # Safety
/// They lie at `p`.
#[inline(always)]
unsafe fn k_nibbles(p: *const u8, i: usize) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let raw = load64(p);
        if i == 0 {
            _mm512_shuffle_i32x4::<0b10_10_00_00>(raw, raw)
        } else {
            _mm512_shuffle_i32x4::<0b11_11_01_01>(raw, raw)
        }
    }
}

super_block!(
    Q6_K,
    scales(p) {
        let scale = scaled_x16(by_lanes(load16(p.add(192))), splat_f16_x16(p.add(208)));
        Scales { scale, min: _mm512_setzero_ps() }
    },
    register(p, q, i) {
        // A and B are low nibbles, C and D the high ones of the same bytes.
        let raw = load64(p.add(64 * q));
        let low = if i == 0 { and(raw, 15) } else { high_nibbles(raw) };
        let s = 4 * i as i32 - 4;
        or(low, fields(load32_x2(p.add(128 + 32 * q)), [s, s, s + 2, s + 2], 0x30))
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
        let ls = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
        one_group(_mm256_mul_ps(_mm256_cvtepi32_ps(ls), splat_f16(p)), _mm256_setzero_ps())
    },
    register(p, q, i) {
        let raw = load64(p.add(8 + 64 * q));
        steps(if i == 0 { and(raw, 15) } else { high_nibbles(raw) })
    }
);
