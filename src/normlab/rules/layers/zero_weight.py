"""NL510."""

from collections.abc import Iterator, Sequence

from normlab.measure.norms import Norm
from normlab.measure.passes import Pass, Use
from normlab.rules.facts import Unknown
from normlab.rules.mending import changed, ones
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery


class ZeroWeight(Rule):
    """A weight of zero at the end of a residual branch is a known good start: the block begins as the identity. In
    the trunk it lets nothing through: the model gives the same output for every input, and no gradient passes that
    layer. It comes of weights stored for the convention (1 + weight), where 0 means 1, in a layer that
    multiplies by the weight itself, and of parameters made empty or zero that nothing initialized.
    """

    id = "NL510"
    severity = "error"
    title = "a norm whose weight is zero lets nothing through"
    source = "transformers' GemmaRMSNorm against LlamaRMSNorm; Goyal et al. 2017, arXiv 1706.02677, section 5.1"
    remedy = "initialize the weight to 1, or add 1 to what was stored"

    def check(
        self, example_norms: dict[str, Norm], example_norm_uses: dict[str, Use], evaluation: Pass
    ) -> Iterator[Found]:
        several = [each for outputs in evaluation.outputs for each in outputs if each.dim() and len(each) > 1]
        if not several:
            raise Unknown("needs a batch of several examples")
        if not all(bool((each == each[:1]).all()) for each in several):
            return
        for path, use in example_norm_uses.items():
            norm = example_norms[path]
            if norm.weight is None or norm.weight.any() or use.input is None or use.output is None:
                continue
            bias = 0.0 if norm.bias is None else norm.bias.detach().abs().max().item()
            if use.input.largest > 0 and use.output.largest == bias:
                told = f"all {norm.weight.numel()} weights are 0"
                yield path, f"{told}, and the model gives the same output for every example of the batch"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return changed(tuple(paths), ones)
