"""A training is watched: what is wrong is told once, and nothing is changed."""

import logging
import sys
from typing import Any

import pytest
import torch
from states import state_of
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.rules import Watcher, lightning_callback, transformers_callback

SLOW = "NL305"
"""Running statistics that still hold what they began with: trips after any step with a small momentum."""


def network(momentum: float = 0.001) -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4, momentum=momentum), nn.ReLU(), nn.Linear(4, 2)
    )


def train(model: nn.Module, steps: int, watched: bool) -> list[list[str]]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watcher = Watcher(model, optimizer, every=2, select=[SLOW])
    told = []
    for _ in range(steps):
        if watched:
            told.append([finding.path for finding in watcher.step()])
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
    return told


def test_a_finding_is_told_when_it_is_time_and_once():
    # Before the first step there is nothing to find; after it, it is not time.
    assert train(network(), steps=6, watched=True) == [[], [], ["1"], [], [], []]


def test_it_changes_nothing():
    models = []
    for watched in (True, False):
        torch.manual_seed(0)
        models.append(network())
        train(models[-1], steps=5, watched=watched)
    assert state_of(models[0]) == state_of(models[1])


def test_every_0_checks_at_the_first_step_alone():
    model = network(momentum=0.1)
    watcher = Watcher(model, every=0, select=[SLOW])
    assert watcher.step() == []
    model(torch.randn(8, 3))
    assert watcher.step() == []
    assert Watcher(model, every=0, select=[SLOW]).step()


def test_what_needs_a_batch_is_asked_with_one():
    model = network()
    nn.init.constant_(model.get_submodule("1").running_var, 1e6)
    x = torch.randn(8, 3)
    assert Watcher(model, select=["NL304"]).step() == []
    assert [finding.path for finding in Watcher(model, select=["NL304"]).step(x)] == ["1"]


def test_the_optimizer_is_looked_at_and_what_is_ignored_is_not_told():
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    assert [each.path for each in Watcher(model, optimizer, select=["NL402"]).step()] == ["1"]
    assert Watcher(model, optimizer, select=["NL402"], ignore=["NL402=as it was"]).step() == []


def test_findings_are_logged_by_their_severity(caplog: pytest.LogCaptureFixture):
    model = network()
    model(torch.randn(8, 3))
    with caplog.at_level(logging.INFO, "normlab"):
        Watcher(model, torch.optim.AdamW(model.parameters()), select=[SLOW, "NL402"]).step()
    assert [(each.levelno, each.message[:5]) for each in caplog.records] == [
        (logging.WARNING, SLOW),
        (logging.INFO, "NL402"),
    ]


def test_a_number_of_steps_is_wanted():
    with pytest.raises(NormlabError, match="every as a number of steps"):
        Watcher(network(), every=-1)


@pytest.mark.filterwarnings("ignore")  # they are Lightning's
def test_lightning(tmp_path: Any):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: Tensor, index: int) -> Tensor:
            return self.network(batch).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters())

    told: list[Any] = []
    lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[lightning_callback(every=2, select=[SLOW, "NL402"], report=told.append)],
    ).fit(Module(), torch.utils.data.DataLoader(torch.randn(32, 3), batch_size=8))
    assert [(each.rule.id, each.path) for each in told] == [(SLOW, "network.1"), ("NL402", "network.1")]


@pytest.mark.filterwarnings("ignore")  # they are transformers'
def test_transformers(tmp_path: Any):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"loss": self.network(x).square().mean()}

    told: list[Any] = []
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=8,
        weight_decay=0.1,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        label_names=[],
    )
    transformers.Trainer(
        model=Module(),
        args=arguments,
        train_dataset=[{"x": x} for x in torch.randn(32, 3)],
        callbacks=[transformers_callback(every=2, select=[SLOW], report=told.append)],
    ).train()
    assert [(each.rule.id, each.path) for each in told] == [(SLOW, "network.1")]


@pytest.mark.parametrize(
    ("make", "name"), [(lightning_callback, "lightning.pytorch"), (transformers_callback, "transformers")]
)
def test_what_is_not_installed_is_said(make: Any, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NormlabError, match="no such package; pip install"):
        make()
