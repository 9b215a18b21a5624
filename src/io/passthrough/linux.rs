//! Pass-through by Linux, on the descriptor of a block device.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::{Data, PassThrough, ReadOnly, Reply, Request};
use crate::io::Target;

mod nvme;
mod sg;

/// A duplicate of the descriptor of an opened block device: what keeps others from it lasts as long as either.
pub struct BlockDescriptor(OwnedFd);

impl BlockDescriptor {
    /// Of a target that is claimed: all commands.
    ///
    /// # Errors
    /// The process may open no more files.
    pub(crate) fn of_claimed(target: &Target) -> io::Result<BlockDescriptor> {
        target.as_fd().try_clone_to_owned().map(BlockDescriptor)
    }

    /// Of a target that is looked at.
    ///
    /// # Errors
    /// As [`BlockDescriptor::of_claimed`].
    pub(crate) fn of_inspected(target: &Target) -> io::Result<ReadOnly<BlockDescriptor>> {
        BlockDescriptor::of_claimed(target).map(ReadOnly::new)
    }
}

impl PassThrough for BlockDescriptor {
    fn send(&mut self, request: &Request) -> Reply {
        match request {
            Request::Nvme(command) => nvme::send(self.0.as_fd(), command),
            Request::Scsi(command) => sg::send(self.0.as_fd(), command),
        }
    }
}

/// The memory that a command's data is in while it is sent.
fn buffer(data: &Data) -> Vec<u8> {
    match data {
        Data::None => Vec::new(),
        Data::In(bytes) => vec![0; *bytes],
        Data::Out(bytes) => bytes.clone(),
    }
}
