//! The main job in one call: wipes an image file, and prints what may be said of it.
//!
//! `cargo run --example wipe_image -- disk.img`; without a file it makes one of its own.

use efface::{Event, Observer, Order, Outcome, Passes, Question, Result, Wipe};

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
    let Outcome { records, .. } = Wipe::new([image], order).run(&mut Loud)?;
    for record in &records {
        println!("{}: {}\n{}", record.device, record.verdict.word(), record.claim);
        for limitation in &record.limitations {
            println!("- {limitation}");
        }
    }
    Ok(())
}
