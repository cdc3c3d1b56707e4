//! The way of a run through its operation, instruction by instruction, and where a later run has to stop to be at one of them again.

use std::collections::{HashMap, HashSet};

use super::maps::mappings;

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
pub struct Path {
    pub(super) boundaries: Vec<Boundary>,
    /// Behind which of them the signal of the run was sent.
    pub(super) sent_at: usize,
}

/// Where a run stops: at the `nth` execution of the instruction at `pc`, counted from the stop before, and behind it if it is a system
/// call and so asked.
#[derive(Copy, Clone, Debug, Default)]
pub struct Stop {
    pub(super) pc: usize,
    /// 0: at the stop before.
    pub(super) nth: u32,
    pub(super) behind_syscall: bool,
}

/// The length of the `syscall` instruction.
pub(super) const SYSCALL: usize = 2;

/// Whether the code is `cmpxchg` of four or eight bytes, locked: of any registers, which a prefix may name.
fn is_compare_and_swap(code: [u8; 4]) -> bool {
    matches!(code, [0xf0, 0x0f, 0xb1, _] | [0xf0, 0x40..=0x4f, 0x0f, 0xb1])
}

impl Stop {
    /// The instruction.
    #[must_use]
    pub fn pc(&self) -> usize {
        self.pc
    }

    /// Which execution of it, counted from 1; 0 for the stop before.
    #[must_use]
    pub fn nth(&self) -> u32 {
        self.nth
    }
}

impl Path {
    /// How many boundaries there are, those of handlers included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.boundaries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.boundaries.is_empty()
    }

    /// Where the program counter was at each of them.
    pub fn program_counters(&self) -> impl Iterator<Item = usize> {
        self.boundaries.iter().map(|boundary| boundary.pc)
    }

    /// The boundaries of the operation itself, without the handlers that run in it.
    #[must_use]
    pub fn stops(&self) -> Vec<Stop> {
        let all = self.stops_from(0);
        all.into_iter().zip(&self.boundaries).filter(|(_, boundary)| boundary.handlers == 0).map(|(stop, _)| stop).collect()
    }

    /// These without those in the page that the kernel gives every process, which takes no breakpoint: there it reads clocks.
    ///
    /// # Panics
    ///
    /// Where the process cannot read its own maps.
    #[must_use]
    pub fn stops_in_files(&self) -> Vec<Stop> {
        let page = mappings().into_iter().find(|mapping| mapping.name == "[vdso]").map_or(0..0, |mapping| mapping.addresses);
        self.stops().into_iter().filter(|stop| !page.contains(&stop.pc)).collect()
    }

    /// Those of the handlers that run in it.
    #[must_use]
    pub fn stops_in_handlers(&self) -> Vec<Stop> {
        let all = self.stops_from(0);
        all.into_iter().zip(&self.boundaries).filter(|(_, boundary)| boundary.handlers != 0).map(|(stop, _)| stop).collect()
    }

    /// The boundaries from the one at which the signal was sent, which is the first of them, counted from there.
    #[must_use]
    pub fn stops_after_sending(&self) -> Vec<Stop> {
        let mut stops = vec![Stop::default()];
        stops.extend(self.stops_from(self.sent_at + 1));
        stops
    }

    /// The boundary at which the signal was sent, counted from the beginning.
    #[must_use]
    pub fn stop_of_sending(&self) -> Stop {
        self.stops_from(0)[self.sent_at]
    }

    /// Which boundaries of the operation itself lie before a compare-and-swap: for each that there is in the code, the first.
    #[must_use]
    pub fn compare_and_swaps(&self) -> Vec<usize> {
        let mut met = HashSet::new();
        let is_one = |boundary: &Boundary| {
            // SAFETY: code of this program, which does not end with such an instruction.
            let code = unsafe { (boundary.pc as *const [u8; 4]).read_unaligned() };
            boundary.handlers == 0 && is_compare_and_swap(code)
        };
        let all = self.boundaries.iter().enumerate().filter(|(_, boundary)| is_one(boundary));
        all.filter(|(_, boundary)| met.insert(boundary.pc)).map(|(index, _)| index).collect()
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

#[cfg(test)]
mod tests {
    use std::arch::asm;

    use super::is_compare_and_swap;

    /// The first bytes of an instruction.
    macro_rules! code_of {
        ($instruction:literal) => {{
            let code: *const [u8; 4];
            // SAFETY: the instruction is jumped over; what comes is its address.
            unsafe {
                asm!("lea {code}, [rip + 2f]", "jmp 3f", concat!("2: ", $instruction), "3:", code = out(reg) code, options(nomem, nostack));
                code.read_unaligned()
            }
        }};
    }

    #[test]
    fn a_compare_and_swap_is_one_whatever_its_registers() {
        for code in [
            code_of!("lock cmpxchg dword ptr [rdi], esi"),
            code_of!("lock cmpxchg dword ptr [r8], esi"),
            code_of!("lock cmpxchg dword ptr [rdi], r9d"),
            code_of!("lock cmpxchg dword ptr [r8 + r10], r9d"),
            code_of!("lock cmpxchg qword ptr [rdi], rsi"),
            code_of!("lock cmpxchg qword ptr [r8], rsi"),
            code_of!("lock cmpxchg qword ptr [rdi], r9"),
            code_of!("lock cmpxchg qword ptr [r8], r9"),
        ] {
            assert!(is_compare_and_swap(code), "{code:02x?}");
        }
        for code in
            [code_of!("lock xadd qword ptr [rdi], rsi"), code_of!("cmpxchg qword ptr [rdi], rsi"), code_of!("lock or dword ptr [rdi], esi")]
        {
            assert!(!is_compare_and_swap(code), "{code:02x?}");
        }
    }
}
