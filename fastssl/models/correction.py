"""The correction network of complementary networks (CCN table 1). N rows, C classes, D features."""

from torch import Tensor, nn

from fastssl.ops import complementary_correction

BRANCH_WIDTH, JOIN_WIDTH = 64, 32  # CCN table 1
NEGATIVE_SLOPE = 0.1


class CorrectionNetwork(nn.Module):
    """Corrects a network's raw output by what a second network's features suggest (CCN eq. 7).

    Five linear layers that the op `complementary_correction` applies in one call; they are modules
    so that their parameters are named, initialised and listed as nn.Linear's.
    """

    def __init__(self, num_classes: int, num_features: int) -> None:
        super().__init__()
        self.raw = nn.Linear(num_classes, BRANCH_WIDTH)
        self.feature1 = nn.Linear(num_features, BRANCH_WIDTH)
        self.feature2 = nn.Linear(BRANCH_WIDTH, BRANCH_WIDTH)
        self.join = nn.Linear(2 * BRANCH_WIDTH, JOIN_WIDTH)
        self.out = nn.Linear(JOIN_WIDTH, num_classes)

    def forward(self, raw_output: Tensor, features: Tensor) -> Tensor:
        """Corrected raw output [N,C] of raw_output [N,C] and features [N,D].

        Raises:
            ValueError: the shapes do not match the network's, or a dimension is empty.
        """
        layers = self.raw, self.feature1, self.feature2, self.join, self.out
        parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
        return complementary_correction(raw_output, features, parameters, NEGATIVE_SLOPE)
