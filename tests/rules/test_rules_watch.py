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

DECAY = "NL402"
"""Weight decay on a batch norm: of the rules that run nothing, one whose fault can come while a model trains."""


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def train(model: nn.Module, steps: int, watched: bool) -> list[list[str]]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watcher = Watcher(model, optimizer, every=2, select=["NL3", "NL4"])
    told = []
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
        if watched:
            told.append([finding.rule.id for finding in watcher.step()])
        optimizer.param_groups[0]["weight_decay"] = 0.1
    return told


def test_a_finding_is_told_when_it_is_time_and_once():
    assert train(network(), steps=6, watched=True) == [[], [], [DECAY], [], [], []]


def test_it_changes_nothing():
    models = []
    for watched in (True, False):
        torch.manual_seed(0)
        models.append(network())
        train(models[-1], steps=5, watched=watched)
    assert state_of(models[0]) == state_of(models[1])


def test_every_0_checks_at_the_first_step_alone():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watcher = Watcher(model, optimizer, every=0, select=[DECAY])
    assert watcher.step() == []
    optimizer.param_groups[0]["weight_decay"] = 0.1
    assert watcher.step() == []
    assert Watcher(model, optimizer, every=0, select=[DECAY]).step()


def test_what_needs_a_batch_is_asked_with_one():
    model = network()
    nn.init.constant_(model.get_submodule("1").running_var, 1e6)  # as if it remembered other data
    x = torch.randn(8, 3)
    assert Watcher(model, select=["NL304"]).step() == []
    assert [finding.path for finding in Watcher(model, select=["NL304"]).step(x)] == ["1"]


def test_the_optimizer_is_looked_at_and_what_is_ignored_is_not_told():
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    assert [each.rule.id for each in Watcher(model, optimizer, select=[DECAY]).step()] == [DECAY]
    assert Watcher(model, optimizer, select=[DECAY], ignore=[f"{DECAY}=as it was"]).step() == []


def test_findings_are_logged_by_their_severity(caplog: pytest.LogCaptureFixture):
    model = network()
    model.get_submodule("1").num_batches_tracked.fill_(1)
    model.eval()
    with caplog.at_level(logging.INFO, "normlab"):
        Watcher(model, torch.optim.AdamW(model.parameters()), select=["NL305", DECAY]).step()
    assert [(each.levelno, each.message[:5]) for each in caplog.records] == [
        (logging.WARNING, "NL305"),
        (logging.INFO, DECAY),
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
        callbacks=[lightning_callback(every=2, select=[DECAY], report=told.append)],
    ).fit(Module(), torch.utils.data.DataLoader(torch.randn(32, 3), batch_size=8))
    assert [(each.rule.id, each.path) for each in told] == [(DECAY, "")]


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
        callbacks=[transformers_callback(every=2, select=[DECAY], report=told.append)],
    ).train()
    assert [(each.rule.id, each.path) for each in told] == [(DECAY, "")]


@pytest.mark.parametrize(
    ("make", "name"), [(lightning_callback, "lightning.pytorch"), (transformers_callback, "transformers")]
)
def test_what_is_not_installed_is_said(make: Any, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NormlabError, match="no such package; pip install"):
        make()
