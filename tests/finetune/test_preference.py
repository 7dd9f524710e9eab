"""Objective dpo: loss, rewards and gradients are those of TRL's DPOTrainer, the reference is the base."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import set_seed
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

import finetune.train
from finetune.adapter import choose_trained
from finetune.answer_loss import teach_answers_only
from finetune.arguments import training_arguments
from finetune.breakdown import ROWS, NamedRows
from finetune.collate import COLUMN, Collator, EncodedRows
from finetune.dry_run import base_of, dry_step
from finetune.encoded import IGNORED
from finetune.encoder import row_encoder
from finetune.launcher import read_launcher
from finetune.ledger import Ledger
from finetune.model import load_model, load_skeleton
from finetune.preference import ScoredPairs, as_reference, preference_loss, rewards, score_pairs
from finetune.preference_trainer import PreferenceTrainer
from finetune.run import run_key
from lensmith.dataset import read_split
from lensmith.row_file import Row
from lensmith.sample import Message, Sample, Text
from tests.finetune.conftest import Training

FIGURES = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")


def test_the_formula() -> None:
    """By hand: beta 2, the answer a nat likelier than the base has it, the rejected one a nat less."""
    chosen, rejected = rewards(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 4.0]), 2.0)
    assert (chosen.item(), rejected.item()) == (2.0, -2.0)
    assert preference_loss(chosen, rejected).item() == pytest.approx(math.log(1 + math.exp(-4)))


@dataclass(frozen=True)
class Scores:
    """What a batch of pairs comes to; gradients by the parameter's name."""

    loss: float
    figures: dict[str, float]
    gradients: dict[str, Tensor]

    def equals(self, other: Scores) -> bool:
        """To float32's rounding. Rewards are sums of some 400 nats, whose last place there is 3e-5."""
        if self.gradients.keys() != other.gradients.keys():
            return False
        largest = max(float(each.abs().max()) for each in other.gradients.values())
        apart = max(
            float((self.gradients[name] - each).abs().max()) for name, each in other.gradients.items()
        )
        return (
            abs(self.loss - other.loss) < 1e-5
            and all(abs(self.figures[name] - other.figures[name]) < 1e-4 for name in FIGURES)
            and apart < 1e-4 * largest
        )


def moved(model: torch.nn.Module) -> None:
    """An adapter as if it were trained: another policy than its reference."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B.default" in name:
                parameter.normal_(0.0, 0.03, generator=generator)


def scores(trainer: Any, loss: Callable[[], Tensor]) -> Scores:
    trainer.model.zero_grad()
    found = loss()
    found.backward()
    gradients = {
        name: each.grad.clone() for name, each in trainer.model.named_parameters() if each.grad is not None
    }
    return Scores(
        float(found.detach()), {name: trainer._metrics["train"][name][-1] for name in FIGURES}, gradients
    )


@pytest.fixture(scope="module")
def ours(preferring: Training, tmp_path_factory: pytest.TempPathFactory) -> PreferenceTrainer:
    recipe, source = preferring.recipe, preferring.recipe.base.path
    launcher = read_launcher(recipe.train.launcher)
    arguments = training_arguments(recipe, launcher, tmp_path_factory.mktemp("ours"))
    rows = EncodedRows(read_split(preferring.dataset, "train"), row_encoder(recipe, source))
    key = run_key(recipe, preferring.base, preferring.dataset)
    made, _ = finetune.train.make_trainer(recipe, key, preferring.home, source, arguments, rows, None)
    assert isinstance(made, PreferenceTrainer)
    assert isinstance(made.model, PeftModel)
    moved(made.model)
    return made


@pytest.fixture(scope="module")
def batch(preferring: Training) -> dict[str, Tensor]:
    """Four pairs, not all with an image."""
    encoder = row_encoder(preferring.recipe, preferring.recipe.base.path)
    encoded = [encoder.encode(row) for row in read_split(preferring.dataset, "train")[:4]]
    assert 0 < sum(bool(each.images) for each in encoded) < 4
    return NamedRows(Collator(encoder.pad_id))([{COLUMN: each} for each in encoded])


@pytest.fixture(scope="module")
def theirs(
    preferring: Training, batch: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Scores:
    """What TRL's own trainer makes of the same weights and tokens."""
    recipe = preferring.recipe
    model = load_model(recipe.base.path, torch.float32)
    set_seed(recipe.train.seed)
    model = choose_trained(model, recipe).model
    settings = {"report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    root = str(tmp_path_factory.mktemp("theirs"))
    row = {"images": [0], "prompt": "p", "chosen": "c", "rejected": "r"}
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(root, beta=recipe.train.dpo_beta, max_length=None, **settings),
        train_dataset=Dataset.from_list([row]),
        data_collator=lambda rows: rows,
        processing_class=row_encoder(recipe, recipe.base.path).processor,
    )
    # Made, it keeps a copy of the adapter for its reference, which is still the base.
    moved(trainer.model)
    labels = batch["labels"]
    given = {name: values for name, values in batch.items() if name not in ("labels", ROWS)}
    given["completion_mask"] = (labels != IGNORED).long()
    return scores(trainer, lambda: trainer._compute_loss(trainer.model, given, False))


def scores_of(ours: PreferenceTrainer, batch: dict[str, Tensor]) -> Scores:
    return scores(ours, lambda: torch.as_tensor(ours.compute_loss(ours.model, dict(batch))))


@pytest.mark.slow
def test_loss_rewards_and_gradients_are_trls(
    ours: PreferenceTrainer, batch: dict[str, Tensor], theirs: Scores
) -> None:
    assert scores_of(ours, batch).equals(theirs)
    assert abs(theirs.loss - math.log(2)) > 1e-3, "a policy that is its reference would prove nothing"
    assert len(theirs.gradients) == 2 * 26


@contextlib.contextmanager
def still_on(self: PeftModel) -> Iterator[None]:
    yield


def of_means(*given: Any) -> ScoredPairs:
    scored = score_pairs(*given)
    return scored._replace(policy=scored.policy / scored.answers, reference=scored.reference / scored.answers)


def of_all_tokens(model: Any, adapted: Any, asked: dict[str, Any]) -> ScoredPairs:
    # Image tokens have no place among the labels.
    tokens = torch.where(asked["mm_token_type_ids"] > 0, IGNORED, asked["input_ids"])
    return score_pairs(model, adapted, {**asked, "answer_labels": tokens})


TRAINER = "finetune.preference_trainer"
MUTANTS: dict[str, tuple[str, Any]] = {
    "the sign": ("finetune.preference.logsigmoid", lambda margin: logsigmoid(-margin)),
    "no reference": (f"{TRAINER}.rewards", lambda each, _, beta: rewards(each, torch.zeros_like(each), beta)),
    "the adapter left on": ("peft.PeftModel.disable_adapter", still_on),
    "answers exchanged": (f"{TRAINER}.rewards", lambda *given: tuple(reversed(rewards(*given)))),
    "means, not sums": (f"{TRAINER}.score_pairs", of_means),
    "not the answers alone": (f"{TRAINER}.score_pairs", of_all_tokens),
    "beta left out": (f"{TRAINER}.rewards", lambda policy, reference, _: rewards(policy, reference, 1.0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_planted_faults_show(
    ours: PreferenceTrainer,
    batch: dict[str, Tensor],
    theirs: Scores,
    mutant: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])
    assert not scores_of(ours, batch).equals(theirs)


@pytest.mark.slow
def test_the_reference_is_the_base_without_dropout(
    preferring: Training, ours: PreferenceTrainer, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the base itself drops attention by chance while it is trained."""
    base = load_model(preferring.recipe.base.path, torch.float32)
    teach_answers_only(base)
    asked = ours.asked(batch)
    with torch.no_grad():
        expected = base.eval()(**asked, by_row=True)[0]
    layers = [each for each in ours.model.modules() if type(each).__name__ == "Qwen3VLTextAttention"]
    assert layers
    for each in layers:
        monkeypatch.setattr(each, "attention_dropout", 0.5)
    assert isinstance(ours.model, PeftModel)
    ours.model.train()
    with as_reference(ours.model):
        assert torch.allclose(ours.model(**asked, by_row=True)[0], expected, atol=1e-4)
    assert ours.model.training
    with torch.no_grad(), ours.model.disable_adapter():
        dropped = ours.model(**asked, by_row=True)[0]
    assert not torch.allclose(dropped, expected, atol=1e-4), "the mutant: as in training"


@pytest.mark.slow
def test_pairs_of_text_alone_run_the_tower(preferring: Training, ours: PreferenceTrainer) -> None:
    """What other processes wait for: every adapted tower has gradients, and they are zero."""
    encoder = row_encoder(preferring.recipe, preferring.recipe.base.path)
    messages = (Message("user", (Text("Write 7."),)), Message("assistant", (Text("7"),), (Text("1"),)))
    encoded = encoder.encode(Row(Sample("t", "g", messages), ()))
    found = scores_of(ours, NamedRows(Collator(encoder.pad_id))([{COLUMN: encoded}]))
    vision = [each for name, each in found.gradients.items() if ".visual." in name]
    assert len(vision) == 2 * (8 + 4)
    assert not any(bool(each.any()) for each in vision)
    assert any(bool(each.any()) for name, each in found.gradients.items() if ".visual." not in name)


@pytest.mark.slow
@pytest.mark.parametrize("recomputed", [0, 1])
def test_a_dry_pass_of_pairs_holds_what_the_same_pass_holds_for_real(
    preferring: Training, batch: dict[str, Tensor], recomputed: int
) -> None:
    recipe, base = preferring.recipe, preferring.recipe.base.path
    bare = choose_trained(load_skeleton(base), recipe).model
    batch = {name: values for name, values in batch.items() if name != ROWS}
    dry = dry_step(bare, batch, recomputed=recomputed, autocast=False, pairs=True)

    model = choose_trained(load_model(base, torch.float32), recipe).model.train()
    assert isinstance(model, PeftModel)
    teach_answers_only(base_of(model))
    if recomputed:
        base_of(model).gradient_checkpointing_enable({"use_reentrant": False})
    given = {name: values.clone() for name, values in batch.items()}
    asked = {**given, "use_cache": False, "answer_labels": given["labels"]}
    del asked["labels"]
    ledger = Ledger()
    for each in [*model.parameters(), *model.buffers()]:
        ledger.leave_out(each)
    with ledger:
        for each in given.values():
            ledger.count(each)
        scored = score_pairs(model, model, asked)
        preference_loss(*rewards(scored.policy, scored.reference, 1.0)).sum().backward()
    assert dry.gradients == sum(each.grad.nbytes for each in model.parameters() if each.grad is not None)
    assert dry.together == pytest.approx(max(ledger.held), rel=0.02)
