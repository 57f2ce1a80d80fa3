"""Pydantic's reasons for invalid values name each place and contain no value."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator, model_validator

from paradime_blocks.text.reasons import each_reason, reasons

SECRET = "hush-4711"


class Window(BaseModel):
    seconds: float = Field(gt=0)


class Model(BaseModel):
    name: str = "daily"
    windows: list[Window] = Field(default_factory=list)
    token: SecretStr | None = None

    @field_validator("name")
    @classmethod
    def _has_a_name(cls, value: str) -> str:
        if not value:
            raise ValueError("name is empty")
        return value

    @model_validator(mode="after")
    def _go_together(self) -> Model:
        if self.token and self.name == "other":
            raise ValueError("name and token do not go together")
        return self


@pytest.mark.parametrize(
    "values, said",
    [
        ({"name": ""}, "name is empty"),
        ({"windows": [{"seconds": 0}]}, "windows.0.seconds: Input should be greater than 0"),
        (
            {"name": 5, "token": 5},
            "name: Input should be a valid string; token: Input should be a valid string",
        ),
        ({"name": "other", "token": SECRET}, "name and token do not go together"),
    ],
)
def test_each_reason_names_its_place_once(values, said):
    with pytest.raises(ValidationError) as caught:
        Model(**values)
    assert reasons(caught.value) == said


def test_a_place_has_the_users_own_name():
    with pytest.raises(ValidationError) as caught:
        Window(seconds=-1)
    assert reasons(caught.value, str.upper) == "SECONDS: Input should be greater than 0"


def test_no_value_is_quoted():
    with pytest.raises(ValidationError) as caught:
        Model(windows=[{"seconds": SECRET}], name=[SECRET])
    assert SECRET in str(caught.value)
    assert SECRET not in reasons(caught.value)
    assert [place for place, _ in each_reason(caught.value)] == ["name", "windows.0.seconds"]
