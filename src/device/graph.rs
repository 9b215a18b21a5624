//! The storage stack as a graph: which devices and files share bytes, by ranges.
//!
//! An edge says that a range of the upper one lies in a range of the lower one. From a target, first
//! everything below it is found, to the disks and files at the bottom; then everything that stands on
//! those bytes, by whatever way. The graph is pure: [`read`] fills it from the kernel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::DeviceNumber;
use super::identity::Inode;
use super::layer::Layer;
use super::place::Place;
use crate::range::{Extent, ExtentSet};

pub(super) mod dm;
pub(super) mod read;
pub(super) mod same;

/// How the bytes of an upper device lie in a lower one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Share {
    /// Byte for byte, in order.
    Exact,
    /// Anywhere in the lower range: stripes, mirrors, parity, metadata.
    Spread,
    /// In blocks of the lower one that are the upper one's alone: a thin volume in its pool.
    Allocated,
    /// The lower one is read, and writes go elsewhere: a snapshot's origin.
    Reads,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Edge {
    pub upper: Place,
    /// Which bytes of the upper one.
    pub at: Extent,
    pub lower: Place,
    /// Where they lie in the lower one.
    pub from: Extent,
    pub share: Share,
    /// The upper one is only another view of the bytes: that it exists is no use of them.
    pub view: bool,
    /// Why the ranges are not known.
    pub guess: Option<String>,
}

impl Edge {
    /// The upper one is all of a range of the lower one, byte for byte.
    pub fn exact(upper: Place, at: Extent, lower: Place, start: u64) -> Edge {
        let from = Extent { start, end: start.saturating_add(at.len()) };
        Edge { upper, at, lower, from, share: Share::Exact, view: false, guess: None }
    }

    /// The upper one's bytes lie anywhere in the lower one.
    pub fn somewhere(upper: Place, at: Extent, lower: Place, share: Share) -> Edge {
        Edge { upper, at, lower, from: ALL, share, view: false, guess: None }
    }

    fn down(&self, extents: &ExtentSet) -> ExtentSet {
        match self.share {
            Share::Exact => shifted(extents, self.at, self.from.start),
            Share::Spread | Share::Allocated if meets(extents, self.at) => self.from.into(),
            Share::Spread | Share::Allocated | Share::Reads => ExtentSet::new(),
        }
    }

    fn up(&self, extents: &ExtentSet) -> ExtentSet {
        match self.share {
            Share::Exact => shifted(extents, self.from, self.at.start),
            Share::Spread | Share::Reads if meets(extents, self.from) => self.at.into(),
            Share::Spread | Share::Reads | Share::Allocated => ExtentSet::new(),
        }
    }
}

/// Larger than any device.
pub(super) const ALL: Extent = Extent { start: 0, end: u64::MAX };

fn meets(extents: &ExtentSet, range: Extent) -> bool {
    extents.iter().any(|extent| !extent.intersect(range).is_empty())
}

/// What of the extents lies in the range, moved so that the range begins at `start`.
fn shifted(extents: &ExtentSet, range: Extent, start: u64) -> ExtentSet {
    let inside = extents.iter().map(|extent| extent.intersect(range)).filter(|extent| !extent.is_empty());
    let moved = |extent: Extent| {
        let from = start.saturating_add(extent.start - range.start);
        Extent { start: from, end: from.saturating_add(extent.len()) }
    };
    inside.map(moved).collect()
}

/// How a device or file came to share bytes with the target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Role {
    Target,
    /// The target's bytes are bytes of it.
    Below,
    /// Another node of the same disk, as the target itself or one below it.
    Path,
    /// It stands on bytes of the target.
    Above,
}

/// One that shares bytes with the target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shared {
    pub place: Place,
    /// Which of its bytes are the target's.
    pub extents: ExtentSet,
    pub role: Role,
    /// The one that it was reached from.
    pub from: Place,
    /// Its existence is no use of the bytes.
    pub view: bool,
    /// Why it is not known that they share bytes.
    pub guess: Option<String>,
}

/// A loop device whose backing file or device cannot be found out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unplaced {
    pub number: DeviceNumber,
    pub name: String,
    /// The backing file as the process that attached it called it; `None` if that is not known.
    pub text: Option<String>,
    /// Where its range ends in the backing file; `None` if that is not known.
    pub end: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    edges: Vec<Edge>,
    below: BTreeMap<Place, Vec<usize>>,
    above: BTreeMap<Place, Vec<usize>>,
    /// Nodes of one disk, each with the others.
    paths: BTreeMap<Place, BTreeSet<Place>>,
    layers: BTreeMap<Place, Layer>,
    pub unplaced: Vec<Unplaced>,
    /// What the kernel did not say of a device: others may share its bytes, and are not among the edges.
    pub unread: Vec<(Place, String)>,
}

impl Graph {
    pub fn add(&mut self, edge: Edge) {
        let index = self.edges.len();
        self.below.entry(edge.upper).or_default().push(index);
        self.above.entry(edge.lower).or_default().push(index);
        self.edges.push(edge);
    }

    /// Two names of one and the same.
    pub fn add_path(&mut self, one: Place, other: Place) {
        self.paths.entry(one).or_default().insert(other);
        self.paths.entry(other).or_default().insert(one);
    }

    pub fn add_layer(&mut self, place: Place, layer: Layer) {
        self.layers.insert(place, layer);
    }

    pub fn layer(&self, place: Place) -> Option<&Layer> {
        self.layers.get(&place)
    }

    pub fn edges_below(&self, place: Place) -> impl Iterator<Item = &Edge> {
        self.below.get(&place).into_iter().flatten().map(|index| &self.edges[*index])
    }

    pub fn edges_above(&self, place: Place) -> impl Iterator<Item = &Edge> {
        self.above.get(&place).into_iter().flatten().map(|index| &self.edges[*index])
    }

    /// The files that something stands on.
    pub fn files(&self) -> impl Iterator<Item = Inode> {
        self.above.keys().filter_map(|place| match place {
            Place::File(inode) => Some(*inode),
            Place::Device(_) => None,
        })
    }

    /// The other nodes of the same disk.
    pub fn paths_of(&self, place: Place) -> impl Iterator<Item = Place> {
        self.paths.get(&place).into_iter().flatten().copied()
    }

    /// Everything that shares bytes with these bytes of the target, the target first.
    pub fn sharing(&self, target: Place, bytes: Extent) -> Vec<Shared> {
        let mut found = SharedSet::default();
        found.add(Shared {
            place: target,
            extents: bytes.into(),
            role: Role::Target,
            from: target,
            view: true,
            guess: None,
        });
        // All that is below first: whatever stands on that stands on bytes of the target.
        self.follow(&mut found, vec![target], Role::Below);
        let below = found.list.iter().map(|shared| shared.place).collect();
        self.follow(&mut found, below, Role::Above);
        found.list
    }

    /// Follows the edges down or up, until nothing is found that was not known with all of its bytes.
    fn follow(&self, found: &mut SharedSet, from: Vec<Place>, role: Role) {
        let mut pending = VecDeque::from(from);
        while let Some(place) = pending.pop_front() {
            let here = found.get(place).clone();
            for path in self.paths_of(place) {
                let shared =
                    Shared { place: path, role: Role::Path, from: place, view: true, ..here.clone() };
                pending.extend(found.add(shared).then_some(path));
            }
            let edges = if role == Role::Below { &self.below } else { &self.above };
            for edge in edges.get(&place).into_iter().flatten().map(|index| &self.edges[*index]) {
                let (next, extents) = match role {
                    Role::Below => (edge.lower, edge.down(&here.extents)),
                    _ => (edge.upper, edge.up(&here.extents)),
                };
                let guess = edge.guess.clone().or_else(|| here.guess.clone());
                let view = edge.view || role == Role::Below;
                let shared = Shared { place: next, extents, role, from: place, view, guess };
                pending.extend(found.add(shared).then_some(next));
            }
        }
    }
}

/// Those that share bytes, each once, in the order in which they were found.
#[derive(Default)]
struct SharedSet {
    list: Vec<Shared>,
    index: BTreeMap<Place, usize>,
}

impl SharedSet {
    fn get(&self, place: Place) -> &Shared {
        &self.list[self.index[&place]]
    }

    /// Whether it was not known before, or not with all of these bytes.
    fn add(&mut self, shared: Shared) -> bool {
        if shared.extents.is_empty() {
            return false;
        }
        let Some(index) = self.index.get(&shared.place) else {
            self.index.insert(shared.place, self.list.len());
            self.list.push(shared);
            return true;
        };
        let known = &mut self.list[*index];
        if known.role == Role::Above {
            known.view &= shared.view;
            known.guess = known.guess.take().filter(|_| shared.guess.is_some());
        }
        let more = !shared.extents.clone().without(&known.extents).is_empty();
        shared.extents.iter().for_each(|extent| known.extents.insert(extent));
        more
    }
}

#[cfg(test)]
mod tests;
