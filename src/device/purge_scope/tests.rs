//! The scope of simulated subsystems in machines that show them in each way that the kernel has.

use std::fs;
use std::os::unix::fs::symlink;

use super::super::fake::FakeTree;
use super::*;
use crate::error::Kind;
use crate::io::passthrough::nvme::probe::probe;
use crate::io::passthrough::sim::nvme::{ControllerSetup, NamespaceSetup, NvmeSim, Setup};
use crate::io::passthrough::{ReadOnly, Request};

pub const SUBSYSTEM: &str = "virtual/nvme-subsystem/nvme-subsys0";
pub const MODEL: &str = "Simulated NVMe drive";
pub const SERIAL: &str = "SIM-SERIAL-000000001";

/// How the kernel shows the namespaces of a subsystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shows {
    /// A head of each, and hidden paths.
    Heads,
    /// A visible path through each controller.
    Paths,
}

/// A machine with a drive.
pub struct Machine {
    pub fake: FakeTree,
    sim: NvmeSim,
    pub facts: SubsystemFacts,
}

pub fn controller_folder(index: usize) -> String {
    format!("pci0000:00/0000:00:0{index}.0/nvme/nvme{index}")
}

pub fn device_file(folder: &str, name: &str) -> String {
    format!("sys/devices/{folder}/{name}")
}

impl Machine {
    /// `here` are the controllers of the subsystem that the machine has, as nvme0, nvme1 and so on. The drive is
    /// asked through the first.
    pub fn new(setup: Setup, here: &[u16], shows: Shows) -> Machine {
        let fake = FakeTree::new();
        for class in ["nvme", "nvme-subsystem"] {
            fs::create_dir_all(fake.tree.sys.join("class").join(class)).unwrap();
        }
        let sim = NvmeSim::new(setup.clone());
        let facts = probe(&mut ReadOnly::new(sim.path(here[0])));
        let machine = Machine { fake, sim, facts };
        machine.add_subsystem("nvme-subsys0");
        for (index, id) in here.iter().enumerate() {
            machine.add_controller(&controller_folder(index), *id, "nvme-subsys0");
            let all = setup.controllers.iter().find(|controller| controller.id == *id).unwrap();
            for nsid in &all.attached {
                machine.add_path(index, *nsid, shows);
            }
        }
        machine
    }

    pub fn write(&self, folder: &str, name: &str, text: &str) {
        self.fake.write(&device_file(folder, name), format!("{text}\n"));
    }

    pub fn add_subsystem(&self, name: &str) {
        let folder = format!("virtual/nvme-subsystem/{name}");
        // The kernel pads both.
        self.write(&folder, "model", &format!("{MODEL:40}"));
        self.write(&folder, "serial", &format!("{SERIAL:20}"));
        let link = self.fake.tree.sys.join("class/nvme-subsystem").join(name);
        symlink(format!("../../devices/{folder}"), link).unwrap();
    }

    pub fn add_controller(&self, folder: &str, id: u16, subsystem: &str) {
        let name = folder.rsplit('/').next().unwrap();
        let attributes = [("transport", "pcie"), ("model", MODEL), ("serial", SERIAL)];
        attributes.iter().for_each(|(name, text)| self.write(folder, name, text));
        self.write(folder, "cntlid", &id.to_string());
        let sys = &self.fake.tree.sys;
        symlink(format!("../../devices/{folder}"), sys.join("class/nvme").join(name)).unwrap();
        let member = sys.join("devices/virtual/nvme-subsystem").join(subsystem).join(name);
        symlink(format!("../../../{folder}"), member).unwrap();
    }

    pub fn add_path(&self, controller: usize, nsid: u32, shows: Shows) {
        let below = controller_folder(controller);
        if shows == Shows::Paths {
            return self.add_node(&format!("{below}/nvme{controller}n{nsid}"), nsid);
        }
        let name = format!("nvme0c{controller}n{nsid}");
        let folder = format!("{below}/{name}");
        self.name(&folder, nsid);
        self.write(&folder, "hidden", "1");
        let link = self.fake.tree.sys.join("class/block").join(name);
        symlink(format!("../../devices/{folder}"), link).unwrap();
        let head = format!("{SUBSYSTEM}/nvme0n{nsid}");
        if !self.fake.tree.sys.join("devices").join(&head).exists() {
            self.add_node(&head, nsid);
        }
    }

    /// A block device of 1 MiB.
    pub fn add_node(&self, folder: &str, nsid: u32) {
        let minor = fs::read_dir(self.fake.tree.sys.join("dev/block")).unwrap().count();
        self.fake.device(folder, &format!("259:{minor}"));
        self.name(folder, nsid);
        self.write(folder, "hidden", "0");
    }

    fn name(&self, folder: &str, nsid: u32) {
        self.write(folder, "nsid", &nsid.to_string());
        self.write(folder, "wwid", &format!("eui.{nsid:032x}"));
    }

    pub fn scope_of(&self, name: &str) -> Result<PurgeScope> {
        let number =
            fs::read_to_string(self.fake.tree.sys.join("class/block").join(name).join("dev")).unwrap();
        PurgeScope::of(&self.fake.tree, number.trim().parse().unwrap(), &self.facts)
    }

    /// Of nvme0n1.
    pub fn scope(&self) -> Result<PurgeScope> {
        self.scope_of("nvme0n1")
    }

    /// Of a scope that cannot be had.
    pub fn refused(&self) -> String {
        let error = self.scope().unwrap_err();
        assert_eq!(error.kind, Kind::Refused, "{error}");
        error.to_string()
    }

    /// All that exist, by the simulated drive itself.
    fn sim_namespaces(&self) -> Vec<u32> {
        let facts = probe(&mut ReadOnly::new(self.sim.path(0)));
        facts.namespaces.unwrap().iter().map(|fact| fact.nsid).collect()
    }

    pub fn controller(&mut self) -> &mut Controller {
        self.facts.controller.as_mut().unwrap()
    }
}

/// Namespaces from 1 on, and which of them each controller has.
pub fn setup(count: u32, controllers: &[(u16, &[u32])]) -> Setup {
    let namespace = |nsid| NamespaceSetup {
        nsid,
        content: vec![0; 8192],
        flbas: 0,
        dps: 0,
        write_protected: false,
        reserved: (0, 0),
    };
    let controller =
        |(id, attached): &(u16, &[u32])| ControllerSetup { id: *id, attached: attached.to_vec() };
    Setup {
        namespaces: (1..=count).map(namespace).collect(),
        controllers: controllers.iter().map(controller).collect(),
        ..Setup::of(vec![])
    }
}

/// Two namespaces by one controller.
pub fn two() -> Machine {
    Machine::new(setup(2, &[(0, &[1, 2])]), &[0], Shows::Paths)
}

/// Two namespaces by two controllers of this machine.
pub fn two_by_two(shows: Shows) -> Machine {
    Machine::new(setup(2, &[(0, &[1, 2]), (1, &[1, 2])]), &[0, 1], shows)
}

fn refusal(scope: &PurgeScope, reach: Reach) -> String {
    scope.permit(reach, true).expect("everything is allowed");
    let error = scope.permit(reach, false).unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    error.to_string()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// One controller has all.
    Attached,
    /// One more namespace is attached nowhere.
    Unattached,
    /// The first is shared with a second controller of this machine, the others are not.
    Shared,
    /// All are shared with a controller of another host.
    OtherHost,
    /// One more namespace is attached to a controller of another host alone.
    OnlyOtherHost,
    /// All have two paths, below a head.
    Heads,
    /// All have two visible paths.
    Paths,
}

const SHAPES: [Shape; 7] = [
    Shape::Attached,
    Shape::Unattached,
    Shape::Shared,
    Shape::OtherHost,
    Shape::OnlyOtherHost,
    Shape::Heads,
    Shape::Paths,
];

impl Shape {
    fn machine(self, count: u32, fna: u8) -> Machine {
        let all: Vec<u32> = (1..=count).collect();
        let (count, controllers, here, shows): (_, &[(u16, &[u32])], &[u16], _) = match self {
            Shape::Attached => (count, &[(0, &all)], &[0], Shows::Paths),
            Shape::Unattached => (count + 1, &[(0, &all)], &[0], Shows::Paths),
            Shape::Shared => (count, &[(0, &all), (1, &[1])], &[0, 1], Shows::Paths),
            Shape::OtherHost => (count, &[(0, &all), (9, &all)], &[0], Shows::Heads),
            Shape::OnlyOtherHost => (count + 1, &[(0, &all), (9, &[count + 1])], &[0], Shows::Heads),
            Shape::Heads => (count, &[(0, &all), (1, &all)], &[0, 1], Shows::Heads),
            Shape::Paths => (count, &[(0, &all), (1, &all)], &[0, 1], Shows::Paths),
        };
        // The drive can change keys, too: bit 2 of FNA.
        Machine::new(Setup { fna: fna | 1 << 2, ..setup(count, controllers) }, here, shows)
    }

    /// What is refused of a command that reaches all of the subsystem, or the first namespace alone.
    fn clauses(self, count: u32, all: bool) -> Vec<String> {
        let node = |nsid| match self {
            Shape::Paths => format!("nvme0n{nsid} and nvme1n{nsid}"),
            _ => format!("nvme0n{nsid}"),
        };
        let mut others: Vec<String> =
            (2..=count).map(|nsid| format!("namespace {nsid} ({}, 1.00 MiB)", node(nsid))).collect();
        match self {
            Shape::Unattached => others.push(format!("namespace {} (not here, 8.00 KiB)", count + 1)),
            Shape::OnlyOtherHost => {
                others.push(format!("namespace {} (not here, attached to controller 9, 8.00 KiB)", count + 1))
            }
            _ => {}
        }
        let others = format!("the command also erases {}", others.join(", "));
        let host =
            "another host may use the drive by controller 9, which this machine does not have".to_string();
        let more = count > 1 || matches!(self, Shape::Unattached | Shape::OnlyOtherHost);
        let shared = self == Shape::OtherHost || (self == Shape::OnlyOtherHost && all);
        [(more && all).then_some(others), shared.then_some(host)].into_iter().flatten().collect()
    }
}

/// FNA 0 to 3, 1, 2 and 16 namespaces, and every shape: by all rungs.
#[test]
fn what_a_command_reaches_beyond_the_named_device_is_refused_until_it_is_named() {
    let rungs = [
        Rung::SanitizeBlock,
        Rung::SanitizeCrypto,
        Rung::SanitizeOverwrite,
        Rung::FormatCrypto,
        Rung::FormatUserData,
    ];
    let (mut refused, mut permitted) = (0, 0);
    for (fna, count, shape) in (0..4)
        .flat_map(|fna| [1, 2, 16].map(|count| (fna, count)))
        .flat_map(|(fna, count)| SHAPES.map(|shape| (fna, count, shape)))
    {
        let machine = shape.machine(count, fna);
        let scope = machine.scope().unwrap();
        let case = format!("FNA {fna}, {count} namespaces, {shape:?}");
        for rung in rungs {
            let format = matches!(rung, Rung::FormatCrypto | Rung::FormatUserData);
            let reach = Reach::of(rung, machine.facts.controller.as_ref().unwrap());
            assert_eq!(reach == Reach::Namespace, format && fna == 0, "{case}: {rung}");
            let clauses = shape.clauses(count, !format || fna != 0);
            match clauses[..] {
                [] => {
                    scope.permit(reach, false).expect(&case);
                    permitted += 1;
                }
                _ => {
                    let expected =
                        format!("{}; if all of it may be erased: --all-namespaces", clauses.join("; "));
                    assert_eq!(refusal(&scope, reach), expected, "{case}: {rung}");
                    refused += 1;
                }
            }
            let reached: Vec<u32> = scope.reached(reach).map(|namespace| namespace.nsid).collect();
            let everything: Vec<u32> = machine.sim_namespaces();
            assert_eq!(reached, if reach == Reach::Subsystem { everything } else { vec![1] }, "{case}");
        }
        let requests = machine.sim.requests();
        assert!(!requests.is_empty() && requests.iter().all(Request::only_reads), "{case}");
    }
    assert_eq!((refused, permitted), (312, 108));
}

#[test]
fn the_texts_of_the_refusals() {
    let text = |shape: Shape, reach| refusal(&shape.machine(2, 0).scope().unwrap(), reach);
    assert_eq!(
        text(Shape::Attached, Reach::Subsystem),
        "the command also erases namespace 2 (nvme0n2, 1.00 MiB); if all of it may be erased: --all-namespaces"
    );
    assert_eq!(
        text(Shape::OnlyOtherHost, Reach::Subsystem),
        "the command also erases namespace 2 (nvme0n2, 1.00 MiB), namespace 3 (not here, attached to controller 9, \
         8.00 KiB); another host may use the drive by controller 9, which this machine does not have; if all of it may \
         be erased: --all-namespaces"
    );
    assert_eq!(
        text(Shape::OtherHost, Reach::Namespace),
        "another host may use the drive by controller 9, which this machine does not have; if all of it may be erased: \
         --all-namespaces"
    );
    assert_eq!(
        text(Shape::Paths, Reach::Subsystem),
        "the command also erases namespace 2 (nvme0n2 and nvme1n2, 1.00 MiB); if all of it may be erased: \
         --all-namespaces"
    );
}

#[test]
fn a_scope_has_every_node_of_every_namespace_and_every_controller() {
    let nodes = |scope: &PurgeScope| -> Vec<(u32, bool, Vec<String>)> {
        let names = |namespace: &ScopedNamespace| namespace.nodes.iter().map(|it| it.name.clone()).collect();
        let row = |namespace: &ScopedNamespace| (namespace.nsid, namespace.named, names(namespace));
        scope.namespaces.iter().map(row).collect()
    };
    let row =
        |nsid, named, names: &[&str]| (nsid, named, names.iter().map(|name| name.to_string()).collect());
    let scope = two_by_two(Shows::Heads).scope_of("nvme0n2").unwrap();
    assert_eq!(nodes(&scope), [row(1, false, &["nvme0n1"]), row(2, true, &["nvme0n2"])]);
    let machine = two_by_two(Shows::Paths);
    let scope = machine.scope().unwrap();
    assert_eq!(
        nodes(&scope),
        [row(1, true, &["nvme0n1", "nvme1n1"]), row(2, false, &["nvme0n2", "nvme1n2"])]
    );
    let numbers: Vec<String> = scope.namespaces[0].nodes.iter().map(|node| node.number.to_string()).collect();
    assert_eq!(numbers, ["259:0", "259:2"]);
    let names = |scope: &PurgeScope| -> Vec<(u16, Option<String>)> {
        scope.controllers.iter().map(|controller| (controller.id, controller.name.clone())).collect()
    };
    assert_eq!(names(&scope), [(0, Some("nvme0".into())), (1, Some("nvme1".into()))]);
    let scope = Shape::OtherHost.machine(1, 0).scope().unwrap();
    assert_eq!(names(&scope), [(0, Some("nvme0".into())), (9, None)]);
}

#[test]
fn more_namespaces_than_fit_into_a_line_are_listed_by_their_numbers() {
    let scope = |count| Shape::Unattached.machine(count, 0).scope().unwrap();
    assert!(
        refusal(&scope(16), Reach::Subsystem)
            .contains("namespace 16 (nvme0n16, 1.00 MiB), namespace 17 (not")
    );
    assert_eq!(
        refusal(&scope(17), Reach::Subsystem),
        "the command also erases namespaces 2 to 18; if all of it may be erased: --all-namespaces"
    );
    assert_eq!(numbered("controller", &[3]), "controller 3");
    assert_eq!(numbered("controller", &[1, 2, 4, 5, 6, 7, 9]), "controllers 1, 2, 4 to 7, 9");
}

#[test]
fn a_namespace_without_a_size_here_has_the_size_that_the_drive_says() {
    let machine = two();
    machine.write(&format!("{}/nvme0n2", controller_folder(0)), "size", "0");
    let scope = machine.scope().unwrap();
    assert_eq!(
        refusal(&scope, Reach::Subsystem),
        "the command also erases namespace 2 (nvme0n2 without a size here, 8.00 KiB); if all of it may be erased: \
         --all-namespaces"
    );
    let mut machine = two();
    machine.facts.namespaces.as_mut().unwrap()[1].namespace = Err(Unknown::TimedOut);
    machine.write(&format!("{}/nvme0n2", controller_folder(0)), "size", "0");
    let text = refusal(&machine.scope().unwrap(), Reach::Subsystem);
    assert!(text.contains("namespace 2 (nvme0n2 without a size here, of unknown size)"), "{text}");
}

#[test]
fn what_was_not_seen_is_in_the_record() {
    let limitations = |shape: Shape, reach| shape.machine(1, 0).scope().unwrap().limitations(reach);
    assert!(limitations(Shape::Paths, Reach::Subsystem).is_empty());
    assert_eq!(
        limitations(Shape::OnlyOtherHost, Reach::Subsystem),
        [
            "This machine has no block device of namespace 2: nothing of it was read.",
            "This machine does not have controller 9 of the drive: another host may."
        ]
    );
    assert!(limitations(Shape::OnlyOtherHost, Reach::Namespace).is_empty());
    assert_eq!(
        limitations(Shape::OtherHost, Reach::Namespace),
        ["This machine does not have controller 9 of the drive: another host may."]
    );
}

/// A drive without namespace management: it lists what is attached to the controller that answers.
pub fn unmanaged(setup: Setup, here: &[u16], shows: Shows) -> Machine {
    Machine::new(Setup { oacs: 0b0010, ..setup }, here, shows)
}

#[test]
fn a_drive_that_lists_only_attached_namespaces_may_have_others_unless_it_lists_every_number() {
    let mut machine = unmanaged(setup(1, &[(0, &[1])]), &[0], Shows::Paths);
    assert_eq!(machine.facts.listing, Listing::Active);
    let scope = machine.scope().unwrap();
    scope.permit(Reach::Subsystem, false).expect("NN is 1");
    assert!(scope.limitations(Reach::Subsystem).is_empty());
    for count in [0, 2, 32, u32::MAX] {
        machine.controller().namespaces_max = count;
        let scope = machine.scope().unwrap();
        assert_eq!(
            refusal(&scope, Reach::Subsystem),
            "the drive does not list all of its namespaces, and the command also erases the others; if all of it \
             may be erased: --all-namespaces"
        );
        assert_eq!(
            scope.limitations(Reach::Subsystem),
            ["The drive does not list all of its namespaces: it may have others."]
        );
        scope.permit(Reach::Namespace, false).expect("it reaches no other");
        assert!(scope.limitations(Reach::Namespace).is_empty());
    }
    // As many as NN says, and another one among them.
    let mut machine = unmanaged(setup(2, &[(0, &[2])]), &[0], Shows::Paths);
    machine.controller().namespaces_max = 1;
    assert!(machine.scope_of("nvme0n2").unwrap().other_namespaces);
}

#[test]
fn a_drive_that_does_not_list_its_controllers_may_have_others() {
    let mut machine = unmanaged(setup(1, &[(0, &[1]), (9, &[1])]), &[0], Shows::Heads);
    let text = "the drive does not list its controllers, and another host may use it by one; if all of it may be \
                erased: --all-namespaces";
    let sentence = "The drive does not list its controllers: another host may have one.";
    for reach in [Reach::Subsystem, Reach::Namespace] {
        let scope = machine.scope().unwrap();
        assert_eq!(refusal(&scope, reach), text);
        assert_eq!(scope.limitations(reach), [sentence]);
    }
    // A private namespace is attached to one controller, which answered.
    machine.facts.namespaces.as_mut().unwrap()[0].namespace.as_mut().unwrap().shared = false;
    let scope = machine.scope().unwrap();
    scope.permit(Reach::Namespace, false).unwrap();
    assert_eq!(refusal(&scope, Reach::Subsystem), text);
    machine.facts.namespaces.as_mut().unwrap()[0].namespace = Err(Unknown::Short);
    assert_eq!(refusal(&machine.scope().unwrap(), Reach::Namespace), text);
}

#[test]
fn a_controller_of_another_host_is_a_user_of_the_drive_whatever_it_is_attached_to() {
    let scope = Machine::new(setup(1, &[(0, &[1]), (9, &[])]), &[0], Shows::Heads).scope().unwrap();
    assert!(refusal(&scope, Reach::Subsystem).starts_with("another host may use the drive by controller 9,"));
    scope.permit(Reach::Namespace, false).unwrap();
}

#[test]
fn whether_another_host_has_the_named_namespace_is_known_from_what_it_is_attached_to() {
    let mut machine = Shape::OtherHost.machine(1, 0);
    let text = refusal(&machine.scope().unwrap(), Reach::Namespace);
    machine.facts.namespaces.as_mut().unwrap()[0].controllers = Err(Unknown::TimedOut);
    assert_eq!(refusal(&machine.scope().unwrap(), Reach::Namespace), text, "it is shared");
    machine.facts.namespaces.as_mut().unwrap()[0].namespace.as_mut().unwrap().shared = false;
    machine.scope().unwrap().permit(Reach::Namespace, false).unwrap();
    machine.facts.namespaces.as_mut().unwrap()[0].controllers = Ok(vec![0]);
    machine.facts.namespaces.as_mut().unwrap()[0].namespace.as_mut().unwrap().shared = true;
    machine.scope().unwrap().permit(Reach::Namespace, false).unwrap();
}

#[test]
fn private_namespaces_with_one_number_are_two() {
    // Without namespace management, numbers of private namespaces are those of their controllers.
    let mut machine = unmanaged(setup(1, &[(0, &[1]), (1, &[])]), &[0, 1], Shows::Paths);
    machine.add_path(1, 1, Shows::Paths);
    machine.facts.controllers = Ok(vec![0, 1]);
    let text = "the command also erases namespace 1 (nvme1n1, 1.00 MiB); if all of it may be erased: \
                --all-namespaces";
    assert_eq!(refusal(&machine.scope().unwrap(), Reach::Subsystem), text, "by NMIC");
    machine.facts.namespaces.as_mut().unwrap()[0].namespace.as_mut().unwrap().shared = true;
    machine.scope().unwrap().permit(Reach::Subsystem, false).expect("two paths of one");
    machine.write(&format!("{}/nvme1n1", controller_folder(1)), "wwid", "eui.another");
    assert_eq!(refusal(&machine.scope().unwrap(), Reach::Subsystem), text, "by wwid");
}

#[test]
fn a_namespace_of_another_controller_is_found_in_sysfs_where_the_drive_lists_only_attached_ones() {
    for (shows, node) in [(Shows::Paths, "nvme1n2"), (Shows::Heads, "nvme0n2")] {
        let machine = unmanaged(setup(2, &[(0, &[1]), (1, &[1, 2])]), &[0, 1], shows);
        let text = refusal(&machine.scope().unwrap(), Reach::Subsystem);
        let begins =
            format!("the command also erases namespace 2 ({node}, 1.00 MiB); the drive does not list all");
        assert!(text.starts_with(&begins), "{text}");
    }
}

#[test]
fn two_devices_of_one_subsystem_have_one_key() {
    let machine = two_by_two(Shows::Paths);
    let mut key = machine.scope().unwrap().key;
    assert_eq!(key, machine.scope_of("nvme0n2").unwrap().key);
    assert_eq!(key.nqn.as_deref(), Some("nqn.2014-08.org.example:simulated"));
    assert_eq!((key.model.as_str(), key.serial.as_str()), (MODEL, SERIAL));
    // By the other controller, and so other facts.
    let facts = probe(&mut ReadOnly::new(machine.sim.path(1)));
    assert_ne!(facts.controller, machine.facts.controller);
    let number = machine.fake.tree.number_of("/dev/nvme1n2".as_ref()).unwrap();
    assert_eq!(key, PurgeScope::of(&machine.fake.tree, number, &facts).unwrap().key);
    let own = key.clone();
    key.nqn = None;
    assert_ne!(key, own);
}

#[test]
fn a_format_reaches_everything_where_its_attributes_are_not_valid() {
    let mut machine = two();
    machine.controller().format_attributes = None;
    let reach = Reach::of(Rung::FormatUserData, machine.controller());
    assert_eq!(
        (reach, Reach::of(Rung::HostOverwrite, machine.controller())),
        (Reach::Subsystem, Reach::Namespace)
    );
}
