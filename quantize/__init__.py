"""A checkpoint in, a smaller checkpoint out: `from quantize.convert import convert`."""
