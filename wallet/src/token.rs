//! How amounts of a chain's token are written for people.

use tally_types::{Amount, Decimals, amount::AmountError};

/// A token: its symbol and its decimal places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    symbol: String,
    decimals: Decimals,
}

impl Token {
    /// A token of 0 to 18 decimal places and a symbol of 1 to 12 of A-Z.
    pub fn new(symbol: &str, decimals: u32) -> Option<Token> {
        let symbol_fits = (1..=12).contains(&symbol.len()) && symbol.bytes().all(|b| b.is_ascii_uppercase());
        let decimals = Decimals::new(decimals)?;
        symbol_fits.then(|| Token { symbol: symbol.to_owned(), decimals })
    }

    /// "12.5 TALLY".
    pub fn show(&self, amount: Amount) -> String {
        format!("{} {}", self.number(amount), self.symbol)
    }

    /// "12.5".
    pub fn number(&self, amount: Amount) -> String {
        self.decimals.format(amount)
    }

    /// Reads "12.5".
    pub fn parse(&self, text: &str) -> Result<Amount, AmountError> {
        self.decimals.parse(text)
    }

    /// The symbol.
    pub fn symbol(&self) -> &str {
        &self.symbol
    }

    /// Decimal places.
    pub fn places(&self) -> u32 {
        self.decimals.places()
    }
}
