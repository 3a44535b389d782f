//! No integer kernel reads past the end of what it is given.

use super::random::Random;
use super::tests::{Fill, Inputs, Weights, all, lengths, panel, quantized};
use super::{Acts, BLOCK, MAX_STEP_ROWS, PANEL, Rows, SLAB};

/// Bytes that end where the process's memory does: a read past the end is a fault.
struct Fenced {
    map: memmap2::Mmap,
    at: usize,
    len: usize,
}

impl Fenced {
    fn new(bytes: &[u8]) -> Fenced {
        use std::io::Write;
        // A mapping that is longer than its file: pages behind the end of the file can't be touched. Pages are at
        // most 64 KB.
        const PAGE: usize = 65536;
        let size = bytes.len().next_multiple_of(PAGE);
        let at = size - bytes.len();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![0; at]).unwrap();
        file.write_all(bytes).unwrap();
        // SAFETY: nobody else knows the file, and no more than its `size` bytes are ever looked at.
        let map = unsafe { memmap2::MmapOptions::new().len(size + PAGE).map(&file) }.unwrap();
        Fenced { map, at, len: bytes.len() }
    }

    fn get<T: super::Plain>(&self) -> &[T] {
        let bytes = &self.map[self.at..self.at + self.len];
        assert!(bytes.as_ptr().addr().is_multiple_of(align_of::<T>()));
        // SAFETY: aligned, within the file, and any bytes are a T.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), self.len / size_of::<T>()) }
    }

    fn of<T: super::Plain>(x: &[T]) -> Fenced {
        // SAFETY: plain numbers have no padding.
        Fenced::new(unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) })
    }
}

#[test]
fn nothing_is_read_past_the_end() {
    let mut random = Random(9);
    for ty in quantized() {
        for &k in lengths(ty) {
            for n in [1, 2, 5, PANEL] {
                let w = Weights::new(ty, n, k, Fill::Random, &mut random);
                let data = Fenced::of(w.rows().data);
                let fenced = Rows { data: data.get(), ..w.rows() };
                let rows = 1 + random.below(MAX_STEP_ROWS);
                let x = Inputs::new(rows, k, true, Fill::Random, &mut random);
                let (h, l, scale) = (Fenced::of(&x.h), Fenced::of(&x.l), Fenced::of(&x.scale));
                let (sum_h, sum16, sum32) =
                    (Fenced::of(&x.sum_h), Fenced::of(&x.sum16), Fenced::of(&x.sum32));
                let acts = Acts {
                    rows,
                    k,
                    h: h.get(),
                    l: l.get(),
                    scale: scale.get(),
                    sum_h: sum_h.get(),
                    sum16: sum16.get(),
                    sum32: sum32.get(),
                };
                let blocks = 0..(k / BLOCK).min(SLAB);
                for kernels in all() {
                    let run = |w: Rows<'_>, acts: &Acts<'_>| {
                        let mut out = vec![0f32; rows * n];
                        kernels.gemv(w, acts, &mut out, n);
                        let mut p = panel();
                        kernels.unpack_panel(w, blocks.clone(), &mut p);
                        let mut acc = vec![0f32; rows * PANEL];
                        kernels.gemm_panel(&p, acts, blocks.clone(), &mut acc);
                        (out, acc)
                    };
                    assert!(run(fenced, &acts) == run(w.rows(), &x.acts()), "{} {ty} k {k}", kernels.isa());
                }
            }
        }
    }
}
