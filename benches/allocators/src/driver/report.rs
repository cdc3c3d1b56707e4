//! The tables. Ratios are another allocator's time over the reference's: above 1, the reference is faster.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::campaign::{Campaign, Figures, Measured};
use crate::statistics::{ENOUGH, Ratio, geometric_mean};
use crate::verdict::{FAR, REACHED, Verdict, verdict};

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
    println!("\n{} time: medians of {reference}, and how many times as long the others take{}\n", campaign.clock, intervals(campaign));
    let mut header = vec!["row".to_owned(), reference.clone()];
    header.extend(others.iter().cloned());
    header.extend(["fastest other".to_owned(), "verdict".to_owned()]);
    let mut table = table(header);
    for measured in &campaign.rows {
        let (own, rest) = measured.results.split_first().expect("at least one allocator");
        let mut cells = vec![measured.row.to_owned(), duration(own.ns)];
        cells.extend(rest.iter().map(|figures| ratio(figures.ratio)));
        cells.push(fastest(campaign, measured).map_or_else(String::new, |(name, ratio)| format!("{name} {:.2}", ratio.middle)));
        cells.push(match verdict(peers(campaign, measured)) {
            Verdict::Reached => "reached".to_owned(),
            Verdict::Missed(name, low) => format!("MISSED: {name} from {low:.2}"),
            Verdict::None => String::new(),
        });
        table.add_row(cells);
    }
    let mut means = vec!["geometric mean".to_owned(), String::new()];
    means.extend((1..campaign.allocators.len()).map(|index| {
        let mean = geometric_mean(campaign.rows.iter().map(|measured| measured.results[index].ratio.middle));
        format!("{mean:.3}")
    }));
    means.extend([String::new(), String::new()]);
    table.add_row(means);
    show(table);
    summary(campaign);
}

fn intervals(campaign: &Campaign) -> String {
    if campaign.rounds as usize >= ENOUGH {
        ", with the 95 % interval".to_owned()
    } else {
        format!(" (no interval and no verdict: they take {ENOUGH} rounds)")
    }
}

fn summary(campaign: &Campaign) {
    let ratios = campaign.rows.iter().filter_map(|measured| fastest(campaign, measured).map(|(_, ratio)| (measured.row, ratio.middle)));
    let Some((row, lowest)) = ratios.min_by(|(_, one), (_, other)| one.total_cmp(other)) else { return };
    println!("\nthe lowest ratio is {lowest:.2}, {row}");
    let verdicts: Vec<Verdict<'_>> = campaign.rows.iter().map(|measured| verdict(peers(campaign, measured))).collect();
    if verdicts.contains(&Verdict::None) {
        return;
    }
    let reached = verdicts.iter().filter(|verdict| **verdict == Verdict::Reached).count();
    let far = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Missed(_, low) if *low < FAR)).count();
    println!(
        "{reached} of {} rows reached (the interval of each other allocator over {} begins at {REACHED} or above); \
         in {far} one begins below {FAR}",
        verdicts.len(),
        campaign.allocators[0]
    );
}

/// The allocators but the reference, with their ratios.
fn peers<'a>(campaign: &'a Campaign, measured: &'a Measured) -> impl Iterator<Item = (&'a str, Ratio)> {
    let others = campaign.allocators.iter().map(String::as_str).zip(measured.results.iter().map(|figures| figures.ratio)).skip(1);
    others.filter(|(name, _)| *name != NOT_A_PEER)
}

/// The one whose median is the lowest.
fn fastest<'a>(campaign: &'a Campaign, measured: &'a Measured) -> Option<(&'a str, Ratio)> {
    peers(campaign, measured).min_by(|(_, one), (_, other)| one.middle.total_cmp(&other.middle))
}

fn ratio(ratio: Ratio) -> String {
    match ratio.interval {
        Some(interval) => format!("{:.2} [{:.2}, {:.2}]", ratio.middle, interval.low, interval.high),
        None => format!("{:.2}", ratio.middle),
    }
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
