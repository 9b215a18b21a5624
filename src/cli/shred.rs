//! GNU shred's command line, translated to `efface wipe`, for programs that run `shred` and have no other
//! hook (Nova's volume_clear). An option that cannot be translated is an error.

use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::arguments::some_size;

/// Overwrite block devices and verify them by reading back (efface, invoked as shred)
#[derive(Parser)]
#[command(name = "shred", version)]
pub struct ShredArgs {
    /// Block devices
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<OsString>,

    /// Ignored: root may write without it, and a read-only device stays refused
    #[arg(short, long)]
    force: bool,

    /// Overwrite N times with random data
    #[arg(short = 'n', long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(..=100))]
    iterations: u16,

    /// Not supported: random data comes from a recorded seed, so that it can be verified
    #[arg(long, value_name = "FILE")]
    random_source: Option<String>,

    /// Limit the range to N bytes (K, M and G are powers of 1024)
    #[arg(short, long, value_name = "N", value_parser = some_size)]
    size: Option<u64>,

    /// Not supported: device nodes are not removed
    #[arg(short = 'u', long, value_name = "HOW", num_args = 0..=1, require_equals = true)]
    remove: Option<Option<String>>,

    /// Show progress
    #[arg(short, long)]
    verbose: bool,

    /// Ignored: the size of a device is never rounded up
    #[arg(short = 'x', long)]
    exact: bool,

    /// Add a final pass of zeroes
    #[arg(short, long)]
    zero: bool,
}

/// Whether the program was invoked as `shred`.
pub fn invoked_as_shred() -> bool {
    std::env::args_os().next().is_some_and(|name| Path::new(&name).file_name().is_some_and(|n| n == "shred"))
}

impl ShredArgs {
    /// The equivalent arguments of `efface wipe`.
    pub fn to_wipe_args(&self) -> Result<Vec<OsString>, clap::Error> {
        let refuse = |why: &str| Err(ShredArgs::command().error(ErrorKind::ArgumentConflict, why));
        if self.random_source.is_some() {
            return refuse(
                "--random-source: the random data comes from a seed that is kept for verification",
            );
        }
        if self.remove.is_some() {
            return refuse("--remove: only block devices are taken, and their names stay");
        }
        if self.devices.iter().any(|device| device == "-") {
            return refuse("-: only block devices are taken, not the standard output");
        }
        let mut words: Vec<OsString> = ["efface", "wipe", "--yes"].map(OsString::from).to_vec();
        match (self.iterations, self.zero) {
            (0, false) => return refuse("--iterations=0 without --zero would leave everything as it is"),
            (0, true) => words.push("--method=zero".into()),
            (random, zero) => {
                words.push(format!("--passes={}", vec!["random"; random.into()].join(",")).into());
                words.extend(zero.then(|| "--final-zero".into()));
            }
        }
        words.extend(self.size.map(|size| format!("--size={size}").into()));
        words.extend((!self.verbose).then(|| "--quiet".into()));
        words.push("--".into());
        words.extend(self.devices.iter().cloned());
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn translated(line: &str) -> Result<String, String> {
        let shred = ShredArgs::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        let words = shred.to_wipe_args().map_err(|error| error.to_string())?;
        Ok(words[3..].join(OsStr::new(" ")).into_string().expect("the words are in UTF-8"))
    }

    #[test]
    fn shred_command_lines_become_wipe_command_lines() {
        for (shred, wipe) in [
            ("shred -n0 -z -s1073741824 /dev/x", "--method=zero --size=1073741824 --quiet -- /dev/x"),
            (
                "shred -n3 -s1073741824 /dev/x",
                "--passes=random,random,random --size=1073741824 --quiet -- /dev/x",
            ),
            ("shred /dev/x", "--passes=random,random,random --quiet -- /dev/x"),
            ("shred -vfzn1 /dev/x /dev/y", "--passes=random --final-zero -- /dev/x /dev/y"),
            (
                "shred --force --zero --verbose --iterations 1 /dev/x",
                "--passes=random --final-zero -- /dev/x",
            ),
            ("shred -x --size=10M -n 2 /dev/x", "--passes=random,random --size=10485760 --quiet -- /dev/x"),
        ] {
            assert_eq!(translated(shred), Ok(wipe.into()), "{shred}");
            assert!(crate::cli::Cli::try_parse_from(format!("efface wipe --yes {wipe}").split(' ')).is_ok());
        }
    }

    #[test]
    fn an_untranslatable_shred_option_is_an_error_with_a_reason() {
        for (shred, reason) in [
            ("shred -n0 /dev/x", "leave everything as it is"),
            ("shred -u /dev/x", "their names stay"),
            ("shred --remove=wipe /dev/x", "their names stay"),
            ("shred --random-source=/dev/urandom /dev/x", "kept for verification"),
            ("shred -", "not the standard output"),
            ("shred -s0 /dev/x", "0 bytes"),
            ("shred -n101 /dev/x", "101"),
            ("shred --wipe /dev/x", "unexpected argument"),
            ("shred", "required"),
        ] {
            let error = translated(shred).unwrap_err();
            assert!(error.contains(reason), "{shred}: {error}");
        }
    }
}
