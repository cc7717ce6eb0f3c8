"""Loses answers, messages and connections on a running network: python check_losses.py HOST:PORT SEED_HEX

The key of the seed must have an account with some tokens.
"""

import faulthandler
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from relay import Proxy, Relay
from tally import Client, Key
from tally.v1 import transaction_pb2

# Takes 20 s. What is lost for good shows as a wait without an end.
faulthandler.dump_traceback_later(60, exit=True)

target, seed = sys.argv[1:]
client, payer, friend = Client(target), Key(bytes.fromhex(seed)), Key.generate()
unit = 10**client.info.params.decimals
opened = client.create_account(payer, friend.address, 2 * unit)


def error(code, reason="", domain=""):
    """A code and, with a reason, the details of it."""
    if not reason:
        return code, ()
    detail = Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain))
    status = status_pb2.Status(code=code.value[0], details=[detail])
    return code, (("grpc-status-details-bin", status.SerializeToString()),)


# The node takes the payment, and nobody who knows that says so.
uncertain = [error(code) for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
uncertain += [
    error(grpc.StatusCode.PERMISSION_DENIED, "INSUFFICIENT_FUNDS", "example.com"),
    error(grpc.StatusCode.INTERNAL, "INTERNAL", "tally.v1"),
    error(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "tally.v1"),
]
proxy = Proxy(target)
proxy.lost = {
    "SubmitTransaction": [
        error(grpc.StatusCode.CANCELLED),
        # Of the second copy and the third: they say nothing of the first.
        error(grpc.StatusCode.UNAVAILABLE, "NODE_SYNCING", "tally.v1"),
        error(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_FUNDS", "tally.v1"),
    ],
    "WaitTransaction": [*uncertain, error(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", "tally.v1")],
}
over_proxy = Client(proxy.address)
record = over_proxy.send(payer, friend.address, 1)
assert record.state == transaction_pb2.TRANSACTION_STATE_FINALIZED, record
assert not any(proxy.lost.values()), proxy.lost
assert client.account(friend.address).balance == 2 * unit + 1, "not paid once"
print("lost answers: paid once, and known to be final")

# Three streams that are lost without a word: two before their first message, and one with its connection.
proxy.silent = 2
transactions, blocks = over_proxy.transactions(friend.address), over_proxy.blocks()
relay = Relay(target)
followed = Client(relay.address).transactions(friend.address, from_height=opened.receipt.height)
assert [next(followed).tx_id, next(followed).tx_id] == [opened.tx_id, record.tx_id]
relay.swallow()
with ThreadPoolExecutor() as pool:
    firsts = [pool.submit(next, stream) for stream in (transactions, followed, blocks)]
    paid = client.send(payer, friend.address, 1)
    *found, block = [first.result() for first in firsts]
assert [record.tx_id for record in found] == [paid.tx_id, paid.tx_id], found
while paid.tx_id not in block.tx_ids:
    following = next(blocks)
    assert following.header.height == block.header.height + 1, "a block is missing"
    block = following
for stream in (transactions, followed, blocks):
    stream.close()
print("lost streams: taken up again where they were")
