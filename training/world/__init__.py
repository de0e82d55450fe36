"""The rendered world: sprites on textured backgrounds."""
