//! Applications that `slabd demo` serves: a page, and the routes that its events take.

use std::fmt;
use std::str::FromStr;

/// An application that needs no code on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demo {
    /// 10,000 checkboxes that all pages share.
    Checkboxes,
}

impl Demo {
    /// Returns its configuration file.
    pub fn settings(self) -> &'static str {
        match self {
            Demo::Checkboxes => include_str!("demo/checkboxes.toml"),
        }
    }

    /// Returns its page.
    pub fn page(self) -> &'static str {
        match self {
            Demo::Checkboxes => include_str!("demo/checkboxes.html"),
        }
    }
}

impl fmt::Display for Demo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Demo::Checkboxes => f.write_str("checkboxes"),
        }
    }
}

impl FromStr for Demo {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Demo, &'static str> {
        match text {
            "checkboxes" => Ok(Demo::Checkboxes),
            _ => Err("there is no such demo; accepted: checkboxes"),
        }
    }
}
