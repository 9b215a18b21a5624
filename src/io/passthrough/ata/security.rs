//! The security feature set: passwords, and the erase that needs one (words 89, 90, 92 and 128 of IDENTIFY DEVICE).

use serde::Serialize;

use super::Unknown;

/// A drive with the feature set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Security {
    /// By which it takes its commands.
    pub state: SecurityState,
    /// After five wrong passwords none is accepted until the power is cycled.
    pub attempts_expired: bool,
    /// The master password unlocks nothing without erasing.
    pub master_maximum: bool,
    /// Which master password it has: FFFEh is the maker's; 0 and FFFFh are none.
    pub master_identifier: u16,
    /// SECURITY ERASE UNIT in its normal mode.
    pub erase: EraseTime,
    /// The same in its enhanced mode; absent where there is none.
    pub enhanced_erase: Option<EraseTime>,
}

/// The states of a drive with power.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityState {
    /// SEC1: without a password.
    Disabled,
    /// SEC2: the same, and frozen.
    DisabledFrozen,
    /// SEC4: with a password, and locked.
    Locked,
    /// SEC5: with a password, and unlocked.
    Unlocked,
    /// SEC6: the same, and frozen.
    UnlockedFrozen,
}

/// How long an erase takes, by the drive's own estimate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "kind", content = "minutes", rename_all = "snake_case")]
pub enum EraseTime {
    /// It does not say.
    NotReported,
    /// So long.
    About(u32),
    /// Longer than the field can say.
    MoreThan(u32),
}

impl EraseTime {
    /// Of word 89 or 90: in units of two minutes, of 8 bits, or with bit 15 of 15.
    pub fn decode(word: u16) -> EraseTime {
        let (value, max) = match word {
            0x8000.. => (word & 0x7fff, 0x7fff),
            _ => (word & 0xff, 0xff),
        };
        match value {
            0 => EraseTime::NotReported,
            value if value == max => EraseTime::MoreThan(2 * (u32::from(max) - 1)),
            value => EraseTime::About(2 * u32::from(value)),
        }
    }
}

/// The words of IDENTIFY DEVICE that say it.
pub(super) struct Words {
    /// Words 82 and 85, where they are valid.
    pub(super) supported_enabled: Option<(u16, u16)>,
    /// Words 89, 90, 92 and 128.
    pub(super) erase: u16,
    pub(super) enhanced: u16,
    pub(super) master: u16,
    pub(super) status: u16,
}

impl Security {
    /// `None` of a drive without the feature set.
    ///
    /// # Errors
    /// Words that contradict one another, or all ones.
    pub(super) fn decode(words: &Words) -> Result<Option<Security>, Unknown> {
        const FEATURE: u16 = 1 << 1;
        let status = words.status;
        let bit = |bit: u16| status & 1 << bit != 0;
        let (supported, enabled, locked, frozen) = (bit(0), bit(1), bit(2), bit(3));
        if status == 0xffff {
            return Err(Unknown::Ones);
        }
        let differs = |(of_support, of_use): (u16, u16)| {
            (of_support & FEATURE != 0) != supported || (of_use & FEATURE != 0) != enabled
        };
        if words.supported_enabled.is_some_and(differs) {
            return Err(Unknown::Invalid("words 82, 85 and 128 of IDENTIFY DEVICE differ on security"));
        }
        let state = match (enabled, locked, frozen) {
            _ if !supported && status != 0 => {
                return Err(Unknown::Invalid("a security state without the feature set"));
            }
            _ if !supported => return Ok(None),
            (false, false, false) => SecurityState::Disabled,
            (false, false, true) => SecurityState::DisabledFrozen,
            (true, true, false) => SecurityState::Locked,
            (true, false, false) => SecurityState::Unlocked,
            (true, false, true) => SecurityState::UnlockedFrozen,
            (false, true, _) | (true, true, true) => {
                return Err(Unknown::Invalid("a security state that does not exist"));
            }
        };
        Ok(Some(Security {
            state,
            attempts_expired: bit(4),
            master_maximum: bit(8),
            master_identifier: words.master,
            erase: EraseTime::decode(words.erase),
            enhanced_erase: bit(5).then(|| EraseTime::decode(words.enhanced)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(status: u16) -> Words {
        Words { supported_enabled: None, erase: 60, enhanced: 1, master: 0xfffe, status }
    }

    #[test]
    fn the_bits_of_word_128_are_the_states() {
        let state = |status| Security::decode(&words(status)).map(|found| found.map(|it| it.state));
        assert_eq!(state(0x0000), Ok(None));
        assert_eq!(state(0x0001), Ok(Some(SecurityState::Disabled)));
        assert_eq!(state(0x0009), Ok(Some(SecurityState::DisabledFrozen)));
        assert_eq!(state(0x0007), Ok(Some(SecurityState::Locked)));
        assert_eq!(state(0x0003), Ok(Some(SecurityState::Unlocked)));
        assert_eq!(state(0x000b), Ok(Some(SecurityState::UnlockedFrozen)));
        for impossible in [0x0002, 0x0005, 0x000d, 0x000f, 0x0020] {
            assert!(matches!(state(impossible), Err(Unknown::Invalid(_))), "{impossible:04x}");
        }
        assert_eq!(state(0xffff), Err(Unknown::Ones));
    }

    #[test]
    fn the_rest_of_the_words() {
        let found = Security::decode(&words(0x0137)).unwrap().unwrap();
        let expected = Security {
            state: SecurityState::Locked,
            attempts_expired: true,
            master_maximum: true,
            master_identifier: 0xfffe,
            erase: EraseTime::About(120),
            enhanced_erase: Some(EraseTime::About(2)),
        };
        assert_eq!(found, expected);
        assert_eq!(Security::decode(&words(0x0001)).unwrap().unwrap().enhanced_erase, None);
        let agreeing = |supported_enabled| {
            Security::decode(&Words { supported_enabled: Some(supported_enabled), ..words(0x0003) })
        };
        assert!(agreeing((2, 2)).is_ok());
        assert!(agreeing((2, 0)).is_err() && agreeing((0, 2)).is_err());
    }

    #[test]
    fn both_forms_of_an_estimate() {
        let of = EraseTime::decode;
        assert_eq!([of(0), of(0x8000)], [EraseTime::NotReported; 2]);
        assert_eq!([of(1), of(254)], [EraseTime::About(2), EraseTime::About(508)]);
        assert_eq!(of(255), EraseTime::MoreThan(508));
        assert_eq!([of(0x8100), of(0xfffe)], [EraseTime::About(512), EraseTime::About(65532)]);
        assert_eq!(of(0xffff), EraseTime::MoreThan(65532));
    }
}
