"""Recipe: everything that decides a training run, validated, frozen, plain data."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

Optimizer = Literal["sgd", "momentum", "adamw"]
Schedule = Literal["constant", "cosine", "one-cycle"]
Precision = Literal["float32", "float64", "bfloat16"]
Split = Literal["train", "validation", "test"]
Share = Annotated[int, Field(ge=1)]


class Recipe(BaseModel):
    """A training run, described. The defaults are the thread's run: BN-LeNet on Fashion-MNIST, as in the
    batch-normalization chapter of *Dive into Deep Learning* (all 60,000 images, SGD, lr 1.0, batch 256,
    10 epochs).

    Raises pydantic's ValidationError, with every wrong field at once, on a value out of range or a field
    that does not exist.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field("lenet", min_length=1)
    """lenet, mlp, deep, inception, resnet8, or your own as pkg.module:callable (a function that returns a module)."""
    model_options: dict[str, JsonValue] = {}
    """Options of the model, as k=v."""
    surgeries: tuple[dict[str, JsonValue], ...] = ()
    """Changes made to the model once it is built: their names and arguments."""
    data: str = Field("fashion-mnist", min_length=1)
    """fashion-mnist, digits, digits-8x8, or your own as pkg.module:callable."""
    train_examples: int | None = Field(None, ge=1)
    """Train on a fixed random subset of this many examples. Default: all."""
    validation: int = Field(0, ge=0)
    """How many of the last training examples are held out for validation."""
    optimizer: Optimizer = "sgd"
    """The optimizer: plain SGD, SGD with momentum, or AdamW."""
    lr: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Learning rate."""
    schedule: Schedule = "constant"
    """Learning rate over the run."""
    momentum: float = Field(0.9, ge=0, lt=1, allow_inf_nan=False)
    """Momentum of the optimizer `momentum`."""
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Weight decay (L2 for sgd and momentum, decoupled for adamw)."""
    decay_all: bool = False
    """Decay normalization parameters and biases too."""
    batch_size: int = Field(256, ge=1)
    """Examples per step."""
    epochs: int = Field(10, ge=1)
    """Passes over the training data."""
    evaluate: tuple[Split, ...] = ("train", "validation", "test")
    """Which splits are evaluated: all of them, or what a search for a learning rate needs."""
    evaluate_epochs: bool = True
    """Evaluate after every epoch too, under the running statistics, not only at the end under recomputed ones."""
    precise_examples: int | None = Field(None, ge=2)
    """Recompute statistics, and evaluate on the training split, over a fixed random subset of this many training
    examples. Default: all."""
    probes: tuple[dict[str, JsonValue], ...] = ()
    """What else is measured along the way: names of probes and their arguments."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of initial weights, shuffling and dropout."""
    dtype: Precision = "float32"
    """Arithmetic; in bfloat16 the normalization layers keep float32 parameters and statistics."""
    lanes: bool = True
    """Run on lane tensors, several times as fast, where the native kernels serve: in float32 on a CPU."""
    shares: tuple[Share, ...] = Field((1,), min_length=1)
    """How much of every batch each process that torchrun started takes, as 100 156. Default: all the same."""
    sync: bool = True
    """Normalize by the statistics of all processes together, not by those of each one's part."""
    device: str = Field("auto", min_length=1)
    """auto, cpu, cuda, cuda:N or mps."""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of torch. Default: as many as torch takes."""

    @field_validator("model", "model_options", "surgeries", "data", "probes", "device")
    @classmethod
    def _survives_json(cls, value: Any) -> Any:
        """The store and other processes get a recipe as JSON: NaN, inf or half a surrogate pair would not arrive."""
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as error:
            raise ValueError("it should be what JSON can hold: finite numbers, Unicode text") from error
        return value

    def replace(self, **changes: Any) -> "Recipe":
        """This recipe with some fields changed, validated again."""
        return Recipe(**{**self.model_dump(), **changes})
