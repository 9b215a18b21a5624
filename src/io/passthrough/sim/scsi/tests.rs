//! The simulated drive does what the standards say of drives.

use super::*;
use crate::io::passthrough::CommandTimeout;

const BLOCK_ERASE: u8 = 0x82;
const CRYPTO: u8 = 0x83;
const EXIT_FAILURE: u8 = 0x9f;
const UNRESTRICTED: u8 = 0x20;

const RUNNING: [u8; 3] = [2, 0x04, 0x1b];
const FAILED: [u8; 3] = [3, 0x31, 0x03];
const INVALID_FIELD: [u8; 3] = [5, 0x24, 0x00];

/// 8 blocks that are not zero.
fn setup() -> Setup {
    Setup::of(vec![b'o'; 8 * BLOCK])
}

impl ScsiSim {
    /// The data, or the codes of the fixed sense data.
    fn send(&self, unit: u8, cdb: &[u8], data: Data) -> Result<Vec<u8>, [u8; 3]> {
        let timeout = CommandTimeout::new(Duration::from_secs(60));
        let reply = self.path(unit).send(&Request::Scsi(ScsiCommand { cdb: cdb.to_vec(), data, timeout }));
        match (reply.outcome, &reply.sense[..]) {
            (Outcome::Status(0), []) => Ok(reply.data),
            (Outcome::Status(2), [0x70, _, key, .., code, qualifier, _, _, _, _]) => {
                Err([*key, *code, *qualifier])
            }
            _ => panic!("{reply:?}"),
        }
    }

    fn sanitize(&self, action: u8) -> Result<Vec<u8>, [u8; 3]> {
        self.send(0, &[0x48, action, 0, 0, 0, 0, 0, 0, 0, 0], Data::None)
    }

    fn overwrite(&self, list: &[u8]) -> Result<Vec<u8>, [u8; 3]> {
        let cdb = [0x48, 0x81, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
        self.send(0, &cdb, Data::Out(list.to_vec()))
    }

    fn format(&self) -> Result<Vec<u8>, [u8; 3]> {
        self.send(0, &[0x04, 0x18, 0, 0, 0, 0], Data::Out(vec![0, 2, 0, 0]))
    }

    fn ready(&self, unit: u8) -> Result<Vec<u8>, [u8; 3]> {
        self.send(unit, &[0; 6], Data::None)
    }

    fn sense(&self, descriptors: u8) -> Vec<u8> {
        self.send(0, &[0x03, descriptors, 0, 0, 252, 0], Data::In(252)).unwrap()
    }

    fn block(&self, unit: u8, number: u8, written: Option<u8>) -> Result<Vec<u8>, [u8; 3]> {
        let opcode = if written.is_some() { 0x8a } else { 0x88 };
        let cdb = [opcode, 0, 0, 0, 0, 0, 0, 0, 0, number, 0, 0, 0, 1, 0, 0];
        let data = written.map_or(Data::In(BLOCK), |byte| Data::Out(vec![byte; BLOCK]));
        self.send(unit, &cdb, data)
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn holds_old(&self) -> bool {
        self.physical().chunks(16).any(|bytes| *bytes == [b'o'; 16])
    }
}

#[test]
fn a_sanitize_runs_for_its_time_and_reaches_all_logical_units() {
    let sim = ScsiSim::new(Setup { units: 2, ..setup() });
    assert_eq!((sim.ready(0), sim.sense(0)[2]), (Ok(vec![]), 0));
    assert_eq!(sim.sanitize(BLOCK_ERASE), Ok(vec![]));
    sim.pass(25);
    assert_eq!([sim.ready(0), sim.ready(1), sim.block(1, 0, None)], [const { Err(RUNNING) }; 3]);
    let fixed = sim.sense(0);
    assert_eq!(
        (fixed.len(), &fixed[..3], &fixed[12..]),
        (18, &[0x70, 0, 2][..], &[4, 0x1b, 0, 0x80, 0x40, 0][..])
    );
    let described = [0x72, 2, 4, 0x1b, 0, 0, 0, 8, 2, 6, 0, 0, 0x80, 0x40, 0, 0];
    assert_eq!(sim.sense(1), described);
    assert!(sim.holds_old());
    sim.pass(75);
    assert_eq!((sim.ready(1), sim.block(1, 3, None)), (Ok(vec![]), Ok(vec![0; BLOCK])));
    assert!(!sim.holds_old());
}

#[test]
fn meanwhile_only_some_commands_are_carried_out() {
    let sim = ScsiSim::new(setup());
    assert_eq!(
        (sim.sanitize(CRYPTO), sim.sanitize(CRYPTO), sim.format()),
        (Ok(vec![]), Err(RUNNING), Err(RUNNING))
    );
    let of = |cdb: &[u8]| sim.send(0, cdb, Data::In(252)).map(|data| data.len());
    assert_eq!(of(&[0x12, 0, 0, 0, 36, 0]), Ok(36));
    assert_eq!(of(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]), Ok(16));
    assert_eq!(of(&[0xa3, 0x0c, 2, 0x48, 0, 2, 0, 0, 0, 16, 0, 0]), Err(RUNNING));
    assert_eq!(of(&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]), Err(RUNNING));
}

#[test]
fn a_restricted_failure_is_left_by_a_restricted_operation_alone() {
    let sim = ScsiSim::new(Setup { erase_fails: true, ..setup() });
    sim.sanitize(BLOCK_ERASE).unwrap();
    sim.pass(100);
    assert_eq!((sim.ready(0), sim.sense(0)[2]), (Err(FAILED), 3));
    assert_eq!([sim.block(0, 0, None), sim.block(0, 0, Some(1)), sim.format()], [const { Err(FAILED) }; 3]);
    let refused = [EXIT_FAILURE, BLOCK_ERASE | UNRESTRICTED].map(|action| sim.sanitize(action));
    assert_eq!(refused, [const { Err(INVALID_FIELD) }; 2]);
    sim.now().setup.erase_fails = false;
    assert_eq!((sim.sanitize(CRYPTO), sim.ready(0)), (Ok(vec![]), Err(RUNNING)));
    sim.pass(100);
    assert!(sim.ready(0).is_ok() && !sim.holds_old());
}

#[test]
fn an_unrestricted_failure_can_be_left_with_the_data() {
    let sim = ScsiSim::new(Setup { erase_fails: true, ..setup() });
    sim.sanitize(CRYPTO | UNRESTRICTED).unwrap();
    sim.pass(100);
    assert_eq!((sim.ready(0), sim.sanitize(EXIT_FAILURE)), (Err(FAILED), Ok(vec![])));
    assert_eq!(sim.block(0, 0, None), Ok(vec![b'o'; BLOCK]));
    assert_eq!(sim.sanitize(EXIT_FAILURE), Ok(vec![]), "nothing failed");
}

#[test]
fn some_drives_read_after_an_erase_only_what_was_written() {
    for (needs_write, block, crypto) in [
        ((1, 1), None, None),
        ((2, 3), Some([3, 0x11, 0x00]), Some([3, 0x11, 0x15])),
        ((3, 2), Some([3, 0x11, 0x15]), Some([3, 0x11, 0x00])),
    ] {
        for (action, error) in [(BLOCK_ERASE, block), (CRYPTO, crypto)] {
            let sim = ScsiSim::new(Setup { needs_write, ..setup() });
            sim.sanitize(action).unwrap();
            sim.pass(100);
            assert_eq!(sim.block(0, 0, None).err(), error);
            sim.block(0, 0, Some(7)).unwrap();
            assert_eq!((sim.block(0, 0, None), sim.block(0, 1, None).err()), (Ok(vec![7; BLOCK]), error));
        }
    }
}

#[test]
fn an_overwrite_leaves_its_pattern_and_needs_one() {
    let sim = ScsiSim::new(setup());
    for list in [&[][..], &[0, 0, 0, 1, 7], &[1, 0, 0, 0], &[1, 0, 0, 2, 7]] {
        assert_eq!(sim.overwrite(list), Err([5, 0x26, 0x00]), "{list:?}");
    }
    assert_eq!(sim.overwrite(&[1, 0, 0, 2, 7, 8]), Ok(vec![]));
    sim.pass(100);
    assert_eq!(sim.physical()[..4], [7, 8, 7, 8]);
    // A block erase has no list, and without IMMED none is carried out here.
    let with_list = sim.send(0, &[0x48, BLOCK_ERASE, 0, 0, 0, 0, 0, 0, 1, 0], Data::Out(vec![1]));
    assert_eq!([with_list, sim.sanitize(0x02), sim.sanitize(0x84)], [const { Err(INVALID_FIELD) }; 3]);
    let without = ScsiSim::new(Setup { sanitize_actions: vec![], formats: false, ..setup() });
    assert_eq!([without.sanitize(BLOCK_ERASE), without.format()], [const { Err([5, 0x20, 0x00]) }; 2]);
}

#[test]
fn a_format_runs_and_fails_as_such() {
    let sim = ScsiSim::new(setup());
    assert_eq!(sim.send(0, &[0x04, 0, 0, 0, 0, 0], Data::None), Err(INVALID_FIELD));
    let waits = sim.send(0, &[0x04, 0x18, 0, 0, 0, 0], Data::Out(vec![0; 4]));
    assert_eq!((waits, sim.format(), sim.ready(0)), (Err([5, 0x26, 0x00]), Ok(vec![]), Err([2, 0x04, 0x04])));
    sim.pass(100);
    assert!(sim.ready(0).is_ok() && !sim.holds_old());
    let sim = ScsiSim::new(Setup { erase_fails: true, ..setup() });
    sim.format().unwrap();
    sim.pass(100);
    assert_eq!((sim.ready(0), sim.format()), (Err([3, 0x31, 0x01]), Ok(vec![])));
    assert!(sim.holds_old());
}

#[test]
fn a_reset_is_reported_once_by_each_logical_unit() {
    let sim = ScsiSim::new(Setup { units: 2, ..setup() });
    sim.reset();
    assert!(sim.send(0, &[0x12, 0, 0, 0, 36, 0], Data::In(36)).is_ok());
    assert_eq!((sim.ready(0), sim.ready(0)), (Err([6, 0x29, 0x00]), Ok(vec![])));
    assert_eq!(sim.ready(1), Err([6, 0x29, 0x00]));
    sim.reset();
    assert_eq!((sim.sense(0)[2], sim.ready(0)), (6, Ok(vec![])));
}

#[test]
fn a_failed_command_has_sense_data_of_the_format_that_is_set() {
    let sim = ScsiSim::new(Setup { descriptor_sense: true, ..setup() });
    sim.sanitize(BLOCK_ERASE).unwrap();
    sim.pass(50);
    let timeout = CommandTimeout::new(Duration::from_secs(60));
    let ready = Request::Scsi(ScsiCommand { cdb: vec![0; 6], data: Data::None, timeout });
    let described = [0x72, 2, 4, 0x1b, 0, 0, 0, 8, 2, 6, 0, 0, 0x80, 0x80, 0, 0];
    assert_eq!(sim.path(0).send(&ready).sense, described);
    assert_eq!(sim.sense(0)[0], 0x70, "of REQUEST SENSE, the command decides");
}
