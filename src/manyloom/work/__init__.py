"""What a client does in a round: one rule a file."""
