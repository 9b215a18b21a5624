//! Overwrite methods: the named schemes as data, and custom lists of passes.

use std::borrow::Cow;
use std::fmt;

use super::{PURGE, Policy};
use crate::error::{Error, Result};
use crate::pattern::parse_constant;

/// One pass of a method, before its seeds are drawn.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Pass {
    /// These bytes, repeated from the first byte of the device.
    Constant(Cow<'static, [u8]>),
    /// A random stream with a seed of its own.
    Random,
    /// A random byte, drawn once for each number in a method.
    Byte(u8),
    /// The complement of the byte with this number.
    Complement(u8),
    /// The kernel's write-zeroes command.
    Zero,
    /// The kernel's discard command (`BLKDISCARD`), which guarantees nothing about what is read afterwards.
    Discard,
    /// Reads back the previous pass.
    Check,
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pass::Constant(bytes) => write!(f, "overwrite 0x{}", hex::encode(bytes)),
            Pass::Random => f.write_str("overwrite random"),
            Pass::Byte(number) => write!(f, "overwrite random byte {number}"),
            Pass::Complement(number) => write!(f, "overwrite complement of byte {number}"),
            Pass::Zero => f.write_str("write-zeroes"),
            Pass::Discard => f.write_str("discard"),
            Pass::Check => f.write_str("read back"),
        }
    }
}

/// A named method.
#[non_exhaustive]
pub struct Scheme {
    /// As `--method` and [`Method::named`] take it.
    pub name: &'static str,
    /// In order; at least one.
    pub passes: &'static [Pass],
    /// One line of help, with its source where it follows one.
    pub about: &'static str,
}

const fn bytes(bytes: &'static [u8]) -> Pass {
    Pass::Constant(Cow::Borrowed(bytes))
}

use Pass::{Byte, Check, Complement, Discard, Random};

/// The methods by name. Sources: coreutils' shred; DoD 5220.22-M and its ECE variant;
/// NNSA NAP-14.1-C; HMG IS5; Schneier, Applied Cryptography (1996); Gutmann, Secure Deletion (1996).
pub const SCHEMES: &[Scheme] = &[
    Scheme { name: "zero", passes: &[bytes(&[0])], about: "one pass of 00 (the default)" },
    Scheme {
        name: "shred",
        passes: &[bytes(&[0x55]), bytes(&[0xaa]), Random],
        about: "55, AA, random: three passes, each verifiable at any offset",
    },
    Scheme { name: "random", passes: &[Random], about: "one random pass" },
    Scheme {
        name: "shred-random",
        passes: &[Random, Random, Random],
        about: "three random passes, as shred -n3",
    },
    Scheme {
        name: "discard",
        passes: &[Discard, Check],
        about: "BLKDISCARD, then a check of what reads back",
    },
    Scheme {
        name: "dod3",
        passes: &[bytes(&[0]), bytes(&[0xff]), Random, Check],
        about: "DoD 5220.22-M: 00, FF, random, verified",
    },
    Scheme {
        name: "dod7",
        passes: &[Byte(1), Complement(1), Random, Byte(2), Byte(3), Complement(3), Random],
        about: "DoD 5220.22-M ECE: c, ~c, random, c, c, ~c, random",
    },
    Scheme {
        name: "nnsa",
        passes: &[Random, Random, bytes(&[0]), Check],
        about: "NAP-14.1-C: random, random, 00, verified",
    },
    Scheme {
        name: "is5-enhanced",
        passes: &[bytes(&[0]), bytes(&[0xff]), Random, Check],
        about: "HMG IS5 enhanced: 00, FF, random, verified",
    },
    Scheme {
        name: "schneier",
        passes: &[bytes(&[0xff]), bytes(&[0]), Random, Random, Random, Random, Random],
        about: "FF, 00, five random passes",
    },
    Scheme {
        name: "gutmann",
        passes: GUTMANN,
        about: "35 passes; its author calls them pointless on today's disks",
    },
];

const GUTMANN: &[Pass] = &[
    Random,
    Random,
    Random,
    Random,
    bytes(&[0x55]),
    bytes(&[0xaa]),
    bytes(&[0x92, 0x49, 0x24]),
    bytes(&[0x49, 0x24, 0x92]),
    bytes(&[0x24, 0x92, 0x49]),
    bytes(&[0x00]),
    bytes(&[0x11]),
    bytes(&[0x22]),
    bytes(&[0x33]),
    bytes(&[0x44]),
    bytes(&[0x55]),
    bytes(&[0x66]),
    bytes(&[0x77]),
    bytes(&[0x88]),
    bytes(&[0x99]),
    bytes(&[0xaa]),
    bytes(&[0xbb]),
    bytes(&[0xcc]),
    bytes(&[0xdd]),
    bytes(&[0xee]),
    bytes(&[0xff]),
    bytes(&[0x92, 0x49, 0x24]),
    bytes(&[0x49, 0x24, 0x92]),
    bytes(&[0x24, 0x92, 0x49]),
    bytes(&[0x6d, 0xb6, 0xdb]),
    bytes(&[0xb6, 0xdb, 0x6d]),
    bytes(&[0xdb, 0x6d, 0xb6]),
    Random,
    Random,
    Random,
    Random,
];

/// A named method or a custom list of passes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Method {
    /// A scheme's name, or `custom` for a list of passes.
    pub name: String,
    /// In order, before seeds and random bytes are drawn; not empty.
    pub passes: Vec<Pass>,
}

impl Method {
    /// The scheme of this name ([`SCHEMES`]).
    ///
    /// # Errors
    /// A usage error that lists the names, where there is none.
    pub fn named(name: &str) -> Result<Method> {
        if name == PURGE {
            return Err(Error::usage("a wipe cannot purge: only the drive itself can")
                .with_remedy("efface purge DEVICE has it erase itself"));
        }
        let scheme = SCHEMES.iter().find(|scheme| scheme.name == name).ok_or_else(|| {
            let names: Vec<&str> = SCHEMES.iter().map(|scheme| scheme.name).collect();
            Error::usage(format!("unknown method '{name}'"))
                .with_remedy(format!("one of {}", names.join(", ")))
        })?;
        Ok(Method { name: name.into(), passes: scheme.passes.to_vec() })
    }

    /// A custom list of passes: `0x00,0xff,0x55aa,random`.
    ///
    /// # Errors
    /// A usage error where an item is neither `random` nor `0x` and 1 to 16 bytes in hex.
    pub fn from_list(list: &str) -> Result<Method> {
        let passes = list
            .split(',')
            .map(|item| match item.trim() {
                "random" => Ok(Random),
                text => Ok(Pass::Constant(parse_constant(text)?.into())),
            })
            .collect::<Result<_>>()
            .map_err(|error| {
                error.with_remedy("list passes as 0x and hex bytes, or random: 0x00,0x55aa,random")
            })?;
        Ok(Method { name: "custom".into(), passes })
    }

    /// Adds a final pass of zeroes.
    pub fn then_zero(mut self) -> Method {
        self.passes.push(bytes(&[0]));
        self
    }

    /// Uses the kernel's write-zeroes command instead of writing zeroes.
    ///
    /// # Errors
    /// A usage error where the method writes no zeroes.
    pub fn offload_zeroes(mut self) -> Result<Method> {
        let zero = bytes(&[0]);
        if !self.passes.contains(&zero) {
            return Err(Error::usage(format!(
                "--zero-with offload: the method '{}' has no pass of zeroes",
                self.name
            ))
            .with_remedy("leave the option out, or add --final-zero"));
        }
        self.passes.iter_mut().filter(|pass| **pass == zero).for_each(|pass| *pass = Pass::Zero);
        Ok(self)
    }

    /// Whether it can be carried out with this policy.
    ///
    /// # Errors
    /// A usage error where the method includes a check and the policy reads nothing.
    pub fn allows(&self, policy: Policy) -> Result<()> {
        if policy == Policy::None && self.passes.contains(&Check) {
            return Err(Error::usage(format!("--verify none: the method '{}' includes a check", self.name))
                .with_remedy("leave the option out, or choose another method"));
        }
        Ok(())
    }
}
