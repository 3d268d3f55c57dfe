"""What the tests of training share."""

import pytest
from torch import nn

from normlab import models


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Every network that `train` builds, in order."""
    networks: list[nn.Module] = []
    build = models.build

    def remember(*arguments: object, **options: object) -> nn.Module:
        networks.append(build(*arguments, **options))
        return networks[-1]

    monkeypatch.setattr(models, "build", remember)
    return networks
