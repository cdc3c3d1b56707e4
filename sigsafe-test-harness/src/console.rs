//! What is shown while a run goes on: a live line on a terminal, and plain lines everywhere.
//!
//! The live line is drawn to stderr from the watchdog's own loop; there is no thread behind it.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::plan::Plan;
use crate::report::table::grouped;
use crate::watchdog::Progress;

/// How often the live line is drawn, at most.
const DRAWN_HZ: u8 = 10;

/// Where a run is shown.
pub(crate) struct Console {
    live: Option<ProgressBar>,
}

impl Console {
    /// A console for this process's stdout and stderr.
    pub(crate) fn new() -> Console {
        let on_terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        let live = on_terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(DRAWN_HZ));
            // The template is a constant; the plain style stands in should it be refused.
            let style = ProgressStyle::with_template("{prefix} [{bar:24}] {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Console { live }
    }

    /// Prints a line to stdout, above the live one.
    pub(crate) fn line(&self, line: &str) {
        match &self.live {
            Some(bar) => bar.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    /// Begins the live line of a case.
    pub(crate) fn begin(&self, number: usize, of: usize, plan: &Plan) {
        if let Some(bar) = &self.live {
            bar.set_length(u64::from(plan.seconds) * 1000);
            bar.set_position(0);
            bar.set_prefix(format!("{number}/{of} {:<24}", plan.subject.name()));
            bar.set_message("starting");
        }
    }

    /// Brings the live line up to date.
    pub(crate) fn update(&self, plan: &Plan, progress: &Progress) {
        let Some(bar) = &self.live else { return };
        let whole = Duration::from_secs(plan.seconds.into());
        bar.set_position(progress.elapsed.min(whole).as_millis() as u64);
        let totals = progress.totals;
        bar.set_message(format!(
            "{} handler runs, {} deferrals, {} inside, {} operations{}",
            grouped(totals.handler_runs),
            grouped(totals.deferrals),
            grouped(totals.inside),
            grouped(totals.operations),
            if progress.elapsed > whole + Duration::from_millis(500) { "; waiting for the end" } else { "" }
        ));
    }

    /// Takes the live line away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.live {
            bar.finish_and_clear();
        }
    }
}
