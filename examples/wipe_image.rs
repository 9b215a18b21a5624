//! The main job in one call: wipes an image file, and prints what may be said of it.
//!
//! `cargo run --example wipe_image -- disk.img`; without a file it makes one of its own.

use efface::{Event, Observer, Order, Outcome, Passes, Pattern, Question, Result, StepReport, Verdict, Wipe};

/// Shows what is about to happen; a program that works unattended needs no observer of its own.
struct Loud;

impl Observer for Loud {
    fn confirm(&mut self, question: &Question) -> Result<()> {
        println!("{}: bytes {}", question.identity.describe(), question.plan.area);
        Ok(())
    }

    fn watch(&mut self, event: Option<(usize, &Event)>) {
        if let Some((_, Event::StepStarted { step, step_name, .. })) = event {
            println!("step {}: {step_name}", step + 1);
        }
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let scratch = tempfile::NamedTempFile::new()?;
    let image = match std::env::args_os().nth(1) {
        Some(image) => image,
        None => {
            std::fs::write(&scratch, vec![b'x'; 8 << 20])?;
            scratch.path().into()
        }
    };
    let order = Order { passes: Passes::Method("shred".into()), image: true, ..Order::default() };
    let outcome = Wipe::new([&image], order).run(&mut Loud)?;
    assert_eq!(outcome.verdict(), Verdict::Wiped);
    let Outcome { records, .. } = outcome;
    for record in &records {
        println!("{}: {}\n{}", record.device, record.verdict.word(), record.claim);
        for limitation in &record.limitations {
            println!("- {limitation}");
        }
    }

    // The image holds what the record says: the stream of its last pass, at every offset.
    let job = records[0].job.as_ref().expect("a wiped device has a job");
    let seed = job.steps.iter().filter(|step| step.step.writes()).filter_map(StepReport::seed).next_back();
    let content = std::fs::read(&image)?;
    let mut expected = vec![0; content.len()];
    Pattern::Random { seed: *seed.expect("its last pass is random") }.fill(0, &mut expected);
    assert!(content == expected, "the image is not what its record says");
    Ok(())
}
