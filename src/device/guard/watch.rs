//! Detection of changes of a claimed target, before each pass and at the end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::super::graph::{Edge, Share, Shared};
use super::super::place::Place;
use super::super::refusal::{Force, Refusal};
use super::super::usage::Usage;
use super::super::{DeviceNumber, Tree};
use super::unseen;
use crate::error::Result;
use crate::range::Extent;

/// What lies below a target's bytes, as it was at the claim.
#[derive(Debug)]
pub(super) struct Watch {
    tree: Tree,
    place: Place,
    /// The node or the image file.
    node: PathBuf,
    links: Vec<WatchedEdge>,
    /// The kernel's number of the disk or medium behind each device of the chain that has one; `None` if it
    /// could not be read, which no later number equals.
    sequences: Vec<(DeviceNumber, Option<u64>)>,
    /// What the user overrode.
    force: Vec<Force>,
}

/// A range of an upper device that lies in a lower one.
#[derive(Clone, PartialEq, Eq, Debug)]
struct WatchedEdge {
    edge: Edge,
    upper: String,
}

impl Watch {
    pub fn new(tree: &Tree, usage: &Usage, place: Place, node: &Path, force: &[Force]) -> Watch {
        let chain = usage.chain(place);
        let links = chain.iter().flat_map(|shared| links(tree, usage, shared)).collect();
        let sequence = |shared: &Shared| {
            let Place::Device(number) = shared.place else { return None };
            match sequence(tree, number) {
                Ok(before) => Some((number, Some(before?))),
                Err(_) => Some((number, None)),
            }
        };
        let sequences = chain.iter().filter_map(sequence).collect();
        Watch { tree: tree.clone(), place, node: node.to_path_buf(), links, sequences, force: force.to_vec() }
    }

    /// Siblings that come and go, a pool that grows and a path that is lost are no change.
    pub fn check(&self, since: Instant) -> io::Result<()> {
        let usage = Usage::since(&self.tree, since)?;
        for &(number, before) in &self.sequences {
            if sequence(&self.tree, number)?.is_some_and(|now| Some(now) != before) {
                let name = self.tree.block(number).map_or(number.to_string(), |block| block.name());
                return Err(io::Error::other(format!(
                    "another disk or medium is behind {name} now (diskseq)"
                )));
            }
        }
        if let Some(lost) = self.links.iter().find(|link| !link.holds(&usage, &self.links)) {
            let what = format!("what {} stands on is not what it was", lost.upper);
            return Err(io::Error::other(what));
        }
        match self.new_user(&usage).map_err(io::Error::other)? {
            None => Ok(()),
            Some(refusal) => Err(io::Error::other(format!("it has another user now: {}", refusal.what))),
        }
    }

    fn new_user(&self, usage: &Usage) -> Result<Option<Refusal>> {
        let refusals = match self.place {
            Place::Device(number) => {
                usage.of_device(&self.tree.block(number).map_err(unseen)?).map_err(unseen)?
            }
            Place::File(inode) => usage.of_file(inode, &self.node),
        };
        // What could not be seen was decided at the claim: a process that starts later changes nothing.
        let accepted = |force: Force| force == Force::Unseen || self.force.contains(&force);
        Ok(refusals.into_iter().find(|refusal| !refusal.force.is_some_and(accepted)))
    }
}

/// `None` if the kernel does not count (before 5.15), and of a device that is gone: a path can be lost.
fn sequence(tree: &Tree, number: DeviceNumber) -> io::Result<Option<u64>> {
    let Ok(block) = tree.block(number) else { return Ok(None) };
    match block.read_attribute("diskseq") {
        Err(_) if !block.exists() => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("of {}, {error}", block.name()))),
        Ok(sequence) => Ok(sequence.and_then(|sequence| sequence.parse().ok())),
    }
}

/// The ranges of a device of the chain, as far as they are the target's. Paths of a multipath map may go.
fn links(tree: &Tree, usage: &Usage, shared: &Shared) -> Vec<WatchedEdge> {
    let graph = &usage.stack().graph;
    if graph.layer(shared.place).is_some_and(|layer| layer.kind == "dm multipath") {
        return Vec::new();
    }
    let upper = match shared.place {
        Place::Device(number) => tree.block(number).map_or(number.to_string(), |block| block.name()),
        Place::File(_) => return Vec::new(),
    };
    let edges = graph.edges_below(shared.place).flat_map(|edge| clipped(edge, shared));
    edges.map(|edge| WatchedEdge { edge, upper: upper.clone() }).collect()
}

fn clipped(edge: &Edge, shared: &Shared) -> Vec<Edge> {
    let parts = shared.extents.iter().map(|extent| extent.intersect(edge.at)).filter(|part| !part.is_empty());
    let part = |at: Extent| match edge.share {
        Share::Exact => {
            let start = edge.from.start + (at.start - edge.at.start);
            Edge { at, from: Extent { start, end: start.saturating_add(at.len()) }, ..edge.clone() }
        }
        Share::Spread | Share::Allocated | Share::Reads => Edge { at, ..edge.clone() },
    };
    parts.map(part).collect()
}

impl WatchedEdge {
    /// Whether these bytes still lie where they did. An array may lose a member, and a mirror a leg, but
    /// not all of them.
    fn holds(&self, usage: &Usage, all: &[WatchedEdge]) -> bool {
        let now: Vec<&Edge> = usage.stack().graph.edges_below(self.edge.upper).collect();
        let own = now.iter().any(|edge| contains(edge, &self.edge));
        let others = || {
            all.iter().filter(|link| link.edge.upper == self.edge.upper).any(|link| {
                link.edge.share == Share::Spread && now.iter().any(|edge| contains(edge, &link.edge))
            })
        };
        own || (self.edge.share == Share::Spread && others())
    }
}

/// Whether all of an earlier edge is in this one.
fn contains(now: &Edge, before: &Edge) -> bool {
    let same = (now.lower, now.share) == (before.lower, before.share);
    let inside = now.at.start <= before.at.start && before.at.end <= now.at.end;
    let shift = |edge: &Edge| i128::from(edge.from.start) - i128::from(edge.at.start);
    same && inside && (now.share != Share::Exact || shift(now) == shift(before))
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::{FakeTree, SDA};
    use super::*;

    #[test]
    fn a_disk_that_does_not_say_any_more_which_it_is_has_changed() {
        let fake = FakeTree::new();
        let place = Place::Device(fake.device(SDA, "8:0"));
        let diskseq = format!("sys/devices/{SDA}/diskseq");
        fake.write(&diskseq, "9\n");
        let usage = Usage::read(&fake.tree).unwrap();
        let watch = Watch::new(&fake.tree, &usage, place, Path::new("/dev/sda"), &[]);
        watch.check(Instant::now()).unwrap();
        fake.write(&diskseq, "10\n");
        assert!(
            watch
                .check(Instant::now())
                .unwrap_err()
                .to_string()
                .contains("another disk or medium is behind sda")
        );
        fake.make_unreadable(&diskseq);
        assert!(
            watch.check(Instant::now()).unwrap_err().to_string().contains("of sda, diskseq cannot be read")
        );
        // Nor is one that never reported it.
        let silent = Watch::new(&fake.tree, &usage, place, Path::new("/dev/sda"), &[]);
        assert!(
            silent.check(Instant::now()).unwrap_err().to_string().contains("of sda, diskseq cannot be read")
        );
    }
}
