//! Products of f32 rows with rows of floats (or of Q8_0, for the KV cache), generic over the vectors. See the methods of
//! [`super::Kernels`] for what each promises.
//!
//! Two shapes: [`dots`], in which a weight row is summed up along itself, and [`sum_rows`], in which rows are weighted
//! and summed. Neither ever splits an output's sum, so tiles may be chosen freely.
//!
//! All are unsafe to call for one reason: the slices must have the lengths that those methods check.

use super::Rows;
use super::simd::Simd;
use crate::DType;

/// How a row's values are stored.
trait Source {
    /// Values of about a cache line; they share a scale, where there is one.
    const BLOCK: usize;
    /// Bytes of `cols` values.
    fn bytes(cols: usize) -> usize;
    /// The lanes from value `col`.
    ///
    /// # Safety
    /// `row` is valid for reads of `bytes(col + LANES)`. `col` is a multiple of LANES.
    unsafe fn load<S: Simd>(s: S, row: *const u8, col: usize) -> S::V;
    /// The `n` < LANES lanes from value `col`; the others are zeros.
    ///
    /// # Safety
    /// `row` is valid for reads of `bytes(col + n)`. `col` is a multiple of LANES.
    #[inline(always)]
    unsafe fn load_part<S: Simd>(s: S, row: *const u8, col: usize, n: usize) -> S::V {
        let mut last = [0u8; 64];
        // SAFETY: the caller's promise; LANES values are at most 64 bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(row.add(Self::bytes(col)), last.as_mut_ptr(), Self::bytes(n));
            Self::load(s, last.as_ptr(), 0)
        }
    }
}

struct F32;
struct F16;
struct Bf16;
struct Q8_0;

impl Source for F32 {
    const BLOCK: usize = 16;
    #[inline(always)]
    fn bytes(cols: usize) -> usize {
        cols * 4
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, row: *const u8, col: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load(row.cast::<f32>().add(col)) }
    }
}

impl Source for F16 {
    const BLOCK: usize = 32;
    #[inline(always)]
    fn bytes(cols: usize) -> usize {
        cols * 2
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, row: *const u8, col: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load_f16(row.add(col * 2)) }
    }
}

impl Source for Bf16 {
    const BLOCK: usize = 32;
    #[inline(always)]
    fn bytes(cols: usize) -> usize {
        cols * 2
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, row: *const u8, col: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load_bf16(row.add(col * 2)) }
    }
}

impl Source for Q8_0 {
    const BLOCK: usize = 32;
    #[inline(always)]
    fn bytes(cols: usize) -> usize {
        cols / 32 * 34
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, row: *const u8, col: usize) -> S::V {
        // SAFETY: the caller's promise; LANES divides 32, so the lanes are of one block.
        unsafe {
            let block = row.add(col / 32 * 34);
            let scale = s.splat_f16(block.cast::<u16>().read_unaligned());
            s.mul(s.load_i8(block.add(2 + col % 32)), scale)
        }
    }
    #[inline(always)]
    unsafe fn load_part<S: Simd>(s: S, _: *const u8, _: usize, _: usize) -> S::V {
        // Rows are whole blocks: there is no rest.
        s.splat(0.0)
    }
}

/// Calls `$f::<S, Source, …>` for the type `$ty`.
macro_rules! for_source {
    ($ty:expr, $f:ident($($arg:expr),* $(,)?)) => {
        match $ty {
            DType::F32 => $f::<S, F32>($($arg),*),
            DType::F16 => $f::<S, F16>($($arg),*),
            DType::BF16 => $f::<S, Bf16>($($arg),*),
            DType::Q8_0 => $f::<S, Q8_0>($($arg),*),
            ty => unreachable!("{ty} is not a float type"),
        }
    };
}

#[inline(always)]
pub(super) unsafe fn to_f32<S: Simd>(s: S, ty: DType, x: &[u8], out: &mut [f32]) {
    // SAFETY: x has as many values as out.
    unsafe { for_source!(ty, to_f32_from(s, x.as_ptr(), out)) }
}

/// # Safety
/// `x` is valid for reads of as many values as `out` has.
#[inline(always)]
unsafe fn to_f32_from<S: Simd, B: Source>(s: S, x: *const u8, out: &mut [f32]) {
    let (len, out) = (out.len(), out.as_mut_ptr());
    let mut i = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while i + S::LANES <= len {
            s.store(out.add(i), B::load(s, x, i));
            i += S::LANES;
        }
        if i < len {
            s.store_part(out.add(i), B::load_part(s, x, i, len - i), len - i);
        }
    }
}

#[inline(always)]
pub(super) unsafe fn transpose32<S: Simd>(
    s: S,
    src: &[f32],
    ld: usize,
    rows: usize,
    k: usize,
    dst: &mut [f32],
) {
    let (whole_rows, whole_k) = (rows / S::LANES * S::LANES, k / S::LANES * S::LANES);
    for i in (0..whole_rows).step_by(S::LANES) {
        for j in (0..whole_k).step_by(S::LANES) {
            // SAFETY: LANES rows from i and LANES values from j are within src, and the same of dst.
            unsafe { s.transpose(src.as_ptr().add(i * ld + j), ld, dst.as_mut_ptr().add(j * 32 + i), 32) };
        }
    }
    for i in 0..32 {
        let from = if i < whole_rows { whole_k } else { 0 };
        for j in from..k {
            dst[j * 32 + i] = if i < rows { src[i * ld + j] } else { 0.0 };
        }
    }
}

/// Weight rows that are summed up side by side: their chains of additions overlap.
const DOT_ROWS: usize = 4;
/// Bounds of how many bytes ahead weights are asked for. Rows beside each other are several streams, which the
/// hardware's prefetchers follow badly (at 640 columns of F16, to a third of the memory's speed). Asking for the
/// memory in its own order, into L2, gets nearly all of it. Nearer than this is too late, and farther would not stay in
/// a small L2.
const AHEAD: std::ops::RangeInclusive<usize> = 16 << 10..=128 << 10;

#[inline(always)]
pub(super) unsafe fn dots<S: Simd>(
    s: S,
    rows: Rows<'_>,
    x: &[f32],
    n: usize,
    out: &mut [f32],
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { for_source!(rows.ty, dots_from(s, rows, x, n, out, stride)) }
}

#[inline(always)]
unsafe fn dots_from<S: Simd, B: Source>(
    s: S,
    rows: Rows<'_>,
    x: &[f32],
    n: usize,
    out: &mut [f32],
    stride: usize,
) {
    let (x, out) = (x.as_ptr(), out.as_mut_ptr());
    let ahead = (DOT_ROWS * rows.row_bytes).clamp(*AHEAD.start(), *AHEAD.end());
    let mut r = 0;
    while r < rows.len() {
        let wide = r + DOT_ROWS <= rows.len();
        let mut t = 0;
        while t < n {
            let width = (n - t).min(S::ACCUMULATORS / DOT_ROWS);
            // SAFETY: rows from r (DOT_ROWS of them, if wide) and `width` rows of x from t exist.
            unsafe {
                let w = rows.data.as_ptr().add(r * rows.row_bytes);
                let (x, out) = (x.add(t * rows.cols), out.add(t * stride + r));
                let (bytes, cols) = (rows.row_bytes, rows.cols);
                let ahead = if t == 0 { ahead } else { 0 };
                match (wide, width) {
                    (true, 1) => dots_tile::<S, B, DOT_ROWS, 1>(s, w, bytes, ahead, x, cols, out, stride),
                    (true, 2) => dots_tile::<S, B, DOT_ROWS, 2>(s, w, bytes, ahead, x, cols, out, stride),
                    (true, 3) => dots_tile::<S, B, DOT_ROWS, 3>(s, w, bytes, ahead, x, cols, out, stride),
                    (true, _) => dots_tile::<S, B, DOT_ROWS, 4>(s, w, bytes, ahead, x, cols, out, stride),
                    (false, 1) => dots_tile::<S, B, 1, 1>(s, w, bytes, ahead, x, cols, out, stride),
                    (false, 2) => dots_tile::<S, B, 1, 2>(s, w, bytes, ahead, x, cols, out, stride),
                    (false, 3) => dots_tile::<S, B, 1, 3>(s, w, bytes, ahead, x, cols, out, stride),
                    (false, _) => dots_tile::<S, B, 1, 4>(s, w, bytes, ahead, x, cols, out, stride),
                }
            }
            t += width;
        }
        r += if wide { DOT_ROWS } else { 1 };
    }
}

/// `out[t · stride + r]` for r < R and t < T. Lane i of an accumulator sums the products at i modulo LANES, in order;
/// lanes are added at the end. Meanwhile, memory `ahead` bytes further than `w` is asked for, R rows of it.
///
/// # Safety
/// R rows of `w`, T rows of `x`, and those outputs exist.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // those of every matrix product
unsafe fn dots_tile<S: Simd, B: Source, const R: usize, const T: usize>(
    s: S,
    w: *const u8,
    row_bytes: usize,
    ahead: usize,
    x: *const f32,
    cols: usize,
    out: *mut f32,
    stride: usize,
) {
    let mut acc = [[s.splat(0.0); T]; R];
    let mut k = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while k + B::BLOCK <= cols {
            for r in 0..R {
                s.prefetch(w.wrapping_add(ahead + B::bytes(k * R + r * B::BLOCK)));
            }
            for k in (k..k + B::BLOCK).step_by(S::LANES) {
                dots_step::<S, B, R, T>(s, w, row_bytes, x, cols, k, &mut acc);
            }
            k += B::BLOCK;
        }
        while k + S::LANES <= cols {
            dots_step::<S, B, R, T>(s, w, row_bytes, x, cols, k, &mut acc);
            k += S::LANES;
        }
        if k < cols {
            for (r, acc) in acc.iter_mut().enumerate() {
                let w = B::load_part(s, w.add(r * row_bytes), k, cols - k);
                for (t, acc) in acc.iter_mut().enumerate() {
                    *acc = s.fma(w, s.load_part(x.add(t * cols + k), cols - k), *acc);
                }
            }
        }
        for t in 0..T {
            let out = out.add(t * stride);
            if R == 4 {
                let sums = s.reduce_add4([acc[0][t], acc[1 % R][t], acc[2 % R][t], acc[3 % R][t]]);
                out.cast::<[f32; 4]>().write_unaligned(sums);
            } else {
                for (r, acc) in acc.iter().enumerate() {
                    *out.add(r) = s.reduce_add(acc[t]);
                }
            }
        }
    }
}

/// The products of LANES values from `k` on.
///
/// # Safety
/// As [`dots_tile`], and k + LANES ≤ cols.
#[inline(always)]
unsafe fn dots_step<S: Simd, B: Source, const R: usize, const T: usize>(
    s: S,
    w: *const u8,
    row_bytes: usize,
    x: *const f32,
    cols: usize,
    k: usize,
    acc: &mut [[S::V; T]; R],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut xs = [s.splat(0.0); T];
        for (t, v) in xs.iter_mut().enumerate() {
            *v = s.load(x.add(t * cols + k));
        }
        for (r, acc) in acc.iter_mut().enumerate() {
            let w = B::load(s, w.wrapping_add(r * row_bytes), k);
            for (acc, x) in acc.iter_mut().zip(xs) {
                *acc = s.fma(w, x, *acc);
            }
        }
    }
}

/// Rows that are summed before the next tile of outputs: so many rows of a few hundred bytes stay in L2.
const SUM_BLOCK: usize = 256;

/// `c[i · ldc + j] (+)= Σ p[i · ldp + l] · rows[l][j]` over l < n, for i < m and j < rows.cols.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // those of every matrix product
pub(super) unsafe fn sum_rows<S: Simd>(
    s: S,
    m: usize,
    p: &[f32],
    ldp: usize,
    rows: Rows<'_>,
    n: usize,
    c: &mut [f32],
    ldc: usize,
    accumulate: bool,
) {
    if n == 0 && !accumulate {
        (0..m).for_each(|i| c[i * ldc..][..rows.cols].fill(0.0));
    }
    for l in (0..n).step_by(SUM_BLOCK) {
        let depth = SUM_BLOCK.min(n - l);
        let accumulate = accumulate || l > 0;
        let mut i = 0;
        while i < m {
            // SAFETY: the caller's promise; rows from i and l exist.
            unsafe {
                let tile = Tile {
                    depth,
                    p: p.as_ptr().add(i * ldp + l),
                    ldp,
                    rows: rows.data.as_ptr().add(l * rows.row_bytes),
                    row_bytes: rows.row_bytes,
                    c: c.as_mut_ptr().add(i * ldc),
                    ldc,
                    accumulate,
                };
                i += for_source!(rows.ty, sum_rows_from(s, (m - i).min(S::TILE_ROWS), rows.cols, tile));
            }
        }
    }
}

/// What a tile of outputs is computed from.
#[derive(Clone, Copy)]
struct Tile {
    /// Rows to sum.
    depth: usize,
    p: *const f32,
    ldp: usize,
    rows: *const u8,
    row_bytes: usize,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
}

/// As many of `m` output rows as one tile takes, over all columns; returns how many.
///
/// # Safety
/// `m` rows and `cols` columns of `tile` exist.
#[inline(always)]
unsafe fn sum_rows_from<S: Simd, B: Source>(s: S, m: usize, cols: usize, tile: Tile) -> usize {
    // With fewer rows a tile is wider, for enough chains of additions to overlap and for longer reads.
    // SAFETY: the caller's promise.
    unsafe {
        match m {
            12.. => columns::<S, B, 12, 2>(s, cols, tile),
            8.. => columns::<S, B, 8, 2>(s, cols, tile),
            6.. => columns::<S, B, 6, 2>(s, cols, tile),
            4.. => columns::<S, B, 4, 2>(s, cols, tile),
            2.. => columns::<S, B, 2, 4>(s, cols, tile),
            _ => columns::<S, B, 1, 8>(s, cols, tile),
        }
    }
}

/// All columns of M rows, C vectors at a time while there are as many. Returns M.
#[inline(always)]
unsafe fn columns<S: Simd, B: Source, const M: usize, const C: usize>(
    s: S,
    cols: usize,
    tile: Tile,
) -> usize {
    let mut col = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while col + C * S::LANES <= cols {
            sum_tile::<S, B, M, C>(s, col, S::LANES, tile);
            col += C * S::LANES;
        }
        while C > 2 && col + 2 * S::LANES <= cols {
            sum_tile::<S, B, M, 2>(s, col, S::LANES, tile);
            col += 2 * S::LANES;
        }
        while col < cols {
            sum_tile::<S, B, M, 1>(s, col, (cols - col).min(S::LANES), tile);
            col += S::LANES;
        }
    }
    M
}

/// `lanes` lanes of a row from value `col`, all of them unless `part`.
///
/// # Safety
/// As [`Source::load`] or [`Source::load_part`].
#[inline(always)]
unsafe fn value<S: Simd, B: Source>(s: S, row: *const u8, col: usize, lanes: usize, part: bool) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { if part { B::load_part(s, row, col, lanes) } else { B::load(s, row, col) } }
}

/// M rows by C vectors from column `col`, of which the last has `lanes` lanes (less than LANES only where C is 1).
#[inline(always)]
unsafe fn sum_tile<S: Simd, B: Source, const M: usize, const C: usize>(
    s: S,
    col: usize,
    lanes: usize,
    tile: Tile,
) {
    let mut acc = [[s.splat(0.0); C]; M];
    let part = C == 1 && lanes < S::LANES;
    // SAFETY: the caller's promise.
    unsafe {
        if tile.accumulate {
            for (i, acc) in acc.iter_mut().enumerate() {
                for (j, acc) in acc.iter_mut().enumerate() {
                    let c = tile.c.add(i * tile.ldc + col + j * S::LANES);
                    *acc = if part { s.load_part(c, lanes) } else { s.load(c) };
                }
            }
        }
        let mut row = tile.rows;
        for l in 0..tile.depth {
            // The fewer operands are loaded first and kept, the others used as they come: with both kept, they and the
            // accumulators would not fit in 16 registers.
            if C <= M {
                let mut v = [s.splat(0.0); C];
                for (j, v) in v.iter_mut().enumerate() {
                    *v = value::<S, B>(s, row, col + j * S::LANES, lanes, part);
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    let w = s.splat(*tile.p.add(i * tile.ldp + l));
                    for (acc, v) in acc.iter_mut().zip(v) {
                        *acc = s.fma(w, v, *acc);
                    }
                }
            } else {
                let mut w = [s.splat(0.0); M];
                for (i, w) in w.iter_mut().enumerate() {
                    *w = s.splat(*tile.p.add(i * tile.ldp + l));
                }
                for j in 0..C {
                    let v = value::<S, B>(s, row, col + j * S::LANES, lanes, part);
                    for (acc, w) in acc.iter_mut().zip(w) {
                        acc[j] = s.fma(w, v, acc[j]);
                    }
                }
            }
            row = row.wrapping_add(tile.row_bytes);
        }
        for (i, acc) in acc.iter().enumerate() {
            for (j, acc) in acc.iter().enumerate() {
                let c = tile.c.add(i * tile.ldc + col + j * S::LANES);
                if part {
                    s.store_part(c, *acc, lanes);
                } else {
                    s.store(c, *acc);
                }
            }
        }
    }
}
