"""Language models: prompts and packing, adapters over one frozen base, and rules that combine adapters."""
