//! What a rung is in commands.

use crate::io::passthrough::Request;
use crate::io::passthrough::nvme::commands::{
    Exit, Format, OverwritePasses, Sanitize, SanitizeMethod, SecureErase,
};
use crate::io::passthrough::nvme::probe::{NamespaceFacts, SubsystemFacts};
use crate::plan::Rung;

/// What is sent to a drive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// One command, and then its status is polled.
    Sanitize(Sanitize),
    /// These commands one after another, each of which ends with its operation.
    Format(Vec<Request>),
}

/// The commands of a rung that a drive offers, for these namespaces; `None` for those that are not NVMe's, and
/// where a namespace's format is not known. What reaches all namespaces does so whichever are named.
pub fn order(rung: Rung, facts: &SubsystemFacts, named: &[u32], exit: Exit) -> Option<Order> {
    let zeroes = SanitizeMethod::Overwrite { passes: OverwritePasses::ONE, invert: false, pattern: 0 };
    let start = |method| Some(Order::Sanitize(Sanitize::Start { method, exit, keep_allocated: false }));
    match rung {
        Rung::SanitizeBlock => start(SanitizeMethod::BlockErase),
        Rung::SanitizeCrypto => start(SanitizeMethod::CryptoErase),
        Rung::SanitizeOverwrite => start(zeroes),
        Rung::FormatCrypto => formats(SecureErase::Crypto, facts, named).map(Order::Format),
        Rung::FormatUserData => formats(SecureErase::UserData, facts, named).map(Order::Format),
        Rung::HostOverwrite | Rung::EnhancedSecurityErase | Rung::SecurityErase | Rung::FormatUnit => None,
    }
}

/// One command for each named namespace, with the block format that it has; only one where it reaches all.
fn formats(erase: SecureErase, facts: &SubsystemFacts, named: &[u32]) -> Option<Vec<Request>> {
    let attributes = facts.controller.as_ref().ok()?.format_attributes?;
    let namespaces = facts.namespaces.as_ref().ok()?;
    let size = |facts: &NamespaceFacts| facts.namespace.ok()?.size_bytes();
    let all_bytes = namespaces.iter().filter_map(size).fold(0, u64::saturating_add);
    let commands = if attributes.reaches_all() { 1 } else { named.len() };
    let named = namespaces.iter().filter(|facts| named.contains(&facts.nsid));
    let request = |facts: &NamespaceFacts| {
        let format = Format { nsid: facts.nsid, keep: facts.namespace.ok()?.format?, erase };
        let bytes = if attributes.reaches_all() { all_bytes } else { size(facts)? };
        Some(format.request(bytes, None))
    };
    named.take(commands).map(request).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::passthrough::nvme::probe::probe;
    use crate::io::passthrough::sim::nvme::{NamespaceSetup, NvmeSim, Setup};
    use crate::io::passthrough::{NvmeCommand, ReadOnly};

    /// A drive with namespaces from 1 on, each with its FLBAS and DPS.
    fn facts(fna: u8, count: u32, formats: impl Fn(u32) -> (u8, u8)) -> SubsystemFacts {
        let namespace = |nsid| {
            let (flbas, dps) = formats(nsid);
            NamespaceSetup {
                nsid,
                content: vec![1; 8192],
                flbas,
                dps,
                write_protected: false,
                reserved: (0, 0),
            }
        };
        let namespaces = (1..=count).map(namespace).collect();
        let mut setup = Setup { fna: fna | 0b0100, namespaces, ..Setup::of(vec![]) };
        setup.controllers[0].attached = (1..=count).collect();
        probe(&mut ReadOnly::new(NvmeSim::new(setup).path(0)))
    }

    /// Namespace and dword 10 of each Format command.
    fn sent(rung: Rung, facts: &SubsystemFacts) -> Vec<(u32, u32)> {
        let Some(Order::Format(requests)) =
            order(rung, facts, &(1..=16).collect::<Vec<u32>>(), Exit::Restricted)
        else {
            panic!("{rung}")
        };
        let fields = |request: &Request| {
            let Request::Nvme(NvmeCommand { opcode, nsid, dwords, .. }) = request else { panic!() };
            assert_eq!(*opcode, 0x80);
            (*nsid, dwords[0])
        };
        requests.iter().map(fields).collect()
    }

    #[test]
    fn each_namespace_keeps_its_own_format() {
        // 512; 4096 extended with protection type 1 in the last bytes; 4096 with 64 bytes, index 18, type 3
        // in the first.
        let formats = |nsid| [(0, 0), (0b1_0011, 0b0001), (0b010_0010, 0b1011)][nsid as usize % 3];
        let facts = facts(0, 3, formats);
        assert_eq!(sent(Rung::FormatUserData, &facts), [(1, 0x233), (2, 0x1362), (3, 0x200)]);
        assert_eq!(sent(Rung::FormatCrypto, &facts), [(1, 0x433), (2, 0x1562), (3, 0x400)]);
    }

    #[test]
    fn one_format_is_sent_where_it_reaches_all_namespaces() {
        for (fna, count) in [0, 1, 2, 3].into_iter().flat_map(|fna| [1, 2, 16].map(|count| (fna, count))) {
            let facts = facts(fna, count, |_| (1, 0));
            let each: Vec<(u32, u32)> = (1..=count).map(|nsid| (nsid, 0x201)).collect();
            let wanted = if fna == 0 { &each[..] } else { &each[..1] };
            assert_eq!(sent(Rung::FormatUserData, &facts), wanted, "FNA {fna}, {count} namespaces");
        }
    }

    #[test]
    fn a_sanitize_is_restricted_and_deallocates_unless_it_was_asked_otherwise() {
        let facts = facts(0, 1, |_| (0, 0));
        let dword = |rung, exit| match order(rung, &facts, &[1], exit) {
            Some(Order::Sanitize(sanitize)) => sanitize.dword_10(),
            other => panic!("{other:?}"),
        };
        let rungs = [Rung::SanitizeBlock, Rung::SanitizeCrypto, Rung::SanitizeOverwrite];
        assert_eq!(rungs.map(|rung| dword(rung, Exit::Restricted)), [0x02, 0x04, 0x13]);
        assert_eq!(rungs.map(|rung| dword(rung, Exit::Unrestricted)), [0x0a, 0x0c, 0x1b]);
        assert_eq!(order(Rung::HostOverwrite, &facts, &[1], Exit::Restricted), None);
    }
}
