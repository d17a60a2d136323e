"""What kernel tests share: a lab with its traffic processes, and forwarders running in it."""
