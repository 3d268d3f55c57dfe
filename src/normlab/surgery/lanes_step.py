"""Training steps of a network that is one run in lanes, without autograd: what that does between and behind the
stages of a small network costs half as much as the stages.
"""

from torch import Tensor, nn

from normlab.kernels import Chain, Lanes, Outcome, native
from normlab.surgery.lanes_run import ReadyRun, Run
from normlab.surgery.lanes_stage import Shape
from normlab.surgery.to_lanes import LanesForward


class LanesStep:
    """Steps of a model as it is now; once it, a mode or a tensor of it is exchanged, another one is needed."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._shape: Shape = ()
        self._ready: ReadyRun | None = None

    def __call__(self, x: Lanes, targets: Tensor) -> Outcome | None:
        """Leave in the `grad` of the parameters what `cross_entropy(model(x), targets).backward()` would add to
        none; None, and nothing is done, where that must do it.

        Args:
            x: N examples, without gradient.
            targets: (N,), int64, each the number of a class.

        """
        if self.chain(x) is None or self._ready is None:
            return None
        return self._ready.chain.backpropagate(x, targets, self._ready.masks())

    def judge(self, x: Lanes, targets: Tensor) -> tuple[float, int] | None:
        """Mean cross-entropy and the number of right answers, of a model without dropout at work; None as above."""
        chain = self.chain(x)
        return None if chain is None else chain.judge(x, targets)

    def chain(self, x: Lanes) -> Chain | None:
        """All of the model for inputs like x; None where a step would not run."""
        if x.shape != self._shape:
            self._shape = x.shape
            ready = self._run.ready(x.shape, x.data) if native(x.data) else None
            self._ready = ready if ready and all(map(_is_plain_leaf, ready.chain.wanting)) else None
        return None if self._ready is None else self._ready.chain


def lanes_step(model: nn.Module) -> LanesStep | None:
    """None where `to_lanes` did not make all of the model one run, or where a hook is in the way."""
    forward = vars(model).get("forward")
    run = forward.whole if isinstance(forward, LanesForward) else None
    return None if run is None else LanesStep(run)


def _is_plain_leaf(tensor: Tensor) -> bool:
    """Whether its gradient goes nowhere but into its `grad`, and lies as it does."""
    hooked = tensor._backward_hooks or tensor._post_accumulate_grad_hooks
    return tensor.is_leaf and tensor.is_contiguous() and not hooked
