//! Time and allocations of a small piece of work.
//!
//! Goes in: a closure. Comes out: nanoseconds a call (the best of several rounds, since whatever disturbs only adds) and
//! allocations a call, counted by the allocator. Not here: what is fast enough.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The system's allocator, with a counter.
pub struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps alloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps dealloc's contract.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps realloc's contract.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// How many there were until now.
pub fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// What one call costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub nanos: f64,
    pub allocations: f64,
}

/// Short rounds, and many: most lie within one slice of the scheduler, on a busy machine too.
const ROUNDS: usize = 400;
const ROUND: Duration = Duration::from_millis(2);

pub fn measure<T>(mut work: impl FnMut() -> T) -> Cost {
    // As many calls as fill a round; the warming up finds out.
    let begin = Instant::now();
    let mut calls = 0u64;
    while begin.elapsed() < ROUND {
        black_box(work());
        calls += 1;
    }
    let mut best = f64::INFINITY;
    let before = allocations();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..calls {
            black_box(work());
        }
        best = best.min(begin.elapsed().as_nanos() as f64 / calls as f64);
    }
    let allocations = allocations() - before;
    Cost { nanos: best, allocations: allocations as f64 / (calls * ROUNDS as u64) as f64 }
}
