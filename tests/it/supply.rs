//! Balances and stakes add up to the supply, at every moment.

use tally_proto::v1;

use crate::{
    load::Load,
    network::{Network, Node, Plan, STAKE},
};

/// The sum of all balances at one height, read in pages of three.
async fn sum(node: &Node) -> u64 {
    let (mut sum, mut heights, mut page_token) = (0, Vec::new(), String::new());
    loop {
        let request = v1::ListAccountsRequest { page_size: 3, page_token };
        let page = node.accounts().list_accounts(request).await.unwrap().into_inner();
        sum += page.accounts.iter().map(|account| account.balance).sum::<u64>();
        heights.push(page.height);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            heights.dedup();
            assert_eq!(heights.len(), 1, "pages of several heights: {heights:?}");
            return sum;
        }
    }
}

#[tokio::test]
async fn balances_and_stakes_add_up_to_the_supply_during_and_after_a_load() {
    let network = Network::start(Plan { payers: 12, ..Plan::of(4) }).await;
    let balances = network.genesis.total_supply.0 - 4 * STAKE;
    let mut load = Load::start(&network);
    for _ in 0..5 {
        load.more(20).await;
        for node in &network.nodes {
            assert_eq!(sum(node).await, balances);
        }
    }
    load.stop().await;
    network.grow(1).await;
    for node in &network.nodes {
        assert_eq!(sum(node).await, balances);
        let request = v1::ListValidatorsRequest::default();
        let set = node.validators().list_validators(request).await.unwrap().into_inner();
        let stakes: u64 = set.validators.iter().map(|validator| validator.voting_power).sum();
        assert_eq!(balances + stakes, network.genesis.total_supply.0);
    }
    // Fees went to the validators' operators, all of them.
    network.assert_equal().await;
}
