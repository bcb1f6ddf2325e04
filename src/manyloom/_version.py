"""The version, in one place: `pyproject.toml`, `manyloom --version` and every run's `env.json` read it here."""

__version__ = "0.1.0"
