"""Keys and addresses: an address is the bech32m form (BIP-350) of an Ed25519 public key."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PREFIX = "tally"
_CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32M = 0x2BC830A3


class Key:
    """A secret key. Keep `seed` where nobody reads it."""

    def __init__(self, seed: bytes):
        if len(seed) != 32:
            raise ValueError("a seed has 32 bytes")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @staticmethod
    def generate() -> "Key":
        """A new key, from the system's randomness."""
        key = Key.__new__(Key)
        key._key = Ed25519PrivateKey.generate()
        return key

    @property
    def public(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def address(self) -> str:
        return encode_address(self.public)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def encode_address(public: bytes) -> str:
    """The address of a public key."""
    if len(public) != 32:
        raise ValueError("a public key has 32 bytes")
    data = _regroup(public, 8, 5, pad=True)
    check = _polymod(_expanded() + data + [0] * 6) ^ _BECH32M
    data += [(check >> 5 * (5 - place)) & 31 for place in range(6)]
    return PREFIX + "1" + "".join(_CHARACTERS[value] for value in data)


def decode_address(text: str) -> bytes:
    """The public key of an address; ValueError if the text is no canonical one."""
    head, _, tail = text.partition("1")
    if head != PREFIX or len(text) != 64 or any(c not in _CHARACTERS for c in tail):
        raise ValueError(f"{text!r} is no address: 64 characters that start with tally1, lower case")
    data = [_CHARACTERS.index(c) for c in tail]
    if _polymod(_expanded() + data) != _BECH32M:
        raise ValueError(f"{text!r} is mistyped: its checksum does not fit")
    public = bytes(_regroup(data[:-6], 5, 8, pad=False))
    # The four bits that are left over must be zero, or one key would have several addresses.
    if encode_address(public) != text:
        raise ValueError(f"{text!r} is not canonical")
    return public


def _expanded() -> list:
    return [ord(c) >> 5 for c in PREFIX] + [0] + [ord(c) & 31 for c in PREFIX]


def _polymod(values: list) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if (top >> place) & 1 else 0
    return check


def _regroup(values, width: int, to: int, pad: bool) -> list:
    held, bits, groups = 0, 0, []
    for value in values:
        held, bits = held << width | value, bits + width
        while bits >= to:
            bits -= to
            groups.append(held >> bits & ((1 << to) - 1))
    if pad and bits:
        groups.append(held << (to - bits) & ((1 << to) - 1))
    return groups
