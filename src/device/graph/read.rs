//! Construction of the graph from the kernel: sysfs, LOOP_GET_STATUS64, device-mapper's tables.
//!
//! What cannot be read is kept as a guess (the devices may share any of their bytes), as a layer of an
//! unknown kind, or as a question without an answer: never as nothing.

use std::collections::BTreeMap;
use std::io;

use super::super::identity::{Inode, Names};
use super::super::kernel::sysfs::Block;
use super::super::layer::{Effect, Layer};
use super::super::place::Place;
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
    /// Which of their names could not be read; `None` if they have one serial number.
    pub unread: Option<String>,
}

impl Twins {
    /// The other one of the two.
    pub fn beside(&self, number: DeviceNumber) -> Option<DeviceNumber> {
        (self.one == number).then_some(self.other).or((self.other == number).then_some(self.one))
    }
}

/// The graph of every block device that sysfs shows.
#[derive(Clone, Debug, Default)]
pub(in crate::device) struct Stack {
    pub graph: Graph,
    /// Disks that may be the same one: no difference could be read.
    pub twins: Vec<Twins>,
    /// The bytes of each device.
    pub areas: BTreeMap<DeviceNumber, Extent>,
}

impl Stack {
    pub fn read(tree: &Tree) -> io::Result<Stack> {
        let blocks = tree.blocks()?;
        let areas = blocks.iter().map(|block| (block.number(), whole(block))).collect();
        let mut reader = GraphBuilder { tree, graph: Graph::default(), areas };
        for block in &blocks {
            match reader.add(block) {
                // A device can be removed while it is read.
                Err(_) if !block.exists() => {}
                read => read?,
            }
        }
        for block in &blocks {
            reader.add_other_holders(block);
        }
        let mut stack = Stack { graph: reader.graph, twins: Vec::new(), areas: reader.areas };
        stack.add_paths(tree, &blocks);
        Ok(stack)
    }

    /// Compares every disk with every other: two nodes can lead to one disk.
    fn add_paths(&mut self, tree: &Tree, blocks: &[Block]) {
        let disks = blocks.iter().filter(|block| block.is_disk());
        let disks = disks.map(|block| (block.number(), Names::of(tree, block)));
        let disks: Vec<(DeviceNumber, Names)> =
            disks.filter(|(_, names)| !matches!(names.size_bytes, Ok(0))).collect();
        let all: Vec<&Names> = disks.iter().map(|(_, names)| names).collect();
        for (index, (one, names)) in disks.iter().enumerate() {
            for (other, other_names) in &disks[index + 1..] {
                let unread = match same(names, other_names, &all) {
                    Sameness::Different => continue,
                    Sameness::Same => {
                        self.graph.add_path(Place::Device(*one), Place::Device(*other));
                        continue;
                    }
                    Sameness::Perhaps => None,
                    Sameness::Unknown(unread) => Some(unread),
                };
                self.twins.push(Twins { one: *one, other: *other, unread });
            }
        }
    }
}

struct GraphBuilder<'a> {
    tree: &'a Tree,
    graph: Graph,
    areas: BTreeMap<DeviceNumber, Extent>,
}

impl GraphBuilder<'_> {
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
            self.graph.add_layer(place, or_unknown(array(block), block, "md"));
        } else if block.has("bcache") && block.has("slaves") && block.is_above_others() {
            self.graph.add_layer(place, bcache(block));
        } else if let Some(layer) = self.virtual_layer(block) {
            self.graph.add_layer(place, layer);
        }
        // What is not known by ranges is known by the kernel's links.
        let known: Vec<Place> = self.graph.edges_below(place).map(|edge| edge.lower).collect();
        let slaves = block.slaves();
        for slave in self.or_unread(slaves, block, "what it stands on") {
            let lower = Place::Device(slave.number());
            if !known.contains(&lower) {
                self.graph.add(Edge::somewhere(place, self.whole(block), lower, Share::Spread));
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
        let edge = Edge::exact(
            Place::Device(block.number()),
            self.whole(block),
            Place::Device(disk.number()),
            start,
        );
        self.graph.add(Edge { view: true, ..edge });
        Ok(())
    }

    fn add_loop(&mut self, block: &Block) -> io::Result<()> {
        let place = Place::Device(block.number());
        self.graph.add_layer(place, Layer::passing(block.name(), "loop"));
        match (self.tree.kernel.backing)(self.tree, block) {
            Ok((backing, offset)) => {
                let lower = match backing {
                    Backing::Device(number) => Place::Device(DeviceNumber(number)),
                    Backing::File { device, inode } => Place::File(Inode { device, inode }),
                };
                self.graph.add(Edge::exact(place, self.whole(block), lower, offset));
            }
            Err(_) if !block.has("loop/backing_file") => {}
            Err(_) => {
                let text = block.attribute("loop/backing_file");
                let end = block.number_attribute("loop/offset").zip(block.read_size().ok());
                let end = end.map(|(offset, size)| offset.saturating_add(size));
                self.graph.unplaced.push(Unplaced { number: block.number(), name: block.name(), text, end });
            }
        }
        Ok(())
    }

    fn add_mapping(&mut self, block: &Block) {
        let place = Place::Device(block.number());
        let ask = |line| (self.tree.kernel.mapping)(self.tree, block, line);
        let lines = || Ok((ask(DmLine::Table)?, ask(DmLine::StatusInMemory)?, ask(DmLine::NextTable)?));
        let (table, status, next_table) = match lines() {
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
        // The kernel shows what a mapping will stand on from the moment that its table is loaded.
        for target in next_table.iter().map(|line| dm::target(line, "", &map, lookup)) {
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
        // LVM lays a plain mapping over each of its pools, which says nothing about the users of a volume in it.
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
        // Every device is asked once more what it stands on: what could not be read is kept there.
        for slave in block.slaves().unwrap_or_default() {
            let edge =
                Edge::somewhere(place, self.whole(block), Place::Device(slave.number()), Share::Spread);
            self.graph.add(Edge { guess: Some(why.clone()), ..edge });
        }
        self.graph.add_layer(place, Layer::unknown(block.name(), "dm, its table cannot be read"));
    }

    /// A device that hangs on no hardware, and of no kind that is known.
    fn virtual_layer(&self, block: &Block) -> Option<Layer> {
        let name = block.name();
        let driver = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
        match driver {
            _ if !block.folder().starts_with(self.tree.sys.join("devices/virtual/block")) => None,
            "loop" | "ram" => None,
            "zram" => Some(or_unknown(zram(block), block, "zram")),
            driver => Some(Layer::unknown(&name, driver)),
        }
    }

    fn whole(&self, block: &Block) -> Extent {
        self.areas.get(&block.number()).copied().unwrap_or_else(|| whole(block))
    }

    /// What holds a device without being known to stand on it, holds all of it.
    fn add_other_holders(&mut self, block: &Block) {
        let lower = Place::Device(block.number());
        let holders = block.holders();
        for holder in self.or_unread(holders, block, "what stands on it") {
            let upper = Place::Device(holder.number());
            if !self.graph.edges_below(upper).any(|edge| edge.lower == lower) {
                self.graph.add(Edge::somewhere(upper, self.whole(&holder), lower, Share::Spread));
            }
        }
    }

    /// Notes what could not be read. A device that was removed in the meantime has no such note.
    fn or_unread(&mut self, found: io::Result<Vec<Block>>, block: &Block, what: &str) -> Vec<Block> {
        found.unwrap_or_else(|error| {
            if block.exists() {
                let unread = format!("of {}, {what} cannot be read: {error}", block.name());
                self.graph.unread.push((Place::Device(block.number()), unread));
            }
            Vec::new()
        })
    }
}

fn or_unknown(layer: io::Result<Layer>, block: &Block, kind: &str) -> Layer {
    layer.unwrap_or_else(|error| Layer::unknown(block.name(), format!("{kind}, {error}")))
}

/// An answer that the kernel does not document.
fn not_understood(what: &str, text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is not understood: {text}"))
}

/// `None` if the kernel is built without writing out, `none` where no device is set
/// (Documentation/admin-guide/blockdev/zram.rst).
fn zram(block: &Block) -> io::Result<Layer> {
    let name = block.name();
    let layer = Layer::passing(&name, "zram");
    Ok(match block.read_attribute("backing_dev")?.as_deref() {
        None if block.has("backing_dev") => return Err(not_understood("backing_dev", "it is empty")),
        None | Some("none") => layer,
        Some(device) => {
            layer.keeping(device, format!("reset {name} (zramctl --reset), and wipe {device} by itself"))
        }
    })
}

/// `md/dev-NAME/state` of each member (Documentation/admin-guide/md.rst).
fn array(block: &Block) -> io::Result<Layer> {
    let level = block.read_attribute("md/level")?.unwrap_or_else(|| "of no level".into());
    let mut layer = Layer::passing(block.name(), format!("md {level}"));
    for member in block.names_in("md")?.iter().filter_map(|name| name.strip_prefix("dev-")) {
        let file = format!("md/dev-{member}/state");
        let state = block.read_attribute(&file)?.unwrap_or_default();
        let has = |word| state.split(',').any(|each| each.trim() == word);
        if has("faulty") {
            layer.effect = dm::failed_leg(member.to_string());
        } else if has("spare") {
            layer.limitations.push(format!("the member {member} is not in step with the array"));
        } else if !(has("in_sync") || has("journal")) {
            return Err(not_understood(&file, &state));
        }
    }
    match block.read_attribute("md/journal_mode")?.as_deref() {
        // Of a level that has no journal, or of an array that is without one.
        None => {}
        Some(modes) if modes.contains("[write-through]") => {}
        Some(modes) if modes.contains("[write-back]") => {
            let name = block.name();
            let drain = format!(
                "have the journal written back: echo write-through > /sys/block/{name}/md/journal_mode"
            );
            layer = layer.keeping("the members, behind the journal in write-back mode", drain);
        }
        Some(modes) => return Err(not_understood("md/journal_mode", modes)),
    }
    match block.read_attribute("md/degraded")?.map(|count| count.parse::<u64>()) {
        Some(Ok(0)) => {}
        Some(Ok(count)) => layer
            .limitations
            .push(format!("{count} of the array's members are missing: they hold what they held")),
        // Striped and linear arrays have no such number.
        None if ["raid0", "linear"].contains(&level.as_str()) => {}
        _ => layer.limitations.push("whether members of the array are missing is not known".into()),
    }
    Ok(layer)
}

/// Larger than any device where its size cannot be read, or is 0.
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
