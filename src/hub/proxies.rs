//! Through which proxy a host is reached: by the variables that Python's `requests` reads, in its order.

use super::client::port;
use crate::{Error, Result};
use std::borrow::Cow;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use ureq::Proxy;
use ureq::http::Uri;

/// This machine is never reached through a proxy.
const THIS_MACHINE: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The proxies that variables name. They are looked at when a host is to be reached: one that is not used may be wrong.
#[derive(Clone)]
pub(crate) struct Proxies {
    http: Option<Variable>,
    https: Option<Variable>,
    /// Hosts that are reached without one, in lower case.
    without: Vec<String>,
}

#[derive(Clone)]
struct Variable {
    name: &'static str,
    value: String,
}

impl Proxies {
    /// Looks the variables up with `variable`.
    pub(super) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let read = |lower: &'static str, upper: &'static str| {
            // An empty one in lower case switches the other off, for one command say.
            let mut found = [lower, upper].into_iter().filter_map(|name| Some((name, variable(name)?)));
            let (name, value) = found.next()?;
            // What is no text is no URL after this either, and is refused when it is used.
            let value = value.to_string_lossy().trim().to_owned();
            (!value.is_empty()).then_some(Variable { name, value })
        };
        let all = read("all_proxy", "ALL_PROXY");
        let without = read("no_proxy", "NO_PROXY").map(|v| v.value.to_ascii_lowercase()).unwrap_or_default();
        let without = without.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        Self {
            http: read("http_proxy", "HTTP_PROXY").or_else(|| all.clone()),
            https: read("https_proxy", "HTTPS_PROXY").or(all),
            without: without.map(str::to_owned).collect(),
        }
    }

    /// The proxy on the way to `uri`, if there is one.
    ///
    /// # Errors
    /// [`Error::Knob`] names the variable whose value is no proxy.
    pub(super) fn find(&self, uri: &Uri) -> Result<Option<Proxy>> {
        let is_https = uri.scheme_str() == Some("https");
        let (Some(variable), Some(host)) = (if is_https { &self.https } else { &self.http }, uri.host())
        else {
            return Ok(None);
        };
        let host = host.to_ascii_lowercase();
        if THIS_MACHINE.contains(&&*host) || self.without.iter().any(|entry| covers(entry, &host, port(uri)))
        {
            return Ok(None);
        }
        let proxy = parse(&variable.value).ok_or_else(|| {
            // The value may hold a password.
            let reason = "is not the URL of a proxy, as http://proxy.example:3128 or socks5h://127.0.0.1:1080 is: correct \
                          it, or leave it empty to use none";
            Error::knob(variable.name, reason)
        });
        proxy.map(Some)
    }
}

fn parse(value: &str) -> Option<Proxy> {
    let url: Cow<'_, str> =
        if value.contains("://") { value.into() } else { format!("http://{value}").into() };
    let proxy = Proxy::new(&url).ok()?;
    // Without a host the system would be asked for one without a name; of a port that is none, the usual one would be
    // taken.
    let authority = proxy.uri().authority()?;
    let address = authority.as_str().rsplit('@').next()?;
    let is_sound = address == proxy.host() || authority.port_u16().is_some_and(|port| port > 0);
    (is_sound && !proxy.host().is_empty()).then_some(proxy)
}

/// Whether an entry of `no_proxy` is about a host: by its name or that of a domain, with a port or not, or by the network
/// that an IPv4 address is in.
fn covers(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let (Ok(address), Some((network, bits))) = (host.parse::<Ipv4Addr>(), entry.split_once('/')) {
        let (Ok(network), Ok(bits @ 0..=32)) = (network.parse::<Ipv4Addr>(), bits.parse::<u32>()) else {
            return false;
        };
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        return network.to_bits() & mask == address.to_bits() & mask;
    }
    let entry = entry.strip_prefix('*').unwrap_or(entry).trim_start_matches('.');
    let is_or_is_below =
        |host: &str| host.strip_suffix(entry).is_some_and(|below| below.is_empty() || below.ends_with('.'));
    // An IPv6 address is written with brackets in URLs, and may be without them here.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    !entry.is_empty() && (is_or_is_below(host) || bare == entry || is_or_is_below(&format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(variables: &[(&str, &str)], uri: &str) -> Result<Option<Proxy>> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Proxies::read(variable).find(&uri.parse().unwrap())
    }

    fn found(variables: &[(&str, &str)], uri: &str) -> String {
        let proxy = find(variables, uri).unwrap();
        proxy
            .map(|proxy| format!("{} {}:{}", proxy.protocol(), proxy.host(), proxy.port()))
            .unwrap_or_default()
    }

    #[test]
    fn the_variable_of_the_scheme_counts_before_that_of_all() {
        let (https, http) = ("https://hub.example/x", "http://hub.example/x");
        let often = [("https_proxy", "http://127.0.0.1:7890"), ("all_proxy", "socks5://127.0.0.1:7891")];
        assert_eq!(found(&often, https), "HTTP 127.0.0.1:7890");
        assert_eq!(found(&often, http), "SOCKS5 127.0.0.1:7891");
        let upper = [("ALL_PROXY", "a"), ("HTTPS_PROXY", "s"), ("HTTP_PROXY", "h")];
        assert_eq!(found(&upper, https), "HTTP s:80");
        assert_eq!(found(&upper, http), "HTTP h:80");
        let both = [&upper[..], &[("https_proxy", "lower:1"), ("http_proxy", "")]].concat();
        assert_eq!(found(&both, https), "HTTP lower:1");
        assert_eq!(found(&both, http), "HTTP a:80", "an empty one switches off");
        assert_eq!(found(&[("all_proxy", ""), ("ALL_PROXY", "a")], https), "");
        assert_eq!(found(&[("HTTP_PROXY", "h")], https), "");
        assert_eq!(found(&[], https), "");
    }

    #[test]
    fn proxies_are_written_in_many_ways() {
        for (value, expected) in [
            ("proxy.example:3128", "HTTP proxy.example:3128"),
            ("proxy.example:3128/", "HTTP proxy.example:3128"),
            (" http://proxy.example ", "HTTP proxy.example:80"),
            ("https://proxy.example", "HTTPS proxy.example:443"),
            ("http://me:p%40ss@proxy.example:8080", "HTTP proxy.example:8080"),
            ("http://me@proxy.example", "HTTP proxy.example:80"),
            ("socks://proxy.example", "SOCKS5 proxy.example:1080"),
            ("socks5h://proxy.example:9", "SOCKS5h proxy.example:9"),
            ("http://[::1]:8080", "HTTP [::1]:8080"),
        ] {
            assert_eq!(found(&[("all_proxy", value)], "https://hub.example"), expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_by_its_variable_and_not_shown() {
        for value in [
            "ftp://me:secret@proxy.example",
            "http://me:secret@",
            "http://me:secret@proxy.example:99999",
            "http://me:secret@proxy.example:0",
            "http://me:secret@proxy.example:x",
            "http:// secret",
            "http://",
            "http://:3128",
            "://secret",
            "socks6://secret",
            "http:/secret",
            "sécret",
        ] {
            for name in ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
                let error = find(&[(name, value)], "https://hub.example").unwrap_err().to_string();
                assert!(error.starts_with(&format!("{name}: is not the URL of a proxy")), "{value}: {error}");
                assert!(!error.contains("secret"), "{error}");
            }
            assert_eq!(found(&[("https_proxy", value)], "http://hub.example"), "", "it is not used");
        }
    }

    #[test]
    fn some_hosts_are_reached_without_a_proxy() {
        for (without, uri, is_direct) in [
            ("", "https://hub.example", false),
            ("*", "https://hub.example", true),
            ("other, Hub.Example", "https://HUB.example/x", true),
            ("example", "https://hub.example", true),
            (".example", "https://hub.example", true),
            ("*.example", "https://hub.example", true),
            ("ub.example", "https://hub.example", false),
            ("hub.example:443", "https://hub.example", true),
            ("hub.example:80", "https://hub.example", false),
            ("hub.example", "https://hub.example.org", false),
            ("hub.example", "https://hub.example:8443", true),
            (".", "https://hub.example", false),
            ("10.0.0.0/8,192.168.1.0/24", "http://10.1.2.3:8080", true),
            ("10.0.0.0/8,192.168.1.0/24", "http://192.168.2.1", false),
            ("0.0.0.0/0", "http://192.168.2.1", true),
            ("10.0.0.0/33,10.0.0.0/x,x/8", "http://10.0.0.0", false),
            ("10.1.2.3", "http://10.1.2.3", true),
            ("fd00::1", "http://[fd00::1]", true),
            ("[fd00::1]", "http://[FD00::1]:80", true),
            ("", "http://127.0.0.1:8080", true),
            ("", "http://LOCALHOST", true),
            ("", "http://[::1]:1", true),
        ] {
            let variables = [("all_proxy", "proxy.example"), ("no_proxy", without)];
            assert_eq!(found(&variables, uri).is_empty(), is_direct, "{without} {uri}");
        }
        let both = [("all_proxy", "proxy.example"), ("NO_PROXY", "*"), ("no_proxy", "x")];
        assert_eq!(found(&both, "http://hub.example"), "HTTP proxy.example:80");
        assert_eq!(found(&both[..2], "http://hub.example"), "");
    }
}
