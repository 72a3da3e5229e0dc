"""The networks that are trained, as chains, and the same for each peer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A network, its batch, and its layers for peers: widths and the activation between them (None for other kinds)."""

    name: str
    chain: str
    batch: int
    widths: tuple[int, ...] = ()
    activation: str = ""
    loss: str = "softmax"
    kind: str = "mlp"
    time: int = 0


def mlp(name, widths, activation, batch):
    inner = " -> ".join(f"dense({w}, {activation})" for w in widths[1:-1])
    return Case(name, f"{widths[0]} -> {inner} -> dense({widths[-1]}) -> softmax_cross_entropy", batch, widths, activation)


CASES = {
    c.name: c
    for c in (
        Case("tiny-1", "2 -> dense(2, sigmoid) -> dense(2, sigmoid) -> half_squared_error", 1, (2, 2, 2), "sigmoid", "squares"),
        Case("tiny-4", "2 -> dense(2, sigmoid) -> dense(2, sigmoid) -> half_squared_error", 4, (2, 2, 2), "sigmoid", "squares"),
        mlp("small", (64, 32, 10), "relu", 32),
        mlp("medium", (784, 256, 128, 10), "relu", 128),
        mlp("wide", (1024, 1024, 1024, 1024, 10), "relu", 256),
        mlp("deep", (128, *[128] * 20, 10), "tanh", 64),
        Case(
            "conv",
            "28x28x1 -> conv(6, 5x5, relu) -> maxpool(2x2) -> conv(16, 5x5, relu) -> maxpool(2x2) -> flatten "
            "-> dense(120, relu) -> dense(84, relu) -> dense(10) -> softmax_cross_entropy",
            32,
            kind="conv",
        ),
        Case("lstm", "T x 64 -> lstm(64) -> last -> dense(10) -> softmax_cross_entropy", 32, kind="lstm", time=32),
        Case(
            "transformer",
            "T x 64 -> residual(layer_norm -> attention(4)) -> residual(layer_norm -> dense(256, gelu_tanh) -> dense(64)) "
            "-> last -> dense(10) -> softmax_cross_entropy",
            32,
            kind="transformer",
            time=32,
        ),
    )
}
