"""A client for Tally: keys, addresses, signed transactions, and calls that survive a lost connection.

The messages come from the contract in proto/ (see generate.sh). Nothing here verifies what a node says: "final" means
final according to that node.
"""

from .client import Client, Refused
from .keys import Key, decode_address, encode_address
from .signing import sign, signed_bytes, transaction_id

__all__ = [
    "Client", "Key", "Refused", "decode_address", "encode_address", "sign", "signed_bytes", "transaction_id",
]
