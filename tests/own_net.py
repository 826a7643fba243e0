"""A user's own small network, for the tests that go through the whole way."""

from torch import Tensor, nn


def layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def separable(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False), nn.BatchNorm2d(inputs),
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


def make_separable() -> nn.Sequential:
    return nn.Sequential(
        layer(3, 8), nn.MaxPool2d(4), separable(8, 16), separable(16, 16), nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def make() -> nn.Sequential:
    return nn.Sequential(
        layer(3, 8), layer(8, 8), nn.MaxPool2d(4), layer(8, 16), layer(16, 16), layer(16, 16), nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def make_short() -> nn.Sequential:
    """The least that has a stage to plan for: where each layer is measured, it takes long enough."""
    return nn.Sequential(
        layer(3, 8), nn.MaxPool2d(4), layer(8, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )


class Detector(nn.Module):
    """Boxes and scores on two scales, as a dictionary of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = (
            nn.Sequential(layer(3, 8), nn.MaxPool2d(4)),
            nn.Sequential(layer(8, 8), nn.MaxPool2d(2)),
        )
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        fine = self.fine(x)
        maps = [fine, self.coarse(fine)]
        return {"boxes": [self.boxes(each) for each in maps], "scores": [self.scores(each) for each in maps]}


def make_detector() -> Detector:
    return Detector()
