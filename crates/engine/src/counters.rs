//! Counters cheap enough for every request: relaxed additions to memory that hardly any other thread writes.
//!
//! - [`ShardedCounters`] gives each thread a block of counters, as far as there are blocks; a scrape adds the blocks up.
//!   A sum is exact once no thread counts, and never decreases.
//! - [`Histogram`] has fixed bounds, so that one observation is two additions.

use std::{
    array,
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

/// Blocks at most; further threads share them. A scrape reads all of them.
const MAX_SHARDS: usize = 32;

/// One block of counters, `T`, per thread; at most 32 blocks.
pub struct ShardedCounters<T> {
    shards: Box<[PaddedShard<T>]>,
}

/// Two cache lines, because processors fetch them in pairs.
#[repr(align(128))]
struct PaddedShard<T>(T);

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct RelaxedCounter(AtomicU64);

/// Counts values between fixed bounds. `N` is the number of bounds, and one for values above all of them.
pub struct Histogram<const N: usize> {
    bounds: &'static [u64],
    counts: [RelaxedCounter; N],
    sum: RelaxedCounter,
}

/// The counts of a histogram, or the sum of several with the same bounds, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Upper bounds, inclusive, rising.
    pub bounds: &'static [u64],
    /// Values per bound, not cumulative; the last one is for values above all bounds.
    pub counts: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}

/// Bounds of [`DurationHistogram`] in nanoseconds: 50 µs to 10 s, each two to two and a half times the one before.
pub const DURATION_BOUNDS: [u64; 17] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Bounds of [`SizeHistogram`]: 1 to 4096 in powers of two.
pub const SIZE_BOUNDS: [u64; 13] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];

/// A histogram of durations.
pub type DurationHistogram = Histogram<18>;

/// A histogram of batch sizes.
pub type SizeHistogram = Histogram<14>;

impl<T: Default> Default for ShardedCounters<T> {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = cores.next_power_of_two().min(MAX_SHARDS);
        ShardedCounters { shards: (0..shards).map(|_| PaddedShard(T::default())).collect() }
    }
}

impl<T> ShardedCounters<T> {
    /// The calling thread's block.
    pub fn mine(&self) -> &T {
        // The number of shards is a power of two.
        let at = thread_number() & (self.shards.len() - 1);
        #[expect(clippy::indexing_slicing, reason = "masked by the length")]
        &self.shards[at].0
    }

    /// Every block.
    pub fn all(&self) -> impl Iterator<Item = &T> + Clone {
        self.shards.iter().map(|shard| &shard.0)
    }

    /// The sum of one counter over all blocks.
    pub fn sum(&self, of: impl Fn(&T) -> &RelaxedCounter) -> u64 {
        self.all().fold(0, |sum, shard| sum.wrapping_add(of(shard).get()))
    }

    /// The sum of one histogram over all blocks.
    pub fn snapshot<const N: usize>(&self, of: impl Fn(&T) -> &Histogram<N>) -> HistogramSnapshot {
        let mut sum = HistogramSnapshot::default();
        for shard in self.all() {
            of(shard).add_to(&mut sum);
        }
        sum
    }
}

/// The calling thread's number: threads are numbered in the order in which they first count something.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Relaxed) & (usize::MAX >> 1));
        }
        number.get()
    })
}

impl RelaxedCounter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The number at this moment.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [u64]) -> Self {
        debug_assert_eq!(bounds.len() + 1, N);
        Histogram {
            bounds,
            counts: array::from_fn(|_| RelaxedCounter::default()),
            sum: RelaxedCounter::default(),
        }
    }

    /// Counts one value.
    pub fn observe(&self, value: u64) {
        let at = self.bounds.iter().take_while(|bound| value > **bound).count();
        if let Some(count) = self.counts.get(at) {
            count.add(1);
        }
        self.sum.add(value);
    }

    /// The counts now.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut snapshot = HistogramSnapshot::default();
        self.add_to(&mut snapshot);
        snapshot
    }

    fn add_to(&self, snapshot: &mut HistogramSnapshot) {
        snapshot.bounds = self.bounds;
        snapshot.counts.resize(N, 0);
        for (sum, count) in snapshot.counts.iter_mut().zip(&self.counts) {
            *sum += count.get();
        }
        snapshot.sum = snapshot.sum.wrapping_add(self.sum.get());
    }
}

impl DurationHistogram {
    /// Counts one duration.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl Default for DurationHistogram {
    fn default() -> Self {
        Histogram::new(&DURATION_BOUNDS)
    }
}

impl Default for SizeHistogram {
    fn default() -> Self {
        Histogram::new(&SIZE_BOUNDS)
    }
}

impl HistogramSnapshot {
    /// Number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_value_is_counted_under_the_first_bound_that_holds_it() {
        let sizes = SizeHistogram::default();
        for value in [0, 1, 2, 3, 4096, 4097, 1_000_000] {
            sizes.observe(value);
        }
        let seen = sizes.snapshot();
        assert_eq!(seen.counts, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!((seen.count(), seen.sum), (7, 1_008_199));
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let counters: Arc<ShardedCounters<RelaxedCounter>> = Arc::default();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let counters = counters.clone();
                std::thread::spawn(move || (0..10_000).for_each(|_| counters.mine().add(1)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(counters.sum(|count| count), 80_000);
    }

    #[test]
    fn histograms_of_all_threads_are_added() {
        let counters: Arc<ShardedCounters<SizeHistogram>> = Arc::default();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let counters = counters.clone();
                std::thread::spawn(move || counters.mine().observe(4096))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let seen = counters.snapshot(|sizes| sizes);
        assert_eq!((seen.count(), seen.sum), (8, 8 * 4096));
    }

    #[test]
    fn bounds_rise() {
        assert!(DURATION_BOUNDS.is_sorted_by(|a, b| a < b));
        assert!(SIZE_BOUNDS.is_sorted_by(|a, b| a < b));
    }
}
