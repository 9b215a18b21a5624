//! A random stack of disks, partitions, loop devices and mappings, beside a model that knows of each byte
//! where it lies on a disk: two devices share bytes exactly where the model says so.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::identity::Inode;
use super::*;

/// The bytes of a device, each as a disk and an offset on it.
type Bytes = Vec<(usize, u64)>;

#[derive(Debug, Default)]
struct ByteModel {
    graph: Graph,
    devices: Vec<(Place, Bytes)>,
    disks: usize,
}

fn device(number: usize) -> Place {
    Place::Device(format!("240:{number}").parse().unwrap())
}

impl ByteModel {
    fn next(&self, file: bool) -> Place {
        let number = self.devices.len();
        match file {
            true => Place::File(Inode { device: 1, inode: number as u64 }),
            false => device(number),
        }
    }

    fn add_disk(&mut self, file: bool) {
        let (place, disk) = (self.next(file), self.disks);
        self.disks += 1;
        self.devices.push((place, (0..32).map(|at| (disk, at)).collect()));
    }

    /// Another node of a disk.
    fn add_path(&mut self, of: usize) {
        let (place, (other, bytes)) = (self.next(false), self.devices[of].clone());
        self.graph.add_path(place, other);
        self.devices.push((place, bytes));
    }

    /// One that is a range of each of these, one behind the other.
    fn add_over(&mut self, parts: &[(usize, u64, u64)]) {
        let place = self.next(false);
        let mut bytes = Vec::new();
        for &(lower, start, len) in parts {
            let (lower, below) = self.devices[lower].clone();
            let range: Bytes = below.into_iter().skip(start as usize).take(len as usize).collect();
            if range.is_empty() {
                continue;
            }
            let at = Extent::at(bytes.len() as u64, range.len() as u64);
            self.graph.add(Edge::exact(place, at, lower, start));
            bytes.extend(range);
        }
        self.devices.push((place, bytes));
    }
}

#[derive(Clone, Debug)]
enum Make {
    Disk(bool),
    Path(usize),
    Over(Vec<(usize, u64, u64)>),
}

fn stacks() -> impl Strategy<Value = Vec<Make>> {
    let part = (any::<usize>(), 0_u64..40, 1_u64..24);
    let make = prop_oneof![
        2 => any::<bool>().prop_map(Make::Disk),
        1 => any::<usize>().prop_map(Make::Path),
        5 => prop::collection::vec(part, 1..4).prop_map(Make::Over),
    ];
    prop::collection::vec(make, 2..14)
}

fn build(stack: Vec<Make>) -> ByteModel {
    let mut model = ByteModel::default();
    model.add_disk(false);
    for make in stack {
        let known = model.devices.len();
        match make {
            Make::Disk(file) => model.add_disk(file),
            Make::Path(of) => {
                // Only disks have other paths: what stands on nothing.
                let bottoms: Vec<usize> = (0..known)
                    .filter(|index| model.graph.edges_below(model.devices[*index].0).next().is_none())
                    .filter(|index| !model.devices[*index].1.is_empty())
                    .collect();
                model.add_path(bottoms[of % bottoms.len()]);
            }
            Make::Over(parts) => {
                let parts: Vec<_> =
                    parts.into_iter().map(|(lower, start, len)| (lower % known, start, len)).collect();
                model.add_over(&parts);
            }
        }
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_shares_a_byte_of_the_target_is_found_and_nothing_else(stack in stacks()) {
        let model = build(stack);
        for (target, bytes) in model.devices.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            let own: BTreeSet<_> = bytes.iter().collect();
            let sharing = model.graph.sharing(*target, Extent::new(0, bytes.len() as u64));
            for (other, theirs) in &model.devices {
                let shared = sharing.iter().find(|shared| shared.place == *other);
                let common: BTreeSet<u64> =
                    (0..theirs.len()).filter(|at| own.contains(&theirs[*at])).map(|at| at as u64).collect();
                let found: BTreeSet<u64> =
                    (0..theirs.len() as u64).filter(|at| shared.is_some_and(|s| s.extents.contains(*at))).collect();
                prop_assert_eq!(&found, &common, "target {:?}, other {:?}", target, other);
            }
        }
    }
}

fn over(share: Share) -> Edge {
    Edge::somewhere(device(2), Extent::new(0, 8), device(1), share)
}

fn roles(graph: &Graph, target: Place) -> Vec<(Place, Role)> {
    graph.sharing(target, ALL).into_iter().map(|shared| (shared.place, shared.role)).collect()
}

#[test]
fn a_thin_volume_shares_no_bytes_with_its_siblings_but_all_with_whoever_takes_the_pool() {
    let mut graph = Graph::default();
    graph.add(over(Share::Allocated));
    graph.add(Edge { upper: device(3), ..over(Share::Allocated) });
    graph.add(Edge { upper: device(4), ..over(Share::Spread) });
    assert_eq!(
        roles(&graph, device(2)),
        [(device(2), Role::Target), (device(1), Role::Below), (device(4), Role::Above)]
    );
}

#[test]
fn a_snapshot_uses_its_origin_and_the_origin_does_not_use_the_snapshot() {
    let mut graph = Graph::default();
    graph.add(over(Share::Reads));
    assert_eq!(roles(&graph, device(1)), [(device(1), Role::Target), (device(2), Role::Above)]);
    assert_eq!(roles(&graph, device(2)), [(device(2), Role::Target)]);
}

#[test]
fn a_plain_view_that_is_also_a_mapping_is_a_mapping() {
    let mut graph = Graph::default();
    graph.add(Edge { view: true, ..Edge::exact(device(2), Extent::new(0, 4), device(1), 0) });
    graph.add(Edge::exact(device(2), Extent::new(4, 8), device(1), 0));
    let views: Vec<bool> = graph.sharing(device(1), ALL).iter().map(|shared| shared.view).collect();
    assert_eq!(views, [true, false]);
}
