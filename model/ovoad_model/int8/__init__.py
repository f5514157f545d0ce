"""Image networks in int8: calibrated on pictures, kept with how far they agree with float32."""
