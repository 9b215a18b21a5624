//! An exact list of commands and their answers, for tests: what is sent beyond or beside it is a panic.

use std::collections::VecDeque;

use super::{PassThrough, Reply, Request};

/// Expects these bytes, and answers those.
#[derive(Default)]
pub struct Script(VecDeque<(Request, Reply)>);

impl Script {
    /// In their order.
    pub fn new(exchanges: impl IntoIterator<Item = (Request, Reply)>) -> Script {
        Script(exchanges.into_iter().collect())
    }
}

impl PassThrough for Script {
    fn send(&mut self, request: &Request) -> Reply {
        let (expected, reply) =
            self.0.pop_front().unwrap_or_else(|| panic!("not in the script: {request:?}"));
        assert_eq!(*request, expected, "another command than the script's next one");
        reply
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        assert!(self.0.is_empty() || std::thread::panicking(), "not sent: {:?}", self.0);
    }
}
