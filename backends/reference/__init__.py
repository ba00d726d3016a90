"""The full DeepSeek-V3/R1 architecture, and the distills', in numpy: what every other path is checked against.

Read in this order: config, model, attention (+ rope), moe, mtp; then fp8 and weights (storage), cache, backend.
"""
