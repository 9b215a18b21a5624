//! Fills the graph from the kernel: sysfs, LOOP_GET_STATUS64, device-mapper's tables.
//!
//! What cannot be read is kept as a guess: the devices may share any of their bytes.

use std::io;

use super::super::identity::{Identity, Inode};
use super::super::layer::{Effect, Layer};
use super::super::place::Place;
use super::super::sysfs::Block;
use super::super::{DeviceNumber, Tree};
use super::same::{Sameness, same};
use super::{ALL, Edge, Graph, Share, Unplaced, dm};
use crate::io::{Backing, DmLine, DmTarget};
use crate::range::Extent;

/// The nodes of disks that may be one disk, with what they have in common.
#[derive(Clone, Debug)]
pub(in crate::device) struct Twins {
    pub one: DeviceNumber,
    pub other: DeviceNumber,
}

/// The graph of every block device that sysfs shows.
#[derive(Clone, Debug, Default)]
pub(in crate::device) struct Stack {
    pub graph: Graph,
    /// Disks that have the serial number, model and size of another, and nothing better to tell them by.
    pub twins: Vec<Twins>,
}

impl Stack {
    pub fn read(tree: &Tree) -> io::Result<Stack> {
        let blocks = tree.blocks()?;
        let mut reader = Reader { tree, graph: Graph::default() };
        for block in &blocks {
            match reader.add(block) {
                // A device can go while it is looked at.
                Err(_) if !block.exists() => {}
                read => read?,
            }
        }
        for block in &blocks {
            reader.add_other_holders(block);
        }
        let mut stack = Stack { graph: reader.graph, twins: Vec::new() };
        stack.add_paths(tree, &blocks);
        Ok(stack)
    }

    /// Compares every disk with every other: two nodes can lead to one disk.
    fn add_paths(&mut self, tree: &Tree, blocks: &[Block]) {
        let disks: Vec<(DeviceNumber, Identity)> = blocks
            .iter()
            .filter(|block| block.is_disk() && block.size_bytes() > 0)
            .filter_map(|block| {
                let node = tree.dev.join(block.name());
                Some((block.number(), Identity::of_block(tree, &node, node.clone(), block).ok()?))
            })
            .collect();
        let identities: Vec<&Identity> = disks.iter().map(|(_, identity)| identity).collect();
        for (index, (one, identity)) in disks.iter().enumerate() {
            for (other, other_identity) in &disks[index + 1..] {
                match same(identity, other_identity, &identities) {
                    Sameness::Same => self.graph.add_path(Place::Device(*one), Place::Device(*other)),
                    Sameness::Perhaps => self.twins.push(Twins { one: *one, other: *other }),
                    Sameness::Different => {}
                }
            }
        }
    }

    /// The disks that may be this one.
    pub fn twins_of(&self, number: DeviceNumber) -> impl Iterator<Item = DeviceNumber> {
        self.twins.iter().filter_map(move |twins| {
            (twins.one == number).then_some(twins.other).or((twins.other == number).then_some(twins.one))
        })
    }
}

struct Reader<'a> {
    tree: &'a Tree,
    graph: Graph,
}

impl Reader<'_> {
    fn add(&mut self, block: &Block) -> io::Result<()> {
        if block.is_partition() {
            return self.add_partition(block);
        }
        if block.has("loop/backing_file") {
            return self.add_loop(block);
        }
        let place = Place::Device(block.number());
        if block.has("dm") {
            self.add_mapping(block);
        } else if block.has("md") {
            let layer = self.array(block)?;
            self.graph.add_layer(place, layer);
        } else if block.has("bcache") && block.has("slaves") && block.is_above_others() {
            self.graph.add_layer(place, bcache(block));
        } else if let Some(layer) = self.virtual_layer(block) {
            self.graph.add_layer(place, layer);
        }
        // What is not known by ranges is known by the kernel's links.
        let known: Vec<Place> = self.graph.edges_below(place).map(|edge| edge.lower).collect();
        for slave in block.slaves()? {
            let lower = Place::Device(slave.number());
            if !known.contains(&lower) {
                self.graph.add(Edge::somewhere(place, whole(block), lower, Share::Spread));
            }
        }
        Ok(())
    }

    fn add_partition(&mut self, block: &Block) -> io::Result<()> {
        let disk = block.disk()?;
        let start = block.partition_start().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("where {} begins cannot be read", block.name()),
            )
        })?;
        let edge =
            Edge::exact(Place::Device(block.number()), whole(block), Place::Device(disk.number()), start);
        self.graph.add(Edge { view: true, ..edge });
        Ok(())
    }

    fn add_loop(&mut self, block: &Block) -> io::Result<()> {
        let place = Place::Device(block.number());
        let (name, offset) = (block.name(), block.number_attribute("loop/offset").unwrap_or(0));
        let text = block.attribute("loop/backing_file").unwrap_or_default();
        self.graph.add_layer(place, Layer::passing(&name, "loop"));
        match (self.tree.kernel.backing)(self.tree, block) {
            Ok((backing, offset)) => {
                let lower = match backing {
                    Backing::Device(number) => Place::Device(DeviceNumber(number)),
                    Backing::File { device, inode } => Place::File(Inode { device, inode }),
                };
                self.graph.add(Edge::exact(place, whole(block), lower, offset));
            }
            Err(_) if !block.has("loop/backing_file") => {}
            Err(_) => {
                let bytes = Extent { start: offset, end: offset.saturating_add(block.size_bytes()) };
                self.graph.unplaced.push(Unplaced { number: block.number(), name, text, bytes });
            }
        }
        Ok(())
    }

    fn add_mapping(&mut self, block: &Block) {
        let place = Place::Device(block.number());
        let ask = |line| (self.tree.kernel.mapping)(self.tree, block, line);
        let lines = ask(DmLine::Table).and_then(|table| Ok((table, ask(DmLine::StatusInMemory)?)));
        let (table, status) = match lines {
            Ok(lines) => lines,
            Err(error) => return self.add_unread_mapping(block, &error),
        };
        let map = block.map_name();
        let name_of = |number: DeviceNumber| {
            self.tree.block(number).map_or(number.to_string(), |lower| lower.map_name())
        };
        let lookup = dm::Lookup { name_of: &name_of, is_missing: &|number| self.is_missing(number, 0) };
        let kinds: Vec<&str> = table.iter().map(|line| line.kind.as_str()).collect();
        let mut layer = Layer::passing(block.name(), format!("dm {}", distinct(&kinds).join(", ")));
        let mut edges = Vec::new();
        for (index, line) in table.iter().enumerate() {
            let status = status.get(index).map_or("", |line| line.line.as_str());
            let target = dm::target(line, status, &map, lookup);
            layer.limitations.extend(target.limitation.clone());
            if layer.effect == Effect::PassesThrough {
                layer.effect = target.effect.clone();
            }
            edges.extend(target.lower.iter().map(|lower| self.mapped(place, target.at, lower)));
        }
        edges.into_iter().for_each(|edge| self.graph.add(edge));
        self.graph.add_layer(place, layer);
    }

    fn mapped(&self, place: Place, at: Extent, lower: &dm::Lower) -> Edge {
        let below = Place::Device(lower.number);
        let edge = match lower.start {
            Some(start) => Edge::exact(place, at, below, start),
            None => Edge::somewhere(place, at, below, lower.share),
        };
        // LVM lays a plain mapping over each of its pools, which says nothing of who uses a volume in it.
        let pool = self.tree.block(lower.number).ok().and_then(|block| block.attribute("dm/uuid"));
        Edge { view: pool.is_some_and(|uuid| uuid.starts_with("LVM-") && uuid.ends_with("-tpool")), ..edge }
    }

    /// Whether it is a mapping to nothing but errors, by however many plain ones.
    fn is_missing(&self, number: DeviceNumber, depth: u32) -> bool {
        const DEPTH_MAX: u32 = 8;
        let Ok(block) = self.tree.block(number) else { return false };
        let lines = (self.tree.kernel.mapping)(self.tree, &block, DmLine::Table).unwrap_or_default();
        let missing = |line: &DmTarget| match line.kind.as_str() {
            "error" => true,
            "linear" => line
                .line
                .split(' ')
                .next()
                .and_then(|lower| lower.parse().ok())
                .is_some_and(|lower| depth < DEPTH_MAX && self.is_missing(lower, depth + 1)),
            _ => false,
        };
        block.has("dm") && !lines.is_empty() && lines.iter().all(missing)
    }

    /// It shares bytes with its slaves, and no table says which.
    fn add_unread_mapping(&mut self, block: &Block, error: &io::Error) {
        let name = block.map_name();
        let why = format!("the table of the mapping {name} cannot be read: {error}");
        let place = Place::Device(block.number());
        for slave in block.slaves().unwrap_or_default() {
            let edge = Edge::somewhere(place, whole(block), Place::Device(slave.number()), Share::Spread);
            self.graph.add(Edge { guess: Some(why.clone()), ..edge });
        }
        self.graph.add_layer(place, Layer::unknown(block.name(), "dm, its table cannot be read"));
    }

    /// `md/dev-NAME/state` of each member (Documentation/admin-guide/md.rst).
    fn array(&self, block: &Block) -> io::Result<Layer> {
        let level = block.attribute("md/level").unwrap_or_else(|| "of no level".into());
        let mut layer = Layer::passing(block.name(), format!("md {level}"));
        for member in block.names_in("md")?.iter().filter_map(|name| name.strip_prefix("dev-")) {
            let state = block.attribute(&format!("md/dev-{member}/state")).unwrap_or_default();
            let has = |word| state.split(',').any(|each| each.trim() == word);
            if has("faulty") {
                layer.effect = dm::failed_leg(member.to_string());
            } else if has("spare") {
                layer.limitations.push(format!("the member {member} is not in step with the array"));
            } else if !(has("in_sync") || has("journal")) {
                layer.limitations.push(format!("the state of the member {member} is not known ({state})"));
            }
        }
        let modes = block.attribute("md/journal_mode").unwrap_or_default();
        if modes.contains("[write-back]") {
            let name = block.name();
            let drain = format!(
                "have the journal written back: echo write-through > /sys/block/{name}/md/journal_mode"
            );
            layer = layer.keeping("the members, behind the journal in write-back mode", drain);
        }
        match block.number_attribute("md/degraded") {
            Some(0) => {}
            Some(count) => layer
                .limitations
                .push(format!("{count} of the array's members are missing: they hold what they held")),
            // Striped and linear arrays have no such number.
            None if ["raid0", "linear"].contains(&level.as_str()) => {}
            None => layer.limitations.push("whether members of the array are missing is not known".into()),
        }
        Ok(layer)
    }

    /// A device that hangs on nothing real and is none of those that are known.
    fn virtual_layer(&self, block: &Block) -> Option<Layer> {
        let name = block.name();
        let driver = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
        match driver {
            _ if !block.folder().starts_with(self.tree.sys.join("devices/virtual/block")) => None,
            "loop" | "ram" => None,
            "zram" => {
                let layer = Layer::passing(&name, "zram");
                let device = block.attribute("backing_dev").filter(|device| device != "none");
                Some(match device {
                    None => layer,
                    Some(device) => layer.keeping(
                        &device,
                        format!("reset {name} (zramctl --reset), and wipe {device} by itself"),
                    ),
                })
            }
            driver => Some(Layer::unknown(&name, driver)),
        }
    }

    /// Whoever holds a device without being known to stand on it, holds all of it.
    fn add_other_holders(&mut self, block: &Block) {
        let lower = Place::Device(block.number());
        for holder in block.holders().unwrap_or_default() {
            let upper = Place::Device(holder.number());
            if !self.graph.edges_below(upper).any(|edge| edge.lower == lower) {
                self.graph.add(Edge::somewhere(upper, whole(&holder), lower, Share::Spread));
            }
        }
    }
}

fn whole(block: &Block) -> Extent {
    match block.size_bytes() {
        0 => ALL,
        size => Extent::new(0, size),
    }
}

fn distinct<'a>(kinds: &[&'a str]) -> Vec<&'a str> {
    let mut kinds = kinds.to_vec();
    kinds.dedup();
    if kinds.is_empty() { vec!["without a table"] } else { kinds }
}

/// `bcache/cache_mode` has the mode that is in force in brackets (Documentation/admin-guide/bcache.rst).
fn bcache(block: &Block) -> Layer {
    let layer = Layer::passing(block.name(), "bcache");
    let modes = block.attribute("bcache/cache_mode").unwrap_or_default();
    let mode = modes.split(['[', ']']).nth(1).unwrap_or_default();
    let state = block.attribute("bcache/state").unwrap_or_default();
    match (state.as_str(), mode) {
        ("no cache", _) => layer,
        ("clean", "writethrough" | "writearound" | "none") => {
            layer.with("a cache that writes through: blocks that it once held may be left in its store")
        }
        _ => {
            let device = block.name();
            let drain = format!(
                "write the cache back and take it away: echo writethrough > /sys/block/{device}/bcache/cache_mode, \
                 wait for the state clean, then echo 1 > /sys/block/{device}/bcache/detach"
            );
            let backing = block.attribute("bcache/backing_dev_name");
            layer.keeping(backing.unwrap_or_else(|| "its backing device".into()), drain)
        }
    }
}
