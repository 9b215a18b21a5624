//! The commands, byte for byte but for the kernel's addresses.

use std::time::Duration;

use efface::internals::io::passthrough::nvme::commands::{
    Exit, Format, HostIds, OverwritePasses, Query, Sanitize, SanitizeMethod, SecureErase,
};
use efface::internals::io::passthrough::nvme::decoded;
use efface::internals::io::passthrough::nvme::identify::{BlockFormat, Namespace};
use efface::internals::io::passthrough::nvme::reservations::Reservations;
use efface::internals::io::passthrough::sim::nvme::{NvmeSim, Setup, SimPath};
use efface::internals::io::passthrough::{
    CommandTimeout, NvmeCommand, Outcome, PassThrough, ReadOnly, Reply, Request,
};

use super::tool::Nvme;
use super::{FORMATS, setup};

/// One that can be erased.
fn writable() -> Setup {
    let mut setup = setup();
    setup.namespaces[1].write_protected = false;
    // Shorter than the tool waits.
    setup.format_time = Duration::from_secs(30);
    setup
}

/// With this timeout in the place of its own.
fn within(request: &Request, timeout: Duration) -> Request {
    let Request::Nvme(command) = request else { panic!() };
    Request::Nvme(NvmeCommand { timeout: CommandTimeout::new(timeout), ..command.clone() })
}

/// The only one of the tool's commands that does not only read.
fn erasing(nvme: &Nvme, drive: &mut dyn PassThrough, arguments: &[&str]) -> Request {
    let run = nvme.run(drive, arguments);
    assert!(run.output.status.success(), "{arguments:?}: {:?}", run.output);
    let erasing: Vec<_> = run.requests.iter().filter(|request| !request.only_reads()).collect();
    assert_eq!(erasing.len(), 1, "{arguments:?}: {:?}", run.requests);
    erasing[0].clone()
}

/// The timeouts are the only difference where the tool is given everything: it leaves them to the kernel, which
/// takes 60 s and then resets the controller.
const TOOLS_TIMEOUT: Duration = Duration::from_secs(60);
const SANITIZE_TIMEOUT: Duration = Duration::from_secs(120);
const FORMAT_TIMEOUT: Duration = Duration::from_secs(600);

fn assert_same(tool: &Request, ours: &Request, timeout: Duration, arguments: &[&str]) {
    assert_eq!(*tool, within(ours, TOOLS_TIMEOUT), "{arguments:?}");
    assert_eq!(*ours, within(tool, timeout), "{arguments:?}");
}

#[test]
fn nvme_and_efface_send_the_same_to_sanitize() {
    let Some(nvme) = Nvme::new() else { return };
    let overwrite = |passes: u8, invert, pattern| SanitizeMethod::Overwrite {
        passes: OverwritePasses::try_from(passes).unwrap(),
        invert,
        pattern,
    };
    let methods: [(SanitizeMethod, &[&str]); 5] = [
        (SanitizeMethod::BlockErase, &["--sanact=start-block-erase"]),
        (SanitizeMethod::CryptoErase, &["--sanact=start-crypto-erase"]),
        (overwrite(1, false, 0), &["--sanact=start-overwrite", "--owpass=1"]),
        (overwrite(15, false, 1), &["--sanact=start-overwrite", "--owpass=15", "--ovrpat=1"]),
        (
            overwrite(2, true, 0x1234_5678),
            &["--sanact=start-overwrite", "--owpass=2", "--oipbp", "--ovrpat=0x12345678"],
        ),
    ];
    let exits: [(Exit, &[&str]); 2] = [(Exit::Restricted, &[]), (Exit::Unrestricted, &["--ause"])];
    let mut cases = vec![(Sanitize::ExitFailure, vec!["sanitize", "--sanact=exit-failure"])];
    for (method, how) in methods {
        for (exit, unrestricted) in exits {
            for (keep_allocated, kept) in [(false, &[][..]), (true, &["--no-dealloc"])] {
                let order = Sanitize::Start { method, exit, keep_allocated };
                cases.push((order, [&["sanitize"], how, unrestricted, kept].concat()));
            }
        }
    }
    for (order, arguments) in cases {
        let sim = NvmeSim::new(writable());
        let sent = erasing(&nvme, &mut sim.path(0), &arguments);
        assert_same(&sent, &order.request(), SANITIZE_TIMEOUT, &arguments);
    }
}

#[test]
fn nvme_and_efface_send_the_same_to_format() {
    let Some(nvme) = Nvme::new() else { return };
    for (flbas, dps) in FORMATS.into_iter().filter(|(flbas, _)| flbas >> 5 == 0) {
        for (erase, ses) in [(SecureErase::UserData, "--ses=1"), (SecureErase::Crypto, "--ses=2")] {
            let mut setup = writable();
            (setup.namespaces[1].flbas, setup.namespaces[1].dps) = (flbas, dps);
            let sim = NvmeSim::new(setup);
            let keep = || {
                let reply = sim.path(0).send(&Query::Namespace(2).request());
                decoded(&reply, Namespace::decode).unwrap().format.unwrap()
            };
            let before = keep();
            let arguments = [
                "format",
                "--force",
                "--namespace-id=2",
                ses,
                &format!("--lbaf={}", flbas & 0xf),
                &format!("--ms={}", flbas >> 4 & 1),
                &format!("--pi={}", dps & 7),
                &format!("--pil={}", dps >> 3),
            ];
            let sent = erasing(&nvme, &mut sim.path(0), &arguments);
            let ours = Format { nsid: 2, keep: before, erase }.request(0, None);
            assert_same(&sent, &ours, FORMAT_TIMEOUT, &arguments);
            assert_eq!(keep(), before, "the drive keeps its format");
        }
    }
}

fn dword_10_and_nsid(request: &Request) -> (u32, u32) {
    let Request::Nvme(NvmeCommand { nsid, dwords, .. }) = request else { panic!() };
    (dwords[0], *nsid)
}

/// A drive that takes every format.
struct Formats(SimPath);

impl PassThrough for Formats {
    fn send(&mut self, request: &Request) -> Reply {
        if request.only_reads() { self.0.send(request) } else { Reply::of(Outcome::Status(0)) }
    }
}

/// The upper bits of the index are where the tool has them, but for the one that its version 2.3 never sets: it
/// orders the format 1 for 17.
#[test]
fn nvme_and_efface_send_the_same_index_beyond_15() {
    const LOST: u32 = 1 << 12;
    let Some(nvme) = Nvme::new() else { return };
    for index in 16..64 {
        let keep = BlockFormat {
            index,
            block_bytes: 512,
            metadata_bytes: 0,
            extended: false,
            protection: 0,
            protection_first: false,
        };
        let ours = Format { nsid: 1, keep, erase: SecureErase::Crypto }.request(0, None);
        let arguments = ["format", "--force", "--namespace-id=1", "--ses=2", &format!("--lbaf={index}")];
        let sent = erasing(&nvme, &mut Formats(NvmeSim::new(writable()).path(0)), &arguments);
        let [(sent, ..), (ours, ..)] = [&sent, &ours].map(dword_10_and_nsid);
        assert_eq!(sent | LOST, ours | LOST, "{index}");
        assert_eq!(ours & LOST != 0, index & 1 << 4 != 0, "{index}");
    }
}

/// Without options the tool keeps less of a namespace's format than efface does: no protection information, no
/// extended metadata. With FNA bit 0 it orders the first format for all namespaces.
#[test]
fn nvme_formats_otherwise_where_it_is_not_given_what_to_keep() {
    let Some(nvme) = Nvme::new() else { return };
    let mut setup = writable();
    (setup.namespaces[0].flbas, setup.namespaces[0].dps) = (0x12, 0x9);
    let arguments = ["format", "--force", "--namespace-id=1", "--ses=1"];
    for (fna, theirs) in [(0b0100, (0x202, 1)), (0b0101, (0x200, u32::MAX))] {
        let sim = NvmeSim::new(Setup { fna, ..setup.clone() });
        let reply = sim.path(0).send(&Query::Namespace(1).request());
        let keep = decoded(&reply, Namespace::decode).unwrap().format.unwrap();
        let ours = Format { nsid: 1, keep, erase: SecureErase::UserData }.request(0, None);
        assert_eq!(dword_10_and_nsid(&erasing(&nvme, &mut sim.path(0), &arguments)), theirs, "FNA {fna:04b}");
        assert_eq!(dword_10_and_nsid(&ours), (0x332, 1));
    }
}

#[test]
fn nvme_and_efface_ask_the_same() {
    let Some(nvme) = Nvme::new() else { return };
    let cases: [(Query, &[&str]); 14] = [
        (Query::Controller, &["id-ctrl"]),
        (Query::Namespace(1), &["id-ns"]),
        (Query::Namespace(2), &["id-ns", "--namespace-id=2"]),
        (Query::AllocatedNamespace(5), &["id-ns", "--namespace-id=5", "--force"]),
        (Query::ActiveNamespaces(0), &["list-ns"]),
        (Query::AllocatedNamespaces(0), &["list-ns", "--all"]),
        (Query::AllocatedNamespaces(1), &["list-ns", "--all", "--namespace-id=2"]),
        (Query::NamespaceNames(2), &["ns-descs", "--namespace-id=2"]),
        (Query::IndependentNamespace(2), &["cmdset-ind-id-ns", "--namespace-id=2"]),
        (Query::AttachedControllers(5, 0x102), &["list-ctrl", "--namespace-id=5", "--cntid=0x102"]),
        (Query::Controllers(0x102), &["list-ctrl", "--cntid=0x102"]),
        (Query::Effects, &["effects-log", "--csi=0"]),
        (Query::SanitizeStatus, &["sanitize-log"]),
        (Query::WriteProtection(2), &["get-feature", "--feature-id=0x84", "--namespace-id=2"]),
    ];
    for (query, arguments) in cases {
        let sim = NvmeSim::new(setup());
        let run = nvme.run(&mut sim.path(0), arguments);
        assert!(run.output.status.success(), "{arguments:?}: {:?}", run.output);
        assert_eq!(run.requests, [query.request()], "{arguments:?}");
    }
}

#[test]
fn nvme_and_efface_ask_the_same_for_reservations_and_read_the_same_answer() {
    let Some(nvme) = Nvme::new() else { return };
    for (held, registered) in [(0, 0), (0, 1), (1, 1), (6, 2)] {
        let mut setup = setup();
        setup.namespaces[0].reserved = (held, registered);
        let sim = NvmeSim::new(setup);
        let arguments = ["resv-report", "--output-format=json"];
        let run = nvme.run(&mut sim.path(0), &arguments);
        assert!(run.output.status.success(), "{:?}", run.output);
        // It asks for the controller first.
        assert_eq!(run.requests.last(), Some(&Query::Reservations(1, HostIds::Short).request()));
        let theirs: serde_json::Value = serde_json::from_slice(&run.output.stdout).unwrap();
        let ours = Reservations::ask(&mut ReadOnly::new(sim.path(0)), 1).unwrap();
        assert_eq!(theirs["rtype"], held);
        assert_eq!(ours.held.is_some(), held != 0);
        assert_eq!(theirs["regctl"], ours.registered);
        assert_eq!(ours.registered, registered);
    }
}
