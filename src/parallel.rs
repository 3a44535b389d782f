//! [`Team`]: one closure, run on every worker at once, with barriers between its steps.
//!
//! The threads come from a rayon pool of our own that runs nothing else: each is put into a loop here, where it
//! spins for a moment after a pass and then parks. The caller is worker 0; a team of one has no pool. Work is handed
//! out by a counter, a chunk at a time, so that a slow or busy core takes less; no sum is ever split across workers,
//! so results do not depend on who did what.

use std::any::Any;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::{CancelToken, Error, Result};

/// How long a worker looks for its next pass before it parks: longer than sampling a token takes, and far shorter
/// than what a battery would notice.
const LINGER: Duration = Duration::from_micros(300);
/// Turns of a barrier's loop before the waiter sleeps: about 50 µs, longer than a step's last chunk usually takes.
const SPINS: u32 = 3000;
/// The same where there are more workers than cores: the one waited for may not be running at all, and every further
/// turn would keep it from doing so.
const SPINS_CROWDED: u32 = 16;

/// Why a body must return early; the team turns it into the pass's error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// The caller's token was set.
    Cancelled,
    /// Another worker panicked.
    Poisoned,
}

type Body<'a> = dyn Fn(&mut Worker<'_>) -> Result<(), Stop> + Sync + 'a;

/// What a pass is: valid from the dispatch until the last worker has reported back.
#[derive(Clone, Copy)]
struct Job {
    body: *const Body<'static>,
    cancel: *const CancelToken,
}

struct Shared {
    threads: usize,
    /// Turns before a waiter sleeps.
    spins: u32,
    /// Number of the pass; a change means that `job` is new.
    pass: AtomicU32,
    job: UnsafeCell<Option<Job>>,
    /// Workers other than the caller that have not finished the pass.
    running: AtomicUsize,
    /// Next chunk to hand out in this step.
    next: AtomicUsize,
    arrived: AtomicUsize,
    /// Number of the barrier; a change lets its waiters go.
    step: AtomicU32,
    cancelled: AtomicBool,
    poisoned: AtomicBool,
    panic: Mutex<Option<String>>,
    shutdown: AtomicBool,
    /// Threads waiting in a barrier, or for the end of a pass, on `wake`.
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    handles: Vec<OnceLock<Thread>>,
    exited: AtomicUsize,
    /// Worker number + 1 that shall panic in the next pass: for tests of what happens then.
    inject: AtomicUsize,
}

// SAFETY: `job` is written by the thread that holds the team's lock while no worker runs, and read by workers only
// after they have seen `pass` change (Release / Acquire); everything else is Sync by itself. The pointers in it are
// used only during the pass, which `run` outlives.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing here is tied to a thread.
unsafe impl Send for Shared {}

/// A worker's view of the pass that it takes part in.
pub(crate) struct Worker<'a> {
    shared: &'a Shared,
    cancel: Option<&'a CancelToken>,
    /// Its number, 0 for the caller.
    pub index: usize,
}

impl Worker<'_> {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.shared.threads
    }

    /// Whether the pass was cancelled or poisoned, and the next barrier will say so: what a chunk still lacks then
    /// need not be done. For chunks that take longer than a few milliseconds.
    #[inline]
    pub(crate) fn is_stopped(&self) -> bool {
        self.cancel.is_some_and(CancelToken::is_cancelled) || self.shared.poisoned.load(Relaxed)
    }

    /// The next chunk of `0..n` that nobody has taken in this step, in order; `None` when there is none left, or
    /// when the pass was cancelled or poisoned. A step has one such loop.
    #[inline]
    pub(crate) fn claim(&mut self, n: usize) -> Option<usize> {
        if self.is_stopped() {
            return None;
        }
        let i = self.shared.next.fetch_add(1, Relaxed);
        (i < n).then_some(i)
    }

    /// Waits for all workers. What they wrote before it can be read after it, and the claims begin anew.
    pub(crate) fn barrier(&mut self) -> Result<(), Stop> {
        let s = self.shared;
        if s.threads == 1 {
            s.next.store(0, Relaxed);
            return match self.cancel.is_some_and(CancelToken::is_cancelled) {
                true => Err(Stop::Cancelled),
                false => Ok(()),
            };
        }
        let step = s.step.load(Acquire);
        if s.arrived.fetch_add(1, AcqRel) + 1 == s.threads {
            // The last to arrive decides for all: a token set between two reads must not part the workers.
            if self.cancel.is_some_and(CancelToken::is_cancelled) {
                s.cancelled.store(true, Relaxed);
            }
            s.next.store(0, Relaxed);
            s.arrived.store(0, Relaxed);
            s.step.store(step.wrapping_add(1), SeqCst);
            s.wake_sleepers();
        } else {
            s.wait(|| s.step.load(SeqCst) != step || s.poisoned.load(SeqCst));
        }
        if s.poisoned.load(Acquire) {
            return Err(Stop::Poisoned);
        }
        if s.cancelled.load(Relaxed) { Err(Stop::Cancelled) } else { Ok(()) }
    }
}

impl Shared {
    /// Spins for a moment, then sleeps, until `done`. Whoever makes it true calls `wake_sleepers`.
    fn wait(&self, done: impl Fn() -> bool) {
        for _ in 0..self.spins {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
        self.sleepers.fetch_add(1, SeqCst);
        let mut guard = lock(&self.sleep);
        while !done() {
            guard = self.wake.wait(guard).unwrap_or_else(|e| e.into_inner());
        }
        drop(guard);
        self.sleepers.fetch_sub(1, SeqCst);
    }

    /// To be called after a store (SeqCst) that somebody may be waiting for: either the sleeper has announced itself
    /// and is woken here, or it will see the store before it sleeps.
    fn wake_sleepers(&self) {
        if self.sleepers.load(SeqCst) > 0 {
            drop(lock(&self.sleep));
            self.wake.notify_all();
        }
    }

    /// Runs the body as worker `index`; a panic poisons the pass.
    fn work(&self, job: Job, index: usize) -> Result<(), Stop> {
        // SAFETY: `run` keeps body and token alive until every worker has finished the pass.
        let (body, cancel) = unsafe { (&*job.body, job.cancel.as_ref()) };
        let result = catch_unwind(AssertUnwindSafe(|| {
            if self.inject.compare_exchange(index + 1, 0, Relaxed, Relaxed).is_ok() {
                panic!("injected into worker {index}");
            }
            body(&mut Worker { shared: self, cancel, index })
        }));
        match result {
            Ok(r) => r,
            Err(payload) => {
                *lock(&self.panic) = Some(message_of(&*payload));
                // A payload whose own drop panics must not end the process.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
                self.poisoned.store(true, SeqCst);
                self.wake_sleepers();
                Err(Stop::Poisoned)
            }
        }
    }

    /// What a thread of the pool does all its life.
    fn serve(&self, index: usize) {
        let _ = self.handles[index].set(std::thread::current());
        let mut seen = 0;
        loop {
            let idle_since = Instant::now();
            let mut turns = 0u32;
            while self.pass.load(Acquire) == seen {
                if self.shutdown.load(Acquire) {
                    return;
                }
                turns += 1;
                if turns.is_multiple_of(64) && idle_since.elapsed() > LINGER {
                    // unpark() before this makes it return at once, so a pass is never missed.
                    std::thread::park();
                } else {
                    std::hint::spin_loop();
                }
            }
            seen = self.pass.load(Acquire);
            // SAFETY: the pass number changed after `job` was written, and it is not written again before
            // `running` is 0.
            let job = unsafe { *self.job.get() };
            if let Some(job) = job {
                let _ = self.work(job, index);
            }
            self.running.fetch_sub(1, SeqCst);
            self.wake_sleepers();
        }
    }
}

pub(crate) fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(s) = payload.downcast_ref::<&str>() {
        (*s).to_string()
    } else if let Some(s) = payload.downcast_ref::<String>() {
        s.clone()
    } else {
        "a panic without a message".to_string()
    }
}

/// A lock whose holder panicked guards nothing here that a panic could leave half done.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

/// More than any machine that runs this has use for; a number far above it is a mistake of the caller.
pub(crate) const MAX_THREADS: usize = 256;

/// [`Error::InvalidOption`] for a number of threads that cannot be.
pub(crate) fn check_threads(threads: usize) -> Result<()> {
    if (1..=MAX_THREADS).contains(&threads) {
        return Ok(());
    }
    Err(Error::InvalidOption {
        option: "threads",
        expected: format!("1 to {MAX_THREADS}"),
        found: threads.to_string(),
    })
}

/// A fixed set of workers: the caller of [`Team::run`] and threads − 1 of a pool. One pass at a time.
pub(crate) struct Team {
    shared: Arc<Shared>,
    pool: Option<rayon::ThreadPool>,
    busy: Mutex<bool>,
    free: Condvar,
    process: u32,
}

impl Team {
    /// The most memory that a worker takes beside its buffers: the pages of its stack that passes touch (a stack is
    /// some megabytes of addresses, of which few are ever used), and what the allocator and the pool keep for a
    /// thread. A second thread was seen to take 84 kB, the pages that its buffers are rounded up to included.
    pub(crate) const THREAD_BYTES: usize = 96 << 10;

    /// A team of `threads` workers, or of as many as can be created.
    pub(crate) fn new(threads: usize) -> Team {
        let mut threads = threads.max(1);
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        loop {
            let shared = Arc::new(Shared {
                threads,
                spins: if threads > cores { SPINS_CROWDED } else { SPINS },
                pass: AtomicU32::new(0),
                job: UnsafeCell::new(None),
                running: AtomicUsize::new(0),
                next: AtomicUsize::new(0),
                arrived: AtomicUsize::new(0),
                step: AtomicU32::new(0),
                cancelled: AtomicBool::new(false),
                poisoned: AtomicBool::new(false),
                panic: Mutex::new(None),
                shutdown: AtomicBool::new(false),
                sleepers: AtomicUsize::new(0),
                sleep: Mutex::new(()),
                wake: Condvar::new(),
                handles: (0..threads).map(|_| OnceLock::new()).collect(),
                exited: AtomicUsize::new(0),
                inject: AtomicUsize::new(0),
            });
            let mut pool = None;
            if threads > 1 {
                let at_exit = shared.clone();
                let built = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads - 1)
                    .thread_name(|i| format!("carat-{}", i + 1))
                    .exit_handler(move |_| {
                        at_exit.exited.fetch_add(1, Release);
                    })
                    .build();
                match built {
                    Ok(p) => {
                        let s = shared.clone();
                        p.spawn_broadcast(move |c| s.serve(c.index() + 1));
                        pool = Some(p);
                    }
                    Err(_) => {
                        threads -= 1;
                        continue;
                    }
                }
            }
            return Team {
                shared,
                pool,
                busy: Mutex::new(false),
                free: Condvar::new(),
                process: std::process::id(),
            };
        }
    }

    /// Number of workers.
    pub(crate) fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Makes worker `index` panic in the next pass.
    pub(crate) fn inject_panic(&self, index: usize) {
        self.shared.inject.store(index + 1, Relaxed);
    }

    /// Runs `body` on every worker and returns when all are done. Passes take turns; waiting for one's turn can be
    /// cancelled too. Nothing is allocated.
    ///
    /// A body that panics makes every worker leave at its next barrier, and the error is [`Error::Internal`].
    pub(crate) fn run(
        &self,
        cancel: Option<&CancelToken>,
        body: &(dyn Fn(&mut Worker<'_>) -> Result<(), Stop> + Sync),
    ) -> Result<()> {
        let here = std::process::id();
        if here != self.process {
            return Err(Error::Forked { opened_by: self.process, here });
        }
        let _turn = self.take_turn(cancel)?;
        let s = &*self.shared;
        s.next.store(0, Relaxed);
        s.arrived.store(0, Relaxed);
        s.cancelled.store(false, Relaxed);
        s.poisoned.store(false, Relaxed);
        // SAFETY: only the lifetime is changed; the pointer is not used after this function returns, because it
        // waits below until `running` is 0.
        let body: *const Body<'static> = unsafe { std::mem::transmute(body as *const Body<'_>) };
        let job = Job { body, cancel: cancel.map_or(std::ptr::null(), |c| c) };
        if s.threads > 1 {
            // SAFETY: `_turn` is held and no worker runs, so nobody reads `job` now.
            unsafe { *s.job.get() = Some(job) };
            s.running.store(s.threads - 1, Relaxed);
            s.pass.fetch_add(1, Release);
            for handle in s.handles.iter().filter_map(OnceLock::get) {
                handle.unpark();
            }
        }
        let mine = s.work(job, 0);
        s.wait(|| s.running.load(SeqCst) == 0);
        if s.poisoned.load(Acquire) {
            let what = lock(&s.panic).take().unwrap_or_default();
            return Err(Error::Internal { what });
        }
        match mine {
            Ok(()) => Ok(()),
            Err(Stop::Cancelled) => Err(Error::Cancelled),
            Err(Stop::Poisoned) => Err(Error::Internal { what: "a worker stopped".into() }),
        }
    }

    fn take_turn(&self, cancel: Option<&CancelToken>) -> Result<Turn<'_>> {
        let mut busy = lock(&self.busy);
        loop {
            if let Some(c) = cancel {
                c.check()?;
            }
            if !*busy {
                *busy = true;
                return Ok(Turn(self));
            }
            let wait = self.free.wait_timeout(busy, Duration::from_millis(20));
            busy = wait.unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

/// The right to run a pass.
struct Turn<'a>(&'a Team);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.busy) = false;
        self.0.free.notify_one();
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // The threads stayed in the parent: there is nobody to stop or to wait for.
            std::mem::forget(self.pool.take());
            return;
        }
        let Some(pool) = self.pool.take() else { return };
        self.shared.shutdown.store(true, Release);
        // A thread that has not begun to serve yet will see the flag when it does.
        for handle in self.shared.handles.iter().filter_map(OnceLock::get) {
            handle.unpark();
        }
        drop(pool);
        while self.shared.exited.load(Acquire) < self.shared.threads - 1 {
            // One that registered just now may have missed the first call.
            for handle in self.shared.handles.iter().filter_map(OnceLock::get) {
                handle.unpark();
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// A buffer that the workers of a pass write in parts: who may touch which part when is for the steps to arrange,
/// by claims and barriers.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut<'a, T> {
    ptr: *mut T,
    len: usize,
    of: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through the unsafe methods below, whose callers promise that no part is written by one thread
// while another touches it.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// Shares `slice` until the last copy of the value is gone.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        SharedMut { ptr: slice.as_mut_ptr(), len: slice.len(), of: PhantomData }
    }

    /// Shares `len` values from `ptr`, which stay valid and otherwise untouched for 'a.
    pub(crate) fn from_raw(ptr: std::ptr::NonNull<T>, len: usize) -> Self {
        SharedMut { ptr: ptr.as_ptr(), len, of: PhantomData }
    }

    /// Length of the whole buffer.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A part, to read.
    ///
    /// # Safety
    /// Nobody writes any of it while the slice lives.
    pub(crate) unsafe fn get(&self, range: Range<usize>) -> &'a [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the buffer, which outlives 'a; the caller promises that nobody writes it.
        unsafe { std::slice::from_raw_parts(self.ptr.add(range.start), range.len()) }
    }

    /// A part, to write.
    ///
    /// # Safety
    /// Nobody else touches any of it while the slice lives.
    #[allow(clippy::mut_from_ref)] // that is what the type is for
    pub(crate) unsafe fn get_mut(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the buffer, which outlives 'a; the caller promises that the part is its own.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_handed_out_once_and_barriers_order_the_steps() {
        for threads in [1, 2, 5] {
            let team = Team::new(threads);
            for _ in 0..50 {
                let counts: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
                let total = AtomicUsize::new(0);
                team.run(None, &|w| {
                    while let Some(i) = w.claim(100) {
                        counts[i].fetch_add(1, Relaxed);
                    }
                    w.barrier()?;
                    assert!(counts.iter().all(|c| c.load(Relaxed) == 1));
                    while w.claim(10).is_some() {
                        total.fetch_add(1, Relaxed);
                    }
                    w.barrier()
                })
                .unwrap();
                assert_eq!(total.load(Relaxed), 10);
            }
        }
    }

    #[test]
    fn a_panic_in_any_worker_ends_the_pass_and_not_the_team() {
        let team = Team::new(3);
        for index in 0..3 {
            team.inject_panic(index);
            let e = team.run(None, &|w| {
                for _ in 0..100 {
                    w.barrier()?;
                }
                Ok(())
            });
            assert!(matches!(e, Err(Error::Internal { what }) if what.contains("injected")));
            team.run(None, &|w| w.barrier()).unwrap();
        }
    }

    #[test]
    fn cancelling_stops_the_claims_and_all_leave_at_the_same_barrier() {
        let team = Team::new(3);
        let token = CancelToken::new();
        let done = AtomicUsize::new(0);
        let left = AtomicUsize::new(0);
        let e = team.run(Some(&token), &|w| {
            loop {
                while let Some(i) = w.claim(1000) {
                    done.fetch_add(1, Relaxed);
                    if i == 10 {
                        token.cancel();
                    }
                }
                if let Err(stop) = w.barrier() {
                    left.fetch_add(1, Relaxed);
                    return Err(stop);
                }
            }
        });
        assert!(matches!(e, Err(Error::Cancelled)));
        assert_eq!(left.load(Relaxed), 3);
        // Each of the other two may have been past its check when the token was set.
        assert!(done.load(Relaxed) <= 13, "{done:?}");
        assert!(matches!(team.run(Some(&token), &|_| Ok(())), Err(Error::Cancelled)));
    }

    #[test]
    fn two_callers_take_turns() {
        let team = Team::new(2);
        let inside = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    for _ in 0..100 {
                        team.run(None, &|w| {
                            if w.index == 0 {
                                assert_eq!(inside.fetch_add(1, SeqCst), 0);
                            }
                            w.barrier()?;
                            if w.index == 0 {
                                inside.fetch_sub(1, SeqCst);
                            }
                            w.barrier()
                        })
                        .unwrap();
                    }
                });
            }
        });
    }
}
