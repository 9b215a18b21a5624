//! No answer of a SCSI drive makes a program panic, and none that holds nothing is taken for a fact or for the end of
//! an erase.

use efface::internals::io::passthrough::scsi::answers::{Capacity, logical_units, supports};
use efface::internals::io::passthrough::scsi::commands::EraseCommand;
use efface::internals::io::passthrough::scsi::condition::{Condition, of_readiness, of_sense_data};
use efface::internals::io::passthrough::scsi::pages::{
    Inquiry, Media, Names, serial_number, supported_pages,
};
use efface::internals::io::passthrough::scsi::sense::Sense;
use efface::internals::io::passthrough::{Outcome, Reply};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::passthrough::fill;

const INPUTS: u64 = 1_000_000;
const PAGE: usize = 4096;

const GOOD: Outcome = Outcome::Status(0);
const CHECK_CONDITION: Outcome = Outcome::Status(2);

/// Every decoder; whether each found facts.
pub fn decode_scsi(bytes: &[u8]) -> [bool; 9] {
    [
        Sense::decode(bytes).is_ok_and(|sense| !sense.to_string().is_empty()),
        Inquiry::decode(bytes).is_ok(),
        supported_pages(bytes).is_ok(),
        serial_number(bytes).is_ok(),
        Names::decode(bytes).is_ok(),
        Media::decode(bytes).is_ok(),
        Capacity::decode(bytes).is_ok(),
        logical_units(bytes).is_ok(),
        EraseCommand::ALL.iter().any(|command| supports(*command, bytes) == Ok(true)),
    ]
}

/// Both ways in which sense data comes.
fn conditions(bytes: &[u8]) -> [Option<Condition>; 2] {
    let with_data = Reply { data: bytes.to_vec(), ..Reply::of(GOOD) };
    let with_sense = Reply { sense: bytes.to_vec(), ..Reply::of(CHECK_CONDITION) };
    [of_sense_data(&with_data).ok(), of_readiness(&with_sense).ok()]
}

/// What sense data that says "nothing" has to be, by its bytes alone.
fn says_nothing(bytes: &[u8]) -> bool {
    let (key, code) = match bytes[0] {
        0x70 | 0xf0 => (bytes[2] & 0xf, [bytes[12], bytes[13]]),
        0x72 => (bytes[1] & 0xf, [bytes[2], bytes[3]]),
        _ => return false,
    };
    key == 0 && (code == [0, 0] || code[0] == 0x5e)
}

#[test]
fn no_rubbish_of_a_scsi_drive_is_a_fact() {
    let mut rng = ChaCha8Rng::seed_from_u64(48);
    let mut memory = vec![0; PAGE];
    let (mut read, mut ready) = ([0_u64; 9], 0);
    for input in 0..INPUTS {
        let length = fill(&mut rng, &mut memory).len().min(512);
        let bytes = &mut memory[..length];
        // Random bytes alone hardly ever get beyond the first check.
        let choice = rng.next_u64() as usize;
        if length > 64 {
            match input % 8 {
                0 => bytes[0] = [0x70, 0xf0, 0x71, 0x72, 0x73][choice % 5],
                1 => {
                    (bytes[0], bytes[3]) = ([0x00, 0x14][choice % 2], 0x02);
                    bytes[8] |= 0x40;
                }
                2 => bytes[..4].copy_from_slice(&[0, [0x00, 0x80, 0x83, 0xb1][choice % 4], 0, choice as u8]),
                3 => (bytes[1], bytes[2], bytes[4]) = (choice as u8, 0, [0x48, 0x04][choice % 2]),
                4 => bytes[..8].copy_from_slice(&[0, 0, 0, (choice % 9) as u8 * 4, 0, 0, 0, 0]),
                5 => bytes[12] &= 0b0101,
                _ => {}
            }
        }
        let found = decode_scsi(bytes);
        read.iter_mut().zip(found).for_each(|(read, found)| *read += u64::from(found));
        let [by_data, by_sense] = conditions(bytes);
        if bytes.iter().all(|byte| *byte == bytes[0]) && matches!(bytes.first(), None | Some(0 | 0xff)) {
            assert_eq!(found, [false; 9], "facts from nothing: {length} bytes");
            assert_eq!([by_data, by_sense], [None; 2], "a state from nothing: {length} bytes");
        }
        assert_ne!(by_sense, Some(Condition::Ready), "a command that failed is no success: {bytes:02x?}");
        if by_data == Some(Condition::Ready) {
            assert!(says_nothing(bytes), "{bytes:02x?}");
            ready += 1;
        }
    }
    println!("facts found by each decoder: {read:?}; nothing runs: {ready}");
    assert!(
        ready > 0 && read.iter().all(|count| *count > 0),
        "inputs that never get beyond the first check: {read:?}"
    );
}

/// Sense data of each format, cut off after every byte, and with every byte changed: a failure is never lost, but
/// with the bytes that say it.
#[test]
fn a_failed_sanitize_is_heard_in_every_form_that_has_its_code() {
    let fixed = [0x70, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x31, 0x03, 0, 0, 0, 0];
    let described = [0x72, 3, 0x31, 0x03, 0, 0, 0, 8, 0x02, 0x06, 0, 0, 0, 0, 0, 0];
    let forms: [(&[u8], &[usize], usize); 2] = [(&fixed, &[0, 7, 12, 13], 14), (&described, &[0, 2, 3], 8)];
    for (sense, needed, least) in forms {
        for length in 0..=sense.len() {
            let heard = (length >= least).then_some(Condition::SanitizeFailed);
            assert_eq!(conditions(&sense[..length]), [heard; 2], "{length} bytes");
        }
        for (at, value) in (0..sense.len()).flat_map(|at| (0..=u8::MAX).map(move |value| (at, value))) {
            let mut changed = sense.to_vec();
            changed[at] = value;
            let found = conditions(&changed);
            assert!(found.iter().all(|it| *it != Some(Condition::Ready)) || needed.contains(&at));
            if !needed.contains(&at) {
                assert_eq!(found, [Some(Condition::SanitizeFailed); 2], "byte {at} is {value:02x}");
            }
        }
    }
}
