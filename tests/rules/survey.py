"""The rules put to networks that nobody here wrote, with random weights: what they find, and whether it is so.

    pip install --no-deps pytorchcv && pip install transformers
    python tests/rules/survey.py --output docs/survey.md

pytorchcv asks for torchvision, which most of its definitions do without.
"""

import argparse
import importlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from states import state_of
from torch import nn

from normlab.rules import Diagnosis, all_rules, check

Build = Callable[[], nn.Module]

IMAGES = {
    (2, 3, 224, 224): [
        "resnet:resnet18",
        "resnet:resnet50",
        "preresnet:preresnet18",
        "resnext:resnext50_32x4d",
        "seresnet:seresnet50",
        "senet:senet16",
        "wrn:wrn50_2",
        "vgg:bn_vgg11",
        "densenet:densenet121",
        "mobilenet:mobilenet_w1",
        "mobilenetv2:mobilenetv2_w1",
        "mobilenetv3:mobilenetv3_large_w1",
        "efficientnet:efficientnet_b0",
        "mnasnet:mnasnet_b1",
        "shufflenetv2:shufflenetv2_w1",
        "shufflenet:shufflenet_g1_w1",
        "ghostnet:ghostnet",
        "regnet:regnetx002",
        "regnet:regnety002",
        "dla:dla34",
        "darknet53:darknet53",
        "hrnet:hrnet_w18_small_v1",
        "bninception:bninception",
        "fbnet:fbnet_cb",
        "proxylessnas:proxylessnas_cpu",
        "igcv3:igcv3_w1",
        "cbamresnet:cbam_resnet18",
        "bagnet:bagnet9",
        "sknet:sknet50",
        "resnesta:resnesta18",
        "mixnet:mixnet_s",
        "hardnet:hardnet39ds",
        "vovnet:vovnet27s",
        "selecsls:selecsls42b",
        "peleenet:peleenet",
        "squeezenet:squeezenet_v1_1",
        "squeezenext:sqnxt23_w1",
        "alexnet:alexnet",
        "ibnresnet:ibn_resnet50",
        "octresnet:octresnet10_ad2",
        "dpn:dpn68",
        "diracnetv2:diracnet18v2",
        "resattnet:resattnet56",
        "condensenet:condensenet74_c4_g4",
    ],
    (2, 3, 299, 299): [
        "inceptionv3:inceptionv3",
        "xception:xception",
        "inceptionv4:inceptionv4",
    ],
    (4, 3, 32, 32): [
        "resnet_cifar:resnet20_cifar10",
        "preresnet_cifar:preresnet20_cifar10",
        "densenet_cifar:densenet40_k12_cifar10",
        "nin_cifar:nin_cifar10",
        "pyramidnet_cifar:pyramidnet110_a48_cifar10",
        "wrn_cifar:wrn16_10_cifar10",
        "shakeshakeresnet_cifar:shakeshakeresnet20_2x16d_cifar10",
        "rir_cifar:rir_cifar10",
    ],
}
"""Shape of a batch to module:function of pytorchcv's definitions."""

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 99,
}
TOKENS = {
    "Bert": SMALL,
    "Roberta": SMALL,
    "Electra": SMALL | {"embedding_size": 32},
    "Albert": SMALL | {"embedding_size": 32},
    "DistilBert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "vocab_size": 99},
    "GPT2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 99},
    "GPTNeoX": SMALL,
    "OPT": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 64, "vocab_size": 99,
            "word_embed_proj_dim": 32},
    "Bloom": {"hidden_size": 32, "n_layer": 3, "n_head": 4, "vocab_size": 99},
    "Llama": SMALL | {"num_key_value_heads": 4},
    "Mistral": SMALL | {"num_key_value_heads": 2},
    "Qwen2": SMALL | {"num_key_value_heads": 2},
    "Gemma": SMALL | {"num_key_value_heads": 2, "head_dim": 8},
    "Phi": SMALL,
    "Mamba": {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 8, "vocab_size": 99},
}  # fmt: skip
"""Of transformers: model to the sizes of its configuration, which are small; the structure is its own."""
VISION = {
    "ViT": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64},
    "ConvNext": {"hidden_sizes": [16, 32, 64, 128]},
    "Swin": {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]},
    "RegNet": {},
    "Segformer": {},
    "MobileNetV2": {},
    "PoolFormer": {},
}


JUDGED: dict[str, str] = {
    "NL101": "so it is: these definitions leave the bias of a convolution on in front of its batch norm",
    "NL201": "so it is: 0.997 is TensorFlow's number for the other share; a batch replaces nearly all",
    "NL303": "so it is, for this batch of 2: behind a global pooling it leaves two values a channel",
}
"""Rule to what a person says of its findings here."""
FALSE: dict[str, tuple[str, ...]] = {}
"""Rule to the networks where its findings are false alarms."""


def networks() -> Iterator[tuple[str, Build, Any]]:
    """Name, builder and batch of each."""
    for shape, names in IMAGES.items():
        for name in names:
            module, function = name.split(":")
            yield f"pytorchcv {function}", _cv(module, function), torch.randn(shape)
    tokens = {"input_ids": torch.randint(99, (2, 16))}
    for name, sizes in TOKENS.items():
        yield f"transformers {name}", _transformer(name, sizes), tokens
    seq2seq = tokens | {"decoder_input_ids": torch.randint(99, (2, 8))}
    yield "transformers T5", _transformer("T5", {"d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 4,
                                                  "vocab_size": 99}), seq2seq  # fmt: skip
    for name, sizes in VISION.items():
        yield f"transformers {name}", _transformer(name, sizes), {"pixel_values": torch.randn(2, 3, 224, 224)}


def _cv(module: str, function: str) -> Build:
    return lambda: getattr(importlib.import_module(f"pytorchcv.models.{module}"), function)()


def _transformer(name: str, sizes: dict[str, Any]) -> Build:
    def build() -> nn.Module:
        transformers = importlib.import_module("transformers")
        return getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**sizes))

    return build


def survey(only: str = "") -> Iterator[dict[str, Any]]:
    """One row a network: its findings by rule, the seconds, and whether it was as before."""
    for name, build, batch in networks():
        if only not in name:
            continue
        torch.manual_seed(0)
        row: dict[str, Any] = {"network": name}
        try:
            model = build()
        except (ImportError, AttributeError) as error:
            yield row | {"failure": f"cannot be built here: {error}"}
            continue
        before = state_of(model)
        start = time.perf_counter()
        try:
            diagnosis: Diagnosis = check(model, batch, train=True)
        except Exception as error:
            yield row | {"failure": f"{type(error).__name__}: {error}"}
            continue
        row["seconds"] = time.perf_counter() - start
        row["as before"] = state_of(model) == before
        row["found"] = {rule: len(paths) for rule, paths in diagnosis.found.items()}
        row["examples"] = {finding.rule.id: str(finding) for finding in reversed(diagnosis.findings)}
        row["unasked"] = diagnosis.unasked
        yield row


def page(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The survey as markdown: by rule, with what a person says of its findings, then by network."""
    looked = [row for row in rows if "found" in row]
    yield "# The rules, put to networks that nobody here wrote"
    yield ""
    yield (
        f"{len(looked)} definitions of pytorchcv and transformers with random weights, each checked with one batch "
        "and a backward pass. Every finding was looked at; *false* counts those that tell a user of what is "
        "as it should be."
    )
    yield ""
    yield f"Bit for bit as before the check: {sum(row['as before'] for row in looked)} of {len(looked)}."
    yield ""
    yield "| rule | what | networks | findings | false | judged |"
    yield "|---|---|---|---|---|---|"
    for name, rule in all_rules().items():
        found = {row["network"]: row["found"][name] for row in looked if name in row["found"]}
        false = sum(count for network, count in found.items() if network in FALSE.get(name, ()))
        said = JUDGED.get(name, "") if found else ""
        yield f"| {name} | {rule.title} | {len(found)} | {sum(found.values())} | {false} | {said} |"
    yield ""
    yield "| network | findings | seconds |"
    yield "|---|---|---|"
    for row in rows:
        said = ", ".join(f"{name} x{count}" for name, count in row.get("found", {}).items())
        yield f"| {row['network']} | {row.get('failure') or said or 'none'} | {row.get('seconds', 0):.1f} |"
    yield ""
    yield "Made by `tests/rules/survey.py`, which says how."


def main() -> None:
    """Every network, one line of JSON each; with --output the page, of these or of the rows of an earlier run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--rows", type=Path, help="take the rows from this file instead")
    parser.add_argument("--output", type=Path, help="write the page here")
    arguments = parser.parse_args()
    if arguments.rows:
        rows = [json.loads(line) for line in arguments.rows.read_text("utf-8").splitlines()]
    else:
        rows = []
        for row in survey(arguments.only):
            print(json.dumps(row), flush=True)
            rows.append(row)
    if arguments.output:
        arguments.output.write_text("\n".join(page(rows)) + "\n", "utf-8")


if __name__ == "__main__":
    main()
