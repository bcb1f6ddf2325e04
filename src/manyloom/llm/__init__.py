"""Language models: prompts and packing, adapters over one frozen base, and rules that combine adapters."""

from manyloom.llm.adapters import Lora
from manyloom.llm.model import LanguageModel, language_model
from manyloom.llm.tuning import Tuning, tuning

__all__ = ["LanguageModel", "Lora", "Tuning", "language_model", "tuning"]
