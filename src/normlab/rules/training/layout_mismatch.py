"""NL401."""

from collections.abc import Iterator

from normlab.measure.passes import Pass, Use
from normlab.rules.rule import Found, Rule

LAYOUTS = {"contiguous", "channels_last"}
"""Between which kernels have a slow way; what is laid out otherwise is copied first."""


class LayoutMismatch(Rule):
    """The backward pass of batch norm reads its input and the gradient side by side. Where one is channels-last in
    memory and the other is not, torch's kernel walks through both element by element: ten to twenty times slower,
    185 ms in place of 10 ms for one layer.
    """

    id = "NL401"
    severity = "note"
    title = "the gradient arrives in another memory format than the output left in"
    source = "torch.channels_last, memory format tutorial; measured with torch 2.13 on a CPU"
    remedy = "keep one memory format: model.to(memory_format=...), and no view or contiguous() behind this norm"

    def check(self, backward: Pass, batch_uses: dict[str, list[Use]]) -> Iterator[Found]:
        for path, uses in batch_uses.items():
            pairs = {(use.output.layout, use.gradient.layout) for use in uses if use.output and use.gradient}
            for output, gradient in pairs:
                if {output, gradient} == LAYOUTS:
                    yield path, f"its output is {output}, the gradient that comes back is {gradient}"
