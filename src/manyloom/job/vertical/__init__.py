"""A vertical job: parties that know different things of the same people."""
