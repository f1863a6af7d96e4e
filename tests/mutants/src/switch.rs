
#[doc(hidden)]
#[allow(warnings, clippy::all)]
pub(crate) mod mutants_switch {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    const UNREAD: u32 = u32::MAX;
    const TRACE: u32 = u32::MAX - 1;
    /// The number of the mutant, 0 for none.
    static CHOSEN: AtomicU32 = AtomicU32::new(UNREAD);
    static REACHED: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];

    pub(crate) fn on(number: u32) -> bool {
        let mut chosen = CHOSEN.load(Ordering::Relaxed);
        if chosen >= TRACE {
            chosen = look(chosen, number, number);
        }
        chosen == number
    }

    /// Whether none of these is chosen.
    pub(crate) fn off(first: u32, last: u32) -> bool {
        let mut chosen = CHOSEN.load(Ordering::Relaxed);
        if chosen >= TRACE {
            chosen = look(chosen, first, last);
        }
        chosen < first || last < chosen
    }

    #[cold]
    fn look(mut chosen: u32, first: u32, last: u32) -> u32 {
        if chosen == UNREAD {
            let number = std::env::var("MUTANT").ok().and_then(|number| number.parse().ok());
            let trace = std::env::var_os("MUTANTS_TRACE").is_some();
            chosen = number.unwrap_or(if trace { TRACE } else { 0 });
            CHOSEN.store(chosen, Ordering::Relaxed);
        }
        if chosen == TRACE {
            let mut numbers = Vec::new();
            for number in first..=last {
                if !REACHED[number as usize].swap(true, Ordering::Relaxed) {
                    numbers.extend(number.to_le_bytes());
                }
            }
            if !numbers.is_empty() {
                let path = std::env::var_os("MUTANTS_TRACE").unwrap();
                let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
                // One write: other processes append at the same time.
                file.unwrap().write_all(&numbers).unwrap();
            }
        }
        chosen
    }
}
