"""Conditions as every Kubernetes tool knows them."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from modelpool_operator.api.resource import ApiModel, MessageText


class Condition(ApiModel):
    """One aspect of an object's state."""

    type: str = Field(min_length=1, max_length=64, description="name of the condition, such as Ready")
    status: Literal["True", "False", "Unknown"] = Field(description="whether the condition holds")
    reason: str = Field(default="", max_length=64, description="why, as one stable CamelCase word")
    message: MessageText = Field(default="", description="why, as a sentence for people")
    last_transition_time: datetime = Field(description="when status last changed")
    observed_generation: int | None = Field(
        default=None, ge=0, description="metadata.generation of the spec that this was decided on"
    )


def find_condition(conditions: tuple[Condition, ...], kind: str) -> Condition | None:
    """Return the condition of type ``kind``; None where there is none."""
    return next((condition for condition in conditions if condition.type == kind), None)
