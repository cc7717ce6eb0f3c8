"""What a sender signs. The bytes of the body travel as they were signed: never serialise a body twice."""

import hashlib

from .keys import Key
from tally.v1 import transaction_pb2

TAG = b"tally.tx.v1"


def signed_bytes(genesis_hash: bytes, body: bytes) -> bytes:
    """Tag, zero byte, genesis hash, serialised body."""
    return TAG + b"\0" + genesis_hash + body


def transaction_id(genesis_hash: bytes, body: bytes) -> str:
    """The id, before anybody has seen the transaction."""
    return hashlib.sha256(signed_bytes(genesis_hash, body)).hexdigest()


def sign(key: Key, genesis_hash: bytes, body: bytes) -> transaction_pb2.Transaction:
    """The signed transaction of a serialised body."""
    signature = transaction_pb2.Signature(signature=key.sign(signed_bytes(genesis_hash, body)))
    return transaction_pb2.Transaction(body=body, signatures=[signature])
