//! No answer of a drive makes a program panic, and none that holds nothing is taken for a fact or a success.

use efface::internals::engine::purge::conclusion::{DriveStatus, SanitizeEvidence};
use efface::internals::io::passthrough::ata;
use efface::internals::io::passthrough::ata::hidden::{configurable_sectors, native_sectors};
use efface::internals::io::passthrough::ata::identify::Identify;
use efface::internals::io::passthrough::ata::registers::Registers;
use efface::internals::io::passthrough::ata::sanitize::{Phase, SanitizeStatus};
use efface::internals::io::passthrough::nvme::Unknown;
use efface::internals::io::passthrough::nvme::identify::{
    Controller, IndependentNamespace, Namespace, NamespaceNames, controller_list, namespace_list,
};
use efface::internals::io::passthrough::nvme::logs::{Effects, SanitizeLog};
use efface::internals::io::passthrough::nvme::status::{Answer, Status, WriteProtection};
use efface::internals::io::passthrough::{Outcome, Reply};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const INPUTS: u64 = 1_000_000;
const PAGE: usize = 4096;
/// Dword 10 of the command that the drive is asked about.
const OURS: u32 = 0x0000_0002;

/// Every decoder; whether each found facts.
pub fn decode_all(bytes: &[u8], number: u64) -> [bool; 9] {
    [
        Controller::decode(bytes).is_ok(),
        Namespace::decode(bytes).is_ok(),
        IndependentNamespace::decode(bytes).is_ok(),
        NamespaceNames::decode(bytes).is_ok(),
        namespace_list(bytes, 0).is_ok(),
        controller_list(bytes, 0).is_ok(),
        SanitizeLog::decode(bytes).is_ok(),
        Effects::decode(bytes).is_ok(),
        WriteProtection::decode(number).is_ok() && !Status(number as u16).to_string().is_empty(),
    ]
}

/// Whether a status log that holds this is taken for the end of our command.
fn says_done(bytes: &[u8]) -> bool {
    let mut never = [0; 512];
    never[..2].copy_from_slice(&[0xff, 0xff]);
    let mut evidence = SanitizeEvidence::new(OURS, SanitizeLog::decode(&never).ok(), Answer::Accepted);
    evidence.add(SanitizeLog::decode(bytes));
    matches!(evidence.status(), DriveStatus::Done(_))
}

/// Random bytes, all of it or a few, between zeroes or ones; of every length around those of the structures.
pub fn fill<'a>(rng: &mut ChaCha8Rng, page: &'a mut [u8]) -> &'a [u8] {
    let choice = rng.next_u64();
    let length = match choice & 7 {
        0 => (choice >> 8) as usize % 512,
        1 => (choice >> 8) as usize % PAGE,
        2 => 512,
        _ => PAGE,
    };
    let page = &mut page[..length];
    match choice >> 3 & 3 {
        0 => rng.fill_bytes(page),
        kind => {
            page.fill(if kind == 1 { 0xff } else { 0 });
            for _ in 0..(choice >> 40) % 16 {
                let change = rng.next_u64();
                if !page.is_empty() {
                    // Where the fields are, rather than behind them.
                    let at = (change >> 8) as usize % if change >> 63 == 0 { length } else { length.min(40) };
                    page[at] = change as u8;
                }
            }
        }
    }
    page
}

#[test]
fn no_rubbish_is_a_success() {
    let mut rng = ChaCha8Rng::seed_from_u64(20);
    let mut memory = vec![0; PAGE];
    let (mut read, mut completed) = ([0_u64; 9], 0);
    for _ in 0..INPUTS {
        let page = fill(&mut rng, &mut memory);
        let number = rng.next_u64();
        let found = decode_all(page, number >> (number & 63));
        read.iter_mut().zip(found).for_each(|(read, found)| *read += u64::from(found));
        assert!(!found[0] || page.iter().filter(|byte| **byte != 0).count() < 64, "random bytes are a drive");
        let uniform =
            page.iter().all(|byte| *byte == page[0]) && matches!(page.first(), None | Some(0 | 0xff));
        if uniform || page.len() < 512 {
            assert!(!found[..8].contains(&true), "facts from nothing: {} bytes", page.len());
        }
        if says_done(page) {
            // Only where every field of a success is there.
            assert_eq!(
                (page[2] & 7 == 1 || page[2] & 7 == 4, page[36] & 0xf, &page[4..8]),
                (true, 0, &[2, 0, 0, 0][..])
            );
            completed += 1;
        }
    }
    println!("facts found by each decoder: {read:?}; taken for a success: {completed}");
    assert!(read.iter().all(|count| *count > 0), "inputs that never get beyond the first check: {read:?}");
}

/// A log that says success, with one byte changed: it stays one only where the byte is none of its proof.
#[test]
fn every_field_of_a_success_is_needed() {
    let mut page = [0; 512];
    page[..8].copy_from_slice(&[0xff, 0xff, 1, 1, 2, 0, 0, 0]);
    assert!(says_done(&page));
    for (at, value) in (0..512).flat_map(|at| (0..=u8::MAX).map(move |value| (at, value))) {
        let before = std::mem::replace(&mut page[at], value);
        let needed = match at {
            2 => value & 7 == 1 || value & 7 == 4,
            4..8 => value == before,
            36 => value & 0xf == 0,
            _ => true,
        };
        assert_eq!(says_done(&page), needed, "byte {at} is {value:02x}");
        page[at] = before;
    }
    assert_eq!(SanitizeLog::decode(&page[..511]), Err(Unknown::Short));
}

/// What the decoders of ATA make of sense data, or of a block of data; whether each found facts.
pub fn decode_ata(bytes: &[u8]) -> [bool; 5] {
    const CHECK_CONDITION: u16 = 2;
    let with_sense = Reply { sense: bytes.to_vec(), ..Reply::of(Outcome::Status(CHECK_CONDITION)) };
    let with_data = Reply { data: bytes.to_vec(), ..Reply::of(Outcome::Status(0)) };
    [
        Registers::of(&with_sense).is_ok(),
        SanitizeStatus::of(&with_sense).is_ok(),
        native_sectors(&with_sense).is_ok(),
        ata::decoded(&with_data, Identify::decode).is_ok(),
        ata::decoded(&with_data, configurable_sectors).is_ok(),
    ]
}

/// Every field of sense data that says "completed", found in its bytes by the layout alone.
fn has_a_completion(sense: &[u8]) -> bool {
    let descriptor = sense.windows(14).any(|it| {
        it[..2] == [9, 12] && it[2] & 1 == 1 && it[4] >> 6 == 0b10 && it[13] & 0xe9 == 0x40 && it[3] != 1
    });
    sense.first() == Some(&0x72) && sense[1] & 0xf <= 1 && descriptor
}

#[test]
fn no_rubbish_of_an_ata_drive_is_a_fact() {
    let mut rng = ChaCha8Rng::seed_from_u64(59);
    let mut memory = vec![0; PAGE];
    let (mut read, mut completed) = ([0_u64; 5], 0);
    for input in 0..INPUTS {
        let length = fill(&mut rng, &mut memory).len().min(512);
        let bytes = &mut memory[..length];
        // Random bytes alone are hardly ever sense data, nor add up.
        match input % 4 {
            0 if length > 31 => {
                let code = [0x70, 0xf0, 0x72][rng.next_u64() as usize % 3];
                (bytes[0], bytes[1], bytes[2], bytes[7]) = (code, bytes[1] & 3, bytes[2] & 3, bytes[7] & 31);
                bytes[8..10].copy_from_slice(if code == 0x72 { &[9, 12] } else { &[0, 0x50] });
            }
            1 if length == 512 => {
                bytes[510] = 0xa5;
                bytes[511] = bytes[..511].iter().fold(0, |sum, byte| sum.wrapping_sub(*byte));
                (bytes[1], bytes[167]) = (0, 0x40);
            }
            _ => {}
        }
        let found = decode_ata(bytes);
        read.iter_mut().zip(found).for_each(|(read, found)| *read += u64::from(found));
        if bytes.iter().all(|byte| *byte == bytes[0]) && matches!(bytes.first(), None | Some(0 | 0xff)) {
            assert_eq!(found, [false; 5], "facts from nothing: {length} bytes");
        }
        assert!(length == 512 || !(found[3] || found[4]), "facts from a part");
        let sense = Reply { sense: bytes.to_vec(), ..Reply::of(Outcome::Status(2)) };
        if SanitizeStatus::of(&sense).is_ok_and(|status| status.phase == Phase::Completed) {
            assert!(has_a_completion(bytes), "{bytes:02x?}");
            completed += 1;
        }
    }
    println!("facts found by each decoder: {read:?}; taken for a success: {completed}");
    assert!(
        completed > 0 && read.iter().all(|count| *count > 0),
        "inputs that never get beyond the first check: {read:?}"
    );
}
