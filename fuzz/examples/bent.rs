//! Runs one target on bent inputs and names each before it runs, to find one that ends the process:
//! `cargo run -p tally-fuzz --example bent -- replica 0 2000`.

fn main() {
    let mut args = std::env::args().skip(1);
    let name = args.next().expect("name a target");
    let mut number = || args.next().and_then(|text| text.parse::<u64>().ok()).expect("give a first run and a count");
    let (first, count) = (number(), number());
    let target = tally_fuzz::TARGETS.into_iter().find(|target| target.name == name).expect("a target of that name");
    let seeds = (target.seeds)();
    for run in first..first + count {
        let input = tally_fuzz::bend::bend(&seeds, run);
        println!("run {run}, {} bytes", input.len());
        (target.run)(&input);
    }
}
