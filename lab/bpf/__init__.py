"""Programs that run in the kernel: C sources, the objects compiled from them, and the loading of these."""
