//! Errors: what failed, on which device, where, why, and what the user can do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::printable::{printable, printable_path, shortened};
use crate::range::Extent;

/// The answer that an error leads to; each kind has one exit code (see [`crate::Verdict`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// The command line itself is wrong.
    Usage,
    /// The target must not be wiped as it is: nothing was written.
    Refused,
    /// This device cannot do what was asked: nothing was written.
    Unsupported,
    /// Another process holds the target and may release it: nothing was written.
    Busy,
    /// The work was begun, or could not be begun, and did not succeed.
    Failed,
}

/// What failed can repeat what a file holds, and files of others can be long.
const WHAT_CHARS_MAX: usize = 1000;

/// One failure, printed as `device: what at range: why; way out`.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// Decides the verdict, and so the exit code, of what failed.
    pub kind: Kind,
    what: String,
    device: Option<PathBuf>,
    at: Option<Extent>,
    /// Printed with the rest, so it is not the error's `source()`: chain printers would print it twice.
    cause: Option<io::Error>,
    remedy: Option<String>,
}

/// The result of every fallible function of this crate that does no bare I/O.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(kind: Kind, what: impl Into<String>) -> Error {
        let what = shortened(&what.into(), WHAT_CHARS_MAX);
        Error { kind, what, device: None, at: None, cause: None, remedy: None }
    }

    /// Of kind [`Kind::Usage`]. Here and below, `what` is a clause without a capital or a full stop.
    pub fn usage(what: impl Into<String>) -> Error {
        Error::new(Kind::Usage, what)
    }

    /// Of kind [`Kind::Refused`].
    pub fn refused(what: impl Into<String>) -> Error {
        Error::new(Kind::Refused, what)
    }

    /// Of kind [`Kind::Unsupported`].
    pub fn unsupported(what: impl Into<String>) -> Error {
        Error::new(Kind::Unsupported, what)
    }

    /// Of kind [`Kind::Busy`].
    pub fn busy(what: impl Into<String>) -> Error {
        Error::new(Kind::Busy, what)
    }

    /// Of kind [`Kind::Failed`].
    pub fn failed(what: impl Into<String>) -> Error {
        Error::new(Kind::Failed, what)
    }

    /// Without the device, the reason and the way out.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The device that it is about.
    pub fn device(&self) -> Option<&Path> {
        self.device.as_deref()
    }

    /// Where on the device, in bytes.
    pub fn extent(&self) -> Option<Extent> {
        self.at
    }

    /// What the kernel answered.
    pub fn cause(&self) -> Option<&io::Error> {
        self.cause.as_ref()
    }

    /// What the person can do about it.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// Names the device; the innermost name wins, since it was there first.
    pub fn on(mut self, device: &Path) -> Error {
        self.device.get_or_insert_with(|| device.to_path_buf());
        self
    }

    /// Where on the device it failed, in absolute bytes; the last call counts.
    pub fn at(mut self, extent: Extent) -> Error {
        self.at = Some(extent);
        self
    }

    /// The answer of the kernel, which [`Error::cause`] gives back.
    pub fn because(mut self, cause: io::Error) -> Error {
        self.cause = Some(cause);
        self
    }

    /// What the user can do, as a clause; control and formatting characters are replaced.
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Error {
        self.remedy = Some(printable(&remedy.into()));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(device) = &self.device {
            write!(f, "{}: ", printable_path(device))?;
        }
        f.write_str(&self.what)?;
        if let Some(at) = self.at {
            write!(f, " at bytes {at}")?;
        }
        if let Some(cause) = &self.cause {
            write!(f, ": {}", printable(&cause.to_string()))?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_sentence_that_names_everything() {
        let error = Error::failed("write failed")
            .at(Extent::new(4096, 8192))
            .because(io::Error::from_raw_os_error(libc::EIO))
            .with_remedy("replace the drive")
            .on(Path::new("/dev/sdz"))
            .on(Path::new("/dev/outer"));
        assert_eq!(
            error.to_string(),
            "/dev/sdz: write failed at bytes 4096..8192: \
             Input/output error (os error 5); replace the drive"
        );
        assert!(std::error::Error::source(&error).is_none(), "a chain printer would print it twice");
        assert_eq!(error.cause().and_then(io::Error::raw_os_error), Some(libc::EIO));
        assert_eq!(
            (error.device(), error.remedy()),
            (Some(Path::new("/dev/sdz")), Some("replace the drive"))
        );
    }
}
