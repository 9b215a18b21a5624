//! The answers: facts as the tool prints them, and as efface decodes them.

use std::time::Duration;

use efface::internals::io::passthrough::nvme::commands::{
    Exit, OverwritePasses, Query, Sanitize, SanitizeMethod,
};
use efface::internals::io::passthrough::nvme::identify::{
    BlockFormat, Controller, FormatAttributes, IndependentNamespace, Namespace, NamespaceNames,
    SanitizeCapabilities, controller_list, namespace_list,
};
use efface::internals::io::passthrough::nvme::logs::{
    Effects, SanitizeEstimates, SanitizeLog, SanitizeStatus,
};
use efface::internals::io::passthrough::nvme::status::{Status, WriteProtection};
use efface::internals::io::passthrough::sim::nvme::{NvmeSim, Setup};
use efface::internals::io::passthrough::{Outcome, PassThrough, Reply, Request};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;

use super::tool::Nvme;
use super::{FORMATS, setup};

/// Random pages of each kind.
const PAGES: u64 = 16;

/// A drive whose only answer this is.
struct Page(Vec<u8>);

impl PassThrough for Page {
    fn send(&mut self, _: &Request) -> Reply {
        Reply { data: self.0.clone(), ..Reply::of(Outcome::Status(0)) }
    }
}

/// A drive's answer, and others like it: all of it random but the bytes from here to there.
fn pages(answer: Vec<u8>, kept: &[(usize, usize)]) -> Vec<Vec<u8>> {
    let random = |seed| {
        let mut page = vec![0; answer.len()];
        ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut page);
        for &(from, to) in kept {
            page[from..to].copy_from_slice(&answer[from..to]);
        }
        page
    };
    let random: Vec<_> = (0..PAGES).map(random).collect();
    [vec![answer], random].concat()
}

fn answer(sim: &NvmeSim, query: Query) -> Vec<u8> {
    let reply = sim.path(0).send(&query.request());
    assert_eq!(reply.outcome, Outcome::Status(0), "{query:?}");
    reply.data
}

/// The tool prints numbers of 32 bits with a sign.
fn number(json: &Value, name: &str) -> u64 {
    let value = &json[name];
    let signed = || value.as_i64().map(|number| u64::from(number as u32));
    value.as_u64().or_else(signed).unwrap_or_else(|| panic!("{name} in {json}"))
}

fn bit(json: &Value, name: &str, bit: u32) -> bool {
    number(json, name) >> bit & 1 == 1
}

fn text(json: &Value, name: &str) -> String {
    json[name].as_str().unwrap_or_else(|| panic!("{name} in {json}")).trim().to_string()
}

/// An identifier, `None` where it is zero.
fn identifier<const N: usize>(json: &Value, name: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text(json, name).replace('-', ""), &mut bytes).unwrap();
    Some(bytes).filter(|bytes| *bytes != [0; N])
}

/// The tool's words for bits of a field, from the lines below the field's own.
fn explained<'a>(text: &'a str, field: &str, bits: &str) -> &'a str {
    let is_field = |line: &&str| line.split(':').next().unwrap().trim() == field;
    let lines = text.lines().skip_while(|line| !is_field(line)).skip(1);
    let mut lines = lines.take_while(|line| line.trim_start().starts_with('['));
    lines
        .find_map(|line| line.trim_start().strip_prefix(bits))
        .unwrap_or_else(|| panic!("{field} {bits} in {text}"))
}

fn controller(json: &Value) -> Controller {
    let sanicap = |it| bit(json, "sanicap", it);
    let modifies_afterwards = match number(json, "sanicap") >> 30 {
        0 => Some(None),
        1 => Some(Some(false)),
        2 => Some(Some(true)),
        _ => None,
    };
    Controller {
        serial: text(json, "sn"),
        model: text(json, "mn"),
        firmware: text(json, "fr"),
        id: number(json, "cntlid") as u16,
        version: number(json, "ver") as u32,
        kind: Some(number(json, "cntrltype") as u8).filter(|kind| (1..=3).contains(kind)),
        shares_subsystem: bit(json, "cmic", 1),
        format: bit(json, "oacs", 1),
        manages_namespaces: bit(json, "oacs", 3),
        effects_log: bit(json, "lpa", 1),
        sanitize: modifies_afterwards.map(|modifies_afterwards| SanitizeCapabilities {
            crypto_erase: sanicap(0),
            block_erase: sanicap(1),
            overwrite: sanicap(2),
            keeps_nothing_allocated: sanicap(29),
            modifies_afterwards,
        }),
        format_attributes: (number(json, "fna") >> 4 == 0).then(|| FormatAttributes {
            formats_all: bit(json, "fna", 0),
            erases_all: bit(json, "fna", 1),
            crypto_erase: bit(json, "fna", 2),
            one_by_one: bit(json, "fna", 3),
        }),
        namespaces_max: number(json, "nn") as u32,
        reserves: bit(json, "oncs", 5),
        write_protects: bit(json, "nwpc", 0),
        protected_partitions: number(json, "rpmbs") as u8 & 7,
        subsystem: Some(text(json, "subnqn")),
    }
}

#[test]
fn nvme_and_efface_read_the_same_of_a_controller() {
    let Some(nvme) = Nvme::new() else { return };
    let first = answer(&NvmeSim::new(setup()), Query::Controller);
    // The names, how many power states the tool is to print, and the name of the subsystem.
    let mut pages = pages(first, &[(4, 72), (263, 264), (768, 1024)]);
    // What is valid of random pages is rare: a capability word, and attributes, of every kind.
    for (number, page) in pages.iter_mut().enumerate().skip(1) {
        page[524] &= if number % 4 == 0 { 0xff } else { 0xf };
        page[111] = number as u8 % 5;
    }
    for page in pages {
        let ours = Controller::decode(&page).unwrap();
        assert_eq!(controller(&nvme.json(&mut Page(page.clone()), &["id-ctrl"])), ours);
        let text = nvme.explained(&mut Page(page), &["id-ctrl"]);
        let supported = |field, bits| !explained(&text, field, bits).contains("Not Supported");
        assert_eq!(
            (supported("oacs", "[1:1]"), supported("oacs", "[3:3]")),
            (ours.format, ours.manages_namespaces)
        );
        if let Some(sanitize) = ours.sanitize {
            let bits = ["[0:0]", "[1:1]", "[2:2]"].map(|bits| supported("sanicap", bits));
            assert_eq!(bits, [sanitize.crypto_erase, sanitize.block_erase, sanitize.overwrite]);
            assert_eq!(supported("sanicap", "[29:29]"), !sanitize.keeps_nothing_allocated);
            let words = explained(&text, "sanicap", "[31:30]");
            let modifies = [(true, "Media is additionally"), (false, "Media is not additionally")];
            let theirs = modifies.iter().find(|(_, known)| words.contains(known)).map(|it| it.0);
            assert_eq!(theirs, sanitize.modifies_afterwards, "{words}");
        }
        if let Some(attributes) = ours.format_attributes {
            let all = |bits| explained(&text, "fna", bits).contains("All Namespace");
            assert_eq!((all("[0:0]"), all("[1:1]")), (attributes.formats_all, attributes.erases_all));
            assert_eq!(supported("fna", "[2:2]"), attributes.crypto_erase);
            assert_eq!(supported("fna", "[3:3]"), !attributes.one_by_one);
        }
    }
}

/// The format in use, in the tool's words.
fn block_format(text: &str) -> BlockFormat {
    let line = text.lines().find(|line| line.contains("(in use)")).unwrap_or_else(|| panic!("{text}"));
    let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|it| it.parse().ok());
    let mut number = || -> u64 { numbers.next().unwrap_or_else(|| panic!("{line}")) };
    let protection = explained(text, "dps", "[2:0]");
    BlockFormat {
        index: number() as u8,
        metadata_bytes: number() as u16,
        block_bytes: number(),
        extended: explained(text, "flbas", "[4:4]").contains("End of Data LBA"),
        protection: (1..=3).find(|kind| protection.contains(&format!("Type {kind}"))).unwrap_or(0),
        protection_first: explained(text, "dps", "[3:3]").contains("First"),
    }
}

fn namespace(json: &Value, text: &str) -> Namespace {
    Namespace {
        blocks: number(json, "nsze"),
        capacity_blocks: number(json, "ncap"),
        format: Some(block_format(text)),
        shared: bit(json, "nmic", 0),
        write_protected: bit(json, "nsattr", 0),
        format_left_percent: bit(json, "fpi", 7).then(|| number(json, "fpi") as u8 & 0x7f),
        deallocated_reads: match number(json, "dlfeat") & 7 {
            1 => Some(0x00),
            2 => Some(0xff),
            _ => None,
        },
        nguid: identifier(json, "nguid"),
        eui64: identifier(json, "eui64"),
    }
}

#[test]
fn nvme_and_efface_read_the_same_of_a_namespace() {
    let Some(nvme) = Nvme::new() else { return };
    let mut all = Vec::new();
    for (flbas, dps) in FORMATS {
        let mut setup = setup();
        (setup.namespaces[0].flbas, setup.namespaces[0].dps) = (flbas, dps);
        all.push(answer(&NvmeSim::new(setup), Query::Namespace(1)));
    }
    // The table of formats is the simulated drive's.
    for mut page in pages(all[0].clone(), &[(128, 128 + 4 * 20)]) {
        // In use is one of the first 20 formats, and a namespace is not larger than it can be.
        let index = page[26] % 20;
        (page[25], page[26]) = (19, page[26] & 0x90 | index & 0xf | (index >> 4) << 5);
        page[29] &= if index < 2 || (6..17).contains(&index) { 0xf8 } else { 0xfb };
        (page[7], page[15]) = (page[7] | 0x40, page[15] & 0x3f);
        all.push(page);
    }
    for page in all {
        let ours = Namespace::decode(&page).unwrap();
        let text = nvme.explained(&mut Page(page.clone()), &["id-ns"]);
        assert_eq!(namespace(&nvme.json(&mut Page(page), &["id-ns"]), &text), ours);
    }
}

#[test]
fn nvme_and_efface_read_the_same_of_a_running_format() {
    let Some(nvme) = Nvme::new() else { return };
    let sim = NvmeSim::new(Setup { namespaces: vec![setup().namespaces[0].clone()], ..setup() });
    // The tool gives up waiting, and the drive goes on.
    let started = nvme.run(&mut sim.path(0), &["format", "--force", "--namespace-id=1", "--ses=1"]);
    assert!(!started.output.status.success());
    let page = answer(&sim, Query::Namespace(1));
    let json = nvme.json(&mut sim.path(0), &["id-ns"]);
    assert_eq!(number(&json, "fpi"), 0x80 | 40);
    assert_eq!(Namespace::decode(&page).unwrap().format_left_percent, Some(40));
}

#[test]
fn nvme_and_efface_read_the_same_of_namespaces_of_all_command_sets() {
    let Some(nvme) = Nvme::new() else { return };
    for page in pages(answer(&NvmeSim::new(setup()), Query::IndependentNamespace(2)), &[]) {
        let ours = IndependentNamespace::decode(&page).unwrap();
        let json = nvme.json(&mut Page(page), &["cmdset-ind-id-ns"]);
        let theirs = IndependentNamespace {
            shared: bit(&json, "nmic", 0),
            write_protected: bit(&json, "nsattr", 0),
            format_left_percent: bit(&json, "fpi", 7).then(|| number(&json, "fpi") as u8 & 0x7f),
            ready: bit(&json, "nstat", 0),
        };
        assert_eq!(theirs, ours);
    }
}

#[test]
fn nvme_and_efface_read_the_same_lists_and_names() {
    let Some(nvme) = Nvme::new() else { return };
    let sim = NvmeSim::new(setup());
    let ids = |json: &Value, list: &str, name: &str| -> Vec<u64> {
        json[list].as_array().unwrap_or_else(|| panic!("{json}")).iter().map(|it| number(it, name)).collect()
    };
    let lists: [(Query, &[&str], &[u64]); 2] = [
        (Query::ActiveNamespaces(0), &["list-ns"], &[1, 2]),
        (Query::AllocatedNamespaces(0), &["list-ns", "--all"], &[1, 2, 5]),
    ];
    for (query, arguments, expected) in lists {
        let ours = namespace_list(&answer(&sim, query), 0).unwrap();
        assert_eq!(ids(&nvme.json(&mut sim.path(0), arguments), "nsid_list", "nsid"), expected);
        assert!(ours.into_iter().map(u64::from).eq(expected.iter().copied()));
    }
    let lists: [(Query, &[&str], &[u64]); 2] = [
        (Query::Controllers(0), &["list-ctrl"], &[0, 0x1234]),
        (Query::AttachedControllers(5, 0), &["list-ctrl", "--namespace-id=5"], &[0x1234]),
    ];
    for (query, arguments, expected) in lists {
        let ours = controller_list(&answer(&sim, query), 0).unwrap();
        assert_eq!(ids(&nvme.json(&mut sim.path(0), arguments), "ctrl_list", "ctrl_id"), expected);
        assert!(ours.into_iter().map(u64::from).eq(expected.iter().copied()));
    }

    let mut names = vec![0; 4096];
    let all: [&[u8]; 4] = [&[1, 8, 0, 0], &[2, 16, 0, 0], &[3, 16, 0, 0], &[4, 1, 0, 0]];
    let mut at = 0;
    for (number, header) in all.into_iter().enumerate() {
        names[at..at + 4].copy_from_slice(header);
        let length = usize::from(header[1]);
        names[at + 4..][..length].fill(0xa0 + number as u8);
        at += 4 + length;
    }
    // Zoned namespaces.
    names[at - 1] = 2;
    for page in [names, answer(&sim, Query::NamespaceNames(2))] {
        let ours = NamespaceNames::decode(&page).unwrap();
        let json = nvme.json(&mut Page(page), &["ns-descs"]);
        let named = |name: &str| {
            let names = json["ns-descs"].as_array().unwrap_or_else(|| panic!("{json}"));
            names.iter().find(|it| it["type"] == name)
        };
        let theirs = NamespaceNames {
            eui64: named("eui64").and_then(|it| identifier(it, "eui64")),
            nguid: named("nguid").and_then(|it| identifier(it, "nguid")),
            uuid: named("uuid").and_then(|it| identifier(it, "uuid")),
            command_set: named("csi")
                .map(|it| u8::from_str_radix(text(it, "csi").trim_start_matches("0x"), 16).unwrap()),
        };
        assert_eq!(theirs, ours);
    }
}

/// The tool's words for SSTAT 2:0.
const STATUSES: [(&str, SanitizeStatus); 5] = [
    ("(0) NVM Subsystem has never been sanitized.", SanitizeStatus::Never),
    ("(1) Most Recent Sanitize Command Completed Successfully.", SanitizeStatus::Completed),
    ("(2) Sanitize in Progress.", SanitizeStatus::InProgress),
    ("(3) Most Recent Sanitize Command Failed.", SanitizeStatus::Failed),
    (
        "(4) Most Recent Sanitize Command (No-Deallocate After Sanitize) Completed Successfully.",
        SanitizeStatus::CompletedDeallocated,
    ),
];

/// All fields but the state (SSI), which the tool does not print.
fn sanitize_log(json: &Value, SanitizeLog { state, failed_in, .. }: SanitizeLog) -> SanitizeLog {
    let log = json.as_object().and_then(|devices| devices.values().next()).expect("a device");
    let sstat = &log["sstat"];
    let words = text(sstat, "status");
    let status = STATUSES.iter().find(|(known, _)| *known == words).unwrap_or_else(|| panic!("{words}"));
    let seconds = |name| Some(number(log, name) as u32).filter(|seconds| *seconds != u32::MAX);
    SanitizeLog {
        progress: Some(number(log, "sprog") as u16).filter(|progress| *progress != u16::MAX),
        status: status.1,
        passes: number(sstat, "no_cmplted_passes") as u8,
        global_data_erased: number(sstat, "global_erased") == 1,
        command: number(log, "cdw10_info") as u32,
        estimates: SanitizeEstimates {
            overwrite_seconds: seconds("time_over_write"),
            block_erase_seconds: seconds("time_block_erase"),
            crypto_erase_seconds: seconds("time_crypto_erase"),
            overwrite_kept_seconds: seconds("time_over_write_no_dealloc"),
            block_erase_kept_seconds: seconds("time_block_erase_no_dealloc"),
            crypto_erase_kept_seconds: seconds("time_crypto_erase_no_dealloc"),
        },
        state,
        failed_in,
    }
}

/// Status logs of a simulated drive, with the status that each is to have.
fn sanitize_logs() -> Vec<(SanitizeStatus, Vec<u8>)> {
    let erasable = || {
        let mut setup = setup();
        setup.namespaces[1].write_protected = false;
        setup
    };
    let overwrite = SanitizeMethod::Overwrite {
        passes: OverwritePasses::try_from(4).unwrap(),
        invert: true,
        pattern: 0x55aa_00ff,
    };
    let no_kept = Setup { sanicap: 0x6000_0007, keep_allocated_ignored: true, ..erasable() };
    let failing = || Setup { sanitize_fails: true, ..erasable() };
    let after = |setup, method, exit, keep_allocated, seconds| {
        let sim = NvmeSim::new(setup);
        let order = Sanitize::Start { method, exit, keep_allocated };
        assert_eq!(sim.path(0).send(&order.request()).outcome, Outcome::Status(0));
        sim.clock().advance(Duration::from_secs(seconds));
        answer(&sim, Query::SanitizeStatus)
    };
    use SanitizeMethod::*;
    use SanitizeStatus::*;
    vec![
        (Never, answer(&NvmeSim::new(erasable()), Query::SanitizeStatus)),
        (InProgress, after(erasable(), BlockErase, Exit::Restricted, false, 25)),
        (InProgress, after(erasable(), overwrite, Exit::Unrestricted, false, 60)),
        (Completed, after(erasable(), CryptoErase, Exit::Unrestricted, false, 200)),
        (Completed, after(erasable(), overwrite, Exit::Restricted, true, 200)),
        (Failed, after(failing(), BlockErase, Exit::Restricted, false, 200)),
        (Failed, after(failing(), CryptoErase, Exit::Unrestricted, false, 200)),
        (CompletedDeallocated, after(no_kept, BlockErase, Exit::Restricted, true, 200)),
    ]
}

#[test]
fn nvme_and_efface_read_the_same_sanitize_status() {
    let Some(nvme) = Nvme::new() else { return };
    let read = |page: Vec<u8>| {
        let ours = SanitizeLog::decode(&page).unwrap();
        assert_eq!(sanitize_log(&nvme.json(&mut Page(page), &["sanitize-log"]), ours), ours);
        ours
    };
    for (status, page) in sanitize_logs() {
        assert_eq!(read(page).status, status);
    }
    let mut statuses = [0; 5];
    for mut page in pages(vec![0; 512], &[]).split_off(1) {
        // A status and a state that exist.
        let (status, state) = (page[2] % 5, page[36] % 7);
        (page[2], page[36]) = (page[2] & 0xf8 | status, page[36] & 0xf0 | state);
        statuses[usize::from(page[2] & 7)] += 1;
        read(page);
    }
    assert!(statuses.iter().all(|count| *count > 0), "{statuses:?}");
}

#[test]
fn nvme_and_efface_read_the_same_commands_and_write_protection() {
    let Some(nvme) = Nvme::new() else { return };
    for (oacs, sanicap) in [(0b1010, 0x4000_000f), (0b1000, 0x4000_0001), (0b0010, 0)] {
        let sim = NvmeSim::new(Setup { oacs, sanicap, ..setup() });
        let ours = Effects::decode(&answer(&sim, Query::Effects)).unwrap();
        let json = nvme.json(&mut sim.path(0), &["effects-log", "--csi=0"]).to_string();
        let supports = |opcode: u8| json.contains(&format!("\"ACS_{opcode} ("));
        assert_eq!(Effects { format: supports(0x80), sanitize: supports(0x84) }, ours);
    }
    let states = [
        ("No Write Protect", WriteProtection::None),
        ("Write Protect", WriteProtection::Protected),
        ("Write Protect Until Power Cycle", WriteProtection::UntilPowerCycle),
        ("Permanent Write Protect", WriteProtection::Permanent),
    ];
    for (result, (words, ours)) in (0..).zip(states) {
        struct Feature(u64);
        impl PassThrough for Feature {
            fn send(&mut self, _: &Request) -> Reply {
                Reply { result: self.0, ..Reply::of(Outcome::Status(0)) }
            }
        }
        let arguments = ["get-feature", "--feature-id=0x84", "--namespace-id=2"];
        let text = nvme.explained(&mut Feature(result), &arguments);
        assert!(text.trim_end().ends_with(&format!(": {words}")), "{text}");
        assert_eq!(WriteProtection::decode(result), Ok(ours));
    }
}

/// A status that the tool has no words for.
const WITHOUT_WORDS: u16 = 0x13c;

#[test]
fn nvme_and_efface_read_the_same_status_codes() {
    struct Refuses(u16);
    impl PassThrough for Refuses {
        fn send(&mut self, _: &Request) -> Reply {
            Reply::of(Outcome::Status(self.0))
        }
    }
    let Some(nvme) = Nvme::new() else { return };
    let known = |code: &u16| !Status(*code).to_string().starts_with("NVMe status");
    let codes: Vec<u16> = (1..0x800).filter(known).filter(|code| *code != WITHOUT_WORDS).collect();
    assert!(codes.len() > 30, "{codes:x?}");
    for code in codes {
        let run = nvme.run(&mut Refuses(code | 0x4000), &["sanitize", "--sanact=start-block-erase"]);
        let printed = String::from_utf8([run.output.stdout, run.output.stderr].concat()).unwrap();
        let ours = Status(code).to_string();
        let words = ours.split(" (").next().unwrap();
        let theirs = printed.trim_end().strip_prefix("NVMe status: ").unwrap_or_else(|| panic!("{printed}"));
        assert_eq!(theirs.split([':', '(']).next().unwrap(), words, "{printed}");
        assert!(theirs.ends_with(&format!("({:#x})", code | 0x4000)), "{printed}");
        assert!(!run.output.status.success());
    }
}
