"""Messages made from what a person typed: what does not fit is a usage error that names the field."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from common.contracts.base import Contract
from common.errors import UsageError

M = TypeVar("M", bound=Contract)


def checked(message: type[M], **fields: Any) -> M:
    """Raises UsageError."""
    try:
        return message(**fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where}: {first['msg']}.") from error
