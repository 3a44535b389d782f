//! Every integer kernel on every instruction set that this machine has, against exact arithmetic and against itself.

use half::f16;

use super::random::Random;
use super::{Acts, BLOCK, Grouping, Isa, Kernels, MAX_STEP_ROWS, PANEL, Panel, Rows, SLAB};
use crate::{DType, quant};

pub(super) fn all() -> impl Iterator<Item = Kernels> {
    Isa::ALL.into_iter().filter_map(Kernels::new)
}

pub(super) fn quantized() -> impl Iterator<Item = DType> {
    DType::ALL.into_iter().filter(|ty| !ty.is_float())
}

/// Values in a row: small and odd numbers of blocks, and whole slabs, as the type allows.
pub(super) fn lengths(ty: DType) -> &'static [usize] {
    if ty.block_len() == 32 {
        &[32, 64, 96, 128, 160, 192, 224, 256, 288, 416, 640, 2080]
    } else {
        &[256, 512, 768, 2048, 2304]
    }
}

/// What the bytes of weights, or the planes of activations, are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fill {
    Random,
    Lowest,
    Highest,
    /// Lowest and highest in turn, block by block.
    Mixed,
}

const FILLS: [Fill; 4] = [Fill::Random, Fill::Lowest, Fill::Highest, Fill::Mixed];

/// Where the half-precision numbers of a block are.
fn halves(ty: DType) -> &'static [usize] {
    match ty {
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 | DType::IQ4_NL | DType::IQ4_XS => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        DType::F32 | DType::F16 | DType::BF16 => unreachable!(),
    }
}

/// Weight rows, at an odd address.
pub(super) struct Weights {
    ty: DType,
    cols: usize,
    bytes: Vec<u8>,
}

impl Weights {
    /// With finite scales in −2..2, some of them zero and subnormal.
    pub(super) fn new(ty: DType, rows: usize, cols: usize, fill: Fill, random: &mut Random) -> Weights {
        let mut w = Weights { ty, cols, bytes: vec![0; 1 + rows * ty.row_bytes(cols).unwrap()] };
        for (b, block) in w.bytes[1..].chunks_exact_mut(ty.block_bytes()).enumerate() {
            for byte in &mut *block {
                *byte = match fill {
                    Fill::Random => random.bits() as u8,
                    Fill::Lowest => 0,
                    Fill::Highest => 255,
                    Fill::Mixed => (b % 2) as u8 * 255,
                };
            }
            if ty == DType::Q8_0 && !matches!(fill, Fill::Random) {
                // Its lowest and highest bytes are those of signed numbers.
                block[2..].iter_mut().for_each(|byte| *byte = if *byte == 0 { 0x80 } else { 0x7f });
            }
            for &at in halves(ty) {
                let scale = match random.below(16) {
                    0 => f16::from_bits(0),
                    1 => f16::from_bits(random.below(0x400) as u16),
                    _ => f16::from_f32(2.0 * random.float()),
                };
                block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
        }
        w
    }

    /// Any bytes, infinite and NaN scales included.
    fn any(ty: DType, rows: usize, cols: usize, random: &mut Random) -> Weights {
        let mut bytes = vec![0; 1 + rows * ty.row_bytes(cols).unwrap()];
        bytes.iter_mut().for_each(|b| *b = random.bits() as u8);
        Weights { ty, cols, bytes }
    }

    pub(super) fn rows(&self) -> Rows<'_> {
        let row_bytes = self.ty.row_bytes(self.cols).unwrap();
        Rows { ty: self.ty, cols: self.cols, row_bytes, data: &self.bytes[1..] }
    }
}

/// Owned activations, not aligned on purpose.
pub(super) struct Inputs {
    rows: usize,
    k: usize,
    pub(super) h: Vec<i8>,
    pub(super) l: Vec<i8>,
    pub(super) scale: Vec<f32>,
    pub(super) sum_h: Vec<i16>,
    pub(super) sum16: Vec<f32>,
    pub(super) sum32: Vec<f32>,
}

impl Inputs {
    pub(super) fn new(rows: usize, k: usize, two_planes: bool, fill: Fill, random: &mut Random) -> Inputs {
        let n = rows * k;
        let mut h = vec![0i8; n];
        let mut l = vec![0i8; if two_planes { n } else { 0 }];
        for i in 0..n {
            h[i] = match fill {
                Fill::Random => random.below(255) as i32 as i8,
                Fill::Lowest => -127,
                Fill::Highest => 127,
                Fill::Mixed => [-127, 127][i / 48 % 2],
            };
            h[i] = h[i].max(-127);
            if two_planes {
                l[i] = match fill {
                    Fill::Random => random.bits() as i8,
                    Fill::Lowest => -128,
                    Fill::Highest => 127,
                    Fill::Mixed => [127, -128][i / 16 % 2],
                };
            }
        }
        let scale: Vec<f32> = (0..n / 32)
            .map(|_| if random.below(20) == 0 { 0.0 } else { random.float().abs() / 9.0 })
            .collect();
        let plane_sum = |p: &[i8], g: usize| p[g * 16..][..16].iter().map(|&x| x as i32).sum::<i32>();
        let sum_h = (0..n / 16).map(|g| plane_sum(&h, g) as i16).collect();
        let sum16: Vec<f32> = (0..n / 16)
            .map(|g| {
                let low = if two_planes { plane_sum(&l, g) } else { 0 };
                scale[g / 2] * ((256 * plane_sum(&h, g) + low) as f32 / 256.0)
            })
            .collect();
        let sum32 = sum16.chunks_exact(2).map(|s| s[0] + s[1]).collect();
        Inputs { rows, k, h, l, scale, sum_h, sum16, sum32 }
    }

    pub(super) fn acts(&self) -> Acts<'_> {
        self.range(0..self.rows)
    }

    fn range(&self, rows: std::ops::Range<usize>) -> Acts<'_> {
        let part = |per: usize| rows.start * self.k / per..rows.end * self.k / per;
        Acts {
            rows: rows.len(),
            k: self.k,
            h: &self.h[part(1)],
            l: if self.l.is_empty() { &[] } else { &self.l[part(1)] },
            scale: &self.scale[part(32)],
            sum_h: &self.sum_h[part(16)],
            sum16: &self.sum16[part(16)],
            sum32: &self.sum32[part(32)],
        }
    }
}

/// The product of a weight row with an activation row over `blocks` in f64, and the sum of the magnitudes added,
/// which rounding errors are in proportion to.
fn exact(w: Rows<'_>, r: usize, acts: &Acts<'_>, t: usize, blocks: std::ops::Range<usize>) -> (f64, f64) {
    let g = Grouping::of(w.ty);
    let (mut sum, mut magnitude) = (0f64, 0f64);
    for block in blocks {
        let u = quant::unpack(w.ty, w.row(r), block);
        let at = t * acts.k + block * BLOCK;
        for half in 0..2 {
            let (mut dot, mut all) = (0i64, 0i64);
            for i in half * 16..half * 16 + 16 {
                let h = acts.h[at + i] as i64 * 256;
                let a = h + acts.l.get(at + i).map_or(0, |&l| l as i64);
                dot += (u.q[i] as i64 - g.offset as i64) * a;
                all += (u.q[i] as i64 + g.offset as i64) * a.abs();
            }
            let scale = u.scale[half] as f64 * acts.scale[at / 32] as f64 / 256.0;
            let min = u.min[half] as f64 * acts.sum16[at / 16 + half] as f64;
            sum += scale * dot as f64 - min;
            magnitude += scale.abs() * all as f64 + min.abs();
        }
    }
    (sum, magnitude)
}

/// Error allowed, as a share of the magnitudes added: some tens of roundings.
const SHARE: f64 = 1e-6;

#[track_caller]
fn close(got: f32, (want, magnitude): (f64, f64), what: impl std::fmt::Display) {
    let error = (got as f64 - want).abs();
    assert!(
        error <= magnitude * SHARE + 1e-30,
        "{what}: got {got:e}, expected {want:e}, magnitude {magnitude:e}"
    );
}

pub(super) fn panel() -> Panel {
    let mut panel = Panel::new(true).unwrap();
    panel.q.fill(0xa5);
    panel.scale.fill(f32::NAN);
    panel.min.fill(f32::NAN);
    panel
}

/// Where the environment variable CARAT_EXPECT_ISA names an instruction set, it is the one that is detected.
#[test]
fn the_best_instruction_set_is_detected() {
    let best = Isa::detect();
    assert!(
        Isa::ALL.into_iter().filter(|i| i.is_available()).all(|i| i as usize <= best as usize),
        "{best} is not the best of those available"
    );
    assert_eq!(Kernels::new(best).map(|k| k.isa()), Some(best));
    if let Ok(name) = std::env::var("CARAT_EXPECT_ISA") {
        let expected = Isa::from_name(&name).unwrap_or_else(|| panic!("CARAT_EXPECT_ISA={name} is unknown"));
        assert_eq!(best, expected, "detected, and what CARAT_EXPECT_ISA says");
    }
}

#[test]
fn gemv_is_exact_to_rounding() {
    let mut random = Random(1);
    for ty in quantized() {
        for (case, &k) in lengths(ty).iter().enumerate() {
            for (i, fill) in FILLS.into_iter().enumerate() {
                for (j, inputs) in FILLS.into_iter().enumerate() {
                    // Every number of rows from 1 to 33 and of activation rows from 1 to 16 comes up.
                    let n = (case * 16 + i * 4 + j) % 33 + 1;
                    let rows = (case * 5 + i * 4 + j) % MAX_STEP_ROWS + 1;
                    let w = Weights::new(ty, n, k, fill, &mut random);
                    let x = Inputs::new(rows, k, true, inputs, &mut random);
                    let want: Vec<_> = (0..rows * n)
                        .map(|i| exact(w.rows(), i % n, &x.acts(), i / n, 0..k / BLOCK))
                        .collect();
                    for kernels in all() {
                        let stride = n + 3;
                        let mut out = vec![7.5f32; rows * stride];
                        kernels.gemv(w.rows(), &x.acts(), &mut out, stride);
                        for t in 0..rows {
                            for r in 0..n {
                                let what = format_args!(
                                    "{} {ty} k {k} row {r} of {n}, activations {t} of {rows}, {fill:?} {inputs:?}",
                                    kernels.isa()
                                )
                                .to_string();
                                close(out[t * stride + r], want[t * n + r], what);
                            }
                            assert!(out[t * stride + n..(t + 1) * stride].iter().all(|&x| x == 7.5));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn gemv_bits_depend_on_two_rows_only() {
    let mut random = Random(2);
    for ty in quantized() {
        for &k in lengths(ty) {
            let (n, rows) = (9, MAX_STEP_ROWS);
            let w = Weights::new(ty, n, k, Fill::Random, &mut random);
            let x = Inputs::new(rows, k, true, Fill::Random, &mut random);
            for kernels in all() {
                let mut together = vec![0f32; rows * n];
                kernels.gemv(w.rows(), &x.acts(), &mut together, n);
                for some in 1..rows {
                    for from in [0, 1, rows - some] {
                        let from = from.min(rows - some);
                        let mut out = vec![0f32; some * n];
                        kernels.gemv(w.rows(), &x.range(from..from + some), &mut out, n);
                        assert_eq!(
                            out,
                            together[from * n..(from + some) * n],
                            "{} {ty} k {k}",
                            kernels.isa()
                        );
                    }
                }
                for first in 0..n {
                    for last in [first + 1, (first + 2).min(n), n] {
                        let mut out = vec![0f32; rows * n];
                        kernels.gemv(w.rows().range(first..last), &x.acts(), &mut out, n);
                        for t in 0..rows {
                            assert_eq!(
                                out[t * n..][..last - first],
                                together[t * n + first..t * n + last],
                                "{} {ty} k {k} rows {first}..{last}",
                                kernels.isa()
                            );
                        }
                    }
                }
            }
        }
    }
}

/// A long row, longer than any slab that a kernel may cut it into.
#[test]
fn gemv_of_long_rows() {
    let mut random = Random(3);
    for ty in quantized() {
        for k in [16384, 33024] {
            let w = Weights::new(ty, 3, k, Fill::Random, &mut random);
            let x = Inputs::new(5, k, true, Fill::Random, &mut random);
            for kernels in all() {
                let mut out = vec![0f32; 15];
                kernels.gemv(w.rows(), &x.acts(), &mut out, 3);
                for (i, &got) in out.iter().enumerate() {
                    let want = exact(w.rows(), i % 3, &x.acts(), i / 3, 0..k / BLOCK);
                    close(got, want, format_args!("{} {ty} k {k}", kernels.isa()));
                }
                for t in 0..5 {
                    let mut one = vec![0f32; 3];
                    kernels.gemv(w.rows(), &x.range(t..t + 1), &mut one, 3);
                    assert_eq!(one, out[t * 3..][..3], "{} {ty} k {k}", kernels.isa());
                }
            }
        }
    }
}

/// Parts of a row that a panel may hold: from the start, from within, and not on any boundary of the format's.
fn parts(k: usize) -> Vec<std::ops::Range<usize>> {
    let n = k / BLOCK;
    let mut parts = vec![0..n.min(SLAB), n - 1..n, n / 2..n.min(n / 2 + SLAB)];
    if n > 8 {
        parts.push(8..n.min(8 + SLAB));
        parts.push(3..n.min(13));
    }
    parts
}

#[test]
fn panels_are_equal() {
    let mut random = Random(4);
    for ty in quantized() {
        let per_block = Grouping::of(ty).per_block();
        for (case, &k) in lengths(ty).iter().enumerate() {
            for any in [false, true] {
                for (i, part) in parts(k).into_iter().enumerate() {
                    let n = if i == 0 { PANEL } else { (case * 7 + i * 5) % PANEL + 1 };
                    let w = if any {
                        Weights::any(ty, n, k, &mut random)
                    } else {
                        Weights::new(ty, n, k, Fill::Random, &mut random)
                    };
                    for kernels in all() {
                        let mut p = panel();
                        kernels.unpack_panel(w.rows(), part.clone(), &mut p);
                        let g = Grouping::of(ty);
                        assert_eq!(p.grouping, g);
                        let layout = kernels.0.layout;
                        for (b, block) in part.clone().enumerate() {
                            for r in 0..PANEL {
                                let u = if r < n {
                                    quant::unpack(ty, w.rows().row(r), block)
                                } else {
                                    Default::default()
                                };
                                let what = format!(
                                    "{} {ty} k {k} {part:?} block {block} row {r}/{n}",
                                    kernels.isa()
                                );
                                let q: [u8; BLOCK] = std::array::from_fn(|k| p.q[layout.at(b, r, k)]);
                                let offset = if layout.signed && r < n { g.offset as u8 } else { 0 };
                                assert_eq!(q, u.q.map(|q| q.wrapping_sub(offset)), "{what}");
                                for g in 0..per_block {
                                    let at = (b * per_block + g) * PANEL + r;
                                    let same = |a: f32, b: f32| a == b || a.is_nan() && b.is_nan();
                                    assert!(same(p.scale[at], u.scale[g]), "{what}: {} {u:?}", p.scale[at]);
                                    if p.grouping.mins {
                                        assert!(same(p.min[at], u.min[g]), "{what}: {} {u:?}", p.min[at]);
                                    }
                                }
                            }
                        }
                        // Nothing is written behind the blocks asked for.
                        let (q, scale) = (part.len() * BLOCK * PANEL, part.len() * per_block * PANEL);
                        assert!(p.q[q..].iter().all(|&q| q == 0xa5), "{} {ty}", kernels.isa());
                        assert!(p.scale[scale..].iter().chain(&p.min[scale..]).all(|s| s.is_nan()));
                    }
                }
            }
        }
    }
}

#[test]
fn gemm_is_exact_to_rounding() {
    let mut random = Random(5);
    for ty in quantized() {
        for (case, &k) in lengths(ty).iter().enumerate() {
            for (i, fill) in FILLS.into_iter().enumerate() {
                let inputs = FILLS[(case + i) % 4];
                for (j, part) in parts(k).into_iter().enumerate() {
                    // Every number of activation rows from 1 to 40 comes up.
                    let rows = (case * 20 + i * 5 + j) % 40 + 1;
                    let n = (case * 11 + i * 3 + j) % PANEL + 1;
                    let w = Weights::new(ty, n, k, fill, &mut random);
                    let x = Inputs::new(rows, k, (i + j) % 2 == 0, inputs, &mut random);
                    let h = Inputs { l: Vec::new(), ..Inputs::new(0, k, false, inputs, &mut random) };
                    let only_h = Acts { l: &h.l, ..x.acts() };
                    let start: Vec<f32> = (0..rows * PANEL).map(|_| random.float()).collect();
                    let want: Vec<_> =
                        (0..rows * n).map(|i| exact(w.rows(), i % n, &only_h, i / n, part.clone())).collect();
                    for kernels in all() {
                        let mut p = panel();
                        kernels.unpack_panel(w.rows(), part.clone(), &mut p);
                        let mut acc = start.clone();
                        kernels.gemm_panel(&p, &x.acts(), part.clone(), &mut acc);
                        for t in 0..rows {
                            for r in 0..n {
                                let start = start[t * PANEL + r] as f64;
                                let (sum, magnitude) = want[t * n + r];
                                let what =
                                    format!("{} {ty} k {k} {part:?} {r}/{n} {t}/{rows}", kernels.isa());
                                close(acc[t * PANEL + r], (start + sum, magnitude + start.abs()), what);
                            }
                            // Rows that are missing add nothing.
                            assert_eq!(
                                acc[t * PANEL + n..][..PANEL - n],
                                start[t * PANEL + n..][..PANEL - n]
                            );
                        }
                    }
                }
            }
        }
    }
}

/// The operations that [`Kernels::gemm_panel`] names, one by one: the scalar kernel does just these.
#[test]
fn the_scalar_gemm_is_what_it_says_bit_for_bit() {
    let mut random = Random(11);
    let scalar = Kernels::new(Isa::Scalar).unwrap();
    for ty in quantized() {
        let g = Grouping::of(ty);
        let k = if ty.block_len() == 32 { 416 } else { 1024 };
        for fill in FILLS {
            let (n, rows) = (PANEL, 5);
            let w = Weights::new(ty, n, k, fill, &mut random);
            let x = Inputs::new(rows, k, false, Fill::Random, &mut random);
            let mut p = panel();
            scalar.unpack_panel(w.rows(), 0..k / BLOCK, &mut p);
            let mut acc: Vec<f32> = (0..rows * PANEL).map(|_| random.float()).collect();
            let mut want = acc.clone();
            scalar.gemm_panel(&p, &x.acts(), 0..k / BLOCK, &mut acc);
            for (i, want) in want.iter_mut().enumerate() {
                let (t, r) = (i / PANEL, i % PANEL);
                for block in 0..k / BLOCK {
                    let u = quant::unpack(ty, w.rows().row(r), block);
                    let at = t * k + block * BLOCK;
                    for group in 0..g.per_block() {
                        let dot: i32 = (group * g.group..(group + 1) * g.group)
                            .map(|i| (u.q[i] as i32 - g.offset) * x.h[at + i] as i32)
                            .sum();
                        *want += u.scale[group] * x.scale[at / 32] * dot as f32;
                        if g.mins {
                            let sum = if g.group == 16 { x.sum16[at / 16 + group] } else { x.sum32[at / 32] };
                            *want -= u.min[group] * sum;
                        }
                    }
                }
            }
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(bits(&acc) == bits(&want), "{ty} {fill:?}");
        }
    }
}

#[test]
fn gemm_bits_depend_on_two_rows_only() {
    let mut random = Random(6);
    for ty in quantized() {
        for &k in &lengths(ty)[..3] {
            let (rows, blocks) = (40, 0..k / BLOCK);
            let w = Weights::new(ty, PANEL, k, Fill::Random, &mut random);
            let x = Inputs::new(rows, k, false, Fill::Random, &mut random);
            for kernels in all() {
                let mut p = panel();
                kernels.unpack_panel(w.rows(), blocks.clone(), &mut p);
                let mut together = vec![0f32; rows * PANEL];
                kernels.gemm_panel(&p, &x.acts(), blocks.clone(), &mut together);
                for some in 1..rows {
                    for from in [0, 1, rows - some] {
                        let from = from.min(rows - some);
                        let mut out = vec![0f32; some * PANEL];
                        kernels.gemm_panel(&p, &x.range(from..from + some), blocks.clone(), &mut out);
                        let want = &together[from * PANEL..(from + some) * PANEL];
                        assert!(out == want, "{} {ty} k {k} rows {from}+{some}", kernels.isa());
                    }
                }
                for first in [1, 15, 16, 31] {
                    kernels.unpack_panel(w.rows().range(first..PANEL), blocks.clone(), &mut p);
                    let mut out = vec![0f32; rows * PANEL];
                    kernels.gemm_panel(&p, &x.acts(), blocks.clone(), &mut out);
                    for t in 0..rows {
                        let want = &together[t * PANEL + first..(t + 1) * PANEL];
                        assert_eq!(&out[t * PANEL..][..PANEL - first], want, "{} {ty} k {k}", kernels.isa());
                    }
                }
            }
        }
    }
}

/// Two slabs give the bits that the sum in order of K gives, wherever the cut is.
#[test]
fn gemm_bits_do_not_depend_on_slabs() {
    let mut random = Random(7);
    for ty in quantized() {
        let k = 1024;
        let w = Weights::new(ty, PANEL, k, Fill::Random, &mut random);
        let x = Inputs::new(7, k, false, Fill::Random, &mut random);
        for kernels in all() {
            let product = |cut: usize| {
                let mut acc = vec![0f32; 7 * PANEL];
                for blocks in [0..cut, cut..k / BLOCK] {
                    let mut p = panel();
                    kernels.unpack_panel(w.rows(), blocks.clone(), &mut p);
                    kernels.gemm_panel(&p, &x.acts(), blocks, &mut acc);
                }
                acc
            };
            let want = product(k / BLOCK);
            for cut in [8, 16, 5] {
                assert!(product(cut) == want, "{} {ty}", kernels.isa());
            }
        }
    }
}

/// Bad scales are no reason to go astray: what they touch is not finite, and all the rest is as it should be.
#[test]
fn any_bytes_are_safe() {
    let mut random = Random(8);
    for ty in quantized() {
        let k = if ty.block_len() == 32 { 416 } else { 1024 };
        let (n, rows, blocks) = (32, 3, 0..k / BLOCK);
        let w = Weights::any(ty, n, k, &mut random);
        let x = Inputs::new(rows, k, true, Fill::Random, &mut random);
        let finite = |r: usize| {
            blocks.clone().all(|b| {
                let u = quant::unpack(ty, w.rows().row(r), b);
                u.scale.iter().chain(&u.min).all(|s| s.is_finite())
            })
        };
        assert!((0..n).any(finite) || ty.block_len() > 32);
        assert!(!(0..n).all(finite));
        for kernels in all() {
            let mut out = vec![0f32; rows * n];
            kernels.gemv(w.rows(), &x.acts(), &mut out, n);
            let mut acc = vec![0f32; rows * PANEL];
            let mut p = panel();
            kernels.unpack_panel(w.rows(), blocks.clone(), &mut p);
            kernels.gemm_panel(&p, &x.acts(), blocks.clone(), &mut acc);
            for t in 0..rows {
                for r in 0..n {
                    assert_eq!(out[t * n + r].is_finite(), finite(r), "{} {ty} gemv row {r}", kernels.isa());
                    assert_eq!(
                        acc[t * PANEL + r].is_finite(),
                        finite(r),
                        "{} {ty} gemm row {r}",
                        kernels.isa()
                    );
                    if finite(r) {
                        let want = exact(w.rows(), r, &x.acts(), t, blocks.clone());
                        close(out[t * n + r], want, format_args!("{} {ty}", kernels.isa()));
                    }
                }
            }
        }
    }
}
