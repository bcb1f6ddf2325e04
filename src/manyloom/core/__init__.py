"""The small waist: what everybody must know. No I/O."""
