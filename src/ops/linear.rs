//! Weight matrices × activations, in the three arithmetics.

use std::ops::Range;

use super::Arithmetic;
use super::activations::{Inputs, Needs, SharedActivations};
use crate::Result;
use crate::kernels::{Aligned, BLOCK, Kernels, MAX_STEP_ROWS, PANEL, Panel, Rows, SLAB};
use crate::parallel::{SharedMut, Worker};
use crate::quant;

/// Values of K in a slab of float weights: [`PANEL`] rows of it, twice, stay within L2.
const FLOAT_SLAB: usize = 512;
/// Bytes of weights that a worker streams at a time when it steps: long enough for the prefetchers to run, short
/// enough to share the work out evenly.
const STEP_BYTES: usize = 64 << 10;
/// Most rows of a chunk when stepping.
const STEP_CHUNK: usize = 256;

/// One worker's buffers for matrix products.
pub(crate) struct LinearScratch {
    panel: Panel,
    /// [PANEL, FLOAT_SLAB]: dequantized rows.
    rows: Aligned<f32>,
    /// [FLOAT_SLAB, PANEL]: the same, transposed.
    columns: Aligned<f32>,
    /// Two tiles of outputs, [batch, PANEL] or [MAX_STEP_ROWS, STEP_CHUNK] each.
    tiles: Aligned<f32>,
}

impl LinearScratch {
    /// For batches of at most `batch` rows and matrices of these kinds.
    pub(crate) fn new(batch: usize, needs: Needs) -> Result<Self> {
        let what = "a worker's scratch";
        let float = if needs.float { PANEL * FLOAT_SLAB } else { 0 };
        Ok(Self {
            panel: Panel::new(needs.quantized)?,
            rows: Aligned::zeroed(float, what)?,
            columns: Aligned::zeroed(float, what)?,
            tiles: Aligned::zeroed(2 * tile_len(batch), what)?,
        })
    }

    /// Bytes that `new` takes.
    pub(crate) fn bytes(batch: usize, needs: Needs) -> usize {
        let float = if needs.float { PANEL * FLOAT_SLAB } else { 0 };
        Panel::bytes(needs.quantized)
            + 2 * Aligned::<f32>::bytes(float)
            + Aligned::<f32>::bytes(2 * tile_len(batch))
    }
}

/// Values in a tile of outputs.
fn tile_len(batch: usize) -> usize {
    (batch * PANEL).max(batch.min(MAX_STEP_ROWS) * STEP_CHUNK)
}

/// A matrix product's weights and where its outputs go: `out[t, r]`, rows of `width`.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// [rows, k]
    pub weights: Rows<'a>,
    /// [rows of the batch, width]
    pub out: SharedMut<'a, f32>,
    /// Values in a row of `out`.
    pub width: usize,
}

/// Rows of a matrix that are one chunk of work. A multiple of [`PANEL`], so that a chunk of outputs is whole blocks.
fn chunk_rows(a: Arithmetic, weights: Rows<'_>, workers: usize) -> usize {
    if a != Arithmetic::Step {
        return PANEL;
    }
    let by_bytes = STEP_BYTES / weights.row_bytes;
    let by_share = weights.len() / (4 * workers);
    (by_bytes.min(by_share) / PANEL * PANEL).clamp(PANEL, STEP_CHUNK)
}

/// Computes every product of one group, whose matrices share their inputs. The step ends at the caller's barrier.
pub(crate) fn linear<'a>(
    w: &mut Worker<'_>,
    k: &Kernels,
    a: Arithmetic,
    inputs: &Inputs<'_>,
    products: &[Product<'a>],
    scratch: &mut LinearScratch,
) {
    let workers = w.count();
    let chunks = |p: &Product<'_>| p.weights.len().div_ceil(chunk_rows(a, p.weights, workers));
    let total = products.iter().map(chunks).sum();
    while let Some(mut i) = w.claim(total) {
        let mut p = &products[0];
        for candidate in products {
            p = candidate;
            let n = chunks(p);
            if i < n {
                break;
            }
            i -= n;
        }
        let width = chunk_rows(a, p.weights, workers);
        let rows = i * width..((i + 1) * width).min(p.weights.len());
        let LinearScratch { panel, rows: flat, columns, tiles } = scratch;
        let tile = &mut tiles[..inputs.rows * width];
        tile_product(k, a, p.weights.range(rows.clone()), inputs, panel, flat, columns, tile, width);
        for (t, tile) in tile.chunks_exact(width).enumerate() {
            // SAFETY: these columns belong to chunk `i`, which this worker claimed.
            let out = unsafe { p.out.get_mut(t * p.width + rows.start..t * p.width + rows.end) };
            out.copy_from_slice(&tile[..rows.len()]);
        }
    }
}

/// Gemma's gated feed-forward, up to the down-projection: stores `gelu(gate · x) ⊙ (up · x)` to `out` as the next
/// product's inputs, a chunk at a time, so that no [batch, ff] buffer of f32 exists.
#[allow(clippy::too_many_arguments)]
pub(crate) fn gate_up(
    w: &mut Worker<'_>,
    k: &Kernels,
    a: Arithmetic,
    inputs: &Inputs<'_>,
    gate: Rows<'_>,
    up: Rows<'_>,
    out: &SharedActivations<'_>,
    scratch: &mut LinearScratch,
) {
    let ff = gate.len();
    let width = chunk_rows(a, gate, w.count());
    while let Some(i) = w.claim(ff.div_ceil(width)) {
        let rows = i * width..((i + 1) * width).min(ff);
        let LinearScratch { panel, rows: flat, columns, tiles } = scratch;
        let half = tiles.len() / 2;
        let (g, u) = tiles.split_at_mut(half);
        let (g, u) = (&mut g[..inputs.rows * width], &mut u[..inputs.rows * width]);
        tile_product(k, a, gate.range(rows.clone()), inputs, panel, flat, columns, g, width);
        tile_product(k, a, up.range(rows.clone()), inputs, panel, flat, columns, u, width);
        for (t, (g, u)) in g.chunks_exact_mut(width).zip(u.chunks_exact(width)).enumerate() {
            let g = &mut g[..rows.len()];
            k.gelu_mul(g, &u[..rows.len()]);
            // SAFETY: these columns belong to chunk `i`, which this worker claimed.
            unsafe { out.store(k, a, t, rows.start, g) };
        }
    }
}

/// `tile[t, r]` = weight row `r` · input row `t`, rows of `width`.
#[allow(clippy::too_many_arguments)]
fn tile_product(
    k: &Kernels,
    a: Arithmetic,
    weights: Rows<'_>,
    inputs: &Inputs<'_>,
    panel: &mut Panel,
    flat: &mut [f32],
    columns: &mut [f32],
    tile: &mut [f32],
    width: usize,
) {
    let cols = weights.cols;
    let n = inputs.rows;
    match a {
        Arithmetic::Step if weights.ty.is_float() => {
            k.gemv_float(weights, inputs.x.expect(NO_FLOAT), n, tile, width);
        }
        Arithmetic::Step => k.gemv(weights, &inputs.acts.expect(NO_ACTS), tile, width),
        Arithmetic::Prefill if !weights.ty.is_float() => {
            let acts = inputs.acts.expect(NO_ACTS);
            tile.fill(0.0);
            for blocks in slabs(cols / BLOCK, SLAB) {
                k.unpack_panel(weights, blocks.clone(), panel);
                k.gemm_panel(panel, &acts, blocks, tile);
            }
        }
        _ => {
            let x = inputs.x.expect(NO_FLOAT);
            let block = weights.ty.block_len();
            for slab in slabs(cols, FLOAT_SLAB) {
                let bytes = slab.start / block * weights.ty.block_bytes()
                    ..slab.end / block * weights.ty.block_bytes();
                for (r, flat) in flat.chunks_exact_mut(slab.len()).take(weights.len()).enumerate() {
                    quant::dequantize(weights.ty, &weights.row(r)[bytes.clone()], flat);
                }
                let columns = &mut columns[..slab.len() * PANEL];
                k.transpose32(flat, slab.len(), weights.len(), slab.len(), columns);
                k.gemm_f32(
                    n,
                    slab.len(),
                    &x[slab.start..],
                    cols,
                    columns,
                    PANEL,
                    tile,
                    width,
                    slab.start > 0,
                );
            }
        }
    }
}

const NO_ACTS: &str = "activations were made for quantized weights";
const NO_FLOAT: &str = "activations were made for float weights";

/// `0..n` in pieces of at most `size`.
fn slabs(n: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(size).map(move |at| at..(at + size).min(n))
}
