"""NL508."""

import copy
from collections.abc import Iterator, Sequence

from torch import nn

from normlab.measure.norms import Norm
from normlab.measure.passes import Pass
from normlab.rules.mending import Mended, changed
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery

NORMS = 2
"""In a block of a transformer: one before attention, one before the feed-forward layers."""


class MissingFinalNorm(Rule):
    """In a pre-norm transformer every block adds to the residual stream and normalizes only what it reads of it, so
    that the stream grows with the depth. Nothing brings it back to scale but a norm behind the last block; without
    that one the head sees inputs as large as the network is deep, and its first gradients are as large.
    (torch.nn.TransformerEncoder has none unless it is given one, `norm=`, also with norm_first=True.)
    """

    id = "NL508"
    severity = "warning"
    title = "a pre-norm transformer without a norm behind its last block"
    source = "Xiong et al. 2020, arXiv 2002.04745, section 3: pre-LN has one more, right before the prediction"
    remedy = "a norm between the last block and the head, as TransformerEncoder(layer, n, norm=LayerNorm(width))"

    def check(self, model: nn.Module, norms: dict[str, Norm], evaluation: Pass) -> Iterator[Found]:
        order = [use.path for use in evaluation.uses]
        found: list[str] = []
        for path, stack in reversed(list(model.named_modules())):  # a stack in a stack comes first, and is enough
            prefix = f"{path}." if path else ""
            if not isinstance(stack, nn.ModuleList | nn.Sequential) or any(each.startswith(prefix) for each in found):
                continue
            blocks = [f"{prefix}{name}." for name, _ in stack.named_children()]
            if len(blocks) < 2 or not all(_is_pre_norm(model, block, order, norms) for block in blocks):
                continue
            end = max(place for place, each in enumerate(order) if each.startswith(blocks[-1]))
            behind = order[end + 1 :]
            head = next((each for each in behind if isinstance(model.get_submodule(each), nn.Linear)), None)
            if head is not None and not any(each in norms for each in behind):
                found.append(path)
                yield path, f"{len(blocks)} pre-norm blocks, and no norm between the last and {head}"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return changed(tuple(paths), _final_norm)


def _is_pre_norm(model: nn.Module, block: str, order: list[str], norms: dict[str, Norm]) -> bool:
    """Whether a block begins with a norm, ends with something else, and is no chain, which has no shortcut."""
    inside = [path for path in order if path.startswith(block)]
    return (
        bool(inside)
        and not isinstance(model.get_submodule(block[:-1]), nn.Sequential)
        and len({path for path in inside if path in norms}) >= NORMS
        and inside[0] in norms
        and inside[-1] not in norms
    )


def _final_norm(model: nn.Module, path: str) -> Mended:
    """Torch's stacks have a place for it."""
    stack = model.get_submodule(path.rpartition(".")[0])
    if not isinstance(stack, nn.TransformerEncoder | nn.TransformerDecoder):
        return "where the norm goes is for the forward of the model to say"
    like = next(each for each in stack.layers.modules() if isinstance(each, nn.LayerNorm | nn.RMSNorm))
    norm = copy.deepcopy(like)
    norm.reset_parameters()
    stack.norm = norm

    def back() -> None:
        del stack.norm
        stack.norm = None

    return f"{norm} behind the last block, for an optimizer to be built anew", back
