//! `efface certificate`: verification and rendering of certificates, and their schema.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::{Error, Result};
use crate::printable::printable_path;
use crate::progress::{print, stderr_line};
use crate::record::Record;
use crate::record::certificate::{Certificate as File, Signed};
use crate::record::sign::PublicKeys;
use crate::verdict::{EXIT_CODES, Verdict};
use crate::view::{html, text};

#[derive(Args)]
pub struct CertificateArgs {
    #[command(subcommand)]
    command: CertificateCommand,
}

#[derive(Subcommand)]
enum CertificateCommand {
    /// Verify signatures, and recompute the claims from the recorded numbers
    #[command(after_help = EXIT_CODES)]
    Verify(CertificateVerifyArgs),
    /// Render certificates as text or HTML
    #[command(after_help = EXIT_CODES)]
    Render(CertificateRenderArgs),
    /// Print the JSON Schema of a record
    Schema,
}

#[derive(Args)]
struct CertificateVerifyArgs {
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Require a signature by this public key, or by one of this directory (*.pub)
    #[arg(long, value_name = "PATH")]
    public_key: Vec<PathBuf>,

    /// Accept unsigned files, and signatures without a given key
    #[arg(long, conflicts_with = "public_key")]
    unsigned_ok: bool,
}

#[derive(Args)]
struct CertificateRenderArgs {
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Render a self-contained HTML page for screen and print
    #[arg(long)]
    html: bool,

    /// Require a signature by this public key, or by one of this directory (*.pub)
    #[arg(long, value_name = "PATH")]
    public_key: Vec<PathBuf>,
}

impl CertificateArgs {
    pub fn run(self) -> Result<Verdict> {
        match self.command {
            CertificateCommand::Verify(verify) => verify.run(),
            CertificateCommand::Render(render) => render.run(),
            CertificateCommand::Schema => schema(),
        }
    }
}

impl CertificateVerifyArgs {
    /// Reports each file; the most severe result gives the exit code.
    fn run(self) -> Result<Verdict> {
        let keys = PublicKeys::read(&self.public_key)?;
        let mut verdicts = Vec::new();
        for path in &self.files {
            match File::read(path, &keys).and_then(|file| self.accept(file).map_err(|error| error.on(path))) {
                Ok(File { record, signed }) => {
                    let Record { id, device, verdict, claim, .. } = &record;
                    print(&format!(
                        "{}: certificate {id}, {signed}\n  {device}: {}\n  {claim}\n",
                        printable_path(path),
                        verdict.word()
                    ))?;
                    if let Some(unchecked) = record.unchecked() {
                        print(&format!("  {unchecked}\n"))?;
                    }
                    verdicts.push(Verdict::Shown);
                }
                Err(error) => {
                    stderr_line(format_args!("efface: {error}"));
                    verdicts.push(error.kind.into());
                }
            }
        }
        Ok(Verdict::worst(verdicts))
    }

    /// Requires a verified signature, unless waived.
    fn accept(&self, file: File) -> Result<File> {
        let remedy = match &file.signed {
            Signed::By(_) => return Ok(file),
            _ if self.unsigned_ok => return Ok(file),
            Signed::No => "ask for the signed original, or accept unsigned files with --unsigned-ok",
            Signed::Unchecked(_) => "or accept unchecked signatures with --unsigned-ok",
        };
        Err(Error::failed(file.signed.to_string()).with_remedy(remedy))
    }
}

impl CertificateRenderArgs {
    /// All files or an error: a page without one of the certificates would be misleading.
    fn run(self) -> Result<Verdict> {
        let keys = PublicKeys::read(&self.public_key)?;
        let read = |path: &PathBuf| File::read(path, &keys).map(|file| (file.record, file.signed));
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
