"""The thread that it began with: the discussion of the batch normalization chapter of *Dive into Deep Learning*.

Its lines as plain data; a verdict says itself which of them it answers.
"""

from typing import NamedTuple

RUN = (
    "BN-LeNet on Fashion-MNIST, SGD, learning rate 1.0, batch 256, 10 epochs: “loss 0.246, train acc 0.909, test "
    "acc 0.878, 3313.6 examples/sec on cpu”"
)


class Line(NamedTuple):
    """One question, and the built-in studies that were made for it."""

    number: int
    question: str
    studies: tuple[str, ...]


THREAD = (
    Line(1, "Can the bias of the layer before batch normalization be removed? Why?", ("bias",)),
    Line(
        2,
        "Compare the learning rates with and without batch normalization. “Accuracy 0.962 at lr 1.0 with, 0.931 at "
        "lr 0.1 without”: which run gives these?",
        ("learning-rates", "provenance"),
    ),
    Line(3, "Plot the increase in training and test accuracy.", ("curves",)),
    Line(4, "How large can the learning rate be? “Tried with 1.0.”", ("largest-rate",)),
    Line(
        5,
        "Is batch normalization needed in every layer? “Tried it, surprisingly giving accuracy of 94.6.”",
        ("placement",),
    ),
    Line(
        6,
        "Can batch normalization replace dropout? In which order do conv or linear layer, normalization, activation "
        "and dropout stand? Does it act as a regularizer?",
        ("dropout", "order"),
    ),
    Line(
        7,
        "Fix beta and gamma: what happens? And “if it means fixing the moving averages”?",
        ("affine", "averages"),
    ),
    Line(
        8,
        "What else do the high-level batch normalization layers serve for: 1-d, 2-d, 3-d, sequences, synchronized, "
        "domain adaptation?",
        ("applications",),
    ),
    Line(
        9,
        "Which other transforms could normalize: the probability integral transform, a full-rank covariance "
        "estimate, the mean or the variance alone?",
        ("transforms", "pit-fit"),
    ),
    Line(10, "Must batch_norm return moving_mean.data?", ("returned-statistics",)),
    Line(11, "How are gamma and beta updated, “the same way as conv weights”?", ("affine-paths",)),
    Line(
        12,
        "“The same accuracy with 14 times fewer training steps, and beats the original model”, higher learning "
        "rates, less careful initialization: does each hold here?",
        ("steps", "init"),
    ),
    Line(
        13,
        "Convergence and trainability of deep networks: what does an asymptotic analysis say?",
        ("convergence", "trainability"),
    ),
    Line(14, "“So quick, it only spent < 5 mins”: what does it cost per step, and what does it save?", ("cost",)),
)
