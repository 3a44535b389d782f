//! [`Simd`] for x86-64: 256 bits with AVX2, FMA and F16C, and 512 bits with AVX-512.

use core::arch::x86_64::*;

use super::simd::Simd;

/// A method made of intrinsics that touch no memory.
macro_rules! op {
    ($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty { $body:expr }) => {
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $ret {
            // SAFETY: a value of this type exists only where the processor has the instructions (see `new`).
            unsafe { $body }
        }
    };
}

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The processor has AVX2, FMA and F16C.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(())
    }

    /// All bits set in the first `n` lanes.
    #[inline(always)]
    fn mask(self, n: usize) -> __m256i {
        // SAFETY: `self` exists only where AVX2 does.
        unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
    }
}

/// Halves are added to each other, down to one lane.
///
/// # Safety
/// The processor has SSE3.
#[inline(always)]
unsafe fn reduce_add_128(a: __m128) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
    }
}

/// [`reduce_add_128`] of each: transposed, so that the same additions are done side by side.
///
/// # Safety
/// The processor has SSE.
#[inline(always)]
unsafe fn reduce_add4_128(a: [__m128; 4]) -> [f32; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let ab = _mm_add_ps(_mm_unpacklo_ps(a[0], a[1]), _mm_unpackhi_ps(a[0], a[1]));
        let cd = _mm_add_ps(_mm_unpacklo_ps(a[2], a[3]), _mm_unpackhi_ps(a[2], a[3]));
        let all = _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
        std::mem::transmute::<__m128, [f32; 4]>(all)
    }
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;
    const ACCUMULATORS: usize = 8;
    type V = __m256;
    type I = __m256i;

    op!(prefetch(p: *const u8) -> () { _mm_prefetch::<_MM_HINT_T1>(p.cast()) });
    op!(splat(x: f32) -> __m256 { _mm256_set1_ps(x) });
    op!(splat_f16(bits: u16) -> __m256 { _mm256_cvtph_ps(_mm_set1_epi16(bits as i16)) });
    op!(add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) });
    op!(sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) });
    op!(mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) });
    op!(div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) });
    op!(fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) });
    op!(nfma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fnmadd_ps(a, b, c) });
    op!(residue(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmsub_ps(a, b, c) });
    op!(max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) });
    op!(min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) });
    op!(abs(a: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) });
    op!(copysign(a: __m256, b: __m256) -> __m256 { {
        let sign = _mm256_set1_ps(-0.0);
        _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b))
    } });

    op!(round(a: __m256) -> __m256i { _mm256_cvtps_epi32(a) });
    op!(to_f32(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) });
    op!(bits(a: __m256) -> __m256i { _mm256_castps_si256(a) });
    op!(with_bits(a: __m256i) -> __m256 { _mm256_castsi256_ps(a) });
    op!(splat_i32(x: i32) -> __m256i { _mm256_set1_epi32(x) });
    op!(add_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) });
    op!(sub_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) });
    op!(max_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_max_epi32(a, b) });
    #[inline(always)]
    fn shl_i32<const S: u32>(self, a: __m256i) -> __m256i {
        // SAFETY: `self` exists only where AVX2 does. With a constant count this becomes the immediate form.
        unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(S as i32)) }
    }
    #[inline(always)]
    fn shr_i32<const S: u32>(self, a: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_sra_epi32(a, _mm_cvtsi32_si128(S as i32)) }
    }

    op!(reduce_add(a: __m256) -> f32 {
        reduce_add_128(_mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a)))
    });
    #[inline(always)]
    fn reduce_add4(self, a: [__m256; 4]) -> [f32; 4] {
        // SAFETY: `self` exists only where AVX2 does.
        unsafe {
            let mut half = [_mm_setzero_ps(); 4];
            for (half, a) in half.iter_mut().zip(a) {
                *half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            }
            reduce_add4_128(half)
        }
    }
    op!(reduce_max(a: __m256) -> f32 { {
        let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
    } });
    #[inline(always)]
    fn reduce_add4_i32(self, a: [__m256i; 4]) -> [i32; 4] {
        // SAFETY: `self` exists only where AVX2 does.
        unsafe {
            let ab = _mm256_hadd_epi32(a[0], a[1]);
            let cd = _mm256_hadd_epi32(a[2], a[3]);
            let all = _mm256_hadd_epi32(ab, cd);
            let all = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
            std::mem::transmute::<__m128i, [i32; 4]>(all)
        }
    }
    op!(reduce_max_i32(a: __m256i) -> i32 { {
        let a = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
        let a = _mm_max_epi32(a, _mm_unpackhi_epi64(a, a));
        _mm_cvtsi128_si32(_mm_max_epi32(a, _mm_shuffle_epi32::<0b01>(a)))
    } });

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: the caller's promise, and `self` exists only where AVX2 does; so in all that follows.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> __m256 {
        // SAFETY: as above; lanes outside the mask are not read.
        unsafe { _mm256_maskload_ps(p, self.mask(n)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, v: __m256, n: usize) {
        // SAFETY: as above; lanes outside the mask are not written.
        unsafe { _mm256_maskstore_ps(p, self.mask(n), v) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u8, v: __m256) {
        // SAFETY: as above.
        unsafe { _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u8) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const u8) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, v: __m256i) {
        // SAFETY: as above.
        unsafe {
            // The low bytes of four lanes to the front of each half, then the two halves together.
            let front = _mm256_setr_epi8(
                0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1, -1,
                -1, -1, -1, -1, -1, -1, -1,
            );
            let v = _mm256_shuffle_epi8(v, front);
            let both = _mm_unpacklo_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            _mm_storel_epi64(p.cast(), both);
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, src: *const f32, ld_src: usize, dst: *mut f32, ld_dst: usize) {
        // SAFETY: as above.
        unsafe {
            let mut r = [_mm256_setzero_ps(); 8];
            for (i, r) in r.iter_mut().enumerate() {
                *r = _mm256_loadu_ps(src.add(i * ld_src));
            }
            // Pairs of rows, then fours, within each 128-bit half.
            let mut t = [_mm256_setzero_ps(); 8];
            for i in 0..4 {
                t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut u = t;
            for i in 0..2 {
                u[4 * i] = _mm256_shuffle_ps::<0x44>(t[4 * i], t[4 * i + 2]);
                u[4 * i + 1] = _mm256_shuffle_ps::<0xee>(t[4 * i], t[4 * i + 2]);
                u[4 * i + 2] = _mm256_shuffle_ps::<0x44>(t[4 * i + 1], t[4 * i + 3]);
                u[4 * i + 3] = _mm256_shuffle_ps::<0xee>(t[4 * i + 1], t[4 * i + 3]);
            }
            for j in 0..4 {
                let (lo, hi) = (u[j], u[j + 4]);
                _mm256_storeu_ps(dst.add(j * ld_dst), _mm256_permute2f128_ps::<0x20>(lo, hi));
                _mm256_storeu_ps(dst.add((j + 4) * ld_dst), _mm256_permute2f128_ps::<0x31>(lo, hi));
            }
        }
    }
}

/// AVX-512 F, BW, VL and DQ, with what [`Avx2`] needs.
#[derive(Clone, Copy)]
pub(super) struct Avx512(Avx2);

impl Avx512 {
    /// # Safety
    /// The processor has AVX-512 F, BW, VL and DQ, AVX2, FMA and F16C.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { Avx2::new() })
    }

    /// The two halves added.
    #[inline(always)]
    fn fold(self, a: __m512) -> __m256 {
        // SAFETY: `self` exists only where AVX-512 does.
        unsafe { _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)) }
    }
}

/// The first `n` lanes.
#[inline(always)]
fn mask16(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const TILE_ROWS: usize = 12;
    const ACCUMULATORS: usize = 16;
    type V = __m512;
    type I = __m512i;

    op!(prefetch(p: *const u8) -> () { _mm_prefetch::<_MM_HINT_T1>(p.cast()) });
    op!(splat(x: f32) -> __m512 { _mm512_set1_ps(x) });
    op!(splat_f16(bits: u16) -> __m512 { _mm512_cvtph_ps(_mm256_set1_epi16(bits as i16)) });
    op!(add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) });
    op!(sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) });
    op!(mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) });
    op!(div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) });
    op!(fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) });
    op!(nfma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fnmadd_ps(a, b, c) });
    op!(residue(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmsub_ps(a, b, c) });
    op!(max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) });
    op!(min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) });
    op!(abs(a: __m512) -> __m512 { _mm512_andnot_ps(_mm512_set1_ps(-0.0), a) });
    op!(copysign(a: __m512, b: __m512) -> __m512 { {
        let sign = _mm512_set1_ps(-0.0);
        _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, b))
    } });

    op!(round(a: __m512) -> __m512i { _mm512_cvtps_epi32(a) });
    op!(to_f32(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) });
    op!(bits(a: __m512) -> __m512i { _mm512_castps_si512(a) });
    op!(with_bits(a: __m512i) -> __m512 { _mm512_castsi512_ps(a) });
    op!(splat_i32(x: i32) -> __m512i { _mm512_set1_epi32(x) });
    op!(add_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) });
    op!(sub_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi32(a, b) });
    op!(max_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_max_epi32(a, b) });
    #[inline(always)]
    fn shl_i32<const S: u32>(self, a: __m512i) -> __m512i {
        // SAFETY: `self` exists only where AVX-512 does.
        unsafe { _mm512_slli_epi32::<S>(a) }
    }
    #[inline(always)]
    fn shr_i32<const S: u32>(self, a: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_srai_epi32::<S>(a) }
    }
    op!(scale_by_exp2(a: __m512, n: __m512i) -> __m512 { _mm512_scalef_ps(a, _mm512_cvtepi32_ps(n)) });

    #[inline(always)]
    fn reduce_add(self, a: __m512) -> f32 {
        self.0.reduce_add(self.fold(a))
    }
    #[inline(always)]
    fn reduce_add4(self, a: [__m512; 4]) -> [f32; 4] {
        self.0.reduce_add4([self.fold(a[0]), self.fold(a[1]), self.fold(a[2]), self.fold(a[3])])
    }
    op!(reduce_max(a: __m512) -> f32 { _mm512_reduce_max_ps(a) });
    #[inline(always)]
    fn reduce_add4_i32(self, a: [__m512i; 4]) -> [i32; 4] {
        // SAFETY: `self` exists only where AVX-512 does.
        unsafe {
            // Within each 128 bits, to the sums of all four; then the quarters together.
            let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a[0], a[1]), _mm512_unpackhi_epi32(a[0], a[1]));
            let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(a[2], a[3]), _mm512_unpackhi_epi32(a[2], a[3]));
            let all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
            let all = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
            let all = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
            std::mem::transmute::<__m128i, [i32; 4]>(all)
        }
    }
    op!(reduce_max_i32(a: __m512i) -> i32 { _mm512_reduce_max_epi32(a) });

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the caller's promise, and `self` exists only where AVX-512 does; so in all that follows.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> __m512 {
        // SAFETY: as above; lanes outside the mask are not read.
        unsafe { _mm512_maskz_loadu_ps(mask16(n), p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, v: __m512, n: usize) {
        // SAFETY: as above; lanes outside the mask are not written.
        unsafe { _mm512_mask_storeu_ps(p, mask16(n), v) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u8, v: __m512) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u8) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const u8) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, v: __m512i) {
        // SAFETY: as above.
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(v)) }
    }
    #[inline(always)]
    unsafe fn transpose(self, src: *const f32, ld_src: usize, dst: *mut f32, ld_dst: usize) {
        // Four 8 × 8 quarters.
        for (i, j) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            // SAFETY: as above.
            unsafe {
                self.0.transpose(src.add(i * ld_src + j), ld_src, dst.add(j * ld_dst + i), ld_dst);
            }
        }
    }
}
