"""Bettensor's signed dialect as the originals spell, sign and check it: sr25519 over `json.dumps(sort_keys=True)`."""

import datetime
import hashlib
import json
import time

import sr25519

DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def address_of(public):
    """SS58 in Bittensor's format 42."""
    known = bytes([42]) + public
    number = int.from_bytes(known + hashlib.blake2b(b"SS58PRE" + known).digest()[:2], "big")
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = DIGITS[digit] + text
    return text


def public_of(address):
    number = 0
    for digit in address:
        number = number * 58 + DIGITS.index(digit)
    known = number.to_bytes(35, "big")
    if hashlib.blake2b(b"SS58PRE" + known[:33]).digest()[:2] != known[33:]:
        raise ValueError("checksum")
    return known[1:33]


class Keys:
    def __init__(self, seed):
        self.pair = sr25519.pair_from_seed(bytes.fromhex(seed))
        self.address = address_of(self.pair[0])

    def sign(self, text):
        return sr25519.sign(self.pair, text.encode()).hex()


def moment(age=0):
    return (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=age)).isoformat()


def nonce():
    return str(time.time() * 1000)


def canonical(message):
    return json.dumps({name: value for name, value in message.items() if name != "signature"}, sort_keys=True)


def signed(keys, message):
    return {**message, "signature": keys.sign(canonical(message))}


def auth(keys, age=0, claims=None):
    """The first frame; it may claim to be somebody else's."""
    return json.dumps(signed(keys, {"hotkey": claims or keys.address, "timestamp": moment(age), "nonce": nonce()}))


def envelope(keys, kind, data, age=0, claims=None, compact=False):
    """Miners put spaces behind colons and commas, validators do not."""
    message = {"type": kind, "sender": claims or keys.address, "data": data, "timestamp": moment(age)}
    message["nonce"] = nonce()
    # A validator's frames are Starlette's: compact, and not in ASCII.
    return json.dumps(signed(keys, message), separators=(",", ":") if compact else None, ensure_ascii=not compact)


def is_by(message, address):
    """Whether this address signed it; `None` if nobody did."""
    if "signature" not in message:
        return None
    try:
        signature = bytes.fromhex(message["signature"])
        return len(signature) == 64 and sr25519.verify(signature, canonical(message).encode(), public_of(address))
    except (ValueError, TypeError, OverflowError):
        return False


def prediction(id):
    """What a miner's application says about a game."""
    return {
        "prediction_id": id,
        "game_id": id.partition("_")[0],
        "home_score": 2,
        "away_score": 1.0,
        "confidence": 1e-07,
        "note": "Füchse – Löwen 🎲",
        "timestamp": moment(),
    }
