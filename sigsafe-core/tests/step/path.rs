//! The way of a run through its operation, instruction by instruction, and where a later run has to stop to be at one of them again.

use std::collections::HashMap;

/// A boundary: before the instruction at `pc`.
#[derive(Copy, Clone, Debug)]
pub(super) struct Boundary {
    pub(super) pc: usize,
    /// Behind a system call, where nothing has had the time to be delivered yet.
    pub(super) behind_syscall: bool,
    /// How many handlers that began in the run lie on each other here.
    pub(super) handlers: u32,
    /// The first instruction of one.
    pub(super) begins_handler: bool,
}

/// All boundaries of a run, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path {
    pub(super) boundaries: Vec<Boundary>,
    /// Behind which of them the signal of the run was sent.
    pub(super) sent_at: usize,
}

/// Where a run stops: at the `nth` execution of the instruction at `pc`, counted from the stop before, and behind it if it is a system
/// call and so asked.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Stop {
    pub(super) pc: usize,
    /// 0: at the stop before.
    pub(super) nth: u32,
    pub(super) behind_syscall: bool,
}

/// The length of the `syscall` instruction.
pub(super) const SYSCALL: usize = 2;

impl Path {
    pub(crate) fn len(&self) -> usize {
        self.boundaries.len()
    }

    /// The boundaries of the operation itself, without the handlers that run in it.
    pub(crate) fn stops(&self) -> Vec<Stop> {
        let all = self.stops_from(0);
        all.into_iter().zip(&self.boundaries).filter(|(_, boundary)| boundary.handlers == 0).map(|(stop, _)| stop).collect()
    }

    /// These without those in the page that the kernel gives every process, which takes no breakpoint: there it reads clocks.
    pub(crate) fn stops_in_files(&self) -> Vec<Stop> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let page = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap_or("0-0 ");
        let (first, end) = page.split(' ').next().unwrap().split_once('-').unwrap();
        let [first, end] = [first, end].map(|address| usize::from_str_radix(address, 16).unwrap());
        self.stops().into_iter().filter(|stop| !(first..end).contains(&stop.pc)).collect()
    }

    /// Those of the handlers that run in it.
    pub(crate) fn stops_in_handlers(&self) -> Vec<Stop> {
        let all = self.stops_from(0);
        all.into_iter().zip(&self.boundaries).filter(|(_, boundary)| boundary.handlers != 0).map(|(stop, _)| stop).collect()
    }

    /// The boundaries from the one at which the signal was sent, which is the first of them, counted from there.
    pub(crate) fn stops_after_sending(&self) -> Vec<Stop> {
        let mut stops = vec![Stop::default()];
        stops.extend(self.stops_from(self.sent_at + 1));
        stops
    }

    fn stops_from(&self, first: usize) -> Vec<Stop> {
        let mut executed: HashMap<usize, u32> = HashMap::new();
        let mut stops = Vec::new();
        for (index, at) in self.boundaries.iter().enumerate().skip(first) {
            if at.behind_syscall {
                let pc = at.pc - SYSCALL;
                // The boundary before the call is where the run was last, unless that is what counting begins behind.
                let nth = executed.get(&pc).copied().unwrap_or(0);
                stops.push(Stop { pc, nth, behind_syscall: true });
                // What was let in by the call runs before this instruction, which is then met again.
                if self.boundaries.get(index + 1).is_some_and(|next| next.begins_handler) {
                    continue;
                }
            }
            let nth = executed.entry(at.pc).or_default();
            *nth += 1;
            if !at.behind_syscall {
                stops.push(Stop { pc: at.pc, nth: *nth, behind_syscall: false });
            }
        }
        stops
    }
}
