//! The simulated subsystem, by the bytes of commands and logs.

use std::time::Duration;

use super::*;
use crate::io::passthrough::CommandTimeout;
use crate::io::{Buf, Disk, Op};

const SIZE: usize = 64 << 10;
const BLOCK: u32 = 0x02;
const OVERWRITE: u32 = 0x13;
const CRYPTO: u32 = 0x04;
const EXIT_FAILURE: u32 = 0x01;
const EXIT_VERIFICATION: u32 = 0x05;
const UNRESTRICTED: u32 = 1 << 3;
const KEEP_ALLOCATED: u32 = 1 << 9;
const VERIFY: u32 = 1 << 10;

fn setup() -> Setup {
    Setup::of(vec![b'o'; SIZE])
}

/// Two namespaces behind two controllers: the second one is attached to the second controller alone.
fn two() -> Setup {
    let mut setup = setup();
    let second = NamespaceSetup { nsid: 2, ..setup.namespaces[0].clone() };
    setup.namespaces.push(second);
    setup.controllers.push(ControllerSetup { id: 7, attached: vec![1, 2] });
    setup
}

impl NvmeSim {
    fn admin(&self, opcode: u8, nsid: u32, dwords: [u32; 2], bytes: usize, timeout_s: u64) -> Reply {
        let data = if bytes == 0 { Data::None } else { Data::In(bytes) };
        let dwords = [dwords[0], dwords[1], 0, 0, 0, 0];
        let timeout = CommandTimeout::new(Duration::from_secs(timeout_s));
        let controller = self.now().setup.controllers[0].id;
        self.path(controller).send(&Request::Nvme(NvmeCommand {
            queue: Queue::Admin,
            opcode,
            nsid,
            dwords,
            data,
            timeout,
        }))
    }

    /// Status code and type.
    fn status(&self, opcode: u8, nsid: u32, dwords: [u32; 2]) -> u16 {
        match self.admin(opcode, nsid, dwords, 0, 3600).outcome {
            Outcome::Status(status) => status & 0x7ff,
            other => panic!("{other:?}"),
        }
    }

    fn sanitize(&self, dword_10: u32) -> u16 {
        self.status(0x84, 0, [dword_10, 0])
    }

    fn format(&self, nsid: u32, dword_10: u32) -> u16 {
        self.status(0x80, nsid, [dword_10, 0])
    }

    fn log(&self) -> Vec<u8> {
        let reply = self.admin(0x02, u32::MAX, [0x007f_0081, 0], 512, 1);
        assert_eq!(reply.outcome, Outcome::Status(0));
        reply.data
    }

    /// The state and the result.
    fn state(&self) -> (u8, u8) {
        let log = self.log();
        (log[36] & 0xf, log[2] & 7)
    }

    fn progress(&self) -> u16 {
        u16::from_le_bytes(self.log()[..2].try_into().unwrap())
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn io(&self, nsid: u32, op: fn(Buf) -> Op) -> std::io::Result<Vec<u8>> {
        let mut disk = self.disk(nsid);
        let buf = disk.buffers(1, 4096)?.remove(0);
        disk.submit(op(buf)).unwrap();
        let mut done = Vec::new();
        disk.reap(&mut done, None)?;
        let done = done.remove(0);
        done.result.map(|_| done.op.into_buf().unwrap().to_vec())
    }

    fn read(&self, nsid: u32) -> std::io::Result<Vec<u8>> {
        self.io(nsid, |buf| Op::Read { at: 0, buf })
    }

    fn write(&self, nsid: u32) -> std::io::Result<Vec<u8>> {
        self.io(nsid, |buf| Op::Write { at: 0, buf })
    }

    /// Whether anything of the content of before is on the media.
    fn holds_old(&self, nsid: u32) -> bool {
        self.physical(nsid).chunks(16).any(|bytes| *bytes == [b'o'; 16])
    }
}

#[test]
fn an_operation_runs_for_its_time_and_leaves_nothing() {
    let sim = NvmeSim::new(two());
    assert_eq!((sim.state(), sim.progress()), ((0, 0), 0xffff));
    assert_eq!(sim.sanitize(BLOCK), 0);
    assert_eq!((sim.state(), sim.progress()), ((1, 2), 0));
    sim.pass(25);
    assert_eq!((sim.state(), sim.progress()), ((1, 2), 0x4000));
    assert!(sim.holds_old(1));
    sim.pass(75);
    assert_eq!((sim.state(), sim.progress()), ((0, 1), 0xffff), "FFFFh whatever the result");
    let log = sim.log();
    assert_eq!((log[3], &log[4..8]), (1, &[2, 0, 0, 0][..]), "nothing written since; our command");
    assert!(!sim.holds_old(1) && !sim.holds_old(2), "all namespaces, attached here or not");
    assert_eq!(sim.read(2).unwrap(), [0; 4096]);
    sim.write(2).unwrap();
    assert_eq!(sim.log()[3], 0, "written since");
}

#[test]
fn meanwhile_only_queries_are_answered_on_every_path() {
    let sim = NvmeSim::new(two());
    assert_eq!(sim.sanitize(CRYPTO), 0);
    for (opcode, dword_10, status) in
        [(0x02, 0x007f_0081, 0), (0x06, 0x01, 0), (0x80, 0x200, 0x1d), (0x84, BLOCK, 0x1d), (0x10, 0, 0x1d)]
    {
        assert_eq!(sim.status(opcode, 0, [dword_10, 0]), status, "{opcode:x}");
    }
    let timeout = CommandTimeout::new(Duration::from_secs(1));
    let dwords = [BLOCK, 0, 0, 0, 0, 0];
    let other = NvmeCommand { queue: Queue::Admin, opcode: 0x84, nsid: 0, dwords, data: Data::None, timeout };
    assert_eq!(sim.path(7).send(&Request::Nvme(other)).outcome, Outcome::Status(0x401d));
    for nsid in [1, 2] {
        assert_eq!(sim.read(nsid).unwrap_err().raw_os_error(), Some(libc::EIO));
        assert_eq!(sim.write(nsid).unwrap_err().raw_os_error(), Some(libc::EIO));
        assert_eq!(sim.disk(nsid).flush().unwrap_err().raw_os_error(), Some(libc::EIO));
    }
}

#[test]
fn a_restricted_failure_is_left_by_a_restricted_operation_alone() {
    let sim = NvmeSim::new(Setup { sanitize_fails: true, ..setup() });
    assert_eq!(sim.sanitize(BLOCK), 0);
    sim.pass(100);
    assert_eq!((sim.state(), sim.log()[36] >> 4), ((2, 3), 1));
    assert!(sim.read(1).is_err(), "a drive whose erase failed cannot be read");
    assert_eq!([EXIT_FAILURE, BLOCK | UNRESTRICTED].map(|command| sim.sanitize(command)), [0x1c; 2]);
    assert_eq!(sim.format(1, 0x200), 0x1c);
    sim.now().setup.sanitize_fails = false;
    assert_eq!((sim.sanitize(CRYPTO), sim.state()), (0, (1, 2)));
    sim.pass(100);
    assert_eq!(sim.state(), (0, 1));
    assert!(!sim.holds_old(1));
}

#[test]
fn an_unrestricted_failure_can_be_left_with_the_data() {
    let failed = || {
        let sim = NvmeSim::new(Setup { sanitize_fails: true, ..setup() });
        assert_eq!((sim.sanitize(BLOCK | UNRESTRICTED), sim.state()), (0, (3, 2)));
        sim.pass(100);
        assert_eq!((sim.state(), sim.log()[36] >> 4), ((4, 3), 3));
        sim
    };
    let sim = failed();
    assert_eq!((sim.sanitize(EXIT_FAILURE), sim.state()), (0, (0, 3)));
    assert_eq!(sim.read(1).unwrap(), [b'o'; 4096]);
    for (command, state) in [(BLOCK, 1), (BLOCK | UNRESTRICTED, 3)] {
        let sim = failed();
        assert_eq!((sim.sanitize(command), sim.state()), (0, (state, 2)));
    }
}

#[test]
fn media_verification_allows_reads_and_ends_in_a_deallocation() {
    let sim = NvmeSim::new(setup());
    assert_eq!(sim.sanitize(OVERWRITE | VERIFY), 0);
    sim.pass(100);
    assert_eq!(sim.state(), (5, 1));
    assert_eq!(sim.read(1).unwrap(), [0; 4096]);
    assert!(sim.write(1).is_err());
    assert_eq!((sim.sanitize(BLOCK), sim.format(1, 0x200)), (0x1d, 0x1d));
    assert_eq!((sim.sanitize(EXIT_VERIFICATION), sim.state()), (0, (6, 1)));
    assert!(sim.read(1).is_err());
    sim.pass(10);
    assert_eq!(sim.state(), (0, 1));
    sim.write(1).unwrap();
}

#[test]
fn idle_drives_accept_what_starts_and_what_exits_nothing() {
    let sim = NvmeSim::new(setup());
    assert_eq!((sim.sanitize(EXIT_FAILURE), sim.state()), (0, (0, 0)));
    assert_eq!((sim.sanitize(EXIT_VERIFICATION), sim.state()), (0x0c, (0, 0)));
    for command in [0, 6, 7, EXIT_FAILURE | UNRESTRICTED, EXIT_FAILURE | KEEP_ALLOCATED] {
        assert_eq!(sim.sanitize(command), 0x02, "{command:x}");
    }
    assert_eq!(sim.status(0x84, 1, [BLOCK, 0]), 0x02, "it names no namespace");
    assert!(sim.holds_old(1));
}

#[test]
fn what_is_not_supported_or_prohibited_starts_nothing() {
    for (sanicap, refused) in
        [(0b001, [BLOCK, OVERWRITE]), (0b010, [OVERWRITE, CRYPTO]), (0b100, [BLOCK, CRYPTO])]
    {
        let sim = NvmeSim::new(Setup { sanicap, ..setup() });
        assert_eq!(refused.map(|command| sim.sanitize(command)), [0x02; 2]);
        assert_eq!(sim.sanitize(EXIT_VERIFICATION), 0x02);
    }
    assert_eq!(NvmeSim::new(Setup { sanicap: 0, ..setup() }).sanitize(BLOCK), 0x01);
    assert_eq!(NvmeSim::new(Setup { memory_region: true, ..setup() }).sanitize(BLOCK), 0x123);
    assert_eq!(NvmeSim::new(Setup { locked: true, ..setup() }).sanitize(BLOCK), 0x286);
    let mut protected = two();
    protected.namespaces[1].write_protected = true;
    let sim = NvmeSim::new(protected);
    assert_eq!((sim.sanitize(BLOCK), sim.format(1, 0x200)), (0x20, 0x20));
    assert!(sim.write(2).is_err() && sim.write(1).is_ok());
}

#[test]
fn what_is_kept_allocated_can_be_read() {
    let run = |sanicap: u32, keep_allocated_ignored| {
        let sim = NvmeSim::new(Setup { sanicap, keep_allocated_ignored, ..setup() });
        let status = sim.status(0x84, 0, [OVERWRITE | KEEP_ALLOCATED, 0x6565_6565]);
        sim.pass(100);
        (status, sim.state().1, sim.read(1).unwrap()[0])
    };
    assert_eq!(run(0x4000_0007, false), (0, 1, b'e'));
    assert_eq!(run(0x2000_0007, false), (0x02, 0, b'o'));
    assert_eq!(run(0x2000_0007, true), (0, 4, 0));
}

#[test]
fn an_overwrite_counts_its_passes_and_ends_with_the_pattern_or_its_complement() {
    let run = |passes: u32, invert: u32| {
        let sim = NvmeSim::new(setup());
        let dword = 3 | passes << 4 | invert << 8 | KEEP_ALLOCATED;
        assert_eq!(sim.status(0x84, 0, [dword, 0x0f0f_0f0f]), 0);
        sim.pass(50);
        let half = sim.log()[2] >> 3;
        sim.pass(50);
        (half, sim.log()[2] >> 3, sim.physical(1)[5])
    };
    assert_eq!(run(1, 0), (0, 1, 0x0f));
    assert_eq!(run(2, 0), (1, 2, 0x0f));
    assert_eq!(run(2, 1), (1, 2, 0xf0));
    assert_eq!(run(3, 1), (1, 3, 0x0f));
    assert_eq!(run(0, 1), (8, 16, 0xf0), "0 means 16");
}

#[test]
fn a_format_reaches_what_its_attributes_say() {
    for (fna, all) in [(0b0100, false), (0b0101, true), (0b0110, true), (0b0111, true)] {
        for (nsid, dword) in [(1, 0x200), (1, 0x400), (u32::MAX, 0x200)] {
            let sim = NvmeSim::new(Setup { fna, ..two() });
            assert_eq!(sim.format(nsid, dword), 0);
            let reached = all || nsid == u32::MAX;
            assert_eq!((sim.holds_old(1), sim.holds_old(2)), (false, !reached), "FNA {fna:04b}, {nsid:x}");
        }
        let sim = NvmeSim::new(Setup { fna, ..two() });
        assert_eq!(sim.format(1, 0x201), 0);
        let blocks = [1, 2].map(|nsid| sim.disk(nsid).geometry().logical_block);
        assert_eq!(blocks, [4096, if fna & 1 != 0 { 4096 } else { 512 }], "FNA {fna:04b}");
    }
    let refused = |fna, nsid, dword| NvmeSim::new(Setup { fna, ..two() }).format(nsid, dword);
    assert_eq!(refused(0b1000, u32::MAX, 0x200), 0x02);
    assert_eq!(refused(0b0000, 1, 0x400), 0x02);
    assert_eq!(refused(0b0100, 3, 0x200), 0x0b);
    assert_eq!(refused(0b0100, 1, 0x200 | 0x1004), 0x10a, "there is no format 20");
    assert_eq!(refused(0b0100, 1, 0x220), 0x10a, "no bytes for protection information");
    assert_eq!(NvmeSim::new(Setup { oacs: 0, ..setup() }).format(1, 0x200), 0x01);
    let sim = NvmeSim::new(setup());
    assert!(sim.format(1, 0) == 0 && sim.holds_old(1), "without a secure erase nothing is erased");
}

#[test]
fn a_format_that_outlasts_its_timeout_goes_on() {
    let sim = NvmeSim::new(two());
    let begun = sim.clock.now();
    let left = |nsid| sim.admin(0x06, nsid, [0x11, 0], 4096, 1).data[32];
    let reply = sim.admin(0x80, 1, [0x200, 0], 0, 60);
    assert_eq!((reply.outcome, sim.clock.now() - begun), (Outcome::TimedOut, Duration::from_secs(60)));
    assert_eq!((left(1), left(2)), (0x80 | 40, 0x80));
    assert_eq!(sim.format(2, 0x200), 0x84);
    assert!(sim.read(1).is_err() && sim.read(2).is_ok());
    sim.pass(40);
    assert_eq!(left(1), 0x80);
    assert_eq!(sim.read(1).unwrap(), [0; 4096]);
    let begun = sim.clock.now();
    assert_eq!((sim.format(1, 0x200), sim.clock.now() - begun), (0, Duration::from_secs(100)));
}

#[test]
fn a_lost_reply_leaves_open_whether_the_command_was_taken() {
    for taken in [false, true] {
        let sim = NvmeSim::new(setup());
        sim.lose_next_reply(taken);
        assert_eq!(sim.state(), (0, 0), "reads are answered");
        assert_eq!(sim.admin(0x84, 0, [BLOCK, 0], 0, 1).outcome, Outcome::TimedOut);
        assert_eq!(sim.state(), if taken { (1, 2) } else { (0, 0) });
    }
}

/// What is left of the content, and what reads show, when the drive has said done.
#[test]
fn each_lie_leaves_what_it_says() {
    let after = |lie| {
        let sim = NvmeSim::new(Setup { lie: Some(lie), ..setup() });
        assert_eq!(sim.sanitize(BLOCK), 0);
        let said_at_once = sim.state().1;
        sim.pass(100);
        let (held, read) = (sim.holds_old(1), sim.read(1).map(|bytes| bytes[0]).ok());
        (said_at_once, sim.state(), held, read)
    };
    assert_eq!(after(Lie::DoesNothing), (2, (0, 1), true, Some(b'o')));
    assert_eq!(after(Lie::IgnoresCommand), (0, (0, 0), true, Some(b'o')));
    assert_eq!(after(Lie::DoneAtOnce), (1, (0, 1), false, Some(0)));
    assert_eq!(after(Lie::DeallocatesOnly), (2, (0, 1), true, Some(0)));
    assert_eq!(after(Lie::KeepsRegion(Extent::new(0, 4096))), (2, (0, 1), true, Some(b'o')));
    assert_eq!(after(Lie::StaleReads(Duration::from_secs(9))), (2, (0, 1), false, Some(b'o')));
    assert_eq!(after(Lie::Stuck), (2, (1, 2), true, None));
    assert_eq!(after(Lie::FallsBack), (2, (0, 1), false, Some(0)));
}

#[test]
fn lies_about_the_status_are_in_the_log() {
    let running = |lie, seconds: u64| {
        let sim = NvmeSim::new(Setup { lie: Some(lie), ..setup() });
        sim.sanitize(BLOCK);
        sim.pass(seconds);
        (sim.progress(), sim.state(), sim.log()[4])
    };
    assert_eq!(running(Lie::NoProgress, 50), (0xffff, (1, 2), 2));
    assert_eq!(running(Lie::WrongCommand, 50), (0x8000, (1, 2), 4));
    assert_eq!(running(Lie::Stuck, 1_000_000), (655, (1, 2), 2));
    assert_eq!((running(Lie::FallsBack, 49).0, running(Lie::FallsBack, 60).0), (0x7d70, 0x1999));
    let done_before = Setup { last: Some((1, BLOCK)), lie: Some(Lie::IgnoresCommand), ..setup() };
    let sim = NvmeSim::new(done_before);
    sim.write(1).unwrap();
    let before = sim.log();
    assert_eq!((before[2], before[3], before[4]), (1, 1, 2));
    assert_eq!((sim.sanitize(BLOCK), sim.log() == before), (0, true));
    // Stale reads end.
    let sim = NvmeSim::new(Setup { lie: Some(Lie::StaleReads(Duration::from_secs(9))), ..setup() });
    sim.sanitize(BLOCK);
    sim.pass(108);
    assert_eq!(sim.read(1).unwrap()[0], b'o');
    sim.pass(1);
    assert_eq!(sim.read(1).unwrap()[0], 0);
}

#[test]
fn each_controller_shows_its_own_namespaces_and_lists_all() {
    let sim = NvmeSim::new(two());
    let identify = |nsid, cns| sim.admin(0x06, nsid, [cns, 0], 4096, 1).data;
    assert_eq!(identify(0, 0x02)[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(identify(0, 0x10)[..12], [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(identify(2, 0x00), [0; 4096], "not attached to this controller");
    assert_eq!(identify(2, 0x11)[..2], [128, 0]);
    assert_eq!(identify(2, 0x12)[..4], [1, 0, 7, 0]);
    assert_eq!(identify(0, 0x13)[..6], [2, 0, 0, 0, 7, 0]);
    assert_eq!((identify(1, 0x11)[30], identify(2, 0x11)[30]), (1, 0), "shared");
    let alone = NvmeSim::new(Setup { oacs: 0b10, ..two() });
    assert_eq!(alone.status(0x06, 0, [0x10, 0]), 0x02);
}
