"""TRL's trainer with the loss at answer positions alone."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel
from trl.trainer.sft_trainer import SFTTrainer

from finetune.answer_loss import teach_answers_only


class AnswerTrainer(SFTTrainer):
    """Divides by the answer tokens of the whole global batch: two processes learn exactly what one would."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The classes of these families opt out of being told the number of tokens; this loss asks for it.
        self.model_accepts_loss_kwargs = True
        base = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        if not isinstance(base, PreTrainedModel):
            raise TypeError(f"{type(base).__name__} is not a model of transformers")
        teach_answers_only(base)
        # Answer tokens since the last log, and those the model would have written itself.
        self._answers = torch.zeros(2, dtype=torch.int64, device=self.args.device)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, None]:
        """Nats an answer token: of `num_items_in_batch` where it is given, else of this batch."""
        given = {name: values for name, values in inputs.items() if name != "labels"}
        loss, answers, correct = model(**given, use_cache=False, answer_labels=inputs["labels"])
        self._answers += torch.stack([answers, correct])
        # A batch without any answer token has the loss 0.
        share = answers if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        loss = loss / share.clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # The count is of all processes, whose gradients are averaged.
            loss = loss * self.accelerator.num_processes
        return (loss, None) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the share of answer tokens that the model would have written itself, since the last log."""
        answers, correct = torch.as_tensor(self.accelerator.reduce(self._answers)).tolist()
        if answers:
            self._metrics["train"]["mean_token_accuracy"].append(correct / answers)
        self._answers.zero_()
        super().log(logs, start_time)
