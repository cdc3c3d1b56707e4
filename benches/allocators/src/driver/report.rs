//! The tables. Ratios are another allocator's time over the reference's: above 1, the reference is faster.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::campaign::{Campaign, Figures, Measured};
use crate::statistics::{Interval, geometric_mean};

/// A row is reached when the fastest other allocator is not faster than this, even at the lower end of the interval.
const REACHED: f64 = 0.97;
/// The C library's allocator is shown for orientation; it is not among those to beat.
const NOT_A_PEER: &str = "system";

pub(crate) fn print(campaign: &Campaign) {
    times(campaign);
    memory(campaign, "peak resident memory, MiB", |figures| Some(figures.peak_kib));
    memory(campaign, "resident after everything was freed, MiB", |figures| Some(figures.freed_kib));
    memory(campaign, "resident after a purge, MiB (where the crate or library offers one)", |figures| figures.purged_kib);
    let idle = campaign.allocators.iter().zip(&campaign.idle_kib).map(|(name, kib)| format!("{name} {:.1}", kib / 1024.0));
    println!("\nMemory is less that of the same program without a workload, MiB: {}", idle.collect::<Vec<_>>().join(", "));
}

/// Every allocator's own times, to see how they grow from row to row.
pub(crate) fn print_growth(campaign: &Campaign) {
    println!("\n{} time of an operation, all threads together: medians\n", campaign.clock);
    let mut table = table(std::iter::once("row".to_owned()).chain(campaign.allocators.iter().cloned()).collect());
    for measured in &campaign.rows {
        let cells = measured.results.iter().map(|figures| duration(figures.ns));
        table.add_row(std::iter::once(measured.row.to_owned()).chain(cells));
    }
    show(table);
}

fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    table
}

fn show(mut table: Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

fn times(campaign: &Campaign) {
    let (reference, others) = campaign.allocators.split_first().expect("at least one allocator");
    println!("\n{} time: medians of {reference}, and how many times as long the others take, with the 95 % interval\n", campaign.clock);
    let mut header = vec!["row".to_owned(), reference.clone()];
    header.extend(others.iter().cloned());
    header.push("fastest other".to_owned());
    let mut table = table(header);
    let mut reached = 0;
    for measured in &campaign.rows {
        let (own, rest) = measured.results.split_first().expect("at least one allocator");
        let mut cells = vec![measured.row.to_owned(), duration(own.ns)];
        cells.extend(rest.iter().map(|figures| ratio(&figures.ratio)));
        let best = fastest(campaign, measured);
        reached += usize::from(best.is_some_and(|(_, figures)| figures.ratio.low >= REACHED));
        cells.push(best.map_or_else(String::new, |(name, figures)| {
            format!("{name} {:.2} {}", figures.ratio.middle, if figures.ratio.low >= REACHED { "reached" } else { "MISSED" })
        }));
        table.add_row(cells);
    }
    let mut means = vec!["geometric mean".to_owned(), String::new()];
    means.extend((1..campaign.allocators.len()).map(|index| {
        let mean = geometric_mean(campaign.rows.iter().map(|measured| measured.results[index].ratio.middle));
        format!("{mean:.3}")
    }));
    means.push(String::new());
    table.add_row(means);
    show(table);
    if others.iter().any(|name| name != NOT_A_PEER) {
        let worst = campaign
            .rows
            .iter()
            .filter_map(|measured| fastest(campaign, measured).map(|(_, figures)| (measured.row, figures.ratio.middle)));
        let (row, ratio) = worst.min_by(|(_, one), (_, other)| one.total_cmp(other)).expect("at least one row");
        println!(
            "\n{reached} of {} rows reached (lower end of the interval of fastest other over {reference} at least {REACHED}); \
             the lowest ratio is {ratio:.2}, {row}",
            campaign.rows.len()
        );
    }
}

/// The fastest allocator but the reference, with its figures.
fn fastest<'a>(campaign: &'a Campaign, measured: &'a Measured) -> Option<(&'a str, &'a Figures)> {
    let others = campaign.allocators.iter().map(String::as_str).zip(&measured.results).skip(1);
    others.filter(|(name, _)| *name != NOT_A_PEER).min_by(|(_, one), (_, other)| one.ns.total_cmp(&other.ns))
}

fn ratio(interval: &Interval) -> String {
    format!("{:.2} [{:.2}, {:.2}]", interval.middle, interval.low, interval.high)
}

fn duration(ns: f64) -> String {
    match ns {
        ..1e3 => format!("{ns:.2} ns"),
        ..1e6 => format!("{:.2} us", ns / 1e3),
        _ => format!("{:.2} ms", ns / 1e6),
    }
}

fn memory(campaign: &Campaign, title: &str, kib: fn(&Figures) -> Option<f64>) {
    println!("\n{title}\n");
    let mut table = table(std::iter::once("row".to_owned()).chain(campaign.allocators.iter().cloned()).collect());
    for measured in &campaign.rows {
        let cells =
            measured.results.iter().map(|figures| kib(figures).map_or_else(|| "-".to_owned(), |kib| format!("{:.1}", kib / 1024.0)));
        table.add_row(std::iter::once(measured.row.to_owned()).chain(cells));
    }
    show(table);
}
