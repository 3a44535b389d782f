//! `tests/data/quants.gguf` was made by ggml: tensor `src` [6, 512], and for each type it quantized (`NAME`) and
//! dequantized again (`NAME.f32`).

use super::*;
use crate::gguf::Gguf;

struct Golden(Gguf);

impl Golden {
    fn load() -> Golden {
        Golden(Gguf::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/quants.gguf")).unwrap())
    }

    /// The tensor of type `ty`.
    fn bytes(&self, ty: DType) -> &[u8] {
        let name = if ty == DType::F32 { "src".into() } else { ty.name().to_lowercase() };
        let tensor = self.0.tensor(&name).unwrap().unwrap();
        assert_eq!((tensor.dtype(), tensor.dims()), (ty, &[512, 6][..]));
        tensor.data()
    }

    /// Its values, as ggml dequantized them.
    fn values(&self, ty: DType) -> Vec<f32> {
        let name = if ty == DType::F32 { "src".into() } else { format!("{}.f32", ty.name().to_lowercase()) };
        let tensor = self.0.tensor(&name).unwrap().unwrap();
        assert_eq!((tensor.dtype(), tensor.dims()), (DType::F32, &[512, 6][..]));
        tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

fn bits_of(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Every bit of every value.
#[test]
fn dequantized_values_are_ggmls() {
    let golden = Golden::load();
    for ty in DType::ALL {
        let expected = golden.values(ty);
        assert_eq!(expected.len(), 6 * 512);
        let mut found = vec![f32::NAN; expected.len()];
        dequantize(ty, golden.bytes(ty), &mut found);
        assert_eq!(bits_of(&found), bits_of(&expected), "{ty}");
    }
}

/// Addressed block by block, the integers, scales and mins make the very values that whole rows give.
#[test]
fn unpacked_blocks_recombine_to_the_bits_of_ggmls_values() {
    let golden = Golden::load();
    for ty in DType::ALL.into_iter().filter(|ty| !ty.is_float()) {
        let (g, expected) = (Grouping::of(ty), golden.values(ty));
        let row_bytes = ty.row_bytes(512).unwrap();
        for (row, expected) in golden.bytes(ty).chunks_exact(row_bytes).zip(expected.chunks_exact(512)) {
            for block in 0..512 / SUB {
                let u = unpack(ty, row, block);
                assert!(u.q.iter().all(|&q| q <= g.max), "{ty}");
                assert!(g.mins || u.min == [0.0; 2], "{ty}");
                assert!(g.group == 16 || (u.scale[0] == u.scale[1] && u.min[0] == u.min[1]), "{ty}");
                for i in 0..SUB {
                    let w = u.scale[i / 16] * (u.q[i] as i32 - g.offset) as f32 - u.min[i / 16];
                    assert_eq!(w, expected[block * SUB + i], "{ty} block {block} value {i}");
                }
            }
        }
    }
}

#[test]
fn any_bytes_are_a_block_at_any_alignment() {
    let mut state = 1u64;
    let noise: Vec<u8> = (0..210 * 40 + 16)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect();
    for ty in DType::ALL {
        let n = ty.block_bytes() * 8;
        for bytes in
            [&[0u8; 210 * 8][..n], &[255; 210 * 8][..n], &noise[..n], &noise[1..n + 1], &noise[7..n + 7]]
        {
            let mut out = vec![0.0; ty.block_len() * 8];
            dequantize(ty, bytes, &mut out);
            let moved = [&[0; 3], bytes].concat();
            let mut again = vec![0.0; out.len()];
            dequantize(ty, &moved[3..], &mut again);
            assert_eq!(bits_of(&out), bits_of(&again), "{ty}");
            if !ty.is_float() {
                let g = Grouping::of(ty);
                for block in 0..out.len() / SUB {
                    assert!(unpack(ty, bytes, block).q.iter().all(|&q| q <= g.max), "{ty}");
                }
            }
        }
    }
}

#[test]
fn wrong_lengths_are_errors() {
    for ty in DType::ALL {
        let (n, bytes) = (ty.block_len() * 2, vec![0; ty.block_bytes() * 2 + 1]);
        for (wrong_bytes, values) in [(bytes.len(), n), (bytes.len() - 2, n), (bytes.len() - 1, n + 1)] {
            let error = ty.dequantize(&bytes[..wrong_bytes], &mut vec![0.0; values]).unwrap_err();
            assert!(matches!(error, Error::InvalidOption { .. }), "{ty}: {error}");
            let error = ty.quantize(&vec![0.0; values], &mut bytes.clone()[..wrong_bytes]).unwrap_err();
            assert!(matches!(error, Error::InvalidOption { .. }), "{ty}: {error}");
        }
        ty.dequantize(&bytes[..bytes.len() - 1], &mut vec![0.0; n]).unwrap();
        ty.dequantize(&[], &mut []).unwrap();
    }
}

#[test]
fn plain_formats_are_quantized_to_ggmls_bits() {
    use DType::*;
    let golden = Golden::load();
    let src = golden.values(F32);
    for ty in [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0] {
        let expected = golden.bytes(ty);
        let mut found = vec![0; expected.len()];
        ty.quantize(&src, &mut found).unwrap();
        let differ = found.chunks(ty.block_bytes()).zip(expected.chunks(ty.block_bytes()));
        assert_eq!(differ.filter(|(a, b)| a != b).count(), 0, "blocks of {ty} that differ");
    }
}

/// Row by row, since one row may be far larger than the others.
#[test]
fn fitted_formats_are_as_close_as_ggmls() {
    use DType::*;
    let golden = Golden::load();
    let src = golden.values(F32);
    for ty in [Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS] {
        let mut bytes = vec![0; golden.bytes(ty).len()];
        ty.quantize(&src, &mut bytes).unwrap();
        let mut found = vec![0.0; src.len()];
        ty.dequantize(&bytes, &mut found).unwrap();
        let theirs = golden.values(ty);
        for row in 0..6 {
            let range = row * 512..(row + 1) * 512;
            let rmse = |y: &[f32]| {
                let sum: f64 =
                    y.iter().zip(&src[range.clone()]).map(|(y, x)| (*y as f64 - *x as f64).powi(2)).sum();
                (sum / 512.0).sqrt()
            };
            let (ours, theirs) = (rmse(&found[range.clone()]), rmse(&theirs[range.clone()]));
            assert!(ours <= 1.05 * theirs, "{ty} row {row}: rmse {ours}, ggml {theirs}");
        }
    }
}

#[test]
fn constant_rows_and_wild_values() {
    for ty in DType::ALL {
        let mut bytes = vec![0xAA; ty.row_bytes(512).unwrap()];
        let mut found = vec![f32::NAN; 512];
        for value in [0.0, -0.75, 0.75] {
            ty.quantize(&[value; 512], &mut bytes).unwrap();
            ty.dequantize(&bytes, &mut found).unwrap();
            assert!(
                found.iter().all(|f| (f - value).abs() <= 0.01 * value.abs()),
                "{ty} {value}: {}",
                found[0]
            );
        }
        for value in [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE / 4.0] {
            let mut row = [0.5; 512];
            row[3] = value;
            row[300] = -value;
            ty.quantize(&row, &mut bytes).unwrap();
        }
    }
}
