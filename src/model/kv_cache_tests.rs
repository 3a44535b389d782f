//! The cache's bookkeeping: where rows lie, what rings forget, and that snapshots bring it back.

use super::*;
use crate::kernels::Kernels;
use crate::{Isa, Model};

const WINDOW: usize = 16;

/// The tiny Gemma 3: some layers see 16 positions, some all.
fn config() -> Config {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-gemma3.gguf");
    let c = Model::open(path).unwrap().config().clone();
    assert_eq!(c.sliding_window, WINDOW);
    assert!(c.windowed.contains(&true) && c.windowed.contains(&false));
    c
}

fn shape(ty: KvType, context: usize, batch: usize) -> KvShape {
    KvShape { ty, context, batch, full_history: false, draft: 0 }
}

/// Rings of 64 rows.
fn cache(ty: KvType) -> KvCache {
    let c = config();
    let shape = shape(ty, 256, 32);
    assert_eq!(shape.slots(&c, c.windowed.iter().position(|w| *w).unwrap()), 64);
    KvCache::new(&c, &shape).unwrap()
}

/// What key (or value) `i` of a head at a position is in these tests: f16 and Q8_0 hold it as it is.
fn value(layer: usize, head: usize, position: usize, is_value: bool) -> f32 {
    ((layer * 7 + head * 3 + position * 2 + is_value as usize) % 1000) as f32
}

/// Writes the rows of some positions as a pass does.
fn fill(cache: &mut KvCache, positions: Range<usize>) {
    let k = Kernels::new(Isa::Scalar).unwrap();
    cache.will_write(positions.end);
    let (layers, heads, head_dim) = (cache.n_layers(), cache.n_kv_heads, cache.head_dim);
    let shared = cache.share();
    for layer in 0..layers {
        let l = shared.layer(layer);
        for (head, position) in (0..heads).flat_map(|h| positions.clone().map(move |p| (h, p))) {
            let row = |is_value| vec![value(layer, head, position, is_value); head_dim];
            // SAFETY: there is no other thread.
            unsafe { l.store(&k, head, position, &row(false), &row(true)) };
        }
    }
}

/// Whether every layer holds what `fill` wrote for the positions that it must hold before `len`.
fn check(cache: &mut KvCache, len: usize) {
    let k = Kernels::new(Isa::Scalar).unwrap();
    let (heads, head_dim) = (cache.n_kv_heads, cache.head_dim);
    let held: Vec<_> = (0..cache.n_layers()).map(|l| cache.held(l, len)).collect();
    let shared = cache.share();
    let mut x = vec![0.0; TILE * head_dim];
    for (layer, held) in held.into_iter().enumerate() {
        for (head, position) in (0..heads).flat_map(|h| held.clone().map(move |p| (h, p))) {
            // SAFETY: there is no other thread.
            let (key, val) = unsafe { shared.layer(layer).tile(head, position, 1) };
            for (rows, is_value) in [(key, false), (val, true)] {
                k.kv_row_to_f32(rows, &mut x[..head_dim]);
                let expected = value(layer, head, position, is_value);
                // Q8_0's scale is an f16.
                let near = |x: &f32| (x - expected).abs() <= expected / 1000.0;
                assert!(x[..head_dim].iter().all(near), "layer {layer}, head {head}, position {position}");
            }
        }
    }
}

#[test]
fn runs_of_rows() {
    let spans = |heads, slots, positions| row_spans(heads, slots, positions).collect::<Vec<_>>();
    assert_eq!(spans(1, 64, 0..0), []);
    assert_eq!(spans(1, 64, 70..70), []);
    assert_eq!(spans(1, 64, 3..10), [(3, 7)]);
    assert_eq!(spans(1, 64, 0..64), [(0, 64)]);
    // The next head's rows begin after all slots of the one before.
    assert_eq!(spans(2, 64, 3..10), [(3, 7), (67, 7)]);
    // Across the end of the ring, once and later.
    assert_eq!(spans(1, 64, 60..70), [(60, 4), (0, 6)]);
    assert_eq!(spans(2, 64, 60..70), [(60, 4), (0, 6), (124, 4), (64, 6)]);
    assert_eq!(spans(1, 64, 188..198), [(60, 4), (0, 6)]);
    // Up to the end, and from the beginning.
    assert_eq!(spans(1, 64, 60..64), [(60, 4)]);
    assert_eq!(spans(1, 64, 64..66), [(0, 2)]);
    // A whole ring from its middle.
    assert_eq!(spans(1, 64, 10..74), [(10, 54), (0, 10)]);
    // Each slot once, whatever the positions, and in their order.
    for start in 0..130 {
        for n in 0..=64 {
            let slots: Vec<usize> =
                row_spans(1, 64, start..start + n).flat_map(|(at, n)| at..at + n).collect();
            let expected: Vec<usize> = (start..start + n).map(|p| p % 64).collect();
            assert_eq!(slots, expected, "{n} from {start}");
        }
    }
}

#[test]
fn what_writing_forgets() {
    let mut cache = cache(KvType::F16);
    assert_eq!((cache.oldest(), cache.nearest_rewind()), (0, 1));
    assert!(cache.can_resume_at(0) && cache.can_resume_at(1));
    // Until the ring is full, nothing.
    cache.will_write(64);
    assert_eq!((cache.oldest(), cache.nearest_rewind()), (0, 1));
    // The next row takes the place of position 0. To go on from 16 takes the 15 rows before it: 1 to 15.
    cache.will_write(65);
    assert_eq!((cache.oldest(), cache.nearest_rewind()), (1, WINDOW));
    assert!(cache.can_resume_at(0) && !cache.can_resume_at(1) && !cache.can_resume_at(15));
    assert!(cache.can_resume_at(16) && cache.can_resume_at(65));
    cache.will_write(200);
    assert_eq!((cache.oldest(), cache.nearest_rewind()), (136, 136 + WINDOW - 1));
    // What was overwritten stays so when the text is cut and goes on from there.
    cache.will_write(160);
    assert_eq!(cache.oldest(), 136);
    assert_eq!(cache.reached, 200);
    // From the beginning everything is written anew.
    cache.clear();
    assert_eq!((cache.oldest(), cache.nearest_rewind()), (0, 1));
    cache.will_write(80);
    assert_eq!(cache.oldest(), 16);
    let windowed = cache.layers.iter().position(|l| l.windowed).unwrap();
    let full = cache.layers.iter().position(|l| !l.windowed).unwrap();
    assert_eq!(cache.held(windowed, 80), 16..80);
    assert_eq!(cache.held(windowed, 10), 10..10);
    assert_eq!(cache.held(full, 80), 0..80);
}

#[test]
fn where_everything_fits_nothing_is_forgotten() {
    let c = config();
    let whole = KvCache::new(&c, &shape(KvType::F16, 64, 32)).unwrap();
    let full_history = KvShape { full_history: true, ..shape(KvType::F16, 256, 32) };
    for (mut cache, context) in [(whole, 64), (KvCache::new(&c, &full_history).unwrap(), 256)] {
        cache.will_write(context);
        assert_eq!((cache.oldest(), cache.nearest_rewind()), (0, 1));
        assert!((0..=context).all(|len| cache.can_resume_at(len)));
        assert!(cache.blank_snapshot().unwrap().is_none());
    }
}

#[test]
fn rows_lie_where_attention_looks_for_them() {
    for ty in [KvType::F16, KvType::Q8_0, KvType::F32] {
        let mut cache = cache(ty);
        for (from, to) in [(0, 32), (32, 64), (64, 70), (70, 102), (102, 200)] {
            // No batch is longer than the rings have room for beside a window.
            for start in (from..to).step_by(32) {
                fill(&mut cache, start..to.min(start + 32));
            }
            check(&mut cache, to);
        }
    }
}

#[test]
fn snapshots_bring_back_the_windows() {
    for ty in [KvType::F16, KvType::Q8_0, KvType::F32] {
        for len in [1, 5, 15, 16, 17, 63, 64, 65, 100, 130] {
            let mut cache = cache(ty);
            for start in (0..len).step_by(32) {
                fill(&mut cache, start..len.min(start + 32));
            }
            let mut s = cache.blank_snapshot().unwrap().expect("rings forget");
            let room = s.data.capacity();
            let planned = shape(ty, 256, 32).snapshot_bytes(&config());
            assert_eq!(room, planned, "the plan's figure");
            cache.snapshot(len, &mut s);
            assert_eq!(s.data.capacity(), room, "taking one allocates nothing");
            assert_eq!(s.len, len);
            // All that a row at `len` sees besides itself.
            assert_eq!(s.oldest, (len + 1).saturating_sub(WINDOW));
            let windowed = cache.layers.iter().filter(|l| l.windowed).count();
            assert_eq!(s.data.len(), windowed * (len - s.oldest) * cache.position_bytes());

            // Something else is written over every slot of the rings; the full layers keep what was before `len`.
            for start in (len..len + 96).step_by(32) {
                fill(&mut cache, start..start + 32);
            }
            for l in cache.layers.iter_mut().filter(|l| l.windowed) {
                l.keys.bytes_mut().fill(0x11);
                l.values.bytes_mut().fill(0x11);
            }
            assert!(len < 64 - 33 || !cache.can_resume_at(len) || cache.oldest() == 0);
            cache.restore(&s);
            assert!(cache.can_resume_at(len));
            assert_eq!(cache.oldest(), s.oldest);
            check(&mut cache, len);
            // And it goes on from there.
            fill(&mut cache, len..len + 32);
            check(&mut cache, len + 32);
        }
    }
}

#[test]
fn a_snapshot_may_be_taken_again() {
    let mut cache = cache(KvType::F16);
    fill(&mut cache, 0..30);
    let mut s = cache.blank_snapshot().unwrap().unwrap();
    cache.snapshot(30, &mut s);
    fill(&mut cache, 30..50);
    cache.snapshot(50, &mut s);
    assert_eq!((s.len, s.oldest), (50, 35));
    for start in (50..210).step_by(32) {
        fill(&mut cache, start..210.min(start + 32));
    }
    assert!(!cache.can_resume_at(50));
    cache.restore(&s);
    check(&mut cache, 50);
    assert_eq!(cache.nearest_rewind(), 50);
    // After going back there is less to take a snapshot of than a window.
    let mut less = cache.blank_snapshot().unwrap().unwrap();
    cache.snapshot(50, &mut less);
    assert_eq!((less.oldest, &less.data), (35, &s.data));
}

#[test]
fn rows_go_out_and_come_back() {
    for ty in [KvType::F16, KvType::Q8_0, KvType::F32] {
        let mut from = cache(ty);
        for start in (0..100).step_by(32) {
            fill(&mut from, start..100.min(start + 32));
        }
        let mut to = cache(ty);
        to.will_read(from.oldest(), 100);
        for layer in 0..from.n_layers() {
            let held = from.held(layer, 100);
            assert_eq!(to.held(layer, 100), held);
            let mut bytes = Vec::new();
            from.write_rows(layer, held.clone(), &mut bytes).unwrap();
            assert_eq!(bytes.len(), held.len() * from.position_bytes());
            to.read_rows(layer, held.clone(), &mut &bytes[..]).unwrap();
            // One byte too few is the reader's error.
            assert!(to.read_rows(layer, held, &mut &bytes[1..]).is_err());
            let held = from.held(layer, 100);
            to.read_rows(layer, held, &mut &bytes[..]).unwrap();
        }
        check(&mut to, 100);
        assert_eq!(to.nearest_rewind(), from.nearest_rewind());
    }
}

#[test]
fn a_copy_and_a_trimmed_one_hold_the_same() {
    let mut cache = cache(KvType::F16);
    for start in (0..120).step_by(32) {
        fill(&mut cache, start..120.min(start + 32));
    }
    let mut copy = self::cache(KvType::F16);
    copy.copy_from(&cache);
    check(&mut copy, 120);
    assert_eq!((copy.oldest(), copy.reached), (cache.oldest(), 120));
    // A text cut to 100: the rows beyond are given back, the others are where they were.
    cache.trim(100);
    assert_eq!(cache.reached, 100);
    check(&mut cache, 100);
    let full = cache.layers.iter().position(|l| !l.windowed).unwrap();
    let row = cache.ty.row_bytes(cache.head_dim);
    assert!(cache.layers[full].keys.bytes()[100 * row..120 * row].iter().all(|b| *b == 0));
    fill(&mut cache, 100..120);
    check(&mut cache, 120);
}

#[test]
fn bytes_foretold() {
    let c = config();
    for ty in [KvType::F16, KvType::Q8_0, KvType::F32] {
        for shape in
            [shape(ty, 256, 32), shape(ty, 100, 16), KvShape { full_history: true, ..shape(ty, 256, 32) }]
        {
            let cache = KvCache::new(&c, &shape).unwrap();
            let bytes: usize =
                cache.layers.iter().map(|l| l.keys.bytes().len() + l.values.bytes().len() + 2 * 64).sum();
            assert_eq!(shape.bytes(&c), bytes);
            let snapshot = cache.blank_snapshot().unwrap().map_or(0, |s| s.data.capacity());
            assert_eq!(shape.snapshot_bytes(&c), snapshot);
        }
    }
}
