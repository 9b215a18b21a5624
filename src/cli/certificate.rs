//! `efface certificate`: check one, show it, and what it is made of.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::{Error, Result};
use crate::report::certificate::{Certificate as File, Signed};
use crate::report::sign::PublicKey;
use crate::report::{Record, html, print, tell, text};
use crate::verdict::{EXIT_CODES, Verdict};

#[derive(Args)]
pub struct Certificate {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say whether certificates are what efface wrote, and whether their claims follow from their numbers
    #[command(after_help = EXIT_CODES)]
    Verify(Verify),
    /// Show certificates, as text or as a page to print
    #[command(after_help = EXIT_CODES)]
    Render(Render),
    /// Print the JSON Schema of a record
    Schema,
}

#[derive(Args)]
struct Verify {
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// They have to be signed by this key
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
}

#[derive(Args)]
struct Render {
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// A page for the browser and the printer, complete in itself
    #[arg(long)]
    html: bool,

    /// Check the signatures with this key
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
}

impl Certificate {
    pub fn run(self) -> Result<Verdict> {
        match self.command {
            Command::Verify(verify) => verify.run(),
            Command::Render(render) => render.run(),
            Command::Schema => schema(),
        }
    }
}

impl Verify {
    /// Every file is told of; the worst one gives the exit code.
    fn run(self) -> Result<Verdict> {
        let key = self.public_key.as_deref().map(PublicKey::read).transpose()?;
        let mut verdicts = Vec::new();
        for path in &self.files {
            let checked = File::read(path)
                .and_then(|file| Ok((file.verify(key.as_ref()).map_err(|error| error.on(path))?, file)));
            match checked {
                Ok((signed, file)) => {
                    let Record { id, device, verdict, claim, .. } = &file.record;
                    print(&format!(
                        "{}: certificate {id}, {signed}\n  {device}: {}\n  {claim}\n",
                        path.display(),
                        verdict.word()
                    ))?;
                    if let Some(unchecked) = file.record.unchecked() {
                        print(&format!("  {unchecked}\n"))?;
                    }
                    verdicts.push(Verdict::Shown);
                }
                Err(error) => {
                    tell(format_args!("efface: {error}"));
                    verdicts.push(error.kind.into());
                }
            }
        }
        Ok(Verdict::worst(verdicts))
    }
}

impl Render {
    /// All of them or none: a page with a certificate missing would say too much.
    fn run(self) -> Result<Verdict> {
        let key = self.public_key.as_deref().map(PublicKey::read).transpose()?;
        let read = |path: &PathBuf| {
            let file = File::read(path)?;
            let signed = file.verify(key.as_ref()).map_err(|error| error.on(path))?;
            Ok((file.record, signed))
        };
        let records = self.files.iter().map(read).collect::<Result<Vec<_>>>()?;
        let page = if self.html {
            html::page(&records)
        } else {
            let shown = |(record, signed): &(Record, Signed)| {
                let unchecked = record.unchecked().map(|text| format!("  {text}\n")).unwrap_or_default();
                format!("{}  {signed}\n{unchecked}\n", text::render(record))
            };
            records.iter().map(shown).collect()
        };
        print(&page)?;
        Ok(Verdict::Shown)
    }
}

fn schema() -> Result<Verdict> {
    let schema = schemars::schema_for!(Record);
    let text = serde_json::to_string_pretty(&schema)
        .map_err(|error| Error::failed(format!("the schema cannot be written: {error}")))?;
    print(&(text + "\n"))?;
    Ok(Verdict::Shown)
}
