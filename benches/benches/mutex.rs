//! A pair of lock and unlock: ours beside std's and, with the feature `peers`, parking_lot's; by one thread, and by two at once.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use sigsafe_core::FullSyscall;
use sigsafe_mutex::{Mutex, SpinMutex};

/// The threads that contend: as many as the smallest machine has that runs the benchmarks.
const THREADS: u32 = 2;

/// The one operation that is measured: add one to the number under the lock.
trait Subject: Sync {
    fn add_one(&self);
}

impl Subject for std::sync::Mutex<u64> {
    #[inline]
    fn add_one(&self) {
        *self.lock().expect("nothing panics under the lock") += 1;
    }
}

/// The locks whose `lock` gives a guard and nothing else.
macro_rules! subjects {
    ($($lock:ty),+ $(,)?) => {
        $(impl Subject for $lock {
            #[inline]
            fn add_one(&self) {
                *self.lock() += 1;
            }
        })+
    };
}

subjects!(
    Mutex<u64>,
    Mutex<u64, FullSyscall>,
    SpinMutex<u64>,
    SpinMutex<u64, FullSyscall>,
);
#[cfg(feature = "peers")]
subjects!(parking_lot::Mutex<u64>);

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn alone(group: &mut Group<'_>, name: &str, lock: &impl Subject) {
    group.bench_function(name, |b| b.iter(|| black_box(lock).add_one()));
}

/// The time until every thread has made `iterations` pairs, per pair of one thread.
fn contended(group: &mut Group<'_>, name: &str, lock: &impl Subject) {
    let timed = |iterations: u64| -> Duration {
        let start_line = Barrier::new(THREADS as usize);
        let run = || {
            start_line.wait();
            let start = Instant::now();
            for _ in 0..iterations {
                black_box(lock).add_one();
            }
            start.elapsed()
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..THREADS).map(|_| scope.spawn(run)).collect();
            let mine = run();
            let theirs = others.into_iter().map(|thread| thread.join().expect("no thread panics"));
            theirs.fold(mine, Duration::max)
        })
    };
    group.bench_function(name, |b| b.iter_custom(timed));
}

/// Calls `$bench` on each subject in turn: they are of different types, so that no list can hold them.
macro_rules! every_subject {
    ($bench:ident, $group:expr) => {
        $bench($group, "std", &std::sync::Mutex::new(0));
        #[cfg(feature = "peers")]
        $bench($group, "parking_lot", &parking_lot::Mutex::new(0));
        $bench($group, "sigsafe, deferred", &Mutex::new(0));
        $bench($group, "sigsafe, full", &Mutex::<u64, FullSyscall>::with_backend(0));
        $bench($group, "sigsafe spin, deferred", &SpinMutex::new(0));
        $bench($group, "sigsafe spin, full", &SpinMutex::<u64, FullSyscall>::with_backend(0));
    };
}

fn mutex(c: &mut Criterion) {
    let mut group = c.benchmark_group("mutex, one thread");
    every_subject!(alone, &mut group);
    group.finish();

    let mut group = c.benchmark_group("mutex, two threads");
    every_subject!(contended, &mut group);
    group.finish();
}

criterion_group!(benches, mutex);
criterion_main!(benches);
