"""The trainer of objective dpo: the same rows, batches and checkpoints, another loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from finetune.preference import pairs_in, preference_loss, rewards, score_pairs
from finetune.trainer import AnswerTrainer


class PreferenceTrainer(AnswerTrainer):
    """Divides by the pairs of the whole global batch. The reference is the base: the adapter switched off."""

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Tensor]], device: torch.device
    ) -> Tensor | int | None:
        pairs = pairs_in(batch_samples).to(device)
        if not self.args.average_tokens_across_devices:
            return pairs
        return torch.as_tensor(self.accelerator.reduce(pairs, "sum"))

    def nats(self, model: nn.Module, asked: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss of the pairs that are `asked`, summed, and how many they are."""
        adapted = self.accelerator.unwrap_model(model)
        if not isinstance(adapted, PeftModel):
            raise TypeError(f"{type(adapted).__name__} has no adapter to switch off")
        scored = score_pairs(model, adapted, asked)
        chosen, rejected = rewards(scored.policy, scored.reference, self.recipe.train.dpo_beta)
        pairs = len(chosen)
        self._answers += torch.stack([scored.answers[:pairs].sum(), scored.correct[:pairs].sum()])
        self._tell(chosen.detach(), rejected.detach())
        return preference_loss(chosen, rejected).sum(), torch.tensor(pairs, device=chosen.device)

    def _tell(self, chosen: Tensor, rejected: Tensor) -> None:
        """TRL's figures of a preference training, by its names."""
        figures = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/margins": chosen - rejected,
            "rewards/accuracies": (chosen > rejected).float(),
        }
        for name, values in figures.items():
            self._metrics["train"][name].append(
                torch.as_tensor(self.accelerator.gather(values)).mean().item()
            )
