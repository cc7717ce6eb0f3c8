"""A walk through the client on a running network: python demo.py HOST:PORT SEED_HEX

The key of the seed must have an account with some tokens. It is refused once, opens an account, pays into it, and follows the
new account's transactions over a connection that is cut in between.
"""

import itertools
import sys

from relay import Relay
from tally import Client, Key, Refused
from tally.v1 import transaction_pb2

target, seed = sys.argv[1:]
client, payer, friend = Client(target), Key(bytes.fromhex(seed)), Key.generate()
unit = 10**client.info.params.decimals
before = client.account(payer.address).balance
print(f"{payer.address} holds {before / unit} {client.info.params.symbol} on {client.info.chain_id}")

try:
    client.send(payer, friend.address, unit)
    sys.exit("a payment to nobody went through")
except Refused as refused:
    assert refused.reason == "RECIPIENT_NOT_FOUND", refused
    print(f"refused, as it should be: {refused}")

opened = client.create_account(payer, friend.address, 2 * unit, memo="welcome")
paid = client.send(payer, friend.address, unit // 2)
for record in (opened, paid):
    assert record.state == transaction_pb2.TRANSACTION_STATE_FINALIZED, record
    assert record.receipt.result == transaction_pb2.EXECUTION_RESULT_OK, record
    print(f"final at height {record.receipt.height}: {record.tx_id}")

fees = opened.receipt.fee + paid.receipt.fee
assert client.account(payer.address).balance == before - 2 * unit - unit // 2 - fees
assert client.account(friend.address).balance == 2 * unit + unit // 2

relay = Relay(target)
followed = Client(relay.address).transactions(friend.address, from_height=1)
assert [next(followed).tx_id, next(followed).tx_id] == [opened.tx_id, paid.tx_id]
relay.cut()
again = client.send(payer, friend.address, 1)
assert next(followed).tx_id == again.tx_id, "after the connection was lost"
heights = [block.header.height for block in itertools.islice(client.blocks(from_height=1), 5)]
assert heights == [1, 2, 3, 4, 5], heights
print("streams: each transaction once, no block missing")
