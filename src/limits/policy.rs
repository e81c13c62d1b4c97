//! The policies for newcomers when there is no room.

use std::fmt;
use std::str::FromStr;

/// The policy of admission for a newcomer when the silent set is full or no slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Resets the oldest silent connection and gives its slot to the newcomer.
    Recycle,
    /// Refuses the newcomer.
    Refuse,
    /// Refuses the newcomer at random, as OpenSSH's MaxStartups does. It refuses 30 % at half the
    /// silent set, and all at the full set.
    RandomDrop,
}

impl Policy {
    const NAMES: [(Policy, &str); 3] = [
        (Policy::Recycle, "recycle"),
        (Policy::Refuse, "refuse"),
        (Policy::RandomDrop, "random-drop"),
    ];
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Policy, String> {
        let found = Policy::NAMES.iter().find(|(_, name)| *name == text);
        found
            .map(|(policy, _)| *policy)
            .ok_or_else(|| "expected recycle, refuse or random-drop".into())
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
    fn a_policy_is_written_as_it_is_read() {
        for (policy, name) in Policy::NAMES {
            assert_eq!((policy.to_string().as_str(), name.parse()), (name, Ok(policy)));
        }
        assert!("drop".parse::<Policy>().is_err());
    }
}
