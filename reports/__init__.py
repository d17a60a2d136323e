"""What an engineer reads: one page, its Markdown twin and the data, made from a run's records alone."""
