"""The Watcher as a callback of Lightning's Trainer and of Hugging Face's, where these are installed."""

from typing import TYPE_CHECKING, Any

from normlab.errors import NormlabError
from normlab.rules.watch import Watcher

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from transformers import TrainerCallback


def lightning_callback(**options: Any) -> "Callback":
    """`Trainer(callbacks=[lightning_callback(every=100)])`: a Watcher of the module, stepped after each batch.

    The optimizer is looked at where there is one alone. Takes the options of `Watcher`. Raises NormlabError where
    Lightning is not installed.
    """
    try:
        from lightning.pytorch import Callback
    except ImportError as error:
        raise NormlabError("Lightning", "no such package", "pip install lightning") from error

    class NormlabCallback(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            optimizers = trainer.optimizers
            self.watcher = Watcher(pl_module, optimizers[0] if len(optimizers) == 1 else None, **options)

        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            self.watcher.step()

    return NormlabCallback()


def transformers_callback(**options: Any) -> "TrainerCallback":
    """`Trainer(callbacks=[transformers_callback(every=100)])`: a Watcher of the model, stepped after each update.

    Takes the options of `Watcher`. Raises NormlabError where transformers is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise NormlabError("transformers", "no such package", "pip install transformers") from error

    class NormlabCallback(TrainerCallback):
        def on_train_begin(
            self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
        ) -> None:
            self.watcher = Watcher(model, optimizer, **options)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.watcher.step()

    return NormlabCallback()
