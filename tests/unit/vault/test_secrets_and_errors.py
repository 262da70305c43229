"""A secret cannot be shown by accident; every error has one code, one number and an exit code."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from common.errors import ExitCode, StatewardError, error_classes, is_retryable
from common.secret import Secret
from common.vault.derive import DomainKeys
from common.vault.keys import generate_passphrase
from common.vault.store import ObjectMissing, StoreCredentials

TEXT = "do-not-show-me-0123456789"


@pytest.mark.parametrize("value", [TEXT, TEXT.encode()])
def test_a_secret_is_not_shown(value: str | bytes) -> None:
    secret = Secret(value)
    held = {"a": [secret], "b": (secret,)}
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>40}", f"{secret:>40}", "%s" % secret, str(held)]  # noqa: UP031
    assert not [text for text in shown if TEXT in text]
    assert secret.reveal() == value
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(AttributeError):
        secret.__dict__  # noqa: B018


def test_secrets_are_compared_by_value() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_what_holds_secrets_does_not_show_them() -> None:
    credentials = StoreCredentials(access_key="key", secret_key=Secret(TEXT), session_token=Secret(TEXT))
    domain = "0b6a3f0e-5d4c-4b2a-9c1d-2e3f4a5b6c7d"
    keys = DomainKeys.derive(vault_id=domain, domain_id=domain, secret=Secret(b"s" * 32))
    assert TEXT not in repr(credentials)
    for key in (keys.block, keys.fingerprint, keys.index, keys.gear, keys.cache):
        assert repr(key) not in repr(keys)
        assert key.hex() not in repr(keys)


def test_generated_passphrases_are_long_and_differ() -> None:
    made = {generate_passphrase().reveal() for _ in range(200)}
    assert len(made) == 200
    assert all(len(each) == 35 for each in made)


def test_codes_and_numbers_are_unique() -> None:
    classes = error_classes()
    assert ObjectMissing in classes
    assert len(classes) > 40
    assert len({cls.code for cls in classes}) == len(classes)
    assert len({cls.number for cls in classes}) == len(classes)
    assert [cls.number for cls in classes] == sorted(cls.number for cls in classes)


@pytest.mark.parametrize("cls", error_classes())
def test_every_error_says_what_to_do(cls: type[StatewardError]) -> None:
    error = cls("One sentence.")
    assert (error.message, str(error)) == ("One sentence.", "One sentence.")
    assert error.next_step
    assert cls("x", next_step="Another way.").next_step == "Another way."
    assert error.exit_code in ExitCode
    assert error.exit_code is not ExitCode.DONE
    assert error.exit_code.meaning
    assert error.page.endswith(f"#{cls.code}")
    assert is_retryable(error) is cls.retryable
    assert cls.code.isidentifier()
    assert "code" in vars(cls), "a class that inherits its code cannot be told apart"


def test_other_exceptions_are_not_retried() -> None:
    assert not is_retryable(ValueError())
    assert not is_retryable(KeyboardInterrupt())
