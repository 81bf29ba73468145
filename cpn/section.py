"""The base of every configuration section: frozen, strict, and documented field by field."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen configuration section. Unknown keys and values of another type are errors, never warnings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
