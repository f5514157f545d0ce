"""Every size and every choice of the network in one frozen record. Knows no tensors.

The defaults are the paper's best row (paper.md, Network). Each Literal is a fork: a place where
the paper reports an ablation, contradicts the code around it, or leaves the choice free.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

Dntr = Literal["decoder", "encoder", "encoder_cross"]
ObjectCentricUnit = Literal["slot", "plain"]
Normalisation = Literal["pre", "post"]
Initialisation = Literal["near_identity", "xavier"]

CHOICES = {
    "dntr": get_args(Dntr),
    "object_centric_unit": get_args(ObjectCentricUnit),
    "normalisation": get_args(Normalisation),
    "initialisation": get_args(Initialisation),
}
POSITIVE = (
    *("feature_width", "width", "past", "neighbours", "groups", "heads", "mlp_ratio"),
    *("text_width", "current_width", "joint_width", "head_hidden"),
)


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and forks of the network; letters as in the paper.

    feature_width F is the encoder's, text_width D that of its text embeddings; where F differs
    from width d, a learned linear map stands between. feature_scale multiplies the features
    first, so that their components can be brought to a root mean square of 1.

    dntr: "decoder", neighbours query the past in every layer (paper, 37.5 on THUMOS'14);
    "encoder", self-attention over [past; neighbours] (35.6); "encoder_cross", self-attention over
    the neighbours, then one cross-attention to the past (36.5).
    object_centric_unit: "slot", groups compete for each frame (paper, 37.5); "plain", ordinary
    cross-attention, normalised over frames (37.0).
    normalisation: "post", add & norm; "pre", norm before each part and one after the stack. The
    paper says "standard layers" and no more; see docs/network.md for the choice of default.
    score_alpha and score_clusters: ŷ = P_AC[-1] + α P_DNTR, or P_DNTR alone (paper: 34.1).
    """

    feature_width: int = 768
    feature_scale: float = 1.0
    width: int = 768
    past: int = 24
    neighbours: int = 8
    groups: int = 8
    heads: int = 8
    mlp_ratio: int = 4
    dropout: float = 0.1
    dntr_layers: int = 4
    cluster_layers_before: int = 6
    cluster_layers_after: int = 2
    text_width: int = 512
    current_width: int = 512
    joint_width: int = 256
    head_hidden: int = 4096
    temperature: float = 0.07
    dntr: Dntr = "decoder"
    object_centric_unit: ObjectCentricUnit = "slot"
    normalisation: Normalisation = "post"
    initialisation: Initialisation = "near_identity"
    score_alpha: float = 0.1
    score_clusters: bool = True

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"found {name} {getattr(self, name)!r}, expected one of {', '.join(choices)}"
                )
        for name in POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"found {name} {getattr(self, name)}, expected 1 at least")
        if self.width % self.heads:
            raise ValueError(
                f"found width {self.width}, expected a multiple of its {self.heads} heads"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"found dropout {self.dropout}, expected 0 to below 1")

    def to_json(self) -> str:
        """Write it as a JSON object, one member a field."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "NetworkConfig":
        """Read what to_json wrote; absent members take their defaults, unknown ones raise."""
        members = json.loads(text)
        unknown = sorted(set(members) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"found unknown network settings {unknown}, expected none")
        return cls(**members)
