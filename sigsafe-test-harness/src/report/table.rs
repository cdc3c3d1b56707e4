//! Tables for people: the verdicts of a comparison, and the list of what there is.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::{Case, Report};
use crate::compare::Expectation;
use crate::driver::Driver;
use crate::subject::Subject;
use crate::workload::Workload;

/// The columns, and whether each holds numbers.
const COLUMNS: [(&str, bool); 10] = [
    ("subject", false),
    ("expected", false),
    ("verdict", false),
    ("seconds", true),
    ("signals sent", true),
    ("handler runs", true),
    ("deferrals", true),
    ("inside", true),
    ("operations", true),
    ("Hz asked / delivered", true),
];

/// The verdict table.
pub(crate) fn cases(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(COLUMNS.map(|(title, _)| title));
    for case in &report.cases {
        table.add_row(row(case));
    }
    for (place, (_, numbers)) in COLUMNS.iter().enumerate() {
        if let Some(column) = table.column_mut(place)
            && *numbers
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn row(case: &Case) -> [String; 10] {
    let result = &case.result;
    let totals = result.totals;
    [
        result.plan.subject.to_string(),
        case.expected.map_or("", Expectation::name).to_owned(),
        if case.is_good() { result.word().to_owned() } else { format!("{} (!)", result.word()) },
        format!("{:.1}", result.seconds),
        grouped(totals.signals_sent),
        grouped(totals.handler_runs),
        grouped(totals.deferrals),
        grouped(totals.inside),
        grouped(totals.operations),
        format!("{} / {:.0}", result.plan.rate_hz, result.delivered_hz()),
    ]
}

/// Subjects, drivers and workloads, one line each.
pub(crate) fn list() -> String {
    let mut text = String::new();
    let mut section = |title: &str, entries: &[(&str, &str)]| {
        let _ = writeln!(text, "{title}:");
        for (name, summary) in entries {
            let _ = writeln!(text, "  {name:<24}{summary}");
        }
    };
    section("subjects", &Subject::ALL.iter().map(|subject| (subject.name(), subject.summary())).collect::<Vec<_>>());
    section("drivers", &Driver::ALL.map(|driver| (driver.name(), driver.summary())));
    section("workloads", &Workload::ALL.map(|workload| (workload.name(), workload.summary())));
    text
}

/// A number with its digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;
    use crate::verdict::Verdict;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_table_has_every_case_and_marks_the_odd_one() {
        let text = cases(&report(&[(Subject::SigsafeSpin, Verdict::Hung)])).to_string();
        assert!(Subject::ALL.iter().all(|subject| text.contains(subject.name())), "{text}");
        assert_eq!(text.matches("(!)").count(), 1, "{text}");
        assert!(text.contains("1,234,567") && text.contains("4000 / "), "{text}");
    }

    #[test]
    fn the_list_has_everything_but_the_test_subject() {
        let text = list();
        let names = Subject::ALL.iter().map(|subject| subject.name());
        let names = names.chain(Driver::ALL.map(Driver::name)).chain(Workload::ALL.map(Workload::name));
        for name in names {
            assert!(text.lines().any(|line| line.trim_start().starts_with(name)), "{name}");
        }
        assert!(!text.contains("test-flip"));
    }
}
