"""Settings: frozen pydantic models whose fields carry unit, range and help.

Forms on the pages, options of the CLI and the Methods page are all made from :func:`describe`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backend.errors import UserError
from backend.registry import did_you_mean


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    symbol: str = "",
    **limits: Any,
) -> Any:
    """Declare one setting.

    Args:
        default: Its default value; ``...`` for none.
        help: One sentence on what it does, shown beside the widget.
        unit: Its unit, "" for none ("share of neurons", "tokens").
        symbol: The field's usual symbol for it in formulas and the settings' short form ("ρ").
        limits: pydantic's limits: ``gt``, ``ge``, ``lt``, ``le``.
    """
    return Field(default, description=help, json_schema_extra={"unit": unit, "symbol": symbol}, **limits)


@dataclass(frozen=True)
class SettingField:
    """What a form needs to know of one setting."""

    name: str
    annotation: Any
    default: Any
    minimum: float | None
    maximum: float | None
    minimum_excluded: bool
    unit: str
    symbol: str
    help: str


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown keys, errors as sentences."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def describe(cls) -> list[SettingField]:
        """Return the fields with their units, ranges and help, in order of declaration."""
        return [_describe_field(name, info) for name, info in cls.model_fields.items()]

    @classmethod
    def parse(cls, values: dict[str, Any], owner: str) -> Self:
        """Validate ``values``; a wrong one raises ``UserError`` in one sentence.

        Args:
            values: Setting names to values, as they came from a file, a URL or a widget.
            owner: Whose settings these are, for the message ("dip", "sweep file").
        """
        unknown = [key for key in values if key not in cls.model_fields]
        if unknown:
            hint = did_you_mean(unknown[0], list(cls.model_fields)) if cls.model_fields else "it has none."
            raise UserError(f"{owner} has no setting '{unknown[0]}'; {hint}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{owner}: {_sentence(error)}") from error

    def canonical(self) -> dict[str, Any]:
        """Return the settings as they enter a content-addressed id: without those that are off (None)."""
        return self.model_dump(mode="json", exclude_none=True)


def _describe_field(name: str, info: Any) -> SettingField:
    low = next((m for m in info.metadata if isinstance(m, Ge | Gt)), None)
    high = next((m for m in info.metadata if isinstance(m, Le | Lt)), None)
    extra = info.json_schema_extra or {}
    return SettingField(
        name=name,
        annotation=info.annotation,
        default=info.default,
        minimum=_limit(low),
        maximum=_limit(high),
        minimum_excluded=isinstance(low, Gt),
        unit=extra.get("unit", ""),
        symbol=extra.get("symbol", ""),
        help=info.description or "",
    )


def _limit(bound: Ge | Gt | Le | Lt | None) -> float | None:
    values = (getattr(bound, name, None) for name in ("ge", "gt", "le", "lt"))
    return next((float(value) for value in values if value is not None), None)


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict) else f" (given: {first['input']!r})"
    return f"{where + ': ' if where else ''}{message}{given}".rstrip(".") + "."
