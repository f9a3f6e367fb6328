"""The vault once more, from docs/vault.md alone: with pyrage for age, and libsodium for the cipher.

    open_and_seal.py open IDENTITY    reads lines of: mask, key_id, wrapped, sealed (the last two in hex);
                                      writes for each a line: kind, original in hex; or: refused, why
    open_and_seal.py seal RECIPIENT   reads lines of: kind, mask, original in hex;
                                      writes for each a line: key_id, wrapped, sealed (the last two in hex)

Fields are separated by a space.
"""

import hashlib
import secrets
import sys
import uuid

import pyrage
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    sodium_pad,
    sodium_unpad,
)
from nacl.exceptions import CryptoError

KINDS = {1: ("ip", 48), 2: ("device_id", 64)}


def key_id_of(data_key):
    digest = hashlib.sha256(b"user_logins_sqs vault data key" + data_key).digest()
    return uuid.UUID(bytes=digest[:16]).int & ~(0xF << 76 | 0x3 << 62) | (0x8 << 76 | 0x2 << 62)


def unwrap(key_id, wrapped, identity):
    data_key = pyrage.decrypt(wrapped, [identity])
    assert len(data_key) == 32, "not a data key"
    assert key_id_of(data_key) == key_id.int, "another key"
    return data_key


def open_sealed(data_key, mask, sealed):
    version, kind = sealed[0], sealed[1]
    assert version == 1, "unknown version"
    name, block = KINDS[kind]
    padded = crypto_aead_xchacha20poly1305_ietf_decrypt(
        sealed[26:], sealed[:2] + mask.encode("ascii"), sealed[2:26], data_key
    )
    return name, sodium_unpad(padded, block)


def seal(data_key, kind, mask, original):
    [(number, block)] = [(number, block) for number, (name, block) in KINDS.items() if name == kind]
    header = bytes([1, number])
    nonce = secrets.token_bytes(24)
    encrypted = crypto_aead_xchacha20poly1305_ietf_encrypt(
        sodium_pad(original, block), header + mask.encode("ascii"), nonce, data_key
    )
    return header + nonce + encrypted


def open_lines(identity):
    identity = pyrage.x25519.Identity.from_str(identity)
    for line in sys.stdin:
        mask, key_id, wrapped, sealed = line.split()
        try:
            data_key = unwrap(uuid.UUID(key_id), bytes.fromhex(wrapped), identity)
            kind, original = open_sealed(data_key, mask, bytes.fromhex(sealed))
            print(kind, original.hex())
        except (AssertionError, KeyError, ValueError, IndexError, CryptoError, pyrage.DecryptError) as why:
            print("refused", type(why).__name__, why)


def seal_lines(recipient):
    data_key = secrets.token_bytes(32)
    key_id = uuid.UUID(int=key_id_of(data_key))
    wrapped = pyrage.encrypt(data_key, [pyrage.x25519.Recipient.from_str(recipient)])
    for line in sys.stdin:
        kind, mask, *original = line.split()
        sealed = seal(data_key, kind, mask, bytes.fromhex("".join(original)))
        print(key_id, wrapped.hex(), sealed.hex())


{"open": open_lines, "seal": seal_lines}[sys.argv[1]](sys.argv[2])
