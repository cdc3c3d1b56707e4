//! Entering and leaving a region: both forms, both backends, beside the two system calls that they replace.

mod support;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use sigsafe_core::{DeferredCounter, FullSyscall, MaskGuard, critical_with};
use support::sigprocmask_pair;

/// `black_box` inside each body: the pair is executed around it in every iteration, and pairs cannot be merged.
fn region(c: &mut Criterion) {
    let mut group = c.benchmark_group("region");
    group.bench_function("empty", |b| b.iter(|| black_box(1)));
    group.bench_function("two rt_sigprocmask", |b| b.iter(|| sigprocmask_pair(|| black_box(1))));
    group.bench_function("closure, deferred", |b| b.iter(|| critical_with::<DeferredCounter, _>(|_| black_box(1))));
    group.bench_function("guard, deferred", |b| {
        b.iter(|| {
            let _region = MaskGuard::<DeferredCounter>::new();
            black_box(1)
        });
    });
    group.bench_function("closure, full", |b| b.iter(|| critical_with::<FullSyscall, _>(|_| black_box(1))));
    group.bench_function("guard, full", |b| {
        b.iter(|| {
            let _region = MaskGuard::<FullSyscall>::new();
            black_box(1)
        });
    });
    group.bench_function("closure in closure, deferred", |b| {
        b.iter(|| critical_with::<DeferredCounter, _>(|_| critical_with::<DeferredCounter, _>(|_| black_box(1))));
    });
    group.finish();
}

criterion_group!(benches, region);
criterion_main!(benches);
