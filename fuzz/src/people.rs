//! What people type.

use tally_types::{Address, Decimals};

use crate::chain::vector;

pub fn address_and_amount(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string(), text, "an address has one text");
    }
    for places in 0..=18 {
        let decimals = Decimals::new(places).expect("up to 18 places are good");
        if let Ok(amount) = decimals.parse(text) {
            assert_eq!(decimals.parse(&decimals.format(amount)).ok(), Some(amount), "{text:?} with {places} places");
        }
    }
}

pub fn texts() -> Vec<Vec<u8>> {
    let mut texts: Vec<_> =
        ["0", "1", "12.5", "0.000000001", "18446744073.709551615", "18446744073709551615", "1_000", "-1", "1e3"]
            .into_iter()
            .map(|text| text.as_bytes().to_vec())
            .collect();
    texts.push(vector("key.address"));
    texts
}
