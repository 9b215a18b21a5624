//! Tests of what SATA drives offer, on a fake tree with a simulated drive.

use serde_json::json;

use super::super::fake::{FakeTree, SDA};
use super::tests::{LONG, listed};
use super::*;
use crate::io::passthrough::sim::ata::{self as ata_sim, AtaSim, SenseLayout};
use crate::io::passthrough::{Outcome, PassThrough, ReadOnly, Reply, Request};

/// What is listed of a machine with this SATA drive alone; nothing but queries was sent.
fn sata(sim: &AtaSim) -> Capabilities {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    let (before, drive) = (sim.requests().len(), sim.clone());
    let answer = move |disk: &Identity, interface| {
        assert_eq!((disk.name().as_str(), interface), ("sda", Interface::Sata));
        Ok(Capabilities::of_sata(&ata::probe::probe(&mut ReadOnly::new(drive.clone()))))
    };
    let (_, found) = listed(&fake, &Prober::new(answer, LONG)).remove(0);
    let sent = sim.requests().split_off(before);
    assert!(!sent.is_empty() && sent.iter().all(Request::only_reads), "{sent:?}");
    found
}

fn offers_of_sata(sim: &AtaSim) -> SataOffers {
    match sata(sim) {
        Capabilities::AnsweredSata(drive) => drive,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sata_drive_is_asked_and_shows_its_ladder() {
    let media = vec![1; 64 * 512];
    let flash = offers_of_sata(&AtaSim::new(ata_sim::Setup::of(media.clone())));
    let rungs: Vec<_> = flash.rungs.iter().map(|it| (it.rung, it.grade, it.offer.clone())).collect();
    let offered = |rung, grade| (rung, grade, Offer::Offered);
    let expected = [
        offered(Rung::SanitizeBlock, Grade::Purge),
        offered(Rung::SanitizeCrypto, Grade::Purge),
        offered(Rung::EnhancedSecurityErase, Grade::Purge),
        offered(Rung::SanitizeOverwrite, Grade::Purge),
        offered(Rung::SecurityErase, Grade::Clear),
    ];
    assert_eq!(rungs, expected);
    assert_eq!((flash.hidden, flash.hidden_not_known), (vec![], vec![]));

    let third = |enhanced| {
        let setup = ata_sim::Setup {
            rotation: 7200,
            erase_words: Some((30, Some(enhanced))),
            ..ata_sim::Setup::of(media.clone())
        };
        offers_of_sata(&AtaSim::new(setup)).rungs[2].rung
    };
    assert_eq!(third(200), Rung::SanitizeOverwrite, "it overwrites, as long");
    assert_eq!(third(2), Rung::EnhancedSecurityErase, "it changes keys");
}

#[test]
fn hidden_areas_and_what_may_be_one_are_listed() {
    let setup = ata_sim::Setup { protected: Some(32), ..ata_sim::Setup::of(vec![1; 64 * 512]) };
    let hidden = |layout| offers_of_sata(&AtaSim::new(ata_sim::Setup { layout, ..setup.clone() }));
    let area = HiddenArea { by: HiddenBy::Hpa, native_bytes: 64 * 512, visible_bytes: 32 * 512 };
    let found = hidden(SenseLayout::Descriptor);
    assert_eq!((found.hidden, found.hidden_not_known), (vec![area], vec![]));
    let lost = hidden(SenseLayout::Zero);
    let why = "the answer is all zeroes".to_string();
    assert_eq!((lost.hidden, lost.hidden_not_known), (vec![], vec![(HiddenBy::Hpa, why)]));
}

/// The fields of docs/capabilities.md.
#[test]
fn the_json_of_a_sata_drive_has_its_answers() {
    let setup = ata_sim::Setup {
        protected: Some(32),
        overlay: Some(64),
        firmware_freezes: true,
        ..ata_sim::Setup::of(vec![1; 64 * 512])
    };
    let json = serde_json::to_value(sata(&AtaSim::new(setup))).unwrap();
    assert_eq!(json["kind"], "answered_sata");
    let frozen = json!({
        "rung": "security-erase", "grade": "clear", "offer": {"kind": "not", "why": {"kind": "frozen"}},
    });
    assert_eq!(json["rungs"][4], frozen);
    assert_eq!(json["sanitize"], json!({"phase": "none", "progress": null, "frozen": true}));
    let security = json!({
        "state": "disabled_frozen", "attempts_expired": false,
        "master_maximum": false, "master_identifier": 0xfffe,
        "erase": {"kind": "about", "minutes": 60},
        "enhanced_erase": {"kind": "about", "minutes": 2},
    });
    assert_eq!(json["security"], security);
    let area = json!({"by": "hpa", "native_bytes": 64 * 512, "visible_bytes": 32 * 512});
    assert_eq!(json["hidden"], json!([area]));
    let why = "the drive refused the command (status 51h, error 04h)";
    assert_eq!(json["hidden_not_known"], json!([["dco", why]]));
}

#[test]
fn a_sata_drive_that_does_not_say_what_it_is_is_not_known() {
    struct Silent;
    impl PassThrough for Silent {
        fn send(&mut self, _: &Request) -> Reply {
            Reply { data: vec![0xff; 512], ..Reply::of(Outcome::Status(0)) }
        }
    }
    let facts = ata::probe::probe(&mut ReadOnly::new(Silent));
    let why = "IDENTIFY DEVICE: the answer is all ones".to_string();
    assert_eq!(Capabilities::of_sata(&facts), Capabilities::NotKnown { why });
}
