//! `--ionice`: the I/O priority of this process, as ionice(1) names it.

use std::str::FromStr;

use crate::error::{Error, Result};
use crate::io::{PriorityClass, set_io_priority};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoNice {
    class: PriorityClass,
    level: u8,
}

impl FromStr for IoNice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<IoNice, String> {
        let wrong = || format!("'{text}' is not idle, best-effort:N or realtime:N with N from 0 (high) to 7");
        let (class, level) = match text.split_once(':') {
            None => (text, 4),
            Some((class, level)) => (class, level.parse().map_err(|_| wrong())?),
        };
        let class = match class {
            "idle" if !text.contains(':') => PriorityClass::Idle,
            "best-effort" => PriorityClass::BestEffort,
            "realtime" => PriorityClass::Realtime,
            _ => return Err(wrong()),
        };
        if level > 7 { Err(wrong()) } else { Ok(IoNice { class, level }) }
    }
}

impl IoNice {
    /// Sets it for this thread and for the threads that it starts.
    pub fn set(self) -> Result<()> {
        set_io_priority(self.class, self.level).map_err(|error| {
            Error::usage("--ionice: the kernel refuses this priority")
                .because(error)
                .with_remedy("realtime needs root; best-effort:N and idle do not")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_read_as_ionice_names_them() {
        let nice = |class, level| Ok(IoNice { class, level });
        assert_eq!("idle".parse(), nice(PriorityClass::Idle, 4));
        assert_eq!("best-effort:7".parse(), nice(PriorityClass::BestEffort, 7));
        assert_eq!("realtime:0".parse(), nice(PriorityClass::Realtime, 0));
        for wrong in ["", "idle:3", "best-effort:8", "best-effort:", "none"] {
            assert!(wrong.parse::<IoNice>().is_err(), "{wrong}");
        }
    }
}
