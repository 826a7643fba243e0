"""Second moments and rows of convolutions on a user's images."""
