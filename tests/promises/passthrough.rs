//! No answer of a drive makes a program panic, and none that holds nothing is taken for a fact or a success.

use efface::internals::engine::purge::conclusion::{DriveStatus, SanitizeEvidence};
use efface::internals::io::passthrough::nvme::Unknown;
use efface::internals::io::passthrough::nvme::identify::{
    Controller, IndependentNamespace, Namespace, NamespaceNames, controller_list, namespace_list,
};
use efface::internals::io::passthrough::nvme::logs::{Effects, SanitizeLog};
use efface::internals::io::passthrough::nvme::status::{Answer, Status, WriteProtection};
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
fn fill<'a>(rng: &mut ChaCha8Rng, page: &'a mut [u8]) -> &'a [u8] {
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
