"""What can go wrong between pictures and an int8 network."""

from ovoad_model.errors import ModelError


class CalibrationError(ModelError):
    """There is nothing to calibrate with, or nothing that could be."""


class UncalibratedError(ModelError):
    """An int8 runtime was asked for that is not calibrated, or agrees too little with float32."""

    def __init__(self, encoder: str, found: str, expected: str) -> None:
        super().__init__(f"runtime openvino-int8 of {encoder}: found {found}, expected {expected}")
        self.encoder = encoder
