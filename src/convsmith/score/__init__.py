"""What a net's layers are worth: 3DRF, gain and cost, and what follows from them."""
