"""Checks this client against clients/vectors: every line that a client makes itself."""

import hashlib
import pathlib
import sys

from tally import Key, decode_address, encode_address, sign, signed_bytes, transaction_id
from tally.v1 import transaction_pb2

path = pathlib.Path(__file__).parent.parent / "vectors" / "vectors.txt"
vectors = dict(line.split(" ", 1) for line in path.read_text().splitlines())
of = {name: bytes.fromhex(value) for name, value in vectors.items() if name.startswith(("key.s", "genesis.f", "genesis.h", "tr"))}
key, genesis, body = Key(of["key.seed"]), of["genesis.hash"], of["transaction.body"]
wrong = []


def check(name, made):
    made = made.hex() if isinstance(made, bytes) else made
    if made != vectors[name]:
        wrong.append(f"{name} is {made}, should be {vectors[name]}")


check("key.public", key.public)
check("key.address", key.address)
check("key.public", decode_address(vectors["key.address"]))
check("genesis.hash", hashlib.sha256(of["genesis.file"]).digest())
check("transaction.signed_bytes", signed_bytes(genesis, body))
check("transaction.id", transaction_id(genesis, body))
check("transaction.bytes", sign(key, genesis, body).SerializeToString(deterministic=True))
# Read and written again, the body has the same bytes: this library writes fields in order, as nodes demand of nobody.
check("transaction.body", transaction_pb2.TransactionBody.FromString(body).SerializeToString(deterministic=True))
for text in (vectors["key.address"].upper(), vectors["key.address"][:-1] + "q", vectors["key.address"][:-1], "", "tally1"):
    try:
        decode_address(text)
        wrong.append(f"{text!r} passed for an address")
    except ValueError:
        pass
if encode_address(bytes(32)) == encode_address(bytes(31) + b"\x01"):
    wrong.append("two keys have one address")

print("\n".join(wrong) or "all vectors hold")
sys.exit(bool(wrong))
