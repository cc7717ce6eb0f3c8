//! It comes back from every crash with an empty journal, and votes as if nothing had been.

use super::Behaviour;

pub struct ForgottenDisk;

impl Behaviour for ForgottenDisk {
    fn forgets(&self) -> bool {
        true
    }
}
