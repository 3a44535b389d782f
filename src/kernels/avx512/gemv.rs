//! Weight rows × a few rows of activations.

use core::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::{Format, OCTET, Padded, Scales};
use crate::kernels::{Acts, BLOCK, Grouping, Rows, with_format};

/// Activations of up to an octet in the order that the loops read them.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Arranged {
    /// Of each quad: `h` of both registers, then `l`.
    planes: [[[u8; 64]; 4]; 2],
    /// Over 256, in the lanes of [`super::Scales`].
    scale: [f32; 16],
    /// In the same lanes.
    sum: [f32; 16],
}

/// Octets of activations held at a time, for one row or for each of several: 62 KB on the stack, for rows of 24576
/// values.
const ROOM: usize = 97;
/// How far ahead weights are asked for, in bytes.
const AHEAD: usize = 4096;
/// Octets from which on it pays to unpack ahead.
const STREAM: usize = 4;
/// Weight rows whose unfinished sums are kept where rows of activations are longer than that.
const CHUNK: usize = 8;

/// The sums of one output on the way, lane by lane.
#[derive(Clone, Copy)]
struct Sums {
    /// Of products: those of either quad of an octet, or with two groups those of either register of a quad.
    dot: [__m512; 2],
    /// Of what mins, or else offsets, are to take away.
    minus: __m512,
}

/// See [`crate::kernels::Kernels::gemv`].
///
/// # Safety
/// The processor has the instructions of [`super::TABLE`], and lengths are as `Kernels::gemv` checks them.
pub(super) unsafe fn gemv(rows: Rows<'_>, acts: &Acts<'_>, out: &mut [f32], stride: usize) {
    if rows.len() > 0 {
        // SAFETY: the caller's promise.
        unsafe { with_format!(rows.ty, tiles(rows, acts, out, stride)) }
    }
}

/// # Safety
/// As for [`gemv`].
unsafe fn tiles<F: Format>(rows: Rows<'_>, acts: &Acts<'_>, out: &mut [f32], stride: usize) {
    let octets = acts.k.div_ceil(OCTET * BLOCK) + 1;
    let mut room = [const { MaybeUninit::<Arranged>::uninit() }; ROOM];
    let mut t = 0;
    while t < acts.rows {
        let out = &mut out[t * stride..];
        let left = acts.rows - t;
        // SAFETY: the caller's promise, and as many rows of activations are left.
        unsafe {
            if left >= 4 && 4 * octets <= ROOM {
                tile::<F, 4>(rows, acts, t, out, stride, &mut room);
                t += 4;
            } else if left >= 2 && 2 * octets <= ROOM {
                tile::<F, 2>(rows, acts, t, out, stride, &mut room);
                t += 2;
            } else {
                tile::<F, 1>(rows, acts, t, out, stride, &mut room);
                t += 1;
            }
        }
    }
}

/// # Safety
/// As for [`gemv`]; rows `t`..`t` + `T` of activations exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn tile<F: Format, const T: usize>(
    rows: Rows<'_>,
    acts: &Acts<'_>,
    t: usize,
    out: &mut [f32],
    stride: usize,
    room: &mut [MaybeUninit<Arranged>; ROOM],
) {
    let blocks = acts.k / BLOCK;
    let zero = Sums { dot: [_mm512_setzero_ps(); 2], minus: _mm512_setzero_ps() };
    // All of K at once where there is room, else slabs of whole octets and their sums, for a few rows at a time.
    let slab = (ROOM / T - 1) * OCTET;
    let one = blocks <= slab;
    let mut kept = [[zero; T]; CHUNK];
    for from in (0..rows.len()).step_by(if one { rows.len() } else { CHUNK }) {
        let end = if one { rows.len() } else { rows.len().min(from + CHUNK) };
        for start in (0..blocks).step_by(slab) {
            let n = slab.min(blocks - start);
            if from == 0 || !one {
                for i in 0..T {
                    // SAFETY: blocks `start`..`start` + `n` of row `t + i` exist, and there is room for them.
                    unsafe { arrange::<F, T>(acts, t + i, start, n, i, room) };
                }
            }
            let mut some =
                Part { rows, from, blocks: start..start + n, room: room.as_ptr().cast(), kept: &mut kept };
            // Two rows share the loads of activations. They lie far apart, so that memory is read in two long streams.
            let pairs = if T == 1 { (end - from) / 2 } else { 0 };
            // SAFETY: the activations of these blocks were arranged.
            unsafe {
                for r in from..from + pairs {
                    some.rows::<F, 2>([r, r + pairs], out, stride);
                }
                for r in from + 2 * pairs..end {
                    some.rows::<F, 1>([r], out, stride);
                }
            }
        }
    }
}

/// Part of K of some weight rows.
struct Part<'a, const T: usize> {
    rows: Rows<'a>,
    /// The first row of those in `kept`.
    from: usize,
    blocks: Range<usize>,
    /// The activations of `blocks`, arranged.
    room: *const [Arranged; T],
    kept: &'a mut [[Sums; T]; CHUNK],
}

impl<const T: usize> Part<'_, T> {
    /// Adds this part of weight rows `at`, and stores their outputs if it is the last one.
    ///
    /// # Safety
    /// As for [`tile`]; `room` holds what it says.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
    unsafe fn rows<F: Format, const R: usize>(&mut self, at: [usize; R], out: &mut [f32], stride: usize) {
        let zero = Sums { dot: [_mm512_setzero_ps(); 2], minus: _mm512_setzero_ps() };
        let bytes = self.blocks.start * BLOCK / F::TYPE.block_len() * F::TYPE.block_bytes();
        let mut w = [std::ptr::null(); R];
        let mut sums = [[zero; T]; R];
        for (i, &r) in at.iter().enumerate() {
            w[i] = self.rows.row(r)[bytes..].as_ptr();
            if self.blocks.start > 0 {
                sums[i] = self.kept[r - self.from];
            }
        }
        // SAFETY: `blocks` lie at each of `w`; for activations, the caller's promise.
        unsafe { run::<F, R, T>(w, self.blocks.len(), self.room, &mut sums) };
        for (r, sums) in at.into_iter().zip(sums) {
            if self.blocks.end * BLOCK < self.rows.cols {
                self.kept[r - self.from] = sums;
            } else {
                for (t, s) in sums.into_iter().enumerate() {
                    out[t * stride + r] = total::<F>(s);
                }
            }
        }
    }
}

/// Adds `n` blocks of `R` weight rows.
///
/// # Safety
/// The processor has the instructions, `n` blocks lie at each of `w` (whole blocks of the format), and their
/// activations at `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn run<F: Format, const R: usize, const T: usize>(
    mut w: [*const u8; R],
    n: usize,
    mut x: *const [Arranged; T],
    sums: &mut [[Sums; T]; R],
) {
    let bytes = F::TYPE.block_bytes() * BLOCK * OCTET / F::TYPE.block_len();
    // SAFETY: the caller's promise: eight blocks each time, then those that are left.
    unsafe {
        if R == 2 && T == 1 && n / 8 >= STREAM {
            let (first, second) = sums.split_at_mut(1);
            stream::<F>([w[0], w[1 % R]], n / 8, x.cast(), [&mut first[0][0], &mut second[0][0]]);
            w = w.map(|w| w.wrapping_add(n / 8 * bytes));
            x = x.wrapping_add(n / 8);
        } else {
            for _ in 0..n / 8 {
                w.iter().for_each(|w| prefetch(*w, bytes));
                octet::<F, 8, R, T>(&mut w, &mut x, bytes, sums);
            }
        }
        if F::TYPE.block_len() == BLOCK {
            if !n.is_multiple_of(8) {
                w.iter().for_each(|w| prefetch(*w, bytes / 8 * (n % 8)));
            }
            if n % 8 >= 4 {
                octet::<F, 4, R, T>(&mut w, &mut x, bytes / 2, sums);
            }
            if !n.is_multiple_of(4) {
                let padded = w.map(|w| Padded::new(w, bytes / 8 * (n % 4)));
                octet::<F, 4, R, T>(&mut std::array::from_fn(|r| padded[r].0.as_ptr()), &mut x, 0, sums);
            }
        }
    }
}

/// No instruction, but the values are made before it and used after it: keeps the compiler from undoing the order
/// that instructions are written in.
macro_rules! pin {
    ($a:expr, $b:expr) => {
        core::arch::asm!(
            "/* {} {} */",
            inlateout(zmm_reg) $a,
            inlateout(zmm_reg) $b,
            options(nomem, nostack, preserves_flags)
        )
    };
    ($a:expr, $b:expr, $c:expr, $d:expr) => {
        core::arch::asm!(
            "/* {} {} {} {} */",
            inlateout(zmm_reg) $a,
            inlateout(zmm_reg) $b,
            inlateout(zmm_reg) $c,
            inlateout(zmm_reg) $d,
            options(nomem, nostack, preserves_flags)
        )
    };
}

/// Adds whole octets of two rows, where one row of activations has no work for more: [`octet`] for many, with the
/// unpacking of what comes next between the instructions of what is added now. A processor looks ahead by little
/// more than one octet of these dependent instructions; they must come in the order in which they can run.
///
/// # Safety
/// As for [`run`]; there are `octets` > 0 octets.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn stream<F: Format>(
    [mut p, mut q]: [*const u8; 2],
    octets: usize,
    mut x: *const Arranged,
    [s, z]: [&mut Sums; 2],
) {
    let g = const { Grouping::of(F::TYPE) };
    let bytes = F::TYPE.block_bytes() * BLOCK * OCTET / F::TYPE.block_len();
    // SAFETY: the caller's promise. After the last octet it is unpacked once more, for nothing.
    unsafe {
        let (mut a, mut b) = (F::quad::<0>(p), F::quad::<0>(q));
        let (mut c, mut d) = (F::quad::<1>(p), F::quad::<1>(q));
        for left in (0..octets).rev() {
            let at = &*x;
            let step = if left > 0 { bytes } else { 0 };
            let (next_p, next_q) = (p.wrapping_add(step), q.wrapping_add(step));
            prefetch(p, bytes);
            prefetch(q, bytes);
            let scales = [F::scales::<8>(p), F::scales::<8>(q)];
            let plane = |q: usize, i: usize| _mm512_load_si512(at.planes[q][i].as_ptr().cast());
            let dot = |to: &mut __m512i, w: __m512i, x: __m512i| *to = _mm512_dpbusd_epi32(*to, w, x);
            let up = |v: &mut __m512i| *v = _mm512_slli_epi32::<8>(*v);
            let scale = [factors::<F>(at, scales[0], s), factors::<F>(at, scales[1], z)];
            if g.per_block() == 1 {
                let mut i = [_mm512_setzero_si512(); 4];
                let [i0, i1, i2, i3] = &mut i;
                dot(i0, a[0], plane(0, 0));
                dot(i1, b[0], plane(0, 0));
                dot(i2, c[0], plane(1, 0));
                dot(i3, d[0], plane(1, 0));
                pin!(*i0, *i1, *i2, *i3);
                let mut next_a = F::quad::<0>(next_p);
                pin!(next_a[0], next_a[1]);
                dot(i0, a[1], plane(0, 1));
                dot(i1, b[1], plane(0, 1));
                dot(i2, c[1], plane(1, 1));
                dot(i3, d[1], plane(1, 1));
                pin!(*i0, *i1, *i2, *i3);
                let mut next_b = F::quad::<0>(next_q);
                pin!(next_b[0], next_b[1]);
                up(i0);
                up(i1);
                up(i2);
                up(i3);
                dot(i0, a[0], plane(0, 2));
                dot(i1, b[0], plane(0, 2));
                dot(i2, c[0], plane(1, 2));
                dot(i3, d[0], plane(1, 2));
                pin!(*i0, *i1, *i2, *i3);
                let mut next_c = F::quad::<1>(next_p);
                pin!(next_c[0], next_c[1]);
                dot(i0, a[1], plane(0, 3));
                dot(i1, b[1], plane(0, 3));
                dot(i2, c[1], plane(1, 3));
                dot(i3, d[1], plane(1, 3));
                pin!(*i0, *i1, *i2, *i3);
                let mut next_d = F::quad::<1>(next_q);
                pin!(next_d[0], next_d[1]);
                s.dot[0] = add(s.dot[0], *i0, spread_32::<0>(scale[0]));
                z.dot[0] = add(z.dot[0], *i1, spread_32::<0>(scale[1]));
                s.dot[1] = add(s.dot[1], *i2, spread_32::<1>(scale[0]));
                z.dot[1] = add(z.dot[1], *i3, spread_32::<1>(scale[1]));
                (a, b, c, d) = (next_a, next_b, next_c, next_d);
            } else {
                let mut i = [_mm512_setzero_si512(); 4];
                let [i0, i1, i2, i3] = &mut i;
                dot(i0, a[0], plane(0, 0));
                dot(i1, a[1], plane(0, 1));
                dot(i2, b[0], plane(0, 0));
                dot(i3, b[1], plane(0, 1));
                pin!(*i0, *i1, *i2, *i3);
                let mut next_c = F::quad::<1>(p);
                pin!(next_c[0], next_c[1]);
                up(i0);
                up(i1);
                up(i2);
                up(i3);
                dot(i0, a[0], plane(0, 2));
                dot(i1, a[1], plane(0, 3));
                dot(i2, b[0], plane(0, 2));
                dot(i3, b[1], plane(0, 3));
                pin!(*i0, *i1, *i2, *i3);
                let mut next_d = F::quad::<1>(q);
                pin!(next_d[0], next_d[1]);
                s.dot[0] = add(s.dot[0], *i0, spread_16(scale[0], 0));
                s.dot[1] = add(s.dot[1], *i1, spread_16(scale[0], 1));
                z.dot[0] = add(z.dot[0], *i2, spread_16(scale[1], 0));
                z.dot[1] = add(z.dot[1], *i3, spread_16(scale[1], 1));
                (c, d) = (next_c, next_d);
                let mut i = [_mm512_setzero_si512(); 4];
                let [i0, i1, i2, i3] = &mut i;
                dot(i0, c[0], plane(1, 0));
                dot(i1, c[1], plane(1, 1));
                dot(i2, d[0], plane(1, 0));
                dot(i3, d[1], plane(1, 1));
                pin!(*i0, *i1, *i2, *i3);
                a = F::quad::<0>(next_p);
                pin!(a[0], a[1]);
                up(i0);
                up(i1);
                up(i2);
                up(i3);
                dot(i0, c[0], plane(1, 2));
                dot(i1, c[1], plane(1, 3));
                dot(i2, d[0], plane(1, 2));
                dot(i3, d[1], plane(1, 3));
                pin!(*i0, *i1, *i2, *i3);
                b = F::quad::<0>(next_q);
                pin!(b[0], b[1]);
                s.dot[0] = add(s.dot[0], *i0, spread_16(scale[0], 2));
                s.dot[1] = add(s.dot[1], *i1, spread_16(scale[0], 3));
                z.dot[0] = add(z.dot[0], *i2, spread_16(scale[1], 2));
                z.dot[1] = add(z.dot[1], *i3, spread_16(scale[1], 3));
            }
            (p, q) = (next_p, next_q);
            x = x.wrapping_add(1);
        }
    }
}

/// Asks for the lines that `bytes` at `p` take, [`AHEAD`] of them.
#[inline(always)]
unsafe fn prefetch(p: *const u8, bytes: usize) {
    for line in 0..bytes.div_ceil(64) {
        // SAFETY: any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(AHEAD + line * 64).cast()) };
    }
}

/// What products of an octet are to be multiplied with. Adds what its mins or offsets take away.
#[inline(always)]
unsafe fn factors<F: Format>(x: &Arranged, s: Scales, sums: &mut Sums) -> __m512 {
    let g = const { Grouping::of(F::TYPE) };
    let minus = if g.mins { s.min } else { s.scale };
    // SAFETY: the processor has AVX-512, and `scale` and `sum` have 16 values, aligned.
    unsafe {
        if g.per_block() == 1 {
            let half = |v: __m512| _mm512_castps512_ps256(v);
            let sum = _mm256_load_ps(x.sum.as_ptr());
            sums.minus = _mm512_castps256_ps512(_mm256_fmadd_ps(half(minus), sum, half(sums.minus)));
            _mm512_castps256_ps512(_mm256_mul_ps(half(s.scale), _mm256_load_ps(x.scale.as_ptr())))
        } else {
            sums.minus = _mm512_fmadd_ps(minus, _mm512_load_ps(x.sum.as_ptr()), sums.minus);
            _mm512_mul_ps(s.scale, _mm512_load_ps(x.scale.as_ptr()))
        }
    }
}

/// `sum + dot · scale`
#[inline(always)]
unsafe fn add(sum: __m512, dot: __m512i, scale: __m512) -> __m512 {
    // SAFETY: the processor has AVX-512.
    unsafe { _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sum) }
}

/// The scales of the blocks of quad `Q`, each four times.
#[inline(always)]
unsafe fn spread_32<const Q: usize>(scale: __m512) -> __m512 {
    // SAFETY: the processor has AVX-512.
    unsafe {
        let index = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        _mm512_permutexvar_ps(_mm512_add_epi32(index, _mm512_set1_epi32(4 * Q as i32)), scale)
    }
}

/// The scales of the four parts of an octet's register `i`, each four times.
#[inline(always)]
unsafe fn spread_16(scale: __m512, i: usize) -> __m512 {
    // SAFETY: the processor has AVX-512.
    unsafe {
        match i {
            0 => _mm512_permute_ps::<0x00>(scale),
            1 => _mm512_permute_ps::<0x55>(scale),
            2 => _mm512_permute_ps::<0xaa>(scale),
            _ => _mm512_permute_ps::<0xff>(scale),
        }
    }
}

/// Adds `N` blocks of each row, `bytes` of weights, and moves on.
///
/// # Safety
/// The processor has the instructions, and the blocks lie at `w`, their activations at `x`.
#[inline(always)]
unsafe fn octet<F: Format, const N: usize, const R: usize, const T: usize>(
    w: &mut [*const u8; R],
    x: &mut *const [Arranged; T],
    bytes: usize,
    sums: &mut [[Sums; T]; R],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let at = &**x;
        let mut scale = [[_mm512_setzero_ps(); T]; R];
        for r in 0..R {
            let s = F::scales::<N>(w[r]);
            for t in 0..T {
                scale[r][t] = factors::<F>(&at[t], s, &mut sums[r][t]);
            }
        }
        quad::<F, R, T, 0>(w, at, &scale, sums);
        if N > 4 {
            quad::<F, R, T, 1>(w, at, &scale, sums);
        }
        for w in w {
            *w = w.wrapping_add(bytes);
        }
        *x = x.wrapping_add(1);
    }
}

/// Adds quad `Q` of the octet.
///
/// # Safety
/// As for [`octet`].
#[inline(always)]
unsafe fn quad<F: Format, const R: usize, const T: usize, const Q: usize>(
    w: &[*const u8; R],
    x: &[Arranged; T],
    scale: &[[__m512; T]; R],
    sums: &mut [[Sums; T]; R],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut v = [[_mm512_setzero_si512(); 2]; R];
        for r in 0..R {
            v[r] = F::quad::<Q>(w[r]);
        }
        for t in 0..T {
            let plane = |i: usize| _mm512_load_si512(x[t].planes[Q][i].as_ptr().cast());
            let zero = _mm512_setzero_si512();
            for r in 0..R {
                let sum = &mut sums[r][t].dot;
                if const { Grouping::of(F::TYPE).per_block() == 1 } {
                    let h =
                        _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, v[r][0], plane(0)), v[r][1], plane(1));
                    let a = _mm512_slli_epi32::<8>(h);
                    let a = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(a, v[r][0], plane(2)), v[r][1], plane(3));
                    sum[Q] = add(sum[Q], a, spread_32::<Q>(scale[r][t]));
                } else {
                    for g in 0..2 {
                        let a = _mm512_slli_epi32::<8>(_mm512_dpbusd_epi32(zero, v[r][g], plane(g)));
                        let a = _mm512_dpbusd_epi32(a, v[r][g], plane(2 + g));
                        sum[g] = add(sum[g], a, spread_16(scale[r][t], 2 * Q + g));
                    }
                }
            }
        }
    }
}

/// The output that lanes add up to.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn total<F: Format>(s: Sums) -> f32 {
    let g = const { Grouping::of(F::TYPE) };
    let dot = _mm512_add_ps(s.dot[0], s.dot[1]);
    let dot = _mm256_add_ps(_mm512_castps512_ps256(dot), _mm512_extractf32x8_ps::<1>(dot));
    let by = _mm256_set1_ps(if g.mins { 1.0 } else { g.offset as f32 });
    let mut all = _mm256_fnmadd_ps(_mm512_castps512_ps256(s.minus), by, dot);
    if g.per_block() == 2 {
        all = _mm256_fnmadd_ps(_mm512_extractf32x8_ps::<1>(s.minus), by, all);
    }
    let half = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
    let two = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Arranges `n` blocks from `start` of row `t` as row `i` of a tile of `T`, in the steps that [`row`] takes.
///
/// # Safety
/// The processor has the instructions; the blocks exist, and `room` has T · (n / 8 + 2) places.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn arrange<F: Format, const T: usize>(
    acts: &Acts<'_>,
    t: usize,
    start: usize,
    n: usize,
    i: usize,
    room: &mut [MaybeUninit<Arranged>; ROOM],
) {
    let two_groups = const { Grouping::of(F::TYPE).per_block() == 2 };
    // To the lanes of scales: those of groups, and for each those of its block.
    let groups = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let blocks = _mm512_srli_epi32::<1>(groups);
    let at = t * (acts.k / BLOCK) + start;
    let mut b = 0;
    for to in room.iter_mut().skip(i).step_by(T) {
        let step = match n - b {
            0 => break,
            left @ 1..4 => left,
            4..8 => 4,
            _ => 8,
        };
        let to = to.as_mut_ptr();
        let (h, l) =
            (&acts.h[(at + b) * BLOCK..][..step * BLOCK], &acts.l[(at + b) * BLOCK..][..step * BLOCK]);
        let scale = &acts.scale[at + b..][..step];
        let (sum16, sum32) = (&acts.sum16[2 * (at + b)..][..2 * step], &acts.sum32[at + b..][..step]);
        // SAFETY: reads stay within the slices above, which have `step` blocks, by masks where they are less than a
        // register; `to` is one place of `room`.
        unsafe {
            for quad in 0..step.div_ceil(4) {
                // Eight parts of 16 bytes, as far as there are blocks.
                let mask = (1u32 << (4 * (step - 4 * quad).min(4))) - 1;
                for (plane, from) in [h, l].into_iter().enumerate() {
                    let from = from.as_ptr().wrapping_add(quad * 128).cast();
                    let a = _mm512_maskz_loadu_epi64(mask as u8, from);
                    let b = _mm512_maskz_loadu_epi64((mask >> 8) as u8, from.wrapping_add(8));
                    let to = (&raw mut (*to).planes[quad][2 * plane]).cast::<__m512i>();
                    let (a, b) = if two_groups {
                        (a, b)
                    } else {
                        (
                            _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b),
                            _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b),
                        )
                    };
                    _mm512_store_si512(to, a);
                    _mm512_store_si512(to.add(1), b);
                }
            }
            let mask = ((1u32 << step) - 1) as u16;
            let scale = _mm512_maskz_loadu_ps(mask, scale.as_ptr());
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(1.0 / 256.0));
            let (scale, sum) = if two_groups {
                let sum = _mm512_maskz_loadu_ps(((1u32 << (2 * step)) - 1) as u16, sum16.as_ptr());
                (_mm512_permutexvar_ps(blocks, scale), _mm512_permutexvar_ps(groups, sum))
            } else {
                (scale, _mm512_maskz_loadu_ps(mask, sum32.as_ptr()))
            };
            _mm512_store_ps((&raw mut (*to).scale).cast(), scale);
            _mm512_store_ps((&raw mut (*to).sum).cast(), sum);
        }
        b += step;
    }
}
