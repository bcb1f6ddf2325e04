"""What a run leaves behind and how it is looked at: store, progress, report, card, comparison.

Everything here reads the events of a run and nothing else; nothing here can change training.
"""
