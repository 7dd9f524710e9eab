"""The recipe's section `train.evaluate`: the model is asked validation rows while it trains."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lensmith.report import METRICS, TEXT_METRICS, MetricName
from lensmith.section import Count, Section

# The metric of the task, by what `data.answer` says that answers are.
TASK_METRICS: dict[Literal["json", "text"], MetricName] = {
    "json": "field_f1",
    "text": "character_error_rate",
}


class TrainEvaluate(Section):
    """Asking the model validation rows while it trains: real answers, judged as the exam judges them."""

    every: Annotated[int, Field(ge=0)] = Field(
        default=0, description="steps between evaluations, the last step is one too; 0: never"
    )
    rows: Count = Field(
        default=64, description="validation rows that are asked, the same ones each time, spread over groups"
    )
    metric: MetricName | None = Field(
        default=None,
        description="what tells the best; absent: field_f1, for text answers character_error_rate",
    )
    keep_best: bool = Field(
        default=True, description="the run's weights are those of the best evaluation, not of the last step"
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        default=0, description="training ends after so many evaluations without a gain; 0: never"
    )

    @model_validator(mode="after")
    def _patience_waits_for_something(self) -> TrainEvaluate:
        if self.patience and not self.every:
            raise ValueError("patience counts evaluations: set every")
        return self

    def task_metric(self, answer: Literal["json", "text"]) -> MetricName:
        """The metric by which the best is told, for answers of this kind."""
        return self.metric or TASK_METRICS[answer]

    def fits(self, answer: Literal["json", "text"]) -> bool:
        """Whether the metric says something of answers of this kind."""
        return self.task_metric(answer) in (METRICS if answer == "json" else TEXT_METRICS)
