//! What to do with newcomers when there is no room.

use std::fmt;
use std::str::FromStr;

/// What happens to a newcomer when the silent set, or the slab, is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The oldest silent connection is reset and gives its slot to the newcomer.
    Recycle,
    /// The newcomer is refused.
    Refuse,
    /// The newcomer is refused with a chance that grows from 30 % at half the set to certainty: OpenSSH's MaxStartups.
    RandomDrop,
}

impl Policy {
    const NAMES: [(Policy, &str); 3] =
        [(Policy::Recycle, "recycle"), (Policy::Refuse, "refuse"), (Policy::RandomDrop, "random-drop")];
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Policy, String> {
        let found = Policy::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(policy, _)| *policy).ok_or_else(|| "expected recycle, refuse or random-drop".into())
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Policy::NAMES[*self as usize].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_named_and_read_alike() {
        for (policy, name) in Policy::NAMES {
            assert_eq!((policy.to_string().as_str(), name.parse()), (name, Ok(policy)));
        }
        assert!("drop".parse::<Policy>().is_err());
    }
}
