//! What certificates make final, and what they do not.

use super::*;

/// A child of `header` in `epoch`, in the view after it.
fn on_top(header: &HeaderFields, epoch: u64) -> HeaderFields {
    let mut next = header.clone();
    (next.epoch, next.height, next.view) = (Epoch(epoch), header.height.next(), header.view.next());
    (next.parent, next.time, next.cut) = (Header::new(header.clone()).hash(), header.time.next(), vec![Tip::START; 4]);
    next
}

/// Has a machine take back a header and the commit certificate for it.
fn commit(machine: &mut Machine, header: &HeaderFields, epoch: u64) -> (Epoch, Height) {
    let mut certificate = (*committed(header)).clone();
    certificate.epoch = Epoch(epoch);
    for record in [Record::Header(Header::new(header.clone())), Record::Certificate(Arc::new(certificate))] {
        machine.replay(record, &mut Vec::new()).unwrap();
    }
    (machine.agreement().epoch(), machine.status().final_height)
}

/// Only a dishonest quorum signs such a certificate. Whether it comes before the next epoch is entered or after, as it may where a
/// journal is taken back, makes no difference.
#[test]
fn rule_p5_nothing_is_final_past_the_last_block_of_an_epoch() {
    for claimed in [1, 2] {
        let (mut machine, first, batches) = short_epochs();
        assert_eq!(commit(&mut machine, &first, 0), (Epoch(1), Height(1)));
        // The first block's payload is missing: it is not executed, and nobody knows who votes in epoch 2.
        let last = on_top(&first, 1);
        assert_eq!(commit(&mut machine, &last, 1), (Epoch(1), Height(2)));
        let past = on_top(&last, claimed);
        assert_eq!(commit(&mut machine, &past, 1), (Epoch(1), Height(2)));
        for batch in batches {
            machine.replay(Record::Stored(batch), &mut Vec::new()).unwrap();
        }
        let executed = Executed { height: Height(1), ..machine.config.genesis_executed };
        let validators = machine.config.genesis_validators.clone();
        machine.handle(NOW, Event::Executed { executed, validators }, &mut Vec::new());
        assert_eq!((machine.agreement().epoch(), machine.status().final_height), (Epoch(2), Height(2)), "{claimed}");
    }
}

/// A header that leaves out heights may be fetched by its hash; only a dishonest quorum certifies what lies on it.
#[test]
fn rule_p4_nothing_is_final_on_a_chain_that_leaves_out_a_height() {
    let (mut machine, first, _) = first_block(0, 1000);
    assert_eq!(commit(&mut machine, &first, 0), (Epoch(0), Height(1)));
    let mut gap = on_top(&first, 0);
    gap.height = Height(7);
    assert_eq!(commit(&mut machine, &gap, 0), (Epoch(0), Height(1)));
    let mut back = on_top(&gap, 0);
    back.height = Height(3);
    assert_eq!(commit(&mut machine, &back, 0), (Epoch(0), Height(1)));
    let mut low = on_top(&first, 0);
    (low.view, low.height) = (View(9), Height(2));
    let mut high = on_top(&low, 0);
    high.height = Height(9);
    machine.replay(Record::Header(Header::new(low)), &mut Vec::new()).unwrap();
    assert_eq!(commit(&mut machine, &high, 0), (Epoch(0), Height(1)));
}
