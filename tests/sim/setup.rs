//! What a world is made of, and how a seed draws it.

use tally_types::{
    Genesis, Params,
    genesis::{FORMAT, GenesisAccount, GenesisFile, GenesisValidator},
};

use crate::{
    byzantine::Kind,
    clients::Load,
    keys::{self, CLIENTS},
    rng::Rng,
};

/// Start of simulated wall-clock time.
pub const START_MS: u64 = 1_800_000_000_000;

/// What the network and the machines go through until the world heals.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Messages lost, percent.
    pub loss: u64,
    /// Messages delivered twice, percent.
    pub duplicates: u64,
    /// Longest delay, milliseconds.
    pub delay_ms: u64,
    /// Crashes per node and 200 seconds.
    pub crashes: u64,
    /// Now and then the power fails for everybody at once.
    pub blackouts: bool,
    /// Partitions come and go.
    pub partitions: bool,
    /// How far wall clocks may be off, milliseconds, either way.
    pub skew_ms: u64,
    /// How much too fast or slow clocks may run, per mille.
    pub drift: u64,
    /// Disks that rot and misdirect writes. Together with Byzantine and missing validators below a third of the stake.
    pub rotting: Vec<usize>,
    /// Syncs fail now and then, on any disk.
    pub sync_errors: bool,
    /// Disks fill up now and then.
    pub full_disks: bool,
    /// When all of that ends, milliseconds.
    pub heal_ms: u64,
    /// Validators that never run: the last ones.
    pub down: usize,
}

impl Faults {
    pub fn none() -> Faults {
        Faults {
            loss: 0,
            duplicates: 0,
            delay_ms: 5,
            crashes: 0,
            blackouts: false,
            partitions: false,
            skew_ms: 0,
            drift: 0,
            rotting: Vec::new(),
            sync_errors: false,
            full_disks: false,
            heal_ms: 0,
            down: 0,
        }
    }
}

/// How to make a world.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub stakes: Vec<u64>,
    pub params: Params,
    pub load: Load,
    pub faults: Faults,
    /// Validators that cheat, and how.
    pub byzantine: Vec<(usize, Kind)>,
    /// Size at which a journal begins its next segment, bytes.
    pub segment_bytes: u64,
    /// Blocks that come with their payload in one answer.
    pub answer_blocks: usize,
    /// Collect violations instead of failing on the first: for worlds with too much Byzantine stake.
    pub tolerant: bool,
}

impl Setup {
    /// Nothing fails.
    pub fn calm(seed: u64, n: usize) -> Setup {
        let params = Params { epoch_blocks: 16, execution_window: 4, idle_interval_ms: 2000, ..Params::default() };
        Setup {
            seed,
            stakes: vec![1; n],
            params,
            load: Load::payments(50),
            faults: Faults::none(),
            byzantine: Vec::new(),
            segment_bytes: 256 << 10,
            answer_blocks: 64,
            tolerant: false,
        }
    }

    /// Everything drawn from the seed. Validators that cheat, rot or never run have less than a third of the stake.
    pub fn drawn(seed: u64) -> Setup {
        let mut rng = Rng::new(seed.wrapping_mul(7919).wrapping_add(1));
        let n = rng.choose(&[1, 2, 3, 4, 4, 4, 5, 6, 7, 7, 8, 9, 10]);
        let stakes: Vec<u64> = match rng.below(4) {
            0 => (0..n).map(|_| 1 + rng.below(10)).collect(),
            1 => (0..n).map(|place| 1 << (place as u64 % 5)).collect(),
            _ => vec![1; n],
        };
        let faulty = faulty(&mut rng, &stakes);
        let down_last = rng.percent(15) && faulty.contains(&(n - 1));
        let mut faults = Faults {
            loss: rng.choose(&[0, 5, 20, 40]),
            duplicates: rng.choose(&[0, 10, 50]),
            delay_ms: rng.choose(&[5, 50, 500, 10_000]),
            crashes: rng.choose(&[0, 2, 10, 40]),
            blackouts: rng.percent(15),
            partitions: rng.percent(50),
            skew_ms: rng.choose(&[0, 0, 900, 600_000]),
            drift: rng.choose(&[0, 0, 5, 50]),
            rotting: Vec::new(),
            sync_errors: rng.percent(20),
            full_disks: rng.percent(20),
            heal_ms: 5000 + rng.below(25_000),
            down: usize::from(down_last),
        };
        let mut byzantine = Vec::new();
        let conspiracy = rng.percent(30);
        for place in faulty.into_iter().filter(|place| !down_last || *place + 1 < n) {
            if rng.percent(75) {
                let kind = if conspiracy { rng.choose(&Kind::CONSPIRATORS) } else { rng.choose(&Kind::ALL) };
                byzantine.push((place, kind));
            } else {
                faults.rotting.push(place);
            }
        }
        let forgets = byzantine.iter().any(|(_, kind)| *kind == Kind::ForgottenDisk);
        if forgets || !faults.rotting.is_empty() {
            // Damage is found at a start.
            faults.crashes = faults.crashes.max(20);
        }
        let params = Params {
            // Long ones too: catching up inside an epoch is another thing than across its end.
            epoch_blocks: if rng.percent(50) { 16 + rng.below(20) } else { 1000 },
            execution_window: 4 + rng.below(8),
            idle_interval_ms: 1000,
            view_timeout_ms: 300,
            // Leaders are drawn by the hash of genesis: no two worlds of one size have the same schedule.
            max_expiry_ms: Params::default().max_expiry_ms - rng.below(1 << 16),
            ..Params::default()
        };
        // Small enough that runs rotate, some of them all the time.
        let segment_bytes = rng.choose(&[16 << 10, 256 << 10]);
        let answer_blocks = rng.choose(&[1, 2, 8, 64]);
        let mut load = Load::drawn(&mut rng);
        if byzantine.iter().any(|(_, kind)| kind.needs_load()) {
            load.per_second = load.per_second.max(5);
        }
        Setup { seed, stakes, params, load, faults, byzantine, segment_bytes, answer_blocks, tolerant: false }
    }

    pub fn genesis(&self) -> Genesis {
        let mut accounts: Vec<GenesisAccount> = (0..CLIENTS)
            .map(|client| GenesisAccount { address: keys::client(client).to_string(), balance: 1 << 50 })
            .collect();
        let mut validators = Vec::new();
        for (index, stake) in self.stakes.iter().enumerate() {
            let operator = keys::operator(index).to_string();
            accounts.push(GenesisAccount { address: operator.clone(), balance: 0 });
            validators.push(GenesisValidator {
                address: operator,
                consensus_public_key: keys::validator(index).to_string(),
                stake: *stake,
                moniker: String::new(),
            });
        }
        let file = GenesisFile {
            format: FORMAT,
            name: "world".into(),
            time_ms: START_MS - 1,
            symbol: "TALLY".into(),
            decimals: 9,
            total_supply: CLIENTS as u64 * (1 << 50) + self.stakes.iter().sum::<u64>(),
            params: Params { min_validator_stake: 1, ..self.params.clone() },
            accounts,
            validators,
        };
        Genesis::parse(&file.encode().expect("JSON")).expect("a good genesis")
    }
}

/// Validators of less than a third of the stake, in an order of chance; in one world of four none.
fn faulty(rng: &mut Rng, stakes: &[u64]) -> Vec<usize> {
    if rng.percent(25) {
        return Vec::new();
    }
    let total: u64 = stakes.iter().sum();
    let mut order: Vec<usize> = (0..stakes.len()).collect();
    rng.shuffle(&mut order);
    let mut sum = 0;
    order.retain(|place| {
        let fits = (sum + stakes[*place]) * 3 < total;
        sum += if fits { stakes[*place] } else { 0 };
        fits
    });
    order
}
