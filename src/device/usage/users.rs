//! The walk over everything that shares bytes with a target: its users, as refusals.

use std::collections::{BTreeMap, BTreeSet};

use super::super::graph::{Role, Share, Shared};
use super::super::kernel::sysfs::Block;
use super::super::place::Place;
use super::super::printable;
use super::super::refusal::{Force, Holder, Refusal, mounted, swapped_to};
use super::{DeviceNumber, Usage};

pub(super) struct Users<'a> {
    usage: &'a Usage,
    sharing: Vec<Shared>,
    index: BTreeMap<Place, usize>,
}

impl<'a> Users<'a> {
    pub fn new(usage: &'a Usage, sharing: Vec<Shared>) -> Users<'a> {
        let index = sharing.iter().enumerate().map(|(index, shared)| (shared.place, index)).collect();
        Users { usage, sharing, index }
    }

    /// Each use, as the target sees it through what stands between.
    pub fn refusals(&self) -> Vec<Refusal> {
        let uses: Vec<Vec<Refusal>> = self.sharing.iter().map(|shared| self.uses_of(shared)).collect();
        let mut between = BTreeSet::new();
        for (shared, uses) in self.sharing.iter().zip(&uses) {
            if self.stands_on(shared) || !uses.is_empty() {
                let mut lower = shared;
                while lower.role == Role::Above {
                    lower = self.lower(lower);
                    between.insert(lower.place);
                }
            }
        }
        let mut refusals = Vec::new();
        for (shared, uses) in self.sharing.iter().zip(uses) {
            if uses.is_empty() && self.stands_on(shared) && !between.contains(&shared.place) {
                refusals.extend(self.standing(shared));
            }
            refusals.extend(uses.into_iter().map(|use_| self.as_seen_below(use_, shared)));
        }
        refusals
    }

    fn lower(&self, shared: &Shared) -> &Shared {
        &self.sharing[self.index[&shared.from]]
    }

    fn block(&self, place: Place) -> Option<Block> {
        let Place::Device(number) = place else { return None };
        self.usage.tree.block(number).ok()
    }

    fn name(&self, shared: &Shared) -> String {
        match (shared.place, shared.role) {
            (Place::Device(number), _) => {
                self.block(shared.place).map_or(number.to_string(), |block| block.name())
            }
            (Place::File(_), Role::Target) => "it".into(),
            (Place::File(_), Role::Path) => "its file in the folder below the overlay".into(),
            (Place::File(_), _) => format!("{}'s backing file", self.name(self.lower(shared))),
        }
    }

    /// Whatever stands on the bytes, and is no plain view of them, uses them.
    fn stands_on(&self, shared: &Shared) -> bool {
        shared.role == Role::Above && !shared.view && !self.is_own_part(shared)
    }

    /// LVM leaves the mapping of a snapshot's store behind when it makes a volume of it: the same extents, by
    /// the UUID of the volume with a word behind it. Who has that open, or stands on it, is asked all the same.
    fn is_own_part(&self, shared: &Shared) -> bool {
        let uuid = |place| self.block(place)?.attribute("dm/uuid");
        let target = self.sharing.first().and_then(|target| uuid(target.place));
        let part = target
            .zip(uuid(shared.place))
            .and_then(|(target, other)| other.strip_prefix(&target)?.strip_prefix('-').map(String::from));
        part.is_some()
    }

    /// What uses a device or file directly.
    fn uses_of(&self, shared: &Shared) -> Vec<Refusal> {
        let (usage, name) = (self.usage, self.name(shared));
        let exports = usage.exports.iter().filter(|export| export.place == Some(shared.place));
        let exports = exports.map(|export| exported(&name, &export.name));
        let Place::Device(number) = shared.place else {
            let swaps = usage.swaps.iter().filter(|swap| Place::at(swap) == Some(shared.place));
            return swaps.map(|swap| swapped_to(&name, swap)).chain(exports).collect();
        };
        let mut uses: Vec<Refusal> = usage.mounts_of(number).map(|mount| mounted(&name, mount)).collect();
        let swaps = usage.swaps.iter().filter(|swap| usage.tree.number_of(swap) == Some(number));
        uses.extend(swaps.map(|swap| swapped_to(&name, swap)));
        if uses.is_empty() {
            uses.extend(self.in_btrfs(&name, number));
        }
        if usage.journals.contains(&number) {
            let what = format!("{name} is the external journal of a mounted file system");
            uses.push(Refusal::new("external journal", what, "unmount the file system that journals there"));
        }
        uses.extend(exports);
        uses
    }

    /// A mounted btrfs shows only one of its devices as mounted.
    fn in_btrfs(&self, name: &str, number: DeviceNumber) -> Option<Refusal> {
        let usage = self.usage;
        let (_, uuid) = usage.btrfs.iter().find(|(member, _)| *member == number)?;
        let members = usage.btrfs.iter().filter(|(_, other)| other == uuid).map(|(member, _)| *member);
        let mount = members.into_iter().find_map(|member| usage.mounts_of(member).next());
        let mut refusal = match mount {
            Some(mount) => mounted(name, mount),
            None => Refusal::new("mounted", "", "unmount that file system first"),
        };
        let place =
            mount.map_or(String::new(), |mount| format!(" at {}", printable(&mount.point.to_string_lossy())));
        refusal.what = format!("{name} is a member of the btrfs {uuid}, which is mounted{place}");
        Some(refusal)
    }

    /// One that stands on bytes of the target is a use of them, even where nothing is known to use it.
    fn standing(&self, shared: &Shared) -> Option<Refusal> {
        let (lower, holder) = (self.lower(shared), self.block(shared.place)?);
        let mut refusal = match self.is_snapshot(shared) {
            true => kept_by_snapshot(&self.origin(lower), &holder),
            false => Holder::of(&self.name(lower), &holder).into(),
        };
        if let Some(guess) = &shared.guess {
            refusal.what = format!("{}, as far as can be seen: {guess}", refusal.what);
            refusal = refusal.unless(Force::Unseen);
        }
        Some(self.as_seen_below(refusal, lower))
    }

    /// A snapshot reads the origin's data, and gets what is overwritten there.
    fn is_snapshot(&self, shared: &Shared) -> bool {
        let graph = &self.usage.stack.graph;
        let reads = graph
            .edges_below(shared.place)
            .any(|edge| edge.lower == shared.from && edge.share == Share::Reads);
        reads && graph.layer(shared.place).is_some_and(|layer| layer.kind == "dm snapshot")
    }

    /// The volume above the hidden part that its snapshots share with it.
    fn origin(&self, data: &Shared) -> String {
        let volume = if data.role == Role::Below { self.lower(data) } else { data };
        self.block(volume.place).map_or(self.name(volume), |block| block.map_name())
    }

    /// The same use, as the target sees it through what stands between.
    fn as_seen_below(&self, mut refusal: Refusal, shared: &Shared) -> Refusal {
        let mut shared = shared;
        while shared.role == Role::Above {
            let lower = self.lower(shared);
            if let Some(holder) = self.block(shared.place).filter(|_| !shared.view) {
                refusal = refusal.below(&Holder::of(&self.name(lower), &holder));
            }
            shared = lower;
        }
        if shared.role == Role::Path && matches!(shared.place, Place::Device(_)) {
            let (name, other) = (self.name(shared), self.name(self.lower(shared)));
            refusal.what = format!("{name} is another path to the disk {other}: {}", refusal.what);
        }
        refusal
    }
}

fn exported(name: &str, export: &str) -> Refusal {
    let what = format!("{name} is exported to other machines ({export})");
    let remedy = format!("take it out of the target's configuration first: /sys/kernel/config/{export}");
    Refusal::new("exported", what, remedy)
}

fn kept_by_snapshot(origin: &str, snapshot: &Block) -> Refusal {
    let snapshot = snapshot.map_name();
    let short = format!("origin of the snapshot {snapshot}");
    let what = format!("what is overwritten of {origin} is kept by its snapshot {snapshot}");
    let remedy = format!("remove the snapshot first: lvremove, or lvs --all to see them ({snapshot})");
    Refusal::new(short, what, remedy)
}
