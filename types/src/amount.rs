//! Token amounts in base units, and how people write them.

use std::fmt;

use thiserror::Error;

/// Most decimal places a token can have: 10^18 still fits an amount.
pub const DECIMALS_MAX: u32 = 18;

/// Base units of the token. At most 2^63-1 exist ([`Amount::SUPPLY_MAX`]), so every amount also fits an `i64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(pub u64);

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);
    /// The largest supply a genesis may fix.
    pub const SUPPLY_MAX: Amount = Amount(i64::MAX as u64);

    /// The sum, unless it is above 2^64-1.
    pub fn checked_add(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(Amount)
    }

    /// The difference, unless it is below zero.
    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }

    /// The product, unless it is above 2^64-1.
    pub fn checked_mul(self, factor: u64) -> Option<Amount> {
        self.0.checked_mul(factor).map(Amount)
    }

    /// Whether this is nothing.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many decimal places a token's symbol has: 10^decimals base units make one token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decimals(u32);

/// Why a text is not an amount.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AmountError {
    /// Something other than digits and at most one point between them.
    #[error("{0:?} is not an amount: write digits with at most one point, for example 12.5")]
    Malformed(String),
    /// More decimal places than the token has.
    #[error("{text:?} has {places} decimal places, this token has {decimals}")]
    TooPrecise {
        /// The text.
        text: String,
        /// Decimal places in it.
        places: usize,
        /// Decimal places of the token.
        decimals: u32,
    },
    /// More than 2^64-1 base units.
    #[error("{0:?} is more than any supply can hold")]
    TooLarge(String),
}

impl Decimals {
    /// `places` decimal places, at most [`DECIMALS_MAX`].
    pub fn new(places: u32) -> Option<Decimals> {
        (places <= DECIMALS_MAX).then_some(Decimals(places))
    }

    /// How many.
    pub fn places(self) -> u32 {
        self.0
    }

    fn unit(self) -> u64 {
        // 10^18 is below 2^64, and `new` lets nothing above 18 in.
        10u64.saturating_pow(self.0)
    }

    /// `amount` as people write it: no trailing zeros, no exponent, exact.
    pub fn format(self, amount: Amount) -> String {
        let unit = self.unit();
        let whole = amount.0.checked_div(unit).unwrap_or_default();
        let rest = amount.0.checked_rem(unit).unwrap_or_default();
        if rest == 0 {
            return whole.to_string();
        }
        let places = usize::try_from(self.0).unwrap_or_default();
        let digits = format!("{rest:0places$}");
        format!("{whole}.{}", digits.trim_end_matches('0'))
    }

    /// Reads what [`Decimals::format`] writes, and its like ("0.50", "12", "007"). Never rounds: a place too many is an
    /// error. No sign, no exponent, no grouping, no bare point.
    pub fn parse(self, text: &str) -> Result<Amount, AmountError> {
        let malformed = || AmountError::Malformed(text.to_owned());
        let too_large = || AmountError::TooLarge(text.to_owned());
        let (whole, rest) = match text.split_once('.') {
            Some((_, "")) => return Err(malformed()),
            Some((whole, rest)) => (whole, rest),
            None => (text, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(rest) {
            return Err(malformed());
        }
        let places = usize::try_from(self.0).unwrap_or_default();
        if rest.len() > places {
            return Err(AmountError::TooPrecise { text: text.to_owned(), places: rest.len(), decimals: self.0 });
        }
        let whole: u64 = whole.parse().map_err(|_| too_large())?;
        let rest = format!("{rest:0<places$}");
        let rest: u64 = if rest.is_empty() { 0 } else { rest.parse().map_err(|_| too_large())? };
        let base = whole.checked_mul(self.unit()).ok_or_else(too_large)?;
        base.checked_add(rest).map(Amount).ok_or_else(too_large)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nine() -> Decimals {
        Decimals::new(9).unwrap()
    }

    #[test]
    fn writes_and_reads_like_a_person() {
        for (text, base, shown) in [
            ("12.5", 12_500_000_000, "12.5"),
            ("0", 0, "0"),
            ("0.000000001", 1, "0.000000001"),
            ("007", 7_000_000_000, "7"),
            ("1.50", 1_500_000_000, "1.5"),
            ("18446744073.709551615", u64::MAX, "18446744073.709551615"),
        ] {
            assert_eq!(nine().parse(text), Ok(Amount(base)), "{text}");
            assert_eq!(nine().format(Amount(base)), shown);
        }
        assert_eq!(Decimals::new(0).unwrap().parse("3"), Ok(Amount(3)));
        assert_eq!(Decimals::new(0).unwrap().format(Amount(3)), "3");
        assert_eq!(Decimals::new(19), None);
    }

    #[test]
    fn refuses_everything_else() {
        for text in
            ["", ".", ".5", "1.", "-1", "+1", "1e3", "1,5", "1_0", " 1", "1 ", "0x1", "1.2.3", "١", "NaN", "1.-5"]
        {
            assert_eq!(nine().parse(text), Err(AmountError::Malformed(text.into())), "{text}");
        }
        assert_eq!(
            nine().parse("0.0000000001"),
            Err(AmountError::TooPrecise { text: "0.0000000001".into(), places: 10, decimals: 9 })
        );
        for text in ["18446744073.709551616", "99999999999999999999", "18446744074"] {
            assert_eq!(nine().parse(text), Err(AmountError::TooLarge(text.into())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_amount_is_read_back(base: u64, places in 0..=DECIMALS_MAX) {
            let decimals = Decimals::new(places).unwrap();
            prop_assert_eq!(decimals.parse(&decimals.format(Amount(base))), Ok(Amount(base)));
        }
    }
}
