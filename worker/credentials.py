"""The vault credentials file: `{"stateward": "vault credentials", "token": "<JWS>", …}`, or the bare token.

Only the token counts; what stands beside it is for people. It is signed with the coordinator's key that it names, so an
edited file is found here. Whether this coordinator made it, and whether a use is left, the coordinator itself says.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import jwt
from pydantic import ValidationError

from common.contracts.enrolment import CredentialsClaims
from common.errors import ConfigInvalid, CredentialsAltered, CredentialsExpired, CredentialsForeign, NotTrusted
from common.signing import EnvelopeType, key_id, load_public_key, open_signed, unb64

MARK = "vault credentials"
MAX_FILE = 1024 * 1024
SKEW_S = 300.0
_JWS = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    token: str
    claims: CredentialsClaims


def read_credentials(path: Path) -> Credentials:
    """A file whose signature holds; `check_credentials` judges the rest.

    Raises:
        ConfigInvalid: it cannot be read, or is another kind of file.
        CredentialsAltered: the signature does not hold.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE)
    except OSError as error:
        raise ConfigInvalid(f"The vault credentials file {path} cannot be read: {error.strerror}.") from error
    token = _token_in(raw, path)
    return Credentials(token=token, claims=open_token(token))


def _token_in(raw: bytes, path: Path) -> str:
    bare = raw.strip()
    if _JWS.fullmatch(bare):
        return bare.decode()
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CredentialsAltered(f"The vault credentials file {path} is cut short or was edited.") from error
    if isinstance(document, dict) and document.get("stateward") == MARK and isinstance(document.get("token"), str):
        return str(document["token"])
    raise ConfigInvalid(
        f"{path} is not a vault credentials file.", next_step="Name the file that `stateward vault credentials` made."
    )


def open_token(token: str) -> CredentialsClaims:
    """Raises CredentialsAltered."""
    try:
        named = jwt.decode(token, options={"verify_signature": False})["coordinator_key"]
        key = load_public_key(unb64(named))
        claims = open_signed(token, kind=EnvelopeType.CREDENTIALS, keys={key_id(key): key})
        return CredentialsClaims.model_validate(claims)
    except (jwt.PyJWTError, KeyError, TypeError, ValueError, ValidationError, NotTrusted) as error:
        raise CredentialsAltered("The signature of the vault credentials file does not hold.") from error


def check_credentials(claims: CredentialsClaims, *, hostname: str, now: float) -> None:
    """Raises CredentialsExpired, CredentialsForeign (made for other hosts)."""
    if claims.exp < now - SKEW_S:
        raise CredentialsExpired("The vault credentials file has expired.")
    if not fnmatchcase(hostname.lower(), claims.host_pattern.lower()):
        raise CredentialsForeign(
            f"The vault credentials file is for hosts named {claims.host_pattern}; this host is {hostname}."
        )
