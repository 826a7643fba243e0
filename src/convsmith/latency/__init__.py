"""How long modules and blocks take: readings in turns."""
