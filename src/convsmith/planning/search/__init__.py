"""The search for sequences of cheap kernels that see as much as a convolution."""
