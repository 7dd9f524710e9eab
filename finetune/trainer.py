"""TRL's trainer with the loss at answer positions alone, a rate for each tower, batches padded or packed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object, save_fsdp_optimizer
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.trainer import SCHEDULER_NAME
from trl.trainer.sft_trainer import SFTTrainer

from finetune.answer_loss import teach_answers_only
from finetune.breakdown import ROWS, NamedRows, Pass, breakdown, is_broken, write_breakdown
from finetune.collate import FEATURES, encoder_outputs
from finetune.fsdp_weights import load_whole
from finetune.model import DTYPES, in_dtype
from finetune.onednn import multiply_frozen, product
from finetune.packing import PackLoader, PackPlan, PackRows, PackSampler
from finetune.rates import split_by_rate
from finetune.thin import multiply_thin
from lensmith.errors import InputError
from lensmith.recipe import Recipe


class AnswerTrainer(SFTTrainer):
    """Divides by the answer tokens of the whole global batch: two processes learn exactly what one would.

    With `packs` its batches are this process's packs; the last row of its data fills those that are empty.
    """

    def __init__(self, recipe: Recipe, packs: PackPlan | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recipe = recipe
        self.packs = packs
        self.data_collator = NamedRows(self.data_collator)
        # The classes of these families opt out of being told the number of tokens; this loss asks for it.
        self.model_accepts_loss_kwargs = True
        base = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        if not isinstance(base, PreTrainedModel):
            raise TypeError(f"{type(base).__name__} is not a model of transformers")
        self.base = base
        teach_answers_only(base)
        if not self.is_deepspeed_enabled:
            onednn = recipe.train.cpu_products == "onednn"
            if onednn:
                multiply_frozen(base)
            multiply_thin(base, product if onednn else functional.linear)
        # Answer tokens since the last log, and those the model would have written itself.
        self._answers = torch.zeros(2, dtype=torch.int64, device=self.args.device)
        # Rows and loss of each pass since the last log; the losses are read only where a step breaks down.
        self._passes: list[tuple[list[str], Tensor]] = []

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The epochs' batches. Packs are this process's own already: accelerate has nothing to share out."""
        if self.packs is None:
            return super().get_train_dataloader()
        rows, workers = self.train_dataset, self.args.dataloader_num_workers
        if not isinstance(rows, Dataset):
            raise TypeError(f"packs are made of a datasets.Dataset, not of {type(rows).__name__}")
        return PackLoader(
            PackRows(rows, self.packs, self.args.process_index, filler=len(rows) - 1),  # pyright: ignore[reportArgumentType]
            batch_sampler=PackSampler(self.packs),
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=workers > 0,
        )

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """transformers' optimizer with its parameter groups cut by the towers' rates."""
        made = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        whole = model or self.model
        if not made and whole is not None:
            split_by_rate(optimizer, whole.named_parameters(), self.recipe)
        return optimizer

    def asked(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What a model that `teach_answers_only` has taught is called with to score a batch's labels."""
        plain = {name: values for name, values in inputs.items() if name not in ("labels", ROWS, FEATURES)}
        given: dict[str, Any] = {**in_dtype(plain, DTYPES[self.recipe.train.dtype])}
        if FEATURES in inputs:
            given["mm_encoder_outputs"] = encoder_outputs(inputs[FEATURES])
        return {**given, "use_cache": False, "answer_labels": inputs["labels"]}

    def nats(self, model: nn.Module, asked: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss of what is `asked`, summed, and the number of what it is summed over: answer tokens."""
        loss, answers, correct = model(**asked)
        self._answers += torch.stack([answers, correct])
        return loss, answers

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, None]:
        """Nats an answer token: of `num_items_in_batch` where it is given, else of this batch."""
        loss, items = self.nats(model, self.asked(inputs))
        # A batch without any answer token has the loss 0.
        share = items if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        loss = loss / share.clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # The count is of all processes, whose gradients are averaged.
            loss = loss * self.accelerator.num_processes
        self._passes.append((inputs[ROWS], loss.detach()))
        return (loss, None) if return_outputs else loss

    @property
    def _whole_beside(self) -> bool:
        """Whether transformers would write all weights a second time: all of a fully trained model's."""
        return self.is_fsdp_enabled and not self.recipe.train.adapts

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """What a checkpoint holds beside the weights."""
        if not self._whole_beside:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        plugin = self.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save:
            state = self.lr_scheduler.state_dict()  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
            torch.save(state, Path(output_dir) / SCHEDULER_NAME)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write a head that is tied to the embeddings once: of DeepSpeed's stages 1 and 2 transformers gets
        copies (accelerate's `get_state_dict`), and knows tied weights only by where they lie."""
        if state_dict is not None and not self.recipe.train.adapts:
            tied = self.base.all_tied_weights_keys
            state_dict = {name: each for name, each in state_dict.items() if name not in tied}
        super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Its weights."""
        if self._whole_beside:
            load_whole(self.accelerator, model or self.base, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """None are counted: transformers would walk through all modules at every pass for them."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the share of answer tokens that the model would have written itself, since the last log.

        Raises InputError, in every process, where the loss or the gradient is no finite number in any.
        """
        broken = self._answers.new_tensor([is_broken(logs)])
        counted = torch.as_tensor(self.accelerator.reduce(torch.cat([self._answers, broken])))
        answers, correct, breaks = counted.tolist()
        if breaks:
            raise self._breakdown(logs)
        if answers:
            self._metrics["train"]["mean_token_accuracy"].append(correct / answers)
        self._answers.zero_()
        self._passes.clear()
        super().log(logs, start_time)

    def _breakdown(self, logs: dict[str, float]) -> InputError:
        process, work, step = self.args.process_index, Path(str(self.args.output_dir)), self.state.global_step
        own = [Pass(process, tuple(rows), float(loss)) for rows, loss in self._passes]
        passes: list[Pass] = gather_object(own)
        if self.state.is_world_process_zero:
            write_breakdown(work, step, logs, passes)
        before = next((each for each in reversed(self.state.log_history) if "loss" in each), None)
        return breakdown(work, step, logs, before, passes)
