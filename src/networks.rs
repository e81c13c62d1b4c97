//! Lists of networks in a setting: `10.0.0.0/8,192.0.2.7,2001:db8::/32`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A list of networks, empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// Maximum number of networks in a list, because the loop searches it for each newcomer.
const NETWORKS_MAX: usize = 64;

impl Networks {
    /// Returns whether one of the networks contains the address.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Networks, String> {
        if text.is_empty() {
            return Ok(Networks::default());
        }
        let networks: Vec<IpNet> =
            text.split(',').map(|one| network(one.trim())).collect::<Result<_, _>>()?;
        if networks.len() > NETWORKS_MAX {
            return Err(format!(
                "{} networks are too many; accepted: up to {NETWORKS_MAX}",
                networks.len()
            ));
        }
        Ok(Networks(networks))
    }
}

/// Parses one network. An address without a prefix is a network of one address.
fn network(text: &str) -> Result<IpNet, String> {
    let expected =
        || format!("'{text}' is not a network; expected ADDR or ADDR/PREFIX, such as 10.0.0.0/8");
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let host = IpNet::from(address.parse::<IpAddr>().map_err(|_| expected())?);
    let Some(prefix) = prefix else { return Ok(host) };
    let prefix: u32 = prefix.parse().map_err(|_| expected())?;
    let network = u8::try_from(prefix).ok().and_then(|prefix| IpNet::new(host.addr(), prefix).ok());
    let network = network.ok_or_else(|| {
        format!(
            "'{text}' has a wrong prefix; accepted: 0 to {1}, such as {0}/{1}",
            host.addr(),
            host.max_prefix_len()
        )
    })?;
    // A mistyped prefix could otherwise trust far more addresses than intended.
    if network != network.trunc() {
        return Err(format!(
            "'{text}' has bits set beyond its prefix; expected {}",
            network.trunc()
        ));
    }
    Ok(network)
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contain(networks: &str, address: &str) -> bool {
        networks.parse::<Networks>().unwrap().contain(address.parse().unwrap())
    }

    #[test]
    fn a_network_contains_the_addresses_of_its_prefix_and_no_others() {
        for (networks, address, within) in [
            ("", "10.0.0.1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "9.255.255.255", false),
            ("192.0.2.128/25", "192.0.2.127", false),
            ("192.0.2.128/25", "192.0.2.128", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "ffff::1", true),
            ("::/0", "1.2.3.4", false),
            ("::10.0.0.1", "10.0.0.1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("10.0.0.1, 2001:db8::/32", "2001:db8::1", true),
        ] {
            assert_eq!(contain(networks, address), within, "{address} in {networks:?}");
        }
    }

    #[test]
    fn a_list_is_printed_in_a_form_that_parses_to_the_same_list() {
        for text in ["", "10.0.0.1/32", "10.0.0.0/8,2001:db8::/32,::1/128"] {
            assert_eq!(text.parse::<Networks>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_error_names_the_network_and_the_accepted_form() {
        for (text, named) in [
            ("10.0.0.0/33", "0 to 32"),
            ("10.0.0.0/256", "0 to 32"),
            ("10.0.0.0/300", "0 to 32"),
            ("::/129", "0 to 128"),
            ("10.0.0.1/8", "beyond its prefix"),
            ("localhost", "'localhost' is not a network"),
            ("10.0.0.0/", "ADDR/PREFIX"),
            ("10.0.0.0/-1", "ADDR/PREFIX"),
            ("10.0.0.1,", "'' is not a network"),
        ] {
            let error = text.parse::<Networks>().unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        let many = |count: usize| vec!["10.0.0.1"; count].join(",").parse::<Networks>();
        assert!(many(NETWORKS_MAX).is_ok() && many(NETWORKS_MAX + 1).is_err());
    }
}
