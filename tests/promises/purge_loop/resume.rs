//! What another process began is gone on with, and never begun twice.

use super::*;

/// The work of a process that is killed at one of its commands or journal records, on a drive that stays.
struct Life {
    sim: NvmeSim,
    kept: Option<PurgeCheckpoint>,
}

impl Life {
    /// Whether it was killed; `at` counts commands (before and after each) and records.
    fn purge_killed_at(&mut self, policy: PurgePolicy, at: usize) -> bool {
        let count = std::cell::Cell::new(0);
        let step = || {
            count.set(count.get() + 1);
            if count.get() == at {
                resume_unwind(Box::new("killed"));
            }
        };
        let work = || {
            let mut between = |path: &mut SimPath, request: &Request| {
                let counts = !request.only_reads();
                if counts {
                    step();
                }
                let reply = path.send(request);
                if counts {
                    step();
                }
                reply
            };
            let kept = &mut self.kept;
            let mut keep = |checkpoint: &PurgeCheckpoint| {
                let text = serde_json::to_string(checkpoint).unwrap();
                *kept = Some(serde_json::from_str(&text).unwrap());
                step();
                Ok(())
            };
            with_context(&self.sim, &mut keep, |namespaces, context| {
                run(&mut Path(self.sim.path(0), &mut between), namespaces, policy, context)
            })
        };
        catch_unwind(AssertUnwindSafe(work)).is_err()
    }

    fn resumed(&mut self, policy: PurgePolicy) -> Option<PurgeReport> {
        self.resumed_between(policy, &mut |path, request| path.send(request))
    }

    fn resumed_between(&mut self, policy: PurgePolicy, between: Between) -> Option<PurgeReport> {
        let earlier = self.kept.take()?;
        let report = with_context(&self.sim, &mut |_| Ok(()), |namespaces, context| {
            resume(&mut Path(self.sim.path(0), between), namespaces, policy, earlier, context)
        });
        assert_eq!(report.check(), Ok(()), "{report:#?}");
        Some(report)
    }

    fn sent(&self) -> usize {
        self.sim.requests().iter().filter(|request| !request.only_reads()).count()
    }
}

/// Killed at every command and every record, and gone on with at once, midway, or when the drive is done.
#[test]
fn a_purge_that_was_killed_is_gone_on_with_and_never_begun_twice() {
    let sanitize = PurgePolicy::default();
    for (policy, later) in [(sanitize, 0), (sanitize, 50), (sanitize, 500), (by(Rung::SanitizeCrypto), 500)] {
        let mut killed = 0;
        for at in 1.. {
            let mut life = Life { sim: NvmeSim::new(setup()), kept: None };
            if !life.purge_killed_at(policy, at) {
                break;
            }
            killed = at;
            let was_sent = life.sent();
            life.sim.clock().advance(Duration::from_secs(later));
            let Some(report) = life.resumed(policy) else { panic!("killed before its first record") };
            assert_eq!(life.sent(), was_sent, "killed at {at}: a second command");
            let expected = if was_sent == 1 { Verdict::Erased } else { Verdict::Surviving };
            assert_eq!(report.verdict, expected, "killed at {at}, {later} s later");
            let surveyed: u64 = report.rungs[0].namespaces.iter().map(|it| it.surveyed_blocks).sum();
            assert_eq!(surveyed, 0, "the hashes of a survey die with its process");
        }
        assert_eq!(killed, 5, "the record before, the command twice, the record after, the conclusion");
    }
}

fn write_a_block(sim: &NvmeSim) {
    let mut disk = sim.disk(1);
    let mut buf = disk.buffers(1, 4096).unwrap().remove(0);
    buf.fill(0x5a);
    disk.submit(Op::Write { at: 0, buf }).unwrap();
    let mut done = Vec::new();
    disk.reap(&mut done, None).unwrap();
    assert!(done.remove(0).result.is_ok());
}

#[test]
fn what_others_may_have_written_since_proves_nothing() {
    const AFTER_THE_ANSWER: usize = 4;
    let policy = PurgePolicy::default();
    let mut life = Life { sim: NvmeSim::new(setup()), kept: None };
    assert!(life.purge_killed_at(policy, AFTER_THE_ANSWER));
    life.sim.clock().advance(HOUR);
    write_a_block(&life.sim);
    let report = life.resumed(policy).unwrap();
    assert_eq!(report.rungs[0].conclusion, Conclusion::Unproven(Unproven::WrittenSince));
    assert_eq!(report.verdict, Verdict::Failed);
    // The same where it was a format: no status names it.
    let policy = by(Rung::FormatUserData);
    let mut life = Life { sim: NvmeSim::new(setup()), kept: None };
    assert!(life.purge_killed_at(policy, 7), "after both commands and their records");
    let report = life.resumed(policy).unwrap();
    assert_eq!(report.rungs[0].conclusion, Conclusion::Unproven(Unproven::WrittenSince));
}

#[test]
fn the_operation_of_another_is_left_to_it() {
    let policy = PurgePolicy::default();
    let mut life = Life { sim: NvmeSim::new(setup()), kept: None };
    assert!(life.purge_killed_at(policy, 1), "before the command");
    let crypto = NvmeCommand {
        queue: efface::internals::io::passthrough::Queue::Admin,
        opcode: SANITIZE,
        nsid: 0,
        dwords: [4, 0, 0, 0, 0, 0],
        data: efface::internals::io::passthrough::Data::None,
        timeout: efface::internals::io::passthrough::CommandTimeout::new(HOUR),
    };
    life.sim.path(0).send(&Request::Nvme(crypto));
    let kept = life.kept.clone();
    let report = life.resumed(policy).unwrap();
    assert_eq!((report.verdict, report.rungs.len()), (Verdict::Busy, 0));
    // When it has ended, its status is not about our command.
    life.sim.clock().sleep_until(life.sim.clock().now() + HOUR);
    life.kept = kept;
    let report = life.resumed(policy).unwrap();
    assert_eq!(report.rungs[0].conclusion, Conclusion::Unproven(Unproven::OtherCommand(4)));
}

#[test]
fn a_purge_is_not_gone_on_with_while_a_namespace_with_canaries_is_missing() {
    let sim = NvmeSim::new(setup());
    let mut kept = None;
    let mut keep = |checkpoint: &PurgeCheckpoint| {
        kept = Some(checkpoint.clone());
        Ok(())
    };
    with_context(&sim, &mut keep, |namespaces, context| {
        run(&mut sim.path(0), namespaces, PurgePolicy::default(), context)
    });
    let resumed = |count: usize, earlier: PurgeCheckpoint| {
        with_context(&sim, &mut |_| Ok(()), |namespaces, context| {
            resume(&mut sim.path(0), &mut namespaces[..count], PurgePolicy::default(), earlier, context)
        })
    };
    let kept = kept.unwrap();
    assert_eq!(resumed(2, kept.clone()).verdict, Verdict::Erased);
    let without = resumed(1, kept);
    assert_eq!((without.verdict, without.rungs.len()), (Verdict::Refused, 0));
    assert!(without.error.unwrap().contains("namespace 2"));
}

/// Of a drive that never says that nothing was written since.
#[test]
fn an_operation_that_was_seen_to_run_needs_no_word_about_writes() {
    const AFTER_THE_ANSWER: usize = 4;
    let policy = PurgePolicy::default();
    let resumed = |later| {
        let mut life = Life { sim: NvmeSim::new(setup()), kept: None };
        assert!(life.purge_killed_at(policy, AFTER_THE_ANSWER));
        life.sim.clock().advance(later);
        let mut silent = |path: &mut SimPath, request: &Request| {
            let mut reply = path.send(request);
            if is_status_query(request) {
                reply.data[3] &= !1;
            }
            reply
        };
        life.resumed_between(policy, &mut silent).unwrap().verdict
    };
    assert_eq!(resumed(Duration::ZERO), Verdict::Erased);
    assert_eq!(resumed(HOUR), Verdict::Failed);
}
