//! Keys and values of the positions seen so far.
//!
//! A layer with full attention keeps a row for every position of the context; one with a sliding window keeps a ring
//! of the window, one batch and a draft. A row is `head_dim` values of one KV head; the rows of a head lie one after
//! the other, position `p` in slot `p % slots`. The number of slots is a multiple of [`TILE`], so that the tiles of
//! attention, counted from position 0, never wrap.

use std::io::{Read, Write};
use std::ops::Range;

use half::f16;

use super::Config;
use crate::Result;
use crate::kernels::{Aligned, Kernels, KvRows};
use crate::parallel::SharedMut;

/// Positions in a tile of attention.
pub(crate) const TILE: usize = 64;

/// How keys and values are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum KvType {
    /// Half precision: 2 bytes a value.
    #[default]
    F16,
    /// ggml's Q8_0: 34 bytes for 32 values.
    Q8_0,
    /// Single precision, for the exact mode: 4 bytes a value.
    F32,
}

impl KvType {
    /// Its name, as the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F16 => "f16",
            KvType::Q8_0 => "q8_0",
            KvType::F32 => "f32",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<KvType> {
        [KvType::F16, KvType::Q8_0, KvType::F32].into_iter().find(|t| t.name() == name)
    }

    /// Elements (numbers, or bytes for Q8_0) of a row of `head_dim` values.
    fn row_len(self, head_dim: usize) -> usize {
        match self {
            KvType::F16 | KvType::F32 => head_dim,
            KvType::Q8_0 => head_dim / 32 * 34,
        }
    }

    /// Bytes of a row of `head_dim` values.
    fn row_bytes(self, head_dim: usize) -> usize {
        match self {
            KvType::F16 => 2 * head_dim,
            KvType::F32 => 4 * head_dim,
            KvType::Q8_0 => self.row_len(head_dim),
        }
    }
}

/// [n_kv_heads, slots, row]
enum Buffer {
    F32(Aligned<f32>),
    F16(Aligned<f16>),
    Q8_0(Aligned<u8>),
}

impl Buffer {
    fn new(ty: KvType, values: usize, head_dim: usize) -> Result<Buffer> {
        let what = "the KV cache";
        let len = values / head_dim * ty.row_len(head_dim);
        Ok(match ty {
            KvType::F32 => Buffer::F32(Aligned::zeroed(len, what)?),
            KvType::F16 => Buffer::F16(Aligned::zeroed(len, what)?),
            KvType::Q8_0 => Buffer::Q8_0(Aligned::zeroed(len, what)?),
        })
    }

    fn share(&self) -> SharedBuffer<'_> {
        match self {
            Buffer::F32(b) => SharedBuffer::F32(b.share()),
            Buffer::F16(b) => SharedBuffer::F16(b.share()),
            Buffer::Q8_0(b) => SharedBuffer::Q8_0(b.share()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Buffer::F32(b) => b.bytes_of(),
            Buffer::F16(b) => b.bytes_of(),
            Buffer::Q8_0(b) => b.bytes_of(),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Buffer::F32(b) => b.bytes_of_mut(),
            Buffer::F16(b) => b.bytes_of_mut(),
            Buffer::Q8_0(b) => b.bytes_of_mut(),
        }
    }
}

#[derive(Clone, Copy)]
enum SharedBuffer<'a> {
    F32(SharedMut<'a, f32>),
    F16(SharedMut<'a, f16>),
    Q8_0(SharedMut<'a, u8>),
}

impl<'a> SharedBuffer<'a> {
    /// # Safety
    /// Nobody writes these elements meanwhile.
    unsafe fn rows(&self, range: Range<usize>) -> KvRows<'a> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                SharedBuffer::F32(b) => KvRows::F32(b.get(range)),
                SharedBuffer::F16(b) => KvRows::F16(b.get(range)),
                SharedBuffer::Q8_0(b) => KvRows::Q8_0(b.get(range)),
            }
        }
    }

    /// # Safety
    /// Nobody else touches these elements meanwhile.
    unsafe fn store(&self, k: &Kernels, range: Range<usize>, x: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                SharedBuffer::F32(b) => b.get_mut(range).copy_from_slice(x),
                SharedBuffer::F16(b) => k.f32_to_f16(x, b.get_mut(range)),
                SharedBuffer::Q8_0(b) => k.f32_to_q8_0(x, b.get_mut(range)),
            }
        }
    }
}

struct Layer {
    slots: usize,
    windowed: bool,
    keys: Buffer,
    values: Buffer,
}

/// The cache of one session.
pub(crate) struct KvCache {
    ty: KvType,
    n_kv_heads: usize,
    head_dim: usize,
    /// What windowed layers remember, when there are any.
    ring: Option<Ring>,
    /// Rows were written up to this position (exclusive) since the buffers were made.
    reached: usize,
    layers: Vec<Layer>,
}

/// What the sliding windows still remember.
#[derive(Clone, Copy)]
struct Ring {
    window: usize,
    slots: usize,
    /// Whether a whole context fits, so that nothing is ever overwritten.
    whole: bool,
    /// The lowest position whose rows are there: others were overwritten, or not in the file that was loaded.
    oldest: usize,
}

impl Ring {
    /// The lowest position that the token at `len` sees.
    fn first_seen(&self, len: usize) -> usize {
        (len + 1).saturating_sub(self.window)
    }
}

/// A copy of the windows at some position, to go back to.
pub(crate) struct Snapshot {
    /// The position: this many tokens came before.
    pub(crate) len: usize,
    oldest: usize,
    /// For every windowed layer, keys then values: [n_kv_heads, len − oldest, row bytes].
    pub(crate) data: Vec<u8>,
}

/// How long the buffers are: what follows from the options before anything is allocated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvShape {
    /// How rows are stored.
    pub(crate) ty: KvType,
    /// Positions a session may hold.
    pub(crate) context: usize,
    /// Most rows that one batch adds.
    pub(crate) batch: usize,
    /// Keep every position in windowed layers too.
    pub(crate) full_history: bool,
    /// Most rows that are written beyond the text: those of a draft.
    pub(crate) draft: usize,
}

impl KvShape {
    fn slots(&self, c: &Config, layer: usize) -> usize {
        let all = self.context.next_multiple_of(TILE);
        match c.window(layer) {
            Some(window) if !self.full_history => {
                (window + self.batch + self.draft).next_multiple_of(TILE).min(all)
            }
            _ => all,
        }
    }

    /// Bytes of the cache.
    pub(crate) fn bytes(&self, c: &Config) -> usize {
        let row = self.ty.row_bytes(c.head_dim);
        (0..c.n_layers).map(|l| 2 * (c.n_kv_heads * self.slots(c, l) * row + 64)).sum()
    }

    /// Bytes of one snapshot.
    pub(crate) fn snapshot_bytes(&self, c: &Config) -> usize {
        let row = self.ty.row_bytes(c.head_dim);
        let all = self.context.next_multiple_of(TILE);
        (0..c.n_layers)
            .filter_map(|l| c.window(l).filter(|_| self.slots(c, l) < all))
            .map(|window| 2 * c.n_kv_heads * window * row)
            .sum()
    }
}

impl KvCache {
    /// An empty cache.
    pub(crate) fn new(c: &Config, shape: &KvShape) -> Result<KvCache> {
        let mut layers = Vec::with_capacity(c.n_layers);
        let mut ring = None;
        for l in 0..c.n_layers {
            let slots = shape.slots(c, l);
            if let Some(window) = c.window(l) {
                let whole = slots >= shape.context;
                ring = Some(Ring { window, slots, whole, oldest: 0 });
            }
            let values = c.n_kv_heads * slots * c.head_dim;
            layers.push(Layer {
                slots,
                windowed: c.windowed[l],
                keys: Buffer::new(shape.ty, values, c.head_dim)?,
                values: Buffer::new(shape.ty, values, c.head_dim)?,
            });
        }
        Ok(KvCache { ty: shape.ty, n_kv_heads: c.n_kv_heads, head_dim: c.head_dim, ring, reached: 0, layers })
    }

    /// Shares it for a pass.
    pub(crate) fn share(&mut self) -> SharedCache<'_> {
        SharedCache(self)
    }

    /// To be called before rows up to position `end` (exclusive) are written: what the rings then no longer hold.
    pub(crate) fn will_write(&mut self, end: usize) {
        self.reached = self.reached.max(end);
        if let Some(r) = &mut self.ring {
            r.oldest = r.oldest.max(end.saturating_sub(r.slots));
        }
    }

    /// The lowest length above 0 that a text can be cut to without processing tokens again.
    pub(crate) fn nearest_rewind(&self) -> usize {
        match self.ring {
            Some(r) if r.oldest > 0 => r.oldest + r.window - 1,
            _ => 1,
        }
    }

    /// Whether the text can go on from position `len`.
    pub(crate) fn can_resume_at(&self, len: usize) -> bool {
        len == 0 || len >= self.nearest_rewind()
    }

    /// Forgets everything: the next row written is that of position 0.
    pub(crate) fn clear(&mut self) {
        if let Some(r) = &mut self.ring {
            r.oldest = 0;
        }
    }

    /// Room for a snapshot, or `None` where nothing is ever overwritten.
    pub(crate) fn blank_snapshot(&self) -> Result<Option<Snapshot>> {
        let Some(r) = self.ring.filter(|r| !r.whole) else { return Ok(None) };
        let layers = self.layers.iter().filter(|l| l.windowed).count();
        let bytes = layers * r.window * self.position_bytes();
        let data = crate::error::try_with_capacity(bytes, "a snapshot of the sliding windows")?;
        Ok(Some(Snapshot { len: 0, oldest: 0, data }))
    }

    /// Copies what the windows need to go on from position `len`, which the cache has reached.
    pub(crate) fn snapshot(&self, len: usize, into: &mut Snapshot) {
        let Some(r) = self.ring.filter(|r| !r.whole) else { return };
        into.data.clear();
        into.len = len;
        // What can be gone on from holds all of a window.
        debug_assert!(self.can_resume_at(len));
        into.oldest = r.first_seen(len);
        let row = self.ty.row_bytes(self.head_dim);
        for l in self.layers.iter().filter(|l| l.windowed) {
            for buffer in [&l.keys, &l.values] {
                for (at, n) in row_spans(self.n_kv_heads, l.slots, into.oldest..len) {
                    // Room for a whole window was taken at the beginning.
                    into.data.extend_from_slice(&buffer.bytes()[at * row..(at + n) * row]);
                }
            }
        }
    }

    /// Bytes of a snapshot at position `len`: the window of every windowed layer.
    pub(crate) fn snapshot_bytes_at(&self, len: usize) -> usize {
        let Some(r) = self.ring else { return 0 };
        let layers = self.layers.iter().filter(|l| l.windowed).count();
        layers * (len - r.first_seen(len)) * self.position_bytes()
    }

    /// Makes a snapshot, whose data were read from a file, one at position `len`.
    pub(crate) fn set_snapshot_len(&self, len: usize, snapshot: &mut Snapshot) {
        debug_assert_eq!(snapshot.data.len(), self.snapshot_bytes_at(len));
        snapshot.len = len;
        snapshot.oldest = self.ring.map_or(0, |r| r.first_seen(len));
    }

    /// Goes back to a snapshot: the full layers' rows before it must be those that were there when it was made.
    pub(crate) fn restore(&mut self, s: &Snapshot) {
        let Some(r) = self.ring.as_mut().filter(|r| !r.whole) else { return };
        let slots = r.slots;
        r.oldest = s.oldest;
        let row = self.ty.row_bytes(self.head_dim);
        let mut data = &s.data[..];
        for l in self.layers.iter_mut().filter(|l| l.windowed) {
            for buffer in [&mut l.keys, &mut l.values] {
                for (at, n) in row_spans(self.n_kv_heads, slots, s.oldest..s.len) {
                    let (now, rest) = data.split_at(n * row);
                    buffer.bytes_mut()[at * row..(at + n) * row].copy_from_slice(now);
                    data = rest;
                }
            }
        }
    }

    /// Number of layers.
    pub(crate) fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// The positions before `len` whose rows a layer still holds.
    pub(crate) fn held(&self, layer: usize, len: usize) -> Range<usize> {
        match self.layers[layer].windowed {
            true => self.oldest().min(len)..len,
            false => 0..len,
        }
    }

    /// Bytes of one position in one layer: keys and values of all heads.
    pub(crate) fn position_bytes(&self) -> usize {
        2 * self.n_kv_heads * self.ty.row_bytes(self.head_dim)
    }

    /// Writes the rows of some positions of a layer: keys of head 0, of head 1, …, then values.
    pub(crate) fn write_rows(
        &self,
        layer: usize,
        positions: Range<usize>,
        to: &mut dyn Write,
    ) -> std::io::Result<()> {
        let l = &self.layers[layer];
        let row = self.ty.row_bytes(self.head_dim);
        for buffer in [&l.keys, &l.values] {
            for (at, n) in row_spans(self.n_kv_heads, l.slots, positions.clone()) {
                to.write_all(&buffer.bytes()[at * row..(at + n) * row])?;
            }
        }
        Ok(())
    }

    /// The reverse of [`Self::write_rows`].
    pub(crate) fn read_rows(
        &mut self,
        layer: usize,
        positions: Range<usize>,
        from: &mut dyn Read,
    ) -> std::io::Result<()> {
        let row = self.ty.row_bytes(self.head_dim);
        let l = &mut self.layers[layer];
        for buffer in [&mut l.keys, &mut l.values] {
            for (at, n) in row_spans(self.n_kv_heads, l.slots, positions.clone()) {
                from.read_exact(&mut buffer.bytes_mut()[at * row..(at + n) * row])?;
            }
        }
        Ok(())
    }

    /// Before [`Self::read_rows`] fills it with the rows before `len`, of which the windowed layers are given those
    /// from `oldest` on: `held` then says which of these there is room for.
    pub(crate) fn will_read(&mut self, oldest: usize, len: usize) {
        if let Some(r) = &mut self.ring {
            r.oldest = oldest;
        }
        self.will_write(len);
    }

    /// The lowest position that the windowed layers hold.
    pub(crate) fn oldest(&self) -> usize {
        self.ring.map_or(0, |r| r.oldest)
    }

    /// Gives back the memory of rows that a text of `len` tokens does not hold, a buffer at a time: those cut off a
    /// longer one. Where memory for the exchange cannot be had, a buffer stays.
    pub(crate) fn trim(&mut self, len: usize) {
        if len >= self.reached {
            return;
        }
        let (ty, heads, head_dim) = (self.ty, self.n_kv_heads, self.head_dim);
        let row = ty.row_bytes(head_dim);
        for layer in 0..self.layers.len() {
            let held = self.held(layer, len);
            let l = &mut self.layers[layer];
            if held.len() >= self.reached.min(l.slots) {
                continue;
            }
            for buffer in [&mut l.keys, &mut l.values] {
                let Ok(mut new) = Buffer::new(ty, heads * l.slots * head_dim, head_dim) else { return };
                for (at, n) in row_spans(heads, l.slots, held.clone()) {
                    let bytes = at * row..(at + n) * row;
                    new.bytes_mut()[bytes.clone()].copy_from_slice(&buffer.bytes()[bytes]);
                }
                *buffer = new;
            }
        }
        self.reached = len;
    }

    /// Copies everything.
    pub(crate) fn copy_from(&mut self, other: &KvCache) {
        self.ring = other.ring;
        self.reached = other.reached;
        for (to, from) in self.layers.iter_mut().zip(&other.layers) {
            to.keys.bytes_mut().copy_from_slice(from.keys.bytes());
            to.values.bytes_mut().copy_from_slice(from.values.bytes());
        }
    }
}

/// For each head, the runs of rows (first row, count) that hold `positions` in a ring of `slots`.
fn row_spans(heads: usize, slots: usize, positions: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let first = (positions.start % slots, positions.len().min(slots - positions.start % slots));
    let second = (0, positions.len() - first.1);
    (0..heads).flat_map(move |h| {
        [first, second].into_iter().filter(|s| s.1 > 0).map(move |(at, n)| (h * slots + at, n))
    })
}

/// The cache during a pass: what is in it is reached through [`SharedMut`] only.
#[derive(Clone, Copy)]
pub(crate) struct SharedCache<'a>(&'a KvCache);

impl<'a> SharedCache<'a> {
    /// One layer.
    pub(crate) fn layer(&self, layer: usize) -> SharedLayer<'a> {
        let l = &self.0.layers[layer];
        SharedLayer {
            slots: l.slots,
            row_len: self.0.ty.row_len(self.0.head_dim),
            keys: l.keys.share(),
            values: l.values.share(),
        }
    }
}

/// A layer's cache during a pass.
#[derive(Clone, Copy)]
pub(crate) struct SharedLayer<'a> {
    slots: usize,
    row_len: usize,
    keys: SharedBuffer<'a>,
    values: SharedBuffer<'a>,
}

impl<'a> SharedLayer<'a> {
    fn span(&self, head: usize, position: usize, rows: usize) -> Range<usize> {
        let row = head * self.slots + position % self.slots;
        row * self.row_len..(row + rows) * self.row_len
    }

    /// Stores key and value of one head at one position.
    ///
    /// # Safety
    /// Nobody else touches these rows meanwhile.
    pub(crate) unsafe fn store(&self, k: &Kernels, head: usize, position: usize, key: &[f32], value: &[f32]) {
        let span = self.span(head, position, 1);
        // SAFETY: the caller's promise.
        unsafe {
            self.keys.store(k, span.clone(), key);
            self.values.store(k, span, value);
        }
    }

    /// Keys and values of `rows` positions from `position`, which lie in one tile.
    ///
    /// # Safety
    /// Nobody writes them meanwhile.
    pub(crate) unsafe fn tile(&self, head: usize, position: usize, rows: usize) -> (KvRows<'a>, KvRows<'a>) {
        debug_assert!(position % TILE + rows <= TILE);
        let span = self.span(head, position, rows);
        // SAFETY: the caller's promise.
        unsafe { (self.keys.rows(span.clone()), self.values.rows(span)) }
    }
}

#[cfg(test)]
#[path = "kv_cache_tests.rs"]
mod tests;
