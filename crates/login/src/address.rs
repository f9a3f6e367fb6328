//! One text for one IP address, so that equal addresses have equal masks.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// The text of `ip` that is masked.
///
/// - An IPv6 address becomes its canonical text (RFC 5952): `2001:DB8:0::1` and `2001:db8::1` are one.
/// - A zone stays as it is behind the address (`fe80::1%eth0`): it is part of which address is meant.
/// - An IPv4-mapped address stays IPv6, in the mixed notation of RFC 5952 section 5: `::ffff:c000:201` becomes
///   `::ffff:192.0.2.1`, and is not the address `192.0.2.1`.
/// - Anything else, IPv4 addresses first of all, is its own text.
pub(crate) fn canonical(ip: &str) -> Cow<'_, str> {
    let (address, zone) = match ip.split_once('%') {
        Some((address, zone)) if !zone.is_empty() => (address, Some(zone)),
        _ => (ip, None),
    };
    match (address.contains(':'), address.parse::<Ipv6Addr>(), zone) {
        (true, Ok(address), None) => Cow::Owned(address.to_string()),
        (true, Ok(address), Some(zone)) => Cow::Owned(format!("{address}%{zone}")),
        _ => Cow::Borrowed(ip),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::canonical;

    #[test]
    fn spellings_of_one_address_become_one() {
        for (ip, expected) in [
            ("2001:DB8::1", "2001:db8::1"),
            ("2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"),
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("0:0:0:0:0:0:0:0", "::"),
            ("::ffff:c000:201", "::ffff:192.0.2.1"),
            ("::FFFF:192.0.2.1", "::ffff:192.0.2.1"),
            ("FE80:0::1%eth0", "fe80::1%eth0"),
        ] {
            assert_eq!(canonical(ip), expected, "{ip}");
        }
    }

    #[test]
    fn anything_else_is_its_own_text() {
        for ip in [
            "",
            "199.172.111.135",
            "010.0.0.1",
            "199.172.111.135%eth0",
            "[2001:DB8::1]",
            "2001:DB8::1/64",
            " 2001:DB8::1",
            "2001:DB8::1%",
            "2001:DB8:::1",
            "Unknown",
        ] {
            assert_eq!(canonical(ip), ip);
        }
    }

    proptest! {
        #[test]
        fn equal_addresses_become_equal_texts(bits: u128, sparse: u128) {
            // `&` leaves runs of zeros, which is where spellings differ most.
            let address = Ipv6Addr::from(bits & sparse & sparse.rotate_right(64));
            let groups = address.segments();
            let padded = groups.map(|group| format!("{group:04X}")).join(":");
            let bare = groups.map(|group| format!("{group:x}")).join(":");
            let shortest = address.to_string();
            prop_assert_eq!(canonical(&padded), shortest.as_str());
            prop_assert_eq!(canonical(&bare), shortest.as_str());
            prop_assert_eq!(canonical(&shortest), shortest.as_str());
        }

        #[test]
        fn a_canonical_text_is_its_own(ip in r"[0-9a-fA-F:.%x]{0,45}") {
            let once = canonical(&ip).into_owned();
            prop_assert_eq!(canonical(&once), once.as_str());
        }
    }
}
